//! What a notification of a release is good for.

use super::*;

#[test]
fn a_notice_frees_the_only_row_that_was_seen_and_is_in_no_doubt() {
    let freed = Freed {
        slot: Slot(0),
        token: Token(5),
        revision: Revision(3),
    };
    let says = |observation: Observation, contender: &Contender<'_>| {
        watched(vec![(0, observation)]).freed(freed, contender)
    };
    let candidate = says(seen(vec![held(5, 1)]), &US).expect("worth an attempt");
    assert_eq!(
        (candidate.slot, candidate.basis),
        (Slot(0), Basis::Released)
    );
    assert_eq!(candidate.furthest, Some(Token(5)));
    assert!(!candidate.from_unreleased && !candidate.in_doubt && candidate.above.is_empty());

    assert_eq!(Watch::default().freed(freed, &US), None, "nothing was seen");
    let mut paused = seen(vec![held(5, 1)]);
    paused.paused = Some(Pause {
        reason: String::new(),
    });
    let slot_one = Record {
        slot: Slot(1),
        ..held(6, 1)
    };
    let held_back = Record {
        hold_at_least: Duration::from_secs(60),
        ..held(5, 1)
    };
    let elsewhere = Record {
        incarnation: incarnation(2),
        ..held(5, 1)
    };
    for observation in [
        paused,
        seen(vec![]),
        seen(vec![released(5, 1)]),
        seen(vec![held(5, 3)]),
        seen(vec![held(6, 1)]),
        seen(vec![held(5, 1), slot_one.clone()]),
        seen(vec![slot_one]),
        seen(vec![held_back]),
        seen(vec![elsewhere]),
    ] {
        assert_eq!(says(observation.clone(), &US), None, "{observation:?}");
    }
    let above = Freed {
        slot: Slot(1),
        ..freed
    };
    let slot_one = Record {
        slot: Slot(1),
        ..held(5, 1)
    };
    let watch = watched(vec![(0, seen(vec![slot_one]))]);
    assert_eq!(watch.freed(above, &US), None, "it is not among our slots");
    let two_slots = Contender { slots: 2, ..US };
    assert_eq!(says(seen(vec![held(5, 1)]), &two_slots), None);
    // One that had gone, and has come back.
    let back = [seen(vec![held(5, 1)]), seen(vec![]), seen(vec![held(5, 1)])];
    assert_eq!(watched((0..).zip(back).collect()).freed(freed, &US), None);
}
