mod doubt;
mod notice;

use proptest::prelude::*;

use super::*;
use crate::lease::ids::{HolderId, Revision};
use crate::lease::record::{Pause, Reserved};

const TTL: Duration = Duration::from_secs(10);

fn second(at: u64) -> BootInstant {
    BootInstant::ZERO + Duration::from_secs(1000 + at)
}

fn millis(at: u64) -> BootInstant {
    second(0) + Duration::from_millis(at)
}

fn incarnation(timeline: u32) -> Incarnation {
    Incarnation(format!("1/{timeline}"))
}

/// A row of slot 0 that is held, with this token and revision.
pub(in crate::lease) fn held(token: i64, revision: i64) -> Record {
    Record {
        slot: Slot(0),
        holder: Some(HolderId(uuid::Uuid::from_u128(7))),
        label: "other".to_owned(),
        value: String::new(),
        token: Token(token),
        closed_token: None,
        revision: Revision(revision),
        ttl: TTL,
        takeover_delay: Duration::ZERO,
        released: false,
        expired: false,
        expires_in: TTL,
        held_for: Duration::ZERO,
        hold_at_least: Duration::ZERO,
        reserved: None,
        incarnation: incarnation(1),
        request: None,
    }
}

fn expired(token: i64, revision: i64) -> Record {
    Record {
        expired: true,
        expires_in: Duration::ZERO,
        ..held(token, revision)
    }
}

fn released(token: i64, revision: i64) -> Record {
    Record {
        released: true,
        ..expired(token, revision)
    }
}

fn seen(records: Vec<Record>) -> Observation {
    on_timeline(1, Duration::from_secs(1_000_000), records)
}

fn on_timeline(timeline: u32, known_for: Duration, records: Vec<Record>) -> Observation {
    Observation {
        server: Server {
            incarnation: incarnation(timeline),
            in_recovery: false,
            timeline: Some(timeline),
            known_for: Some(known_for),
        },
        paused: None,
        records,
    }
}

const US: Contender<'static> = Contender {
    takeover: Takeover::Observed,
    slots: 1,
    label: "us",
    ttl: TTL,
    takeover_delay: Duration::ZERO,
};

fn verdict(watch: &Watch, at: BootInstant) -> Verdict {
    watch.verdict(&US, at, Chance(0))
}

fn free(verdict: Verdict) -> Candidate {
    match verdict {
        Verdict::Free(candidate) => candidate,
        Verdict::Taken { reason, until } => panic!("taken: {reason:?} until {until:?}"),
    }
}

fn taken(verdict: Verdict) -> (Reason, Option<BootInstant>) {
    match verdict {
        Verdict::Taken { reason, until } => (reason, until),
        Verdict::Free(candidate) => panic!("free: {candidate:?}"),
    }
}

/// A watch that has seen these in order, each at its second.
fn watched(observations: Vec<(u64, Observation)>) -> Watch {
    let mut watch = Watch::default();
    for (at, observation) in observations {
        watch.see(observation, second(at));
    }
    watch
}

#[test]
fn nothing_is_free_before_it_was_seen() {
    assert_eq!(
        taken(verdict(&Watch::default(), second(0))),
        (Reason::Starting, None)
    );
}

#[test]
fn a_released_row_is_free_at_once_and_compared_as_it_was_seen() {
    let watch = watched(vec![(0, seen(vec![released(5, 9)]))]);
    let candidate = free(verdict(&watch, second(0)));
    assert_eq!(candidate.basis, Basis::Released);
    assert!(!candidate.from_unreleased && !candidate.in_doubt);
    assert_eq!(candidate.server_incarnation, incarnation(1));
    let expected = Expected::Unchanged {
        token: Token(5),
        revision: Revision(9),
        incarnation: incarnation(1),
    };
    assert_eq!(candidate.expected, expected);
}

#[test]
fn a_silent_holder_is_watched_for_a_tenth_more_than_its_ttl() {
    let watch = watched(vec![
        (0, seen(vec![held(5, 9)])),
        (10, seen(vec![expired(5, 9)])),
    ]);
    let (reason, until) = taken(verdict(&watch, millis(10_999)));
    assert_eq!(
        reason,
        Reason::Watching {
            left: Duration::from_millis(1)
        }
    );
    assert_eq!(until, Some(second(11)));
    let candidate = free(verdict(&watch, second(11)));
    assert_eq!(
        candidate.basis,
        Basis::Silent {
            watched: Duration::from_secs(11)
        }
    );
    assert!(candidate.from_unreleased && !candidate.in_doubt);
}

#[test]
fn the_clock_of_the_database_must_agree_but_not_for_ever() {
    // It was stepped back, and says that the row is good for hours.
    let mut row = held(5, 9);
    row.expires_in = Duration::from_secs(7200);
    let watch = watched(vec![(0, seen(vec![row.clone()])), (20, seen(vec![row]))]);
    let (_, until) = taken(verdict(&watch, second(21)));
    assert_eq!(until, Some(second(22)));
    free(verdict(&watch, second(22)));
}

#[test]
fn a_clock_that_was_stepped_forward_frees_nothing_early() {
    let watch = watched(vec![
        (0, seen(vec![expired(5, 9)])),
        (9, seen(vec![expired(5, 9)])),
    ]);
    let (_, until) = taken(verdict(&watch, second(9)));
    assert_eq!(until, Some(second(11)));
}

#[test]
fn it_takes_a_look_to_know_that_a_row_has_expired() {
    let watch = watched(vec![(0, seen(vec![held(5, 9)]))]);
    let held = |expires_in| Reason::Held {
        label: "other".to_owned(),
        expires_in: Duration::from_secs(expires_in),
    };
    assert_eq!(taken(verdict(&watch, second(4))).0, held(6));
    let (reason, until) = taken(verdict(&watch, second(12)));
    assert_eq!(reason, held(0));
    assert_eq!(until, Some(second(11)), "look again at once");
}

#[test]
fn a_sign_of_life_starts_the_watch_anew() {
    let watch = watched(vec![
        (0, seen(vec![held(5, 9)])),
        (10, seen(vec![expired(5, 10)])),
    ]);
    let (_, until) = taken(verdict(&watch, second(20)));
    assert_eq!(until, Some(second(21)));
}

#[test]
fn a_server_in_recovery_neither_starts_nor_ends_a_watch() {
    let recovering = |records| {
        let mut observation = seen(records);
        observation.server.in_recovery = true;
        observation
    };
    let mut watch = watched(vec![(0, recovering(vec![released(5, 9)]))]);
    assert_eq!(taken(verdict(&watch, second(0))), (Reason::Starting, None));
    watch.see(seen(vec![held(5, 9)]), second(1));
    watch.see(recovering(vec![released(4, 7)]), second(2));
    let (reason, _) = taken(verdict(&watch, second(3)));
    assert!(matches!(reason, Reason::Held { .. }), "{reason:?}");
    watch.see(seen(vec![expired(5, 9)]), second(12));
    free(verdict(&watch, second(12)));
}

#[test]
fn the_takeover_delay_comes_on_top() {
    let delay = Duration::from_secs(5);
    let row = |row: Record| Record {
        takeover_delay: delay,
        ..row
    };
    let watch = watched(vec![
        (0, seen(vec![row(held(5, 9))])),
        (12, seen(vec![row(expired(5, 9))])),
    ]);
    assert_eq!(taken(verdict(&watch, second(12))).1, Some(second(16)));
    free(verdict(&watch, second(16)));
    let by_clock = Contender {
        takeover: Takeover::Clock,
        ..US
    };
    let (_, until) = taken(watch.verdict(&by_clock, second(16), Chance(0)));
    assert_eq!(
        until,
        Some(second(17)),
        "five seconds after it was first seen to have expired"
    );
    free(watch.verdict(&by_clock, second(17), Chance(0)));
}

#[test]
fn the_clock_alone_frees_what_has_expired_but_no_doubt() {
    let by_clock = Contender {
        takeover: Takeover::Clock,
        ..US
    };
    let watch = watched(vec![(0, seen(vec![expired(5, 9)]))]);
    let candidate = free(watch.verdict(&by_clock, second(0), Chance(0)));
    assert_eq!(candidate.basis, Basis::Expired);
    let watch = watched(vec![(0, seen(vec![held(5, 9)]))]);
    let (_, until) = taken(watch.verdict(&by_clock, second(1), Chance(0)));
    assert_eq!(until, Some(second(10)));
    let watch = watched(vec![(
        0,
        on_timeline(2, Duration::ZERO, vec![expired(5, 9)]),
    )]);
    taken(watch.verdict(&by_clock, second(0), Chance(0)));
}

#[test]
fn a_lease_may_be_paused_held_back_or_reserved() {
    let mut paused = seen(vec![released(5, 9)]);
    paused.paused = Some(Pause {
        reason: "migration".to_owned(),
    });
    let (reason, until) = taken(verdict(&watched(vec![(0, paused)]), second(0)));
    assert_eq!(
        (reason.to_string().as_str(), until),
        ("it is paused: migration", None)
    );

    let held_back = Record {
        hold_at_least: Duration::from_secs(3),
        ..released(5, 9)
    };
    let watch = watched(vec![(0, seen(vec![held_back.clone()]))]);
    assert_eq!(taken(verdict(&watch, second(2))).1, Some(second(3)));
    free(verdict(&watch, second(3)));

    let reserved = |label: &str| Record {
        reserved: Some(Reserved {
            label: label.to_owned(),
            remaining: Duration::from_secs(4),
        }),
        ..released(5, 9)
    };
    let watch = watched(vec![(0, seen(vec![reserved("them")]))]);
    assert_eq!(taken(verdict(&watch, second(2))).1, Some(second(4)));
    free(verdict(&watch, second(4)));
    // The database's clock was stepped back, and stays there.
    for (kept, over) in [(held_back, second(3)), (reserved("them"), second(10))] {
        let looks = (0..=12).map(|at| (at, seen(vec![kept.clone()])));
        let watch = watched(looks.collect());
        free(verdict(&watch, over.max(second(12))));
        let looks = (0..3).map(|at| (at, seen(vec![kept.clone()])));
        let watch = watched(looks.collect());
        assert!(taken(verdict(&watch, second(2))).1 <= Some(over));
    }
    free(verdict(
        &watched(vec![(0, seen(vec![reserved("us")]))]),
        second(0),
    ));
}

fn slot(slot: u32, record: Record) -> Record {
    Record {
        slot: Slot(slot),
        ..record
    }
}

#[test]
fn a_slot_is_taken_only_while_all_above_are_free() {
    let two = Contender { slots: 2, ..US };
    let watch = watched(vec![(
        0,
        seen(vec![
            held(5, 9),
            slot(1, released(6, 3)),
            slot(2, held(7, 1)),
        ]),
    )]);
    let (reason, _) = taken(watch.verdict(&two, second(0), Chance(0)));
    assert_eq!(reason, Reason::SlotAbove { slot: Slot(2) });
    let watch = watched(vec![(
        0,
        seen(vec![
            held(5, 9),
            slot(1, released(6, 3)),
            slot(2, released(7, 2)),
        ]),
    )]);
    let candidate = free(watch.verdict(&two, second(0), Chance(0)));
    assert_eq!(candidate.slot, Slot(1));
    let above = Above {
        slot: Slot(2),
        token: Token(7),
        revision: Revision(2),
    };
    assert_eq!(candidate.above, [above]);
}

#[test]
fn free_slots_are_spread_but_one_that_is_kept_for_us_comes_first() {
    let four = Contender { slots: 4, ..US };
    let mut rows = vec![slot(0, released(1, 1)), slot(2, released(2, 1))];
    let watch = watched(vec![(0, seen(rows.clone()))]);
    let chosen: std::collections::BTreeSet<Slot> = (0..4)
        .map(|chance| free(watch.verdict(&four, second(0), Chance(chance))).slot)
        .collect();
    assert_eq!(chosen.len(), 4);
    rows[1].reserved = Some(Reserved {
        label: "us".to_owned(),
        remaining: Duration::from_secs(4),
    });
    let watch = watched(vec![(0, seen(rows))]);
    for chance in 0..4 {
        assert_eq!(
            free(watch.verdict(&four, second(0), Chance(chance))).slot,
            Slot(2)
        );
    }
}

#[test]
fn another_holder_is_told_of_once() {
    let mut watch = Watch::default();
    assert!(
        watch.see(seen(vec![held(5, 1)]), second(0)).is_empty(),
        "the first is no change"
    );
    assert!(
        watch.see(seen(vec![held(5, 2)]), second(1)).is_empty(),
        "a renewal"
    );
    assert!(
        watch.see(seen(vec![released(5, 3)]), second(2)).is_empty(),
        "a release"
    );
    assert_eq!(watch.see(seen(vec![held(6, 4)]), second(3)), [held(6, 4)]);
    assert!(watch.see(seen(vec![held(6, 5)]), second(4)).is_empty());
}

proptest! {
    /// Whatever the database's clock says, and however replies are spaced: a
    /// row whose holder renews it is never free.
    #[test]
    fn nobody_takes_what_is_renewed(
        steps in prop::collection::vec((1_u64..4_000, any::<bool>(), 0_u64..20_000), 1..60),
    ) {
        let mut watch = Watch::default();
        let (mut now, mut renewed_at, mut revision) = (0, 0, 1);
        for (step, says_expired, expires_in) in steps {
            now += step;
            // It renews every 3 s, as the times in use have it.
            if now - renewed_at >= 3_000 {
                (renewed_at, revision) = (now, revision + 1);
            }
            let mut row = held(5, revision);
            (row.expired, row.expires_in) = (says_expired, Duration::from_millis(expires_in));
            watch.see(seen(vec![row]), millis(now));
            taken(verdict(&watch, millis(now)));
        }
    }

    /// What is not renewed is free in the end, and `until` leads there.
    #[test]
    fn somebody_takes_what_is_not_renewed(
        timeline in 1_u32..3, ahead in -100_000_i64..100_000, is_released: bool,
    ) {
        let mut watch = Watch::default();
        let mut now = millis(0);
        for _ in 0..10 {
            let left = 10_000 - ahead - i64::try_from(now.saturating_since(millis(0)).as_millis()).unwrap();
            let expires_in = Duration::from_millis(u64::try_from(left).unwrap_or(0));
            let mut row = held(5, 9);
            (row.released, row.expired, row.expires_in) =
                (is_released, expires_in.is_zero(), expires_in);
            watch.see(on_timeline(timeline, Duration::ZERO, vec![row]), now);
            match verdict(&watch, now) {
                Verdict::Free(_) => {
                    prop_assert!(now <= second(22));
                    return Ok(());
                }
                Verdict::Taken { until, .. } => {
                    let until = until.expect("it depends on time alone");
                    prop_assert!(until > now);
                    now = until;
                }
            }
        }
        prop_assert!(false, "it is never free");
    }
}

#[test]
fn of_slots_that_are_taken_the_first_to_come_free_is_waited_for() {
    for (first, second_one) in [(4, 9), (9, 4)] {
        let of = |slot, expires_in| Record {
            slot: Slot(slot),
            ttl: Duration::from_secs(expires_in),
            expires_in: Duration::from_secs(expires_in),
            ..held(5 + i64::from(slot), 9)
        };
        let watch = watched(vec![(0, seen(vec![of(0, first), of(1, second_one)]))]);
        let two = Contender { slots: 2, ..US };
        let (_, until) = taken(watch.verdict(&two, second(1), Chance(0)));
        assert_eq!(until, Some(millis(4400)), "of the one with the shorter ttl");
    }
}

#[test]
fn a_slot_that_our_slots_do_not_reach_is_never_taken() {
    let above = Record {
        slot: Slot(1),
        ..released(6, 3)
    };
    let watch = watched(vec![(0, seen(vec![held(5, 9), above]))]);
    let (reason, _) = taken(verdict(&watch, second(0)));
    assert!(matches!(reason, Reason::Held { .. }), "{reason:?}");
}
