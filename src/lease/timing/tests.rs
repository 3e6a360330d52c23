use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn timing(options: TimingOptions) -> Timing {
    Timing::new(options).expect("times that fit")
}

#[test]
fn defaults_follow_the_ttl() {
    let default = timing(TimingOptions::default());
    assert_eq!(default.ttl(), 30 * SECOND);
    assert_eq!(default.renew_interval(), 6 * SECOND);
    assert_eq!(default.grace(), 6 * SECOND);
    assert_eq!(default.margin(), 3 * SECOND);
    assert_eq!(default.stop_timeout(), 20 * SECOND);
    assert_eq!(default.poll_interval(), 6 * SECOND);
    assert_eq!(default.call_timeout(), 6 * SECOND);
    let poll = timing(TimingOptions {
        renew_interval: Some(SECOND),
        ..Default::default()
    });
    assert_eq!(
        poll.poll_interval(),
        SECOND,
        "polls follow the renewal interval"
    );
}

#[test]
fn a_jitter_of_whole_millionths_is_taken_as_it_is() {
    for millionths in 0..=MILLION {
        let typed = f64::from(millionths) / f64::from(MILLION);
        assert_eq!(Millionths::new(typed), Some(Millionths(millionths)));
    }
    let more = Millionths::new(0.253_157_1);
    assert_eq!(more, Some(Millionths(253_158)), "rounded up");
}

#[test]
fn an_outage_of_eleven_seconds_is_ridden_out_at_the_defaults() {
    assert_eq!(
        timing(TimingOptions::default()).rides_out(),
        Duration::from_millis(10_800)
    );
    let minute = TimingOptions {
        ttl: Some(60 * SECOND),
        ..Default::default()
    };
    assert_eq!(timing(minute).rides_out(), Duration::from_millis(21_600));
}

#[test]
fn a_set_that_does_not_fit_names_the_numbers_and_one_that_does() {
    let options = TimingOptions {
        ttl: Some(10 * SECOND),
        grace: Some(9 * SECOND),
        ..Default::default()
    };
    let error = Timing::new(options).expect_err("9 s of grace in 10 s");
    assert_eq!(error.flag(), "--ttl");
    assert_eq!(
        error.to_string(),
        "is 10s, but 2 × --renew-every 2s × (1 + --jitter 0.2) + --grace 9s + --margin 1s = 14800ms \
         must fit into it; this works: --ttl 10s --renew-every 2s --jitter 0.2 --grace 2s --margin 1s"
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_its_flag() {
    let zero = Some(Duration::ZERO);
    let none = TimingOptions::default();
    for (options, flag) in [
        (
            TimingOptions {
                ttl: Some(Duration::from_millis(999)),
                ..none
            },
            "--ttl",
        ),
        (
            TimingOptions {
                ttl: Some(Duration::MAX),
                ..none
            },
            "--ttl",
        ),
        (
            TimingOptions {
                renew_interval: zero,
                ..none
            },
            "--renew-every",
        ),
        (
            TimingOptions {
                margin: zero,
                ..none
            },
            "--margin",
        ),
        (
            TimingOptions {
                poll_interval: zero,
                ..none
            },
            "--poll-every",
        ),
        (
            TimingOptions {
                call_timeout: zero,
                ..none
            },
            "--call-timeout",
        ),
        (
            TimingOptions {
                grace: Some(Duration::MAX),
                ..none
            },
            "--grace",
        ),
        (
            TimingOptions {
                stop_timeout: Some(Duration::MAX),
                ..none
            },
            "--stop-timeout",
        ),
        (
            TimingOptions {
                jitter: Some(1.01),
                ..none
            },
            "--jitter",
        ),
        (
            TimingOptions {
                jitter: Some(-0.1),
                ..none
            },
            "--jitter",
        ),
        (
            TimingOptions {
                jitter: Some(f64::NAN),
                ..none
            },
            "--jitter",
        ),
        (
            TimingOptions {
                jitter: Some(f64::INFINITY),
                ..none
            },
            "--jitter",
        ),
    ] {
        let error = Timing::new(options).expect_err(flag);
        assert_eq!(error.flag(), flag, "{error}");
    }
    timing(TimingOptions {
        grace: zero,
        stop_timeout: zero,
        jitter: Some(0.0),
        ..none
    });
}

#[test]
fn durations_are_shown_so_that_they_can_be_typed() {
    for (nanos, shown) in [
        (0, "0s"),
        (30_000_000_000, "30s"),
        (4_200_000_000, "4200ms"),
        (1_500, "1500ns"),
        (2_000, "2us"),
    ] {
        assert_eq!(Shown(Duration::from_nanos(nanos)).to_string(), shown);
        assert_eq!(
            humantime::parse_duration(shown),
            Ok(Duration::from_nanos(nanos))
        );
    }
}

#[test]
fn durations_are_rounded_for_people() {
    for (millis, shown) in [
        (9_999, "9s 999ms"),
        (12_345, "12s 300ms"),
        (59_999, "59s 900ms"),
        (60_999, "1m"),
        (3_601_500, "1h 1s"),
    ] {
        let rounded = Rounded(Duration::from_millis(millis));
        assert_eq!(rounded.to_string(), shown);
    }
}

#[test]
fn the_longest_time_is_allowed() {
    let stop_timeout = |longest| {
        Timing::new(TimingOptions {
            stop_timeout: Some(longest),
            ..Default::default()
        })
    };
    assert!(stop_timeout(LONGEST).is_ok());
    let error = stop_timeout(LONGEST + Duration::from_nanos(1)).expect_err("a year and more");
    assert!(
        error.to_string().ends_with("give at most 31622400s"),
        "{error}"
    );
}

#[test]
fn the_set_that_is_offered_changes_no_more_than_it_must() {
    let parts = |ttl, renew_interval, grace, margin| Parts {
        ttl: Duration::from_millis(ttl),
        renew_interval: Duration::from_millis(renew_interval),
        jitter: Millionths(200_000),
        grace: Duration::from_millis(grace),
        margin: Duration::from_millis(margin),
    };
    for (given, works) in [
        // Half of the ttl for grace and margin is not too much.
        (
            parts(10_000, 9_000, 4_000, 1_000),
            parts(10_000, 2_000, 4_000, 1_000),
        ),
        (
            parts(10_000, 9_000, 4_001, 1_000),
            parts(10_000, 2_900, 2_000, 1_000),
        ),
        // To the tenth of a second from a second on, below to the millisecond.
        (
            parts(12_345, 9_000, 9_000, 9_000),
            parts(12_345, 3_600, 2_400, 1_200),
        ),
        (
            parts(5_000, 9_000, 500, 2_100),
            parts(5_000, 1_600, 500, 500),
        ),
        (
            parts(5_040, 9_000, 1_004, 1_640),
            parts(5_040, 1_400, 1_000, 504),
        ),
    ] {
        assert_eq!(given.fitted(), works, "{given}");
    }
}

#[test]
fn jitter_moves_both_ways_and_retries_by_at_most_half() {
    let chances = [Chance(0), Chance::MIDDLE, Chance(u16::MAX)];
    for (jitter, renewals, retries) in [
        (0.0, [6_000, 6_000, 6_000], [2_000, 2_000, 2_000]),
        (0.2, [4_800, 5_999, 7_200], [1_600, 1_999, 2_400]),
        (1.0, [0, 5_999, 12_000], [1_000, 1_999, 3_000]),
    ] {
        let timing = timing(TimingOptions {
            ttl: Some(30 * SECOND),
            jitter: Some(jitter),
            grace: Some(Duration::ZERO),
            ..Default::default()
        });
        let millis = |pause: fn(&Timing, Chance) -> Duration| {
            chances.map(|chance| pause(&timing, chance).as_millis())
        };
        assert_eq!(millis(Timing::next_renewal), renewals, "jitter {jitter}");
        assert_eq!(millis(Timing::next_poll), renewals, "jitter {jitter}");
        assert_eq!(millis(Timing::retry_pause), retries, "jitter {jitter}");
    }
}

fn any_parts() -> impl Strategy<Value = Parts> {
    let duration = || (1_u64..100_000).prop_map(Duration::from_millis);
    (
        1_000_u64..100_000,
        duration(),
        0..=MILLION,
        duration(),
        duration(),
    )
        .prop_map(|(ttl, renew_interval, jitter, grace, margin)| Parts {
            ttl: Duration::from_millis(ttl),
            renew_interval,
            jitter: Millionths(jitter),
            grace,
            margin,
        })
}

proptest! {
    #[test]
    fn the_set_that_is_offered_works(parts in any_parts()) {
        let works = parts.fitted();
        prop_assert!(works.fits(), "{parts} -> {works}");
        prop_assert_eq!(works.ttl, parts.ttl);
        prop_assert_eq!(works.jitter, parts.jitter);
        prop_assert!(works.renew_interval >= SHORTEST && works.margin >= SHORTEST);
    }

    #[test]
    fn a_set_that_fits_leaves_room_for_two_renewals(parts in any_parts(), chance: u16) {
        let timing = timing(TimingOptions {
            ttl: Some(parts.ttl),
            renew_interval: Some(parts.fitted().renew_interval),
            jitter: Some(f64::from(parts.jitter.0) / f64::from(MILLION)),
            grace: Some(parts.fitted().grace),
            margin: Some(parts.fitted().margin),
            ..Default::default()
        });
        let chance = Chance(chance);
        prop_assert!(timing.next_renewal(chance) * 2 + timing.grace() <= timing.trust());
        prop_assert!(timing.retry_pause(chance) <= timing.ttl() / 10);
        for failures in 0..40 {
            prop_assert!(timing.backoff(failures, chance) <= timing.ttl());
        }
    }

    #[test]
    fn pauses_after_failures_grow(chance: u16) {
        let timing = timing(TimingOptions::default());
        let pauses: Vec<_> = (1..10).map(|n| timing.backoff(n, Chance(chance))).collect();
        prop_assert!(pauses.is_sorted());
        prop_assert!(pauses[0] <= 3 * SECOND && pauses[8] >= 24 * SECOND);
    }
}
