//! What every store must do. Written once against the trait; each test runs
//! against each store.

use std::time::Duration;

use leasewrap::lease::ids::{
    HolderId, Incarnation, Label, LeaseName, Revision, Slot, Token, Value,
};
use leasewrap::lease::record::{
    Above, Acquired, Loss, Observed, Refusal, Released, Renewed, RequestKind, Term,
};
use leasewrap::store::admin::{Admin, Closed, SlotState, What};
use leasewrap::store::{Attempt, Notice, Store, Watch};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::bench::{Bench, LIMIT, TTL, assert_changed, clock, granted};

/// Names every test of the suite, for a macro that makes them tests of a store.
macro_rules! every_test {
    ($each:ident) => {
        $each! {
            a_new_lease_is_granted,
            what_is_written_comes_back,
            an_acquisition_compares_what_was_watched,
            a_renewal_is_one_revision_and_the_same_token,
            what_is_not_ones_own_is_told_and_not_touched,
            a_release_frees_at_once_and_may_come_twice,
            a_late_release_does_not_clear_a_doubt,
            one_of_twenty_gets_it,
            slots_have_tokens_of_their_own,
            slots_above_must_be_as_watched,
            a_token_taken_in_doubt_jumps,
            an_acquisition_is_settled,
            an_attempt_is_released_whatever_its_token,
            a_pause_keeps_everybody_out,
            a_step_down_is_asked_and_reserves,
            a_closed_token_is_lost,
            hold_at_least_holds_back,
            changes_are_noticed_and_renewals_are_not,
            status_and_history_tell,
            a_missing_schema_is_told_and_made,
        }
    };
}
pub(crate) use every_test;

pub async fn a_new_lease_is_granted(bench: Bench) {
    let mut one = bench.contender("one");
    assert!(one.observe().await.records.is_empty());
    let before = clock();
    let seen = one.observe().await;
    let request = one.request(&seen, 0);
    let timed = one.store.acquire(&request, LIMIT).await;
    assert!(before <= timed.sent_at && timed.sent_at <= clock());
    let Acquired::Granted(grant) = timed.reply else {
        panic!("not granted: {timed:?}")
    };
    assert_eq!(grant.revision, Revision(1));
    assert_eq!(grant.incarnation, seen.server.incarnation);
    // Seconds since 2026, so that a table made anew goes on above.
    assert!(grant.token > Token(15_000_000), "{grant:?}");
    assert!(grant.token < Token(1 << 40), "{grant:?}");
}

pub async fn what_is_written_comes_back(bench: Bench) {
    let odd = r#"it's "odd" \ :slot $$ ü/日本"#;
    let bench = Bench {
        name: LeaseName::new(format!("{odd}{}", bench.name)).expect("a name"),
        ..bench
    };
    let mut one = bench.contender(odd);
    one.terms.value = Value::new(format!("{odd}\n").repeat(100)).expect("a value");
    one.terms.ttl = Duration::from_millis(12_345);
    one.terms.takeover_delay = Duration::from_millis(678);
    let (term, grant) = one.take(0).await;
    let record = bench.contender("two").record(0).await;
    assert_eq!(record.slot, Slot(0));
    assert_eq!(record.holder, Some(term.holder));
    assert_eq!(record.label, odd);
    assert_eq!(record.value, one.terms.value.as_str());
    assert_eq!(
        (record.token, record.revision),
        (grant.token, grant.revision)
    );
    assert_eq!(
        (record.ttl, record.takeover_delay),
        (one.terms.ttl, one.terms.takeover_delay)
    );
    assert_eq!(record.incarnation, grant.incarnation);
    assert!(!record.released && !record.expired && !record.closed());
    assert!(record.expires_in <= one.terms.ttl && !record.expires_in.is_zero());
    assert!(record.held_for < one.terms.ttl);
    assert_eq!(
        (record.held_back, record.reserved, record.request),
        (Duration::ZERO, None, None)
    );
    granted(one.renew(&term).await);
}

pub async fn an_acquisition_compares_what_was_watched(bench: Bench) {
    let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
    let nothing = two.observe().await;
    let missing = two.request(&nothing, 0);
    let (term, _) = one.take(0).await;
    assert_changed(&two.store.acquire(&missing, LIMIT).await);

    let seen = two.observe().await;
    let stale = two.request(&seen, 0);
    one.renewed(&term).await;
    assert_changed(&two.store.acquire(&stale, LIMIT).await);

    let seen = two.observe().await;
    for change in 0..3 {
        let mut request = two.request(&seen, 0);
        let other = Incarnation("another".to_owned());
        if let leasewrap::lease::record::Expected::Unchanged {
            token, incarnation, ..
        } = &mut request.expected
        {
            match change {
                0 => token.0 += 1,
                1 => *incarnation = other,
                _ => request.server_incarnation = other,
            }
        }
        assert_changed(&two.store.acquire(&request, LIMIT).await);
    }
    // Nothing of all that was written.
    assert_eq!(two.observe().await.records[0].revision, Revision(2));
    granted(one.renew(&term).await);
    // And what is as it was watched is taken, renewed in time or not: whether
    // it may be is decided elsewhere.
    let (new, _) = two.take(0).await;
    assert!(new.token.0 == term.token.0 + 1);
    let lost = Loss::OtherHolder {
        label: "two".to_owned(),
        token: new.token,
    };
    assert_eq!(one.renew(&term).await, Renewed::Lost(lost));
}

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

pub async fn one_of_twenty_gets_it(bench: Bench) {
    let mut contenders: Vec<_> = (0..20).map(|n| bench.contender(&format!("c{n}"))).collect();
    let mut requests = Vec::new();
    for contender in &mut contenders {
        let seen = contender.observe().await;
        requests.push(contender.request(&seen, 0));
    }
    let tries = contenders
        .iter_mut()
        .zip(&requests)
        .map(|(contender, request)| async { contender.store.acquire(request, LIMIT).await });
    let answers = futures_util::future::join_all(tries).await;
    let granted = answers
        .iter()
        .filter(|timed| matches!(timed.reply, Acquired::Granted(_)))
        .count();
    assert_eq!(granted, 1, "{answers:?}");
    for timed in answers
        .iter()
        .filter(|timed| !matches!(timed.reply, Acquired::Granted(_)))
    {
        assert_changed(timed);
    }
}

pub async fn slots_have_tokens_of_their_own(bench: Bench) {
    let mut tokens = Vec::new();
    let mut contenders: Vec<_> = (0..4).map(|n| bench.contender(&format!("c{n}"))).collect();
    for round in 0..3 {
        for contender in &mut contenders {
            contender.slots = 4;
        }
        // All at once, each its own slot.
        let takes = contenders
            .iter_mut()
            .enumerate()
            .map(|(slot, contender)| async move {
                let slot = u32::try_from(slot).expect("it is small");
                let (term, grant) = contender.take(slot).await;
                contender.release(&term, &grant).await;
                term.token
            });
        tokens.extend(futures_util::future::join_all(takes).await);
        let mut unique = tokens.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), tokens.len(), "round {round}: {tokens:?}");
    }
}

pub async fn slots_above_must_be_as_watched(bench: Bench) {
    let (mut wide, mut narrow) = (bench.contender("wide"), bench.contender("narrow"));
    wide.slots = 3;
    let (term, grant) = wide.take(2).await;
    let seen = narrow.observe().await;
    let mut unaware = narrow.request(&seen, 0);
    unaware.above.clear();
    assert_changed(&narrow.store.acquire(&unaware, LIMIT).await);
    let aware = narrow.request(&seen, 0);
    wide.renewed(&term).await;
    assert_changed(&narrow.store.acquire(&aware, LIMIT).await);
    wide.release(&term, &grant).await;
    let mut gone = narrow.observe().await.records.remove(0);
    gone.slot = Slot(7);
    let seen = narrow.observe().await;
    let mut too_many = narrow.request(&seen, 0);
    too_many.above.push(Above {
        slot: gone.slot,
        token: gone.token,
        revision: gone.revision,
    });
    assert_changed(&narrow.store.acquire(&too_many, LIMIT).await);
    let (new, _) = narrow.take(0).await;
    assert!(new.token > term.token);
    // A wide one may still take what lies above.
    let seen = wide.observe().await;
    let request = wide.request(&seen, 1);
    assert!(request.above.is_empty());
    assert!(matches!(
        wide.store.acquire(&request, LIMIT).await.reply,
        Acquired::Granted(_)
    ));
}

pub async fn a_token_taken_in_doubt_jumps(bench: Bench) {
    let mut one = bench.contender("one");
    let mut last = Token(0);
    let mut jumps = Vec::new();
    for _ in 0..3 {
        let seen = one.observe().await;
        let mut request = one.request(&seen, 0);
        request.in_doubt = true;
        let Acquired::Granted(grant) = one.store.acquire(&request, LIMIT).await.reply else {
            panic!("not granted");
        };
        let timeline = i64::from(seen.server.timeline.unwrap_or(1));
        assert!(grant.token.0 >= timeline << 40, "{grant:?}");
        assert!(grant.token > last);
        jumps.push(grant.token.0 - last.0);
        last = grant.token;
    }
    assert!(
        jumps[1] != 1 && jumps[1] != jumps[2],
        "the jumps are random: {jumps:?}"
    );
    let term = Term {
        slot: Slot(0),
        holder: one.holder,
        token: last,
    };
    let grant = one.renewed(&term).await;
    one.release(&term, &grant).await;
    let (next, _) = one.take(0).await;
    assert_eq!(next.token.0, last.0 + 1);
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
        two.store.release_attempt(&attempt, LIMIT).await,
        Released::Done
    );
    assert!(
        start.elapsed() < LIMIT / 2,
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
    let limit = Duration::from_secs(2);
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
    assert!(start.elapsed() >= limit / 2 && start.elapsed() <= limit * 2);
}

pub async fn a_pause_keeps_everybody_out(bench: Bench) {
    let mut one = bench.contender("one");
    let name = bench.name.clone();
    assert_eq!(one.store.resume(&name, LIMIT).await, Ok(false));
    assert_eq!(one.store.pause(&name, "a migration", LIMIT).await, Ok(true));
    assert_eq!(
        one.store.pause(&name, "a 'long' migration", LIMIT).await,
        Ok(false)
    );
    let seen = one.observe().await;
    assert_eq!(
        seen.paused.as_ref().map(|pause| pause.reason.as_str()),
        Some("a 'long' migration")
    );
    let request = one.request(&seen, 0);
    let refused = one.store.acquire(&request, LIMIT).await.reply;
    assert_eq!(refused, Acquired::Refused(Refusal::Paused));
    assert!(one.observe().await.records.is_empty());
    assert_eq!(one.store.resume(&name, LIMIT).await, Ok(true));
    let (term, grant) = one.take(0).await;
    // It stops nobody who holds it already.
    assert_eq!(one.store.pause(&name, "", LIMIT).await, Ok(true));
    one.renewed(&term).await;
    one.release(&term, &grant).await;
    assert_eq!(one.try_take(0).await, Acquired::Refused(Refusal::Paused));
}

pub async fn a_step_down_is_asked_and_reserves(bench: Bench) {
    let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
    let name = bench.name.clone();
    assert_eq!(
        two.store.request_step_down(&name, None, LIMIT).await,
        Ok(Vec::new())
    );
    let (term, grant) = one.take(0).await;
    let to = Label::new("two").expect("a label");
    let asked = two
        .store
        .request_step_down(&name, Some(&to), LIMIT)
        .await
        .expect("asked");
    let [asked] = &asked[..] else {
        panic!("{asked:?}")
    };
    assert_eq!((asked.slot, asked.token), (Slot(0), term.token));
    assert_eq!((asked.label.as_str(), asked.ttl), ("one", TTL));
    // A watcher must not take it for a renewal.
    assert_eq!(two.record(0).await.revision, grant.revision);
    let expected = RequestKind::StepDown {
        to: Some("two".to_owned()),
    };
    for reply in [one.renew(&term).await, one.store.check(&term, LIMIT).await] {
        let Renewed::Granted {
            request: Some(request),
            ..
        } = reply
        else {
            panic!("{reply:?}")
        };
        assert_eq!((request.token, &request.kind), (term.token, &expected));
    }
    one.release(&term, &grant).await;
    let record = two.record(0).await;
    let reserved = record.reserved.expect("it is left to somebody");
    assert_eq!(reserved.label, "two");
    assert!(reserved.remaining <= TTL && reserved.remaining > TTL / 2);
    // The request is void for the next term.
    let (next, _) = two.take(0).await;
    let reply = two.renew(&next).await;
    assert!(
        matches!(reply, Renewed::Granted { request: None, .. }),
        "{reply:?}"
    );
    assert_eq!(two.record(0).await.reserved, None);
}

pub async fn a_closed_token_is_lost(bench: Bench) {
    let mut one = bench.contender("one");
    let name = bench.name.clone();
    let (term, grant) = one.take(0).await;
    let other = Token(term.token.0 + 1);
    assert_eq!(
        one.store.close_token(&name, Slot(0), other, LIMIT).await,
        Ok(Closed::NotCurrent)
    );
    granted(one.renew(&term).await);
    for _ in 0..2 {
        let closed = one
            .store
            .close_token(&name, Slot(0), term.token, LIMIT)
            .await;
        assert_eq!(closed, Ok(Closed::Done { ttl: TTL }));
    }
    assert!(one.record(0).await.closed());
    assert_eq!(one.renew(&term).await, Renewed::Lost(Loss::Closed));
    assert_eq!(
        one.store.check(&term, LIMIT).await,
        Renewed::Lost(Loss::Closed)
    );
    one.release(&term, &grant).await;
    assert_eq!(
        one.store
            .close_token(&name, Slot(0), term.token, LIMIT)
            .await,
        Ok(Closed::NotCurrent)
    );
    let (next, _) = one.take(0).await;
    assert!(!one.record(0).await.closed());
    granted(one.renew(&next).await);
}

pub async fn hold_at_least_holds_back(bench: Bench) {
    let mut one = bench.contender("one");
    one.terms.hold_at_least = Duration::from_secs(60);
    let (term, grant) = one.take(0).await;
    assert_eq!(
        one.record(0).await.held_back,
        Duration::ZERO,
        "it is held anyhow"
    );
    one.release(&term, &grant).await;
    let held_back = one.record(0).await.held_back;
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
    assert_eq!(next().await, Notice::Changed);
    one.renewed(&term).await;
    let name = bench.name.clone();
    two.store
        .request_step_down(&name, None, LIMIT)
        .await
        .expect("asked");
    assert_eq!(next().await, Notice::Changed);
    two.store
        .close_token(&name, Slot(0), term.token, LIMIT)
        .await
        .expect("closed");
    assert_eq!(next().await, Notice::Changed);
    one.release(&term, &grant).await;
    assert_eq!(next().await, Notice::Changed);
    let (term, _) = one.take(0).await;
    assert_eq!(next().await, Notice::Changed);
    // Neither renewals nor other leases.
    for _ in 0..5 {
        one.renewed(&term).await;
    }
    let other = Bench {
        name: super::bench::name(),
        ..bench.clone()
    };
    other.contender("other").take(0).await;
    let silent = timeout(Duration::from_millis(300), watch.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    two.store.pause(&name, "", LIMIT).await.expect("paused");
    two.store.resume(&name, LIMIT).await.expect("resumed");
    assert_eq!(timeout(LIMIT, watch.next()).await, Ok(Notice::Changed));
}

pub async fn status_and_history_tell(bench: Bench) {
    let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
    let name = bench.name.clone();
    let none = two.store.status(Some(&name), LIMIT).await.expect("status");
    assert!(none.value.is_empty());
    one.store.because("the test wants it");
    let (term, grant) = one.take(0).await;
    two.store
        .request_step_down(&name, None, LIMIT)
        .await
        .expect("asked");
    one.store.because("the worker ended with code 0");
    one.release(&term, &grant).await;
    let (lost, _) = one.take(0).await;
    let (last, _) = two.take(0).await;
    two.store.pause(&name, "tea", LIMIT).await.expect("paused");

    let seen = two.store.status(Some(&name), LIMIT).await.expect("status");
    let [status] = &seen.value[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(status.name, name);
    assert_eq!(
        status.paused.as_ref().map(|pause| pause.reason.as_str()),
        Some("tea")
    );
    let [slot] = &status.slots[..] else {
        panic!("{status:?}")
    };
    assert_eq!(slot.state(&seen.server), SlotState::Held);
    assert_eq!((slot.changes, slot.record.token), (3, last.token));
    assert!(slot.acquired_at <= seen.now && slot.expires_at > seen.now);
    let all = two.store.status(None, LIMIT).await.expect("status");
    assert!(all.value.iter().any(|status| status.name == name));

    let history = two
        .store
        .history(Some(&name), Some(TTL * 10), LIMIT)
        .await
        .expect("history");
    let lines: Vec<_> = history
        .value
        .iter()
        .map(|event| (&event.what, event.token))
        .collect();
    let expected = [
        (&What::Acquired, term.token),
        (&What::StepDown, term.token),
        (&What::Released, term.token),
        (&What::Acquired, lost.token),
        (&What::Acquired, last.token),
        (&What::Paused, Token(0)),
    ];
    assert_eq!(lines, expected);
    assert_eq!(history.value[0].why, "the test wants it");
    assert_eq!(history.value[2].why, "the worker ended with code 0");
    assert!(
        history.value[4].why.contains("'one' had not given it back"),
        "{history:?}"
    );
}

/// Run in a store that nobody has set up.
pub async fn a_missing_schema_is_told_and_made(bench: Bench) {
    let mut one = bench.contender("one");
    assert_eq!(one.store.observe(LIMIT).await, Observed::NoSchema);
    let name = bench.name.clone();
    assert!(
        one.store
            .status(None, LIMIT)
            .await
            .expect("no leases")
            .value
            .is_empty()
    );
    assert!(
        one.store
            .history(None, None, LIMIT)
            .await
            .expect("no history")
            .value
            .is_empty()
    );
    assert!(one.store.pause(&name, "", LIMIT).await.is_err());
    let term = Term {
        slot: Slot(0),
        holder: one.holder,
        token: Token(1),
    };
    assert_eq!(one.renew(&term).await, Renewed::Lost(Loss::Missing));
    assert_eq!(one.store.drop_schema(LIMIT).await, Ok(false));
    let mut stores: Vec<_> = (0..20).map(|_| bench.store()).collect();
    let inits = stores.iter_mut().map(|store| store.init(LIMIT * 3));
    for init in futures_util::future::join_all(inits).await {
        assert_eq!(init, Ok(()));
    }
    let (term, grant) = one.take(0).await;
    one.release(&term, &grant).await;
    assert_eq!(one.store.drop_schema(LIMIT).await, Ok(true));
    assert_eq!(one.store.observe(LIMIT).await, Observed::NoSchema);
    one.store.init(LIMIT).await.expect("made again");
    let (again, _) = one.take(0).await;
    assert!(
        again.token >= term.token,
        "a schema made anew goes on above"
    );
}
