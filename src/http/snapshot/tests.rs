use uuid::Uuid;

use super::*;

pub fn at(seconds: u64) -> BootInstant {
    BootInstant::ZERO + Duration::from_secs(seconds)
}

pub fn standby() -> Snapshot {
    Snapshot {
        name: LeaseName::new("job").expect("a name"),
        slots: 1,
        label: Label::new("me/1").expect("a label"),
        value: Value::new("10.0.0.1:80").expect("a value"),
        phase: Phase::Standby,
        since: at(10),
        term: None,
        worker: None,
        worker_status: None,
        other: None,
        reason: Some("it is held".to_owned()),
        reachable: true,
        failures: 0,
        attempts: 4,
        next_wakeup: Some(at(106)),
        lost: false,
        ending: false,
        recent: Recent::default(),
    }
}

pub fn holding() -> Snapshot {
    let mut recent = Recent::default();
    recent.begun(Slot(0), Token(6), "other/2", at(20));
    recent.begun(Slot(0), Token(7), "me/1", at(50));
    Snapshot {
        phase: Phase::Holding,
        since: at(50),
        term: Some(HeldTerm {
            slot: Slot(0),
            holder: HolderId(Uuid::from_u128(1)),
            token: Token(7),
            acquired: at(50),
            deadline: at(120),
        }),
        reason: None,
        recent,
        ..standby()
    }
}

#[test]
fn a_holder_is_ready_and_leads_until_its_deadline() {
    let snapshot = holding();
    assert!(snapshot.leads(at(100)) && snapshot.ready(at(100)).is_ok());
    assert!(!snapshot.leads(at(120)) && snapshot.ready(at(120)).is_err());
    let late = Snapshot {
        next_wakeup: None,
        ..snapshot
    };
    assert!(late.live(at(121)).is_ok() && late.live(at(123)).is_err());
}

#[test]
fn nobody_leads_who_has_lost_the_lease_while_the_tree_still_dies() {
    let lost = Snapshot {
        phase: Phase::Stopping,
        lost: true,
        ..holding()
    };
    let now = at(100);
    assert!(!lost.leads(now) && lost.ready(now).is_err());
    assert!(lost.live(now).is_ok() && lost.left(now).is_zero());
    let stopping = Snapshot {
        lost: false,
        ..lost
    };
    assert!(stopping.leads(now) && stopping.left(now) == Duration::from_secs(20));
}

#[test]
fn a_standby_is_ready_while_the_database_answers() {
    assert!(standby().ready(at(100)).is_ok());
    let mut cut_off = standby();
    cut_off.reachable = false;
    assert!(cut_off.live(at(100)).is_ok() && cut_off.ready(at(100)).is_err());
}

#[test]
fn a_keeper_that_does_not_wake_is_not_live() {
    assert!(standby().live(at(107)).is_ok());
    assert!(standby().live(at(109)).is_err());
}

#[test]
fn recent_terms_are_bounded_and_end_when_the_next_begins() {
    let mut recent = Recent::default();
    for token in 0..60 {
        recent.begun(
            Slot(0),
            Token(token),
            "x",
            at(u64::try_from(token).expect("small")),
        );
    }
    recent.begun(Slot(0), Token(59), "x", at(99));
    recent.ended(Slot(0), Token(59), at(70), "released");
    assert_eq!(recent.0.len(), RECENT);
    assert!(recent.0.iter().all(|seen| seen.to.is_some()));
    assert_eq!(
        recent.0.back().map(|seen| (seen.to, seen.how)),
        Some((Some(at(70)), "released"))
    );
}

#[test]
fn a_row_that_has_always_been_there_can_be_shown() {
    let mut record = crate::cli::status::tests::lease(5, |_| {})
        .slots
        .remove(0)
        .record;
    record.held_for = Duration::MAX;
    let seen = at(99);
    let shown = Snapshot {
        other: Some(Other { record, seen }),
        ..standby()
    };
    let holder = shown.view(at(100)).holder.expect("a holder");
    assert_eq!(holder.age_ms, u64::MAX);
}
