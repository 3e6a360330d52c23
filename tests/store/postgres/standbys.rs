//! Who is seen standing by.

use leasewrap::store::admin::Admin;
use leasewrap::store::{AnyStore, Store};
use leasewrap::sys::clock;

use super::bench_on;
use crate::bench::{self, LIMIT, run};
use crate::support::server::{Options, Server};
use crate::support::wait::{SOON, until_true};

#[test]
fn every_standby_is_seen_from_its_first_poll_on_and_nobody_else() {
    // As many servers have it, so that all of a statement is seen.
    let options = Options::default().set("track_activity_query_size", "16kB");
    let server = Server::with(options);
    let bench = bench_on(&server);
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        let mut operator = bench.store();
        let mut seen = async || {
            let status = operator.status(Some(&bench.name), LIMIT).await;
            let leases = status.expect("status").value;
            leases[0].standbys.as_ref().map(Vec::len)
        };
        let (term, _) = one.take(0).await;
        one.renewed(&term).await;
        assert_eq!(seen().await, Some(0));
        two.observe().await;
        assert_eq!(seen().await, Some(1));
        drop(two);
    });
}

#[test]
fn of_sessions_that_may_not_be_seen_it_is_not_known_who_stands_by() {
    let server = Server::start();
    let bench = bench_on(&server);
    server.psql(
        "create role other login; grant usage on schema leasewrap to other;
         grant select on all tables in schema leasewrap to other",
    );
    let others = bench::settings(&server.url_of("other", "postgres"), "leasewrap");
    let mut operator = AnyStore::new(others, bench.name.clone(), clock::now);
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        let mut seen = async || {
            let status = operator.status(Some(&bench.name), LIMIT).await;
            let leases = status.expect("status").value;
            leases[0].standbys.as_ref().map(Vec::len)
        };
        assert_eq!(seen().await, None, "the session may be a standby's");
        one.release(&term, &grant).await;
        drop(one);
        until_gone(&server);
        assert_eq!(seen().await, Some(0));
    });
}

/// Waits until no session but an operator's is left.
fn until_gone(server: &Server) {
    until_true("the session has ended", SOON, || {
        let left = "select count(*) from pg_stat_activity \
                    where application_name like 'leasewrap %' and usename = 'postgres'";
        server.psql(left) == "0"
    });
}

#[test]
fn what_makes_a_standby_ready_to_take_locks_and_changes_nothing() {
    let options = Options::default().set("track_activity_query_size", "16kB");
    let server = Server::with(options);
    let bench = bench_on(&server);
    let row = format!(
        "select ctid, xmin, xmax, l from leasewrap.lease l where name = '{}'",
        bench.name
    );
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        one.take(0).await;
        let before = server.psql(&row);
        let mut blocker = server.session("postgres");
        blocker.run(&format!("begin; {row} for no key update"));
        two.observe().await;
        two.store.get_ready(LIMIT).await;
        // It was sent, and neither failed nor waited.
        let sent = "select state from pg_stat_activity where query like '%execute leasewrap_%' \
                    and query not like '%pg_stat_activity%' \
                    and query like '/* leasewrap poll */%'";
        assert_eq!(server.psql(sent), "idle");
        assert!(!server.log().contains("ERROR"), "{}", server.log());
        blocker.run("rollback");
        let after = server.psql(&row);
        // The lock was the blocker's: it leaves its number in xmax alone.
        let shown = |row: &str| {
            let cells: Vec<_> = row.split('|').map(str::to_owned).collect();
            (cells[0].clone(), cells[1].clone(), cells[3..].join("|"))
        };
        assert_eq!(shown(&after), shown(&before));
        // What it prepares for still works.
        let (term, grant) = (one.record(0).await.token, two.observe().await);
        assert_eq!(grant.records[0].token, term);
    });
}
