//! Acquisitions of one lease take turns: how long they wait for each other.

use std::time::Duration;

use futures_util::future::join_all;
use leasewrap::lease::record::{Acquired, Refusal};
use leasewrap::lease::watch::Reason;
use leasewrap::store::Store;
use tokio::time::{Instant, sleep, timeout};

use crate::bench::{self, Bench, LIMIT, run};
use crate::support::server;
use crate::support::session::Session;
use crate::support::wait::SOON;

/// Of an acquisition that has all the time it may need.
const MINUTE: Duration = Duration::from_secs(60);

/// A lease in a database of its own, where `what` is done at the commit that
/// creates a row; and a session there.
fn slow(what: &str) -> (Bench, Session) {
    let server = server::shared();
    let database = server.database();
    let url = server.url_of("postgres", &database);
    let bench = Bench::new(bench::settings(&url, "leasewrap"));
    super::set_up(&bench.settings);
    let mut session = server.session(&database);
    session.run(&format!(
        "create function slow() returns trigger language plpgsql
         as $$ begin perform {what}; return null; end $$;
         create constraint trigger slow after insert on leasewrap.lease
         deferrable initially deferred for each row execute function slow()"
    ));
    (bench, session)
}

/// The same lease for one that waits only so long for whoever locks a row.
fn hasty(bench: &Bench, lock_limit: Duration) -> Bench {
    Bench {
        settings: bench.settings.clone().lock_limit(lock_limit),
        ..bench.clone()
    }
}

#[test]
fn other_acquisitions_are_waited_for_longer_than_a_row() {
    // For seven of them: longer than twice for a row.
    let (bench, _session) = slow("pg_sleep(0.7)");
    let bench = hasty(&bench, Duration::from_secs(2));
    run(async {
        let takers = (0..8).map(|slot| {
            let mut one = bench.contender("one");
            one.slots = 8;
            async move {
                let seen = one.observe().await;
                let request = one.request(&seen, slot);
                one.store.acquire(&request, MINUTE).await.reply
            }
        });
        for taken in join_all(takers).await {
            assert!(matches!(taken, Acquired::Granted(_)), "{taken:?}");
        }
    });
}

/// What one that does not wait is told while the acquisition of another one
/// is stuck, by the first of these statements and until the second.
fn told_meanwhile(bench: &Bench, session: &mut Session, [begin, end]: [&str; 2]) -> Acquired {
    let stuck = format!(
        "select count(*) from pg_stat_activity
         where application_name = 'leasewrap {}' and wait_event_type = 'Lock'",
        bench.name
    );
    let is_stuck = async {
        while server::shared().psql(&stuck) == "0" {
            sleep(Duration::from_millis(10)).await;
        }
    };
    run(async {
        let mut one = bench.contender("one");
        let mut two = hasty(bench, Duration::from_millis(100)).contender("two");
        session.run(begin);
        let (ones, twos) = (one.observe().await, two.observe().await);
        let (ones, twos) = (one.request(&ones, 0), two.request(&twos, 0));
        let other = async {
            timeout(SOON, is_stuck).await.expect("the first is stuck");
            let start = Instant::now();
            let told = two.store.acquire(&twos, MINUTE).await.reply;
            // Half of the time that the first one has.
            assert!(start.elapsed() < MINUTE / 2 - LIMIT, "{told:?}");
            session.run(end);
            told
        };
        let (first, told) = tokio::join!(one.store.acquire(&ones, MINUTE), other);
        assert!(matches!(first.reply, Acquired::Granted(_)), "{first:?}");
        told
    })
}

#[track_caller]
fn locked(told: Acquired) -> String {
    match told {
        Acquired::Refused(Refusal::Locked { by }) => by,
        other => panic!("{other:?}"),
    }
}

#[test]
fn behind_a_commit_that_hangs_nobody_is_said_to_lock_the_row() {
    let (bench, mut session) = slow("pg_advisory_xact_lock(1)");
    let lock = ["select pg_advisory_lock(1)", "select pg_advisory_unlock(1)"];
    let by = locked(told_meanwhile(&bench, &mut session, lock));
    assert_eq!(by, "");
    let said = Reason::Locked { by }.to_string();
    assert!(said.starts_with("other acquisitions of it"), "{said}");
}

#[test]
fn whoever_does_not_wait_is_not_held_up_by_a_standby_that_waits_for_a_row() {
    let bench = super::on_shared();
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        one.release(&term, &grant).await;
    });
    let mut session = server::shared().session("postgres");
    let lock = format!(
        "begin; select from leasewrap.lease where name = '{}' for update",
        bench.name
    );
    let by = locked(told_meanwhile(&bench, &mut session, [&lock, "rollback"]));
    assert!(by.contains("role postgres"), "{by}");
}
