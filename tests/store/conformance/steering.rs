//! What operators do.

use leasewrap::lease::ids::{Label, LeaseName, Slot, Token};
use leasewrap::lease::record::{Acquired, Loss, Observed, Refusal, Renewed, RequestKind, Term};
use leasewrap::store::Store;
use leasewrap::store::admin::{Admin, Closed, SlotState, What};

use crate::bench::{Bench, LIMIT, TTL, granted};

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

pub async fn status_and_history_tell(mut bench: Bench) {
    // As if it held places of a statement.
    let odd = format!("{} :now 'and' :name\\", bench.name);
    bench.name = LeaseName::new(odd).expect("a name");
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
