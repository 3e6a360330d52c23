//! Who takes a lease, and with which token.

use std::time::Duration;

use leasewrap::lease::ids::{Incarnation, LeaseName, Revision, Slot, Token, Value};
use leasewrap::lease::record::{Above, Acquired, Expected, Loss, Renewed, Term};
use leasewrap::store::Store;

use crate::bench::{Bench, LIMIT, assert_changed, clock, granted};

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
        (record.held_back(), record.reserved, record.request),
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
    for change in 0..4 {
        let mut request = two.request(&seen, 0);
        // A notification may say so of a row that is held.
        request.from_unreleased &= change != 3;
        let other = Incarnation("another".to_owned());
        if let Expected::Unchanged {
            token, incarnation, ..
        } = &mut request.expected
        {
            match change {
                0 => token.0 += 1,
                1 => *incarnation = other,
                2 => request.server_incarnation = other,
                _ => {}
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

pub async fn a_token_is_larger_than_any_that_was_seen(bench: Bench) {
    // As after a row that vanished, and was there with a large token before:
    // with a jump, which alone may be smaller than the last one, and without.
    let mut one = bench.contender("one");
    let mut known = Token(1 << 50);
    for in_doubt in [true, false, true] {
        let seen = one.observe().await;
        let mut request = one.request(&seen, 0);
        request.in_doubt = in_doubt;
        request.furthest = Some(known);
        let Acquired::Granted(grant) = one.store.acquire(&request, LIMIT).await.reply else {
            panic!("not granted");
        };
        assert!(grant.token > known, "{grant:?} after {known:?}");
        known = Token(grant.token.0 + (1 << 45));
    }
}
