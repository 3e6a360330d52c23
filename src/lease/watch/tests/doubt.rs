//! Rows whose later writes may have been lost.

use super::*;

#[test]
fn a_released_row_of_another_incarnation_is_watched() {
    let promoted = |records| on_timeline(2, Duration::ZERO, records);
    let watch = watched(vec![(0, promoted(vec![released(5, 9)]))]);
    let (reason, until) = taken(verdict(&watch, second(10)));
    let doubt = Doubt::OtherIncarnation;
    assert_eq!(
        reason,
        Reason::Doubting {
            doubt,
            left: Duration::from_secs(1)
        }
    );
    assert_eq!(until, Some(second(11)));
    let candidate = free(verdict(&watch, second(11)));
    assert!(candidate.in_doubt && !candidate.from_unreleased);
}

#[test]
fn what_is_kept_back_stays_so_when_it_was_watched() {
    let kept = |held_for| Record {
        hold_at_least: TTL * 2,
        held_for,
        ..released(5, 9)
    };
    let promoted = |record| on_timeline(2, Duration::ZERO, vec![record]);
    let watch = watched(vec![
        (0, promoted(kept(Duration::ZERO))),
        (10, promoted(kept(TTL))),
    ]);
    let (reason, until) = taken(verdict(&watch, second(12)));
    assert!(matches!(reason, Reason::HeldBack { .. }), "{reason:?}");
    assert_eq!(until, Some(second(20)));
}

#[test]
fn a_clock_that_was_set_back_since_a_release_is_seen() {
    for expires_in in [Duration::ZERO, TTL] {
        let record = Record {
            hold_at_least: TTL * 2,
            expired: expires_in.is_zero(),
            expires_in,
            ..released(5, 9)
        };
        let watch = watched(vec![(0, seen(vec![record]))]);
        let reason = Reason::HeldBack {
            left: TTL * 2,
            clock_set_back: Some(expires_in).filter(|by| !by.is_zero()),
        };
        assert_eq!(taken(verdict(&watch, second(0))).0, reason);
    }
}

#[test]
fn a_new_incarnation_starts_the_watch_anew() {
    let watch = watched(vec![
        (0, seen(vec![expired(5, 9)])),
        (10, on_timeline(2, Duration::ZERO, vec![expired(5, 9)])),
    ]);
    assert_eq!(taken(verdict(&watch, second(20))).1, Some(second(21)));
    assert!(free(verdict(&watch, second(21))).in_doubt);
}

#[test]
fn a_row_that_was_renewed_on_the_new_incarnation_is_out_of_doubt() {
    let renewed = Record {
        incarnation: incarnation(2),
        ..released(5, 10)
    };
    let watch = watched(vec![
        (0, seen(vec![held(5, 9)])),
        (1, on_timeline(2, Duration::ZERO, vec![renewed])),
    ]);
    assert_eq!(free(verdict(&watch, second(1))).basis, Basis::Released);
}

#[test]
fn a_row_that_is_gone_is_watched_for_the_longer_ttl() {
    let long = Record {
        ttl: 2 * TTL,
        ..held(5, 9)
    };
    let watch = watched(vec![(0, seen(vec![long])), (1, seen(vec![]))]);
    let (reason, until) = taken(verdict(&watch, second(1)));
    assert!(
        matches!(
            reason,
            Reason::Doubting {
                doubt: Doubt::Gone,
                ..
            }
        ),
        "{reason:?}"
    );
    assert_eq!(until, Some(second(23)));
    // It cannot expire by the database's clock: the 1.1 times are enough.
    let candidate = free(verdict(&watch, second(23)));
    assert_eq!(candidate.expected, Expected::Missing);
    assert!(candidate.in_doubt);
    assert_eq!(candidate.furthest, Some(Token(5)), "it had that one once");
}

#[test]
fn a_row_that_has_gone_back_is_watched_until_it_is_ahead_again() {
    for older in [released(5, 8), released(4, 20)] {
        let mut watch = watched(vec![
            (0, seen(vec![released(5, 9)])),
            (1, seen(vec![older])),
        ]);
        let (reason, until) = taken(verdict(&watch, second(1)));
        assert!(
            matches!(
                reason,
                Reason::Doubting {
                    doubt: Doubt::GoneBack,
                    ..
                }
            ),
            "{reason:?}"
        );
        assert_eq!(until, Some(second(12)));
        watch.see(seen(vec![released(5, 10)]), second(2));
        assert_eq!(free(verdict(&watch, second(2))).basis, Basis::Released);
    }
}

#[test]
fn a_missing_row_is_free_unless_the_timeline_is_young() {
    let day = Duration::from_secs(24 * 60 * 60);
    let young = [
        on_timeline(2, day - Duration::from_secs(1), vec![]),
        {
            let mut unknown = on_timeline(2, Duration::ZERO, vec![]);
            unknown.server.known_for = None;
            unknown
        },
        {
            let mut unreadable = on_timeline(1, Duration::ZERO, vec![]);
            unreadable.server.timeline = None;
            unreadable
        },
    ];
    for observation in young {
        let watch = watched(vec![(0, observation)]);
        let (reason, until) = taken(verdict(&watch, second(0)));
        let young = matches!(
            reason,
            Reason::Doubting {
                doubt: Doubt::YoungTimeline,
                ..
            }
        );
        assert!(young, "{reason:?}");
        assert_eq!(until, Some(second(11)));
        assert!(free(verdict(&watch, second(11))).in_doubt);
    }
    for observation in [
        on_timeline(1, Duration::ZERO, vec![]),
        on_timeline(2, day, vec![]),
    ] {
        let watch = watched(vec![(0, observation)]);
        assert_eq!(free(verdict(&watch, second(0))).basis, Basis::New);
    }
}

#[test]
fn a_missing_row_is_watched_when_the_server_changes_below_us() {
    let day = Duration::from_secs(24 * 60 * 60);
    let watch = watched(vec![(0, seen(vec![])), (1, on_timeline(3, day, vec![]))]);
    assert_eq!(taken(verdict(&watch, second(1))).1, Some(second(12)));
}

/// A token that was lost with one slot's row must not be handed out again
/// with another's.
#[test]
fn the_doubt_about_one_slot_makes_the_token_of_every_slot_jump() {
    let two = Contender { slots: 2, ..US };
    let sound = Record {
        incarnation: incarnation(2),
        ..released(5, 9)
    };
    for other in [vec![slot(1, held(6, 3))], vec![]] {
        let rows = [vec![sound.clone()], other].concat();
        let watch = watched(vec![(0, on_timeline(2, Duration::ZERO, rows))]);
        let candidate = free(watch.verdict(&two, second(0), Chance(0)));
        assert_eq!(
            (candidate.slot, &candidate.basis),
            (Slot(0), &Basis::Released)
        );
        assert!(candidate.in_doubt);
    }
    let watch = watched(vec![(0, on_timeline(2, Duration::ZERO, vec![sound]))]);
    assert!(
        !free(verdict(&watch, second(0))).in_doubt,
        "it is the only one"
    );
}

#[test]
fn a_row_that_comes_back_as_it_was_stays_in_doubt() {
    let watch = watched(vec![
        (0, seen(vec![released(5, 9)])),
        (1, seen(vec![])),
        (2, seen(vec![released(5, 9)])),
    ]);
    let (reason, until) = taken(verdict(&watch, second(3)));
    assert!(matches!(reason, Reason::Doubting { .. }), "{reason:?}");
    assert_eq!(until, Some(second(13)));
}

/// A reservation, and `--hold-at-least`, begin with the release.
#[test]
fn what_was_not_given_back_is_kept_for_nobody() {
    let kept = Record {
        hold_at_least: TTL,
        reserved: Some(Reserved {
            label: "another".to_owned(),
            remaining: TTL,
        }),
        ..expired(5, 9)
    };
    let promoted = |records| on_timeline(2, Duration::ZERO, records);
    let watch = watched(vec![
        (0, promoted(vec![kept.clone()])),
        (10, promoted(vec![kept])),
    ]);
    free(verdict(&watch, second(11)));
}
