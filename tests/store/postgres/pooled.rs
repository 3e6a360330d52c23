//! Behind PgBouncer.

use std::sync::OnceLock;
use std::time::Duration;

use leasewrap::lease::record::Renewed;
use leasewrap::store::{Notice, Store, StoreSettings, Watch};
use tokio::time::timeout;

use super::bouncer::Bouncer;
use crate::bench::{self, Bench, LIMIT, run};
use crate::conformance;
use crate::support::server::{self, Server};

/// In transaction mode, where `LISTEN` does not arrive: shared, as the server is.
fn settings() -> &'static StoreSettings {
    static SHARED: OnceLock<(Bouncer, StoreSettings)> = OnceLock::new();
    let (_bouncer, settings) = SHARED.get_or_init(|| {
        let bouncer = Bouncer::start(server::shared(), "transaction", "");
        let settings = bench::settings(&bouncer.url("postgres"), "leasewrap");
        super::set_up(&settings);
        (bouncer, settings)
    });
    settings
}

macro_rules! tests {
    ($($test:ident),* $(,)?) => {$(
        #[test]
        fn $test() {
            match stringify!($test) {
                // What is noticed is tested below.
                "changes_are_noticed_and_renewals_are_not" | "a_missing_schema_is_told_and_made" => {}
                _ => run(conformance::$test(Bench::new(settings().clone()))),
            }
        }
    )*};
}

mod suite {
    use super::*;
    conformance::every_test!(tests);
}

async fn first_notice(bench: &Bench) -> Notice {
    let mut watch = bench.store().watch();
    timeout(LIMIT, watch.next())
        .await
        .expect("a notice in time")
}

#[test]
fn notifications_that_cannot_arrive_are_told() {
    let bouncer = Bouncer::start(server::shared(), "statement", "");
    let statements = bench::settings(&bouncer.url("postgres"), "leasewrap");
    for settings in [settings(), &statements] {
        let bench = Bench::new(settings.clone());
        let notice = run(first_notice(&bench));
        let Notice::Unavailable(why) = notice else {
            panic!("{notice:?}")
        };
        // Which is not tried again and again.
        assert!(why.message.contains("this pooler"), "{why:?}");
    }
}

#[test]
fn notifications_that_arrive_are_heard() {
    // A server of its own: the other tests' pooler would take the sessions.
    let server = Server::start();
    let bouncer = Bouncer::start(&server, "session", "");
    let bench = Bench::new(bench::settings(&bouncer.url("postgres"), "leasewrap"));
    super::set_up(&bench.settings);
    run(async {
        let mut watch = bench.store().watch();
        assert_eq!(timeout(LIMIT, watch.next()).await, Ok(Notice::Connected));
        bench.contender("one").take(0).await;
        assert!(matches!(
            timeout(LIMIT, watch.next()).await,
            Ok(Notice::Changed(_))
        ));
    });
}

#[test]
fn a_pooler_that_swallows_our_settings_is_found_out() {
    let server = Server::start();
    let bouncer = Bouncer::start(
        &server,
        "transaction",
        "ignore_startup_parameters = options",
    );
    let bench = Bench::new(bench::settings(&bouncer.url("postgres"), "leasewrap"));
    super::set_up(&bench.settings);
    run(async {
        assert!(matches!(first_notice(&bench).await, Notice::Unavailable(_)));
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        // So every statement carries its limit itself.
        let mut blocker = server.session("postgres");
        blocker.run("begin; lock table leasewrap.lease");
        let terms = one.terms.clone();
        let limit = Duration::from_millis(500);
        one.store.renew(&term, &terms, limit).await;
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
        crate::support::wait::until_true("the server has given up too", LIMIT, || {
            server.psql(waiting) == "0"
        });
        blocker.run("rollback");
    });
}

#[test]
fn a_restart_of_the_pooler_costs_nothing_and_a_pause_is_ridden_out() {
    let server = Server::start();
    let mut bouncer = Bouncer::start(&server, "transaction", "admin_users = postgres");
    let bench = Bench::new(bench::settings(&bouncer.url("postgres"), "leasewrap"));
    super::set_up(&bench.settings);
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        bouncer.restart();
        one.renewed(&term).await;
        bouncer.command("reconnect");
        one.renewed(&term).await;
        let (pause, resume) = ("pause postgres", "resume postgres");
        bouncer.command(pause);
        let limit = Duration::from_millis(500);
        let renewed = one
            .store
            .renew(&term, &one.terms.clone(), limit)
            .await
            .reply;
        assert!(matches!(renewed, Renewed::Unknown(_)), "{renewed:?}");
        bouncer.command(resume);
        one.renewed(&term).await;
        bouncer.restart();
        one.release(&term, &grant).await;
    });
}

#[test]
fn the_selftest_holds_here_too() {
    let bouncer = Bouncer::start(server::shared(), "transaction", "");
    // Its own: others lock the table that they share.
    let database = server::shared().database();
    let selftest = crate::support::leasewrap::leasewrap()
        .text()
        .switch("selftest")
        .option("--db", &bouncer.url(&database))
        .option("--ttl", "6s")
        .option("--output", "json");
    let ended = selftest.spawn().end_within(Duration::from_secs(120));
    let report: serde_json::Value =
        serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(ended.code, 0, "{report:#}");
    let faults = report["faults"].as_array().expect("the faults");
    let held = faults.iter().filter(|fault| fault["verdict"] == "holds");
    assert_eq!(held.count(), 12, "{report:#}");
}
