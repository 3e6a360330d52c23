//! What a commit is worth, and what a renewal costs.

use std::time::Duration;

use leasewrap::lease::ids::Revision;
use leasewrap::lease::record::{Acquired, Loss, Observed, Renewed};
use leasewrap::store::Store;
use tokio::time::sleep;

use super::bench_on;
use crate::bench::{self, Bench, LIMIT, granted, run};
use crate::support::server::{Options, Server, Stop};
use crate::support::wait::{SOON, until, until_true};

#[test]
fn a_renewal_is_a_hot_update_of_few_bytes() {
    let server = Server::with(
        Options::default()
            .set("full_page_writes", "on")
            .set("autovacuum", "off"),
    );
    let bench = bench_on(&server);
    // Two days and two hours at the default interval of 6 s.
    const RENEWALS: i64 = 30_000;
    run(async {
        let mut one = bench.contender("one");
        one.terms.value = "a value of some length "
            .repeat(20)
            .parse()
            .expect("a value");
        let (term, _) = one.take(0).await;
        granted(one.renew(&term).await);
        server.psql("checkpoint; select pg_stat_reset()");
        let lsn = || server.psql("select pg_current_wal_insert_lsn()");
        let before = lsn();
        let indexes = server.psql("select pg_indexes_size('leasewrap.lease')");
        let indexes: i64 = indexes.parse().expect("a number");
        for _ in 0..RENEWALS {
            granted(one.renew(&term).await);
        }
        let wal = server.psql(&format!("select '{}'::pg_lsn - '{before}'::pg_lsn", lsn()));
        let wal: i64 = wal.parse().expect("a number");
        println!("{} bytes of WAL per renewal", wal / RENEWALS);
        assert!(
            wal / RENEWALS <= 250,
            "{} bytes of WAL per renewal",
            wal / RENEWALS
        );
        // Ends the session, so that its counters are there.
        drop(one);
        let counters = until("the counters are there", SOON, || {
            let counters = server.psql(
                "select n_tup_upd, n_tup_hot_upd, pg_relation_size('leasewrap.lease'), \
                 pg_indexes_size('leasewrap.lease') \
                 from pg_stat_user_tables where relname = 'lease'",
            );
            let updates = counters.split('|').next()?.parse::<i64>().ok()?;
            (updates >= RENEWALS).then_some(counters)
        });
        let numbers: Vec<i64> = counters
            .split('|')
            .map(|n| n.parse().expect("a number"))
            .collect();
        assert_eq!(numbers[0], numbers[1], "all HOT: {counters}");
        assert!(numbers[2] <= 3 * 8192, "the table stays small: {counters}");
        assert_eq!(numbers[3], indexes, "and so do its indexes: {counters}");
    });
}

#[test]
fn a_commit_survives_a_crash_whatever_the_default() {
    let options = Options {
        fsync: true,
        ..Options::default()
    };
    let options = options
        .set("synchronous_commit", "off")
        .set("wal_writer_delay", "10s")
        .set("wal_writer_flush_after", "10GB");
    let server = Server::with(options);
    let bench = bench_on(&server);
    run(async {
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        let mut last = None;
        for _ in 0..5 {
            last = Some(one.renewed(&term).await);
        }
        server.stop(Stop::Immediate);
        server.start_again();
        let record = one.record(0).await;
        assert_eq!(Some(record.revision), last.map(|grant| grant.revision));
        let grant = one.renewed(&term).await;
        one.release(&term, &grant).await;
        server.stop(Stop::Immediate);
        server.start_again();
        assert!(one.record(0).await.released);
        one.take(0).await;
        server.stop(Stop::Immediate);
        server.start_again();
        assert!(!one.record(0).await.released);
    });
}

#[test]
fn a_commit_that_no_standby_confirms_is_not_believed() {
    let server = Server::start();
    let bench = bench_on(&server);
    let confirm = |names: &str| {
        server.psql(&format!(
            "alter system set synchronous_standby_names = '{names}'"
        ));
        server.psql("select pg_reload_conf()");
        until_true("the setting has arrived", SOON, || {
            server.psql("show synchronous_standby_names") == names
        });
    };
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        let (term, _) = one.take(0).await;
        let other = Bench {
            name: bench::name(),
            ..bench.clone()
        };
        let mut three = other.contender("three");
        let seen = three.observe().await;
        let request = three.request(&seen, 0);
        confirm("nobody");
        // Longer than the server's own limits, which must not end such a wait
        // with a success.
        let limit = Duration::from_secs(3);
        let taken = three.store.acquire(&request, limit).await.reply;
        assert!(matches!(taken, Acquired::Unknown(_)), "{taken:?}");
        let renewed = one
            .store
            .renew(&term, &one.terms.clone(), limit)
            .await
            .reply;
        assert!(matches!(renewed, Renewed::Unknown(_)), "{renewed:?}");
        sleep(limit * 2).await;
        let settled = three.store.settle(&request, limit).await.reply;
        assert!(
            matches!(settled, Renewed::Unknown(_)),
            "it is still under way: {settled:?}"
        );
        assert_eq!(
            two.record(0).await.revision,
            Revision(1),
            "nobody sees it yet"
        );
        confirm("");
        granted(three.store.settle(&request, LIMIT).await.reply);
        granted(one.renew(&term).await);
    });
}

#[test]
fn a_stronger_default_stays() {
    let server = Server::with(Options::default().set("synchronous_commit", "remote_apply"));
    let bench = bench_on(&server);
    server.psql(
        "create table public.seen (level text);
        create function public.look() returns trigger language plpgsql as $$ begin
            insert into public.seen values (current_setting('synchronous_commit')); return null;
        end $$;
        create trigger look after insert or update on leasewrap.lease
        for each row execute function public.look();",
    );
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        one.renewed(&term).await;
        one.release(&term, &grant).await;
    });
    assert_eq!(
        server.psql("select distinct level from public.seen"),
        "remote_apply"
    );
}

#[test]
fn rows_tables_and_schemas_that_are_gone_are_a_loss() {
    let server = Server::start();
    let bench = bench_on(&server);
    run(async {
        let mut one = bench.contender("one");
        for gone in [
            "set session_replication_role = replica; delete from leasewrap.lease",
            "drop table leasewrap.lease",
            "drop schema leasewrap cascade",
        ] {
            one.store.drop_schema_and_init().await;
            let (term, _) = one.take(0).await;
            server.psql(gone);
            assert_eq!(
                one.renew(&term).await,
                Renewed::Lost(Loss::Missing),
                "{gone}"
            );
            assert_eq!(
                one.store.check(&term, LIMIT).await,
                Renewed::Lost(Loss::Missing),
                "{gone}"
            );
        }
        assert_eq!(one.store.observe(LIMIT).await, Observed::NoSchema);
    });
}

/// A schema made anew, whatever is left of the one before.
trait Anew {
    async fn drop_schema_and_init(&mut self);
}

impl Anew for leasewrap::store::AnyStore {
    async fn drop_schema_and_init(&mut self) {
        use leasewrap::store::admin::Admin;
        let _whatever_was_left = self.drop_schema(LIMIT).await;
        self.init(LIMIT).await.expect("set up");
    }
}
