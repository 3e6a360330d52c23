//! Limits that the server keeps, lines that break, rows that are locked.

use std::time::Duration;

use leasewrap::lease::record::{Acquired, Fault, Loss, Observed, Refusal, Released, Renewed};
use leasewrap::store::Store;
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::{bench_on, on_shared};
use crate::bench::{self, Bench, LIMIT, granted, run};
use crate::support::proxy::{Flow, Proxy};
use crate::support::server::{self, Server};
use crate::support::wait::{SOON, until_true};

/// How much longer than its limit a call may take on a loaded machine.
const SLACK: Duration = LIMIT;

#[test]
fn what_was_given_up_does_not_happen_later() {
    let server = server::shared();
    // Its own: whoever locks the table keeps out all who share it.
    let database = server.database();
    let url = server.url_of("postgres", &database);
    let bench = Bench::new(bench::settings(&url, "leasewrap"));
    super::set_up(&bench.settings);
    let limit = Duration::from_secs(1);
    let limited = Bench {
        settings: bench.settings.clone().call_limit(limit),
        ..bench.clone()
    };
    let name = bench.name.as_str();
    let of_row = format!("name = '{name}' and slot = 0");
    let mut blocker = server.session(&database);
    let ours = format!(
        "select count(*) from pg_stat_activity where application_name = 'leasewrap {name}' \
         and state = 'active'"
    );
    let quiet = || {
        until_true("the server has given up too", SOON, || {
            server.psql(&ours) == "0"
        });
    };
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        let (term, grant) = one.take(0).await;
        let before = one.record(0).await.revision;
        let seen = two.observe().await;
        let mut request = two.request(&seen, 0);
        request.from_unreleased = false;
        // What has to succeed has no such limit.
        (one.store, two.store) = (limited.store(), limited.store());
        for lock in [
            format!("select 1 from leasewrap.lease where {of_row} for update"),
            format!("select 1 from leasewrap.lease where {of_row} for no key update"),
            "lock table leasewrap.lease in access exclusive mode".to_owned(),
        ] {
            blocker.run(&format!("begin; {lock}"));
            let start = Instant::now();
            let terms = one.terms.clone();
            let renewed = one.store.renew(&term, &terms, limit).await.reply;
            assert!(
                matches!(renewed, Renewed::Unknown(_)),
                "{lock}: {renewed:?}"
            );
            let released = one.store.release(&term, &grant.incarnation, limit).await;
            assert!(
                matches!(released, Released::Unknown(_)),
                "{lock}: {released:?}"
            );
            let taken = two.store.acquire(&request, limit).await.reply;
            assert!(!matches!(taken, Acquired::Granted(_)), "{lock}: {taken:?}");
            assert!(start.elapsed() < limit * 3 + SLACK, "{lock}");
            quiet();
            blocker.run("rollback");
            sleep(limit).await;
            let after = bench.contender("three").record(0).await.revision;
            assert_eq!(after, before, "{lock}");
        }
        granted(one.renew(&term).await);
    });
}

#[test]
fn a_locked_row_is_told_with_its_lockers() {
    let bench = on_shared();
    let server = server::shared();
    let mut blocker = server.session("postgres");
    blocker.run("set application_name = 'somebody'");
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        one.release(&term, &grant).await;
        let row = format!(
            "select token from leasewrap.lease where name = '{}'",
            bench.name
        );
        for lock in ["for update", "for key share"] {
            blocker.run(&format!("begin; {row} {lock}"));
            let seen = one.observe().await;
            let request = one.request(&seen, 0);
            let taken = one.store.acquire(&request, LIMIT).await.reply;
            let Acquired::Refused(Refusal::Locked { by }) = taken else {
                panic!("{taken:?}")
            };
            assert!(
                by.contains("(somebody)") && by.contains("role postgres"),
                "{by}"
            );
            blocker.run("rollback");
        }
        // Nobody was ended: the row was released.
        assert_eq!(blocker.run("select 'still here'"), "still here");
        one.take(0).await;
    });
}

#[test]
fn sessions_that_hold_the_row_of_a_lost_holder_are_ended() {
    let bench = on_shared();
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        for lockers in [1, 3] {
            let (term, _) = one.take(0).await;
            let mut blockers = Vec::new();
            for _ in 0..lockers {
                let mut blocker = Client::new(server::shared()).await;
                blocker.ok("begin").await;
                let fence = format!("select leasewrap.fence('{}', {})", bench.name, term.token);
                blocker.ok(&fence).await;
                blockers.push(blocker);
            }
            let mut bystander = Client::new(server::shared()).await;
            bystander.ok("begin").await;
            bystander.ok("select count(*) from leasewrap.lease").await;
            let start = Instant::now();
            let (next, _) = two.take(0).await;
            assert!(next.token > term.token);
            assert!(start.elapsed() < SLACK, "they were not waited for");
            for mut blocker in blockers {
                let said = blocker.run("commit").await;
                assert!(said.is_err(), "{said:?}");
            }
            bystander.ok("commit").await;
        }
    });
}

#[test]
fn a_row_that_is_renewed_meanwhile_is_not_closed() {
    let bench = on_shared();
    run(async {
        let mut blocker = Client::new(server::shared()).await;
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        let (term, _) = one.take(0).await;
        blocker.ok("begin").await;
        blocker
            .ok(&format!(
                "select leasewrap.fence('{}', {})",
                bench.name, term.token
            ))
            .await;
        let seen = two.observe().await;
        let request = two.request(&seen, 0);
        one.renewed(&term).await;
        let taken = two.store.acquire(&request, LIMIT).await.reply;
        assert_eq!(taken, Acquired::Refused(Refusal::Changed));
        granted(one.renew(&term).await);
        blocker.ok("commit").await;
    });
}

#[test]
fn an_acquisition_without_an_answer_is_settled() {
    let set_up = on_shared();
    let proxy = Proxy::to(server::shared().port());
    let bench = Bench::new(bench::settings(&proxy.url("postgres"), "leasewrap"));
    let direct = Bench {
        name: bench.name.clone(),
        ..set_up
    };
    run(async {
        let mut one = bench.contender("one");
        let seen = one.observe().await;
        let request = one.request(&seen, 0);
        proxy.to_client(Flow::Swallow);
        // So long that the server surely has it before that.
        let limit = Duration::from_secs(3);
        let start = Instant::now();
        let taken = one.store.acquire(&request, limit).await.reply;
        assert!(start.elapsed() < limit + SLACK);
        let Acquired::Unknown(unknown) = taken else {
            panic!("{taken:?}")
        };
        assert_eq!(unknown.fault, Fault::Transient);
        proxy.mend();
        let grant = granted(one.store.settle(&request, LIMIT).await.reply);
        assert_eq!(direct.contender("two").record(0).await.token, grant.token);
    });
}

#[test]
fn an_acquisition_that_comes_too_late_takes_nothing() {
    let set_up = on_shared();
    let proxy = Proxy::to(server::shared().port());
    let bench = Bench::new(bench::settings(&proxy.url("postgres"), "leasewrap"));
    let direct = Bench {
        name: bench.name.clone(),
        ..set_up
    };
    run(async {
        let mut one = bench.contender("one");
        let seen = one.observe().await;
        let request = one.request(&seen, 0);
        // The network holds it back for longer than its limit, then delivers.
        proxy.to_server(Flow::Hold);
        let limit = Duration::from_millis(300);
        let taken = one.store.acquire(&request, limit).await.reply;
        assert!(matches!(taken, Acquired::Unknown(_)), "{taken:?}");
        sleep(limit * 3).await;
        proxy.mend();
        let settled = one.store.settle(&request, LIMIT).await.reply;
        assert_eq!(settled, Renewed::Lost(Loss::Missing));
        sleep(limit).await;
        assert!(direct.contender("two").observe().await.records.is_empty());
    });
}

#[test]
fn calls_are_over_in_time_whatever_the_line_does() {
    super::on_shared();
    let proxy = Proxy::to(server::shared().port());
    let bench = Bench::new(bench::settings(&proxy.url("postgres"), "leasewrap"));
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        let limit = Duration::from_millis(400);
        let break_it: [&dyn Fn(); 3] =
            [&|| proxy.cut(), &|| proxy.to_client(Flow::Swallow), &|| {
                proxy.to_client(Flow::Delay(Duration::from_secs(30)))
            }];
        for break_it in break_it {
            granted(one.renew(&term).await);
            break_it();
            let start = Instant::now();
            let terms = one.terms.clone();
            let renewed = one.store.renew(&term, &terms, limit).await.reply;
            assert!(matches!(renewed, Renewed::Unknown(_)), "{renewed:?}");
            assert!(start.elapsed() < limit + SLACK);
            proxy.reset();
            proxy.mend();
        }
        // An idle connection that was closed costs nothing.
        granted(one.renew(&term).await);
        proxy.reset();
        granted(one.renew(&term).await);
        proxy.reset();
        one.release(&term, &grant).await;
        proxy.reset();
        assert!(matches!(one.store.observe(LIMIT).await, Observed::Seen(_)));
    });
}

#[test]
fn a_full_queue_of_notifications_keeps_nobody_from_taking_or_releasing() {
    // What Postgres says then, without filling 8 GiB.
    let server = Server::start();
    let bench = bench_on(&server);
    server.psql(
        "create function leasewrap.full() returns trigger language plpgsql as $$ begin
            if current_setting('leasewrap.quiet', true) = 'on' then return null; end if;
            raise exception 'too many notifications in the NOTIFY queue'
                using errcode = 'program_limit_exceeded';
        end $$;
        create trigger full_queue after insert or update of token, released_at, closed_token
        on leasewrap.lease for each row execute function leasewrap.full();",
    );
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        let (term, grant) = one.take(0).await;
        one.renewed(&term).await;
        one.release(&term, &grant).await;
        let (term, _) = two.take(0).await;
        use leasewrap::store::admin::{Admin, Closed};
        let closed = one
            .store
            .close_token(&bench.name, term.slot, term.token, LIMIT)
            .await;
        assert_eq!(closed, Ok(Closed::Done { ttl: bench::TTL }));
    });
}
