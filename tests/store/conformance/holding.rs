//! What a holder does with it, until it is given back.

use std::time::Duration;

use leasewrap::lease::ids::{HolderId, Incarnation, Slot, Token};
use leasewrap::lease::record::{Acquired, Freed, Loss, Released, Renewed, Term};
use leasewrap::store::admin::{Admin, Closed};
use leasewrap::store::{Attempt, Notice, Store, Watch};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::bench::{self, Bench, LIMIT, TTL, clock, granted};

pub async fn a_renewal_is_one_revision_and_the_same_token(bench: Bench) {
    let mut one = bench.contender("one");
    let (term, grant) = one.take(0).await;
    let first = one.record(0).await;
    for round in 1..=3 {
        let renewed = one.renewed(&term).await;
        assert_eq!(renewed.token, grant.token);
        assert_eq!(renewed.revision.0, grant.revision.0 + round);
        assert_eq!(renewed.incarnation, grant.incarnation);
    }
    let checked = granted(one.store.check(&term, LIMIT).await);
    assert_eq!(
        checked.revision.0,
        grant.revision.0 + 3,
        "a look is no renewal"
    );
    one.terms.ttl = TTL * 2;
    one.renewed(&term).await;
    let last = one.record(0).await;
    assert_eq!(last.ttl, TTL * 2);
    assert!(last.expires_in > first.expires_in && last.held_for >= first.held_for);
}

pub async fn what_is_not_ones_own_is_told_and_not_touched(bench: Bench) {
    let mut one = bench.contender("one");
    let (term, grant) = one.take(0).await;
    let other = HolderId(Uuid::new_v4());
    let not_ours = Loss::OtherHolder {
        label: "one".to_owned(),
        token: term.token,
    };
    let cases = [
        (
            Term {
                slot: Slot(1),
                ..term.clone()
            },
            Loss::Missing,
        ),
        (
            Term {
                holder: other,
                ..term.clone()
            },
            not_ours,
        ),
        (
            Term {
                token: Token(term.token.0 + 1),
                ..term.clone()
            },
            Loss::OtherToken(term.token),
        ),
    ];
    for (wrong, loss) in cases {
        assert_eq!(one.renew(&wrong).await, Renewed::Lost(loss.clone()));
        assert_eq!(one.store.check(&wrong, LIMIT).await, Renewed::Lost(loss));
        let released = one.store.release(&wrong, &grant.incarnation, LIMIT).await;
        assert_eq!(released, Released::NotOurs);
    }
    assert_eq!(one.record(0).await.revision, grant.revision);
}

pub async fn a_release_frees_at_once_and_may_come_twice(bench: Bench) {
    let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
    let (term, grant) = one.take(0).await;
    one.release(&term, &grant).await;
    let record = two.record(0).await;
    assert!(record.released && record.expired);
    assert_eq!(record.revision.0, grant.revision.0 + 1);
    // From the guard as well: harmless, and written once.
    two.release(&term, &grant).await;
    assert_eq!(two.record(0).await.revision, record.revision);
    assert_eq!(one.renew(&term).await, Renewed::Lost(Loss::Released));
    assert_eq!(
        one.store.check(&term, LIMIT).await,
        Renewed::Lost(Loss::Released)
    );
    let (next, _) = two.take(0).await;
    assert_eq!(next.token.0, term.token.0 + 1);
    let released = one.store.release(&term, &grant.incarnation, LIMIT).await;
    assert_eq!(released, Released::NotOurs);
    granted(two.renew(&next).await);
}

pub async fn a_late_release_does_not_clear_a_doubt(bench: Bench) {
    let mut one = bench.contender("one");
    let (term, _) = one.take(0).await;
    let known = Incarnation("the one before".to_owned());
    let released = one.store.release(&term, &known, LIMIT).await;
    assert_eq!(released, Released::Done);
    assert_eq!(one.record(0).await.incarnation, known);
    let newer = Incarnation("a newer one".to_owned());
    assert_eq!(
        one.store.release(&term, &newer, LIMIT).await,
        Released::Done
    );
    assert_eq!(one.record(0).await.incarnation, known);
}

pub async fn an_acquisition_is_settled(bench: Bench) {
    let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
    let seen = one.observe().await;
    let never = one.request(&seen, 0);
    assert_eq!(
        one.store.settle(&never, LIMIT).await.reply,
        Renewed::Lost(Loss::Missing)
    );
    let request = one.request(&seen, 0);
    let Acquired::Granted(grant) = two.store.acquire(&request, LIMIT).await.reply else {
        panic!("not granted");
    };
    // Where commits may have been lost since, another one may have had it.
    let mut elsewhere = request.clone();
    elsewhere.server_incarnation = Incarnation("another".to_owned());
    let unsettled = one.store.settle(&elsewhere, LIMIT).await.reply;
    assert!(matches!(unsettled, Renewed::Unknown(_)), "{unsettled:?}");
    assert_eq!(one.record(0).await.revision, grant.revision);
    let before = clock();
    let settled = one.store.settle(&request, LIMIT).await;
    assert!(settled.sent_at >= before);
    let settled = granted(settled.reply);
    assert_eq!(settled.token, grant.token);
    assert_eq!(settled.revision.0, grant.revision.0 + 1, "it was renewed");
    let other = Loss::OtherHolder {
        label: "one".to_owned(),
        token: grant.token,
    };
    assert_eq!(
        one.store.settle(&never, LIMIT).await.reply,
        Renewed::Lost(other)
    );
    // Broken before anybody knew: nothing runs under it, it is given back.
    let name = bench.name.clone();
    let closed = two
        .store
        .close_token(&name, Slot(0), grant.token, LIMIT)
        .await;
    assert_eq!(closed, Ok(Closed::Done { ttl: TTL }));
    assert_eq!(
        one.store.settle(&request, LIMIT).await.reply,
        Renewed::Lost(Loss::Closed)
    );
    assert!(one.record(0).await.released);
    assert_eq!(
        one.store.settle(&request, LIMIT).await.reply,
        Renewed::Lost(Loss::Released)
    );
}

pub async fn an_attempt_is_released_whatever_its_token(bench: Bench) {
    let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
    let (term, grant) = one.take(0).await;
    let attempt = Attempt {
        slot: term.slot,
        holder: term.holder,
        incarnation: grant.incarnation.clone(),
    };
    let start = Instant::now();
    assert_eq!(
        two.store.release_attempt(&attempt, LIMIT * 4).await,
        Released::Done
    );
    assert!(
        start.elapsed() < LIMIT * 2,
        "it waits only where it finds nothing"
    );
    assert!(one.record(0).await.released);
    // One that comes late is waited for.
    let seen = one.observe().await;
    let request = one.request(&seen, 0);
    let attempt = Attempt {
        holder: request.holder,
        ..attempt
    };
    let limit = Duration::from_secs(6);
    let late = async {
        tokio::time::sleep(limit / 5).await;
        one.store.acquire(&request, LIMIT).await.reply
    };
    let (late, released) = tokio::join!(late, two.store.release_attempt(&attempt, limit));
    assert!(matches!(late, Acquired::Granted(_)), "{late:?}");
    assert_eq!(released, Released::Done);
    // And what never comes, for the limit alone.
    let never = Attempt {
        holder: HolderId(Uuid::new_v4()),
        ..attempt
    };
    let start = Instant::now();
    let released = two.store.release_attempt(&never, limit).await;
    assert_eq!(released, Released::NotOurs);
    assert!(start.elapsed() >= limit / 2 && start.elapsed() <= limit * 4);
}

pub async fn hold_at_least_holds_back(bench: Bench) {
    let mut one = bench.contender("one");
    one.terms.hold_at_least = Duration::from_secs(60);
    let (term, grant) = one.take(0).await;
    let while_held = one.record(0).await.held_back();
    assert!(while_held > Duration::from_secs(30), "{while_held:?}");
    one.release(&term, &grant).await;
    let held_back = one.record(0).await.held_back();
    assert!(held_back > Duration::from_secs(30) && held_back <= Duration::from_secs(60));
}

pub async fn changes_are_noticed_and_renewals_are_not(bench: Bench) {
    let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
    let mut watch = two.store.watch();
    let mut next = async || {
        timeout(LIMIT, watch.next())
            .await
            .expect("a notice in time")
    };
    assert_eq!(next().await, Notice::Connected);
    let (term, grant) = one.take(0).await;
    assert!(matches!(next().await, Notice::Changed(_)));
    one.renewed(&term).await;
    let name = bench.name.clone();
    two.store
        .request_step_down(&name, None, LIMIT)
        .await
        .expect("asked");
    assert!(matches!(next().await, Notice::Changed(_)));
    two.store
        .close_token(&name, Slot(0), term.token, LIMIT)
        .await
        .expect("closed");
    assert!(matches!(next().await, Notice::Changed(_)));
    one.release(&term, &grant).await;
    let Notice::Changed(freed) = next().await else {
        panic!("a release is noticed")
    };
    // Where it is said, it is the truth.
    let record = two.record(0).await;
    let (slot, token, revision) = (record.slot, record.token, record.revision);
    assert!(freed.is_none_or(|freed| freed
        == Freed {
            slot,
            token,
            revision
        }));
    let (term, _) = one.take(0).await;
    assert!(matches!(next().await, Notice::Changed(_)));
    // Neither renewals nor other leases.
    for _ in 0..5 {
        one.renewed(&term).await;
    }
    let other = Bench {
        name: bench::name(),
        ..bench.clone()
    };
    other.contender("other").take(0).await;
    let silent = timeout(Duration::from_millis(300), watch.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    // One after the other: both together change nothing.
    two.store.pause(&name, "", LIMIT).await.expect("paused");
    let paused = timeout(LIMIT, watch.next()).await;
    assert!(matches!(paused, Ok(Notice::Changed(_))), "{paused:?}");
    two.store.resume(&name, LIMIT).await.expect("resumed");
    let resumed = timeout(LIMIT, watch.next()).await;
    assert!(matches!(resumed, Ok(Notice::Changed(_))), "{resumed:?}");
}
