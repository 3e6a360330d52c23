use std::time::Duration;

use super::desk::{
    Desk, acquisition, config, ended, held, incarnation, millis, no_answer, observation, released,
    second, unknown,
};
use crate::lease::ids::{Revision, Slot, Token};
use crate::lease::keeper::event::{Command, Event, GuardEvent, Outcome, StopCause, Transition};
use crate::lease::keeper::{Config, Phase};
use crate::lease::record::{Acquired, Expected, Fault, Freed, Observed, Pause, Record, Refusal};
use crate::lease::timing::{Timing, TimingOptions};
use crate::lease::watch::Reason;

pub(super) const OBSERVE: Command = Command::Observe {
    limit: Duration::from_secs(6),
};

pub(super) fn fails(fault: Fault) -> Event {
    Event::Observed(Observed::Unknown(unknown(fault)))
}

pub(super) fn waits(desk: &Desk) -> Vec<u64> {
    let told = desk.told.iter();
    let attempts = told.filter_map(|transition| match transition {
        Transition::Waiting { attempts, .. } => Some(*attempts),
        _ => None,
    });
    attempts.collect()
}

#[test]
fn a_standby_polls_and_says_so_less_and_less() {
    let mut desk = Desk::new(config());
    for poll in 1..=20 {
        // Its holder lives on.
        assert_eq!(desk.sees(vec![held(5, poll)]), []);
        assert_eq!(desk.hears(Event::Wake), [], "too early");
        assert_eq!(desk.wakes(), [OBSERVE]);
    }
    assert_eq!(desk.at, second(20 * 6));
    assert_eq!(waits(&desk), [1, 2, 4, 8, 16]);
    assert_eq!(desk.keeper.attempts(), 21);
    assert!(matches!(desk.keeper.reason(), Some(Reason::Held { .. })));
}

#[test]
fn a_standby_says_every_hour_that_it_waits() {
    let mut desk = Desk::new(config());
    for poll in 1..=1200 {
        assert_eq!(desk.sees(vec![held(5, poll)]), []);
        desk.wakes();
    }
    let after_the_doublings: Vec<_> = waits(&desk).into_iter().filter(|n| *n > 512).collect();
    assert_eq!(after_the_doublings, [1024], "1200 polls are two hours");
    assert_eq!(waits(&desk).len(), 11);
}

#[test]
fn it_looks_when_a_watch_is_over_and_takes_what_is_free_then() {
    let mut desk = Desk::new(config());
    let mut silent = held(5, 9);
    silent.expires_in = Duration::from_secs(1);
    desk.sees(vec![silent.clone()]);
    (silent.expired, silent.expires_in) = (true, Duration::ZERO);
    while desk.at < second(33) {
        assert_eq!(desk.wakes(), [OBSERVE]);
        if desk.at < second(33) {
            assert_eq!(desk.sees(vec![silent.clone()]), []);
        }
    }
    assert_eq!(
        desk.at,
        second(33),
        "1.1 times the ttl after the first reply, to the point"
    );
    let request = acquisition(&desk.sees(vec![silent]));
    assert!(request.from_unreleased && !request.in_doubt);
    assert_eq!(desk.keeper.phase(), Phase::Acquiring);
}

#[test]
fn a_notification_makes_it_look_at_once_and_once_more_if_it_was_looking() {
    let mut desk = Desk::new(config());
    assert_eq!(desk.hears(Event::Changed(None)), [], "a poll is under way");
    assert_eq!(
        desk.sees(vec![held(5, 1)]),
        [OBSERVE],
        "it may have been sent before the change"
    );
    assert_eq!(desk.sees(vec![held(5, 1)]), []);
    assert_eq!(desk.hears(Event::Changed(None)), [OBSERVE]);
}

/// A notification that slot 0 was given back.
fn freed(token: i64, revision: i64) -> Event {
    Event::Changed(Some(Freed {
        slot: Slot(0),
        token: Token(token),
        revision: Revision(revision),
    }))
}

#[test]
fn a_release_that_is_told_is_tried_without_another_look() {
    let mut desk = Desk::new(config());
    desk.sees(vec![held(5, 1)]);
    let request = acquisition(&desk.hears(freed(5, 4)));
    let expected = Expected::Unchanged {
        token: Token(5),
        revision: Revision(4),
        incarnation: incarnation(1),
    };
    assert_eq!(request.expected, expected);
    assert_eq!(request.furthest, Some(Token(5)));
    assert!(!request.from_unreleased && !request.in_doubt);
    // It was a lie, or somebody else was faster.
    let refused = Acquired::Refused(Refusal::Changed);
    assert_eq!(desk.acquired(second(0), refused), [OBSERVE]);
}

#[test]
fn a_failure_of_what_was_told_brings_a_look_at_once_and_only_one() {
    let mut desk = Desk::new(config());
    desk.sees(vec![held(5, 1)]);
    acquisition(&desk.hears(freed(5, 2)));
    // The connection was gone; nothing is wrong with the database.
    let unknown = Acquired::Unknown(no_answer());
    assert_eq!(desk.acquired(second(0), unknown.clone()), [OBSERVE]);
    // What a look has caused waits, as ever.
    acquisition(&desk.sees(vec![released(5, 2)]));
    assert_eq!(desk.acquired(second(0), unknown), []);
}

#[test]
fn what_is_told_is_looked_at_where_something_else_comes_first() {
    let told = |mut desk: Desk, seen: Vec<Record>, event: Event| {
        desk.sees(seen);
        desk.hears(event)
    };
    let precheck = Config {
        precheck: true,
        ..config()
    };
    assert_eq!(
        told(Desk::new(precheck), vec![held(5, 1)], freed(5, 2)),
        [OBSERVE]
    );
    let no_guard = Desk::without_guard(config());
    assert_eq!(told(no_guard, vec![held(5, 1)], freed(5, 2)), [OBSERVE]);
    // Nothing that was seen, or nothing new.
    for event in [freed(6, 2), freed(5, 1), freed(4, 9)] {
        assert_eq!(
            told(Desk::new(config()), vec![held(5, 1)], event),
            [OBSERVE]
        );
    }
    // An acquisition without an answer is settled first.
    let mut desk = Desk::new(config());
    desk.sees(vec![released(5, 1)]);
    desk.acquired(second(0), Acquired::Unknown(no_answer()));
    assert_eq!(desk.hears(freed(5, 2)), [OBSERVE]);
}

#[test]
fn another_holder_is_told_of() {
    let mut desk = Desk::new(config());
    desk.sees(vec![held(5, 1)]);
    desk.wakes();
    desk.sees(vec![held(6, 2)]);
    assert!(desk.has_told(
        |told| matches!(told, Transition::HolderChanged { record } if record.token.0 == 6)
    ));
}

#[test]
fn no_wait_ends_with_what_the_first_look_shows() {
    let config = Config {
        wait: Some(Duration::ZERO),
        ..config()
    };
    let mut desk = Desk::new(config.clone());
    let [
        Command::Dismiss(_),
        Command::End(Outcome::NotAcquired {
            why: Reason::Held { .. },
        }),
    ] = desk.sees(vec![held(5, 9)])[..]
    else {
        panic!("it should have ended");
    };
    let mut desk = Desk::new(config.clone());
    assert_eq!(
        desk.hears(fails(Fault::Transient)),
        ended(Outcome::Database(no_answer()))
    );
    let mut desk = Desk::new(config);
    acquisition(&desk.sees(vec![released(5, 9)]));
}

#[test]
fn no_wait_waits_for_its_own_guard() {
    let config = Config {
        wait: Some(Duration::ZERO),
        ..config()
    };
    let mut desk = Desk::without_guard(config);
    assert_eq!(desk.sees(vec![released(5, 9)]), []);
    acquisition(&desk.guard(GuardEvent::Ready));
}

#[test]
fn waiting_ends_to_the_point() {
    let config = Config {
        wait: Some(Duration::from_secs(10)),
        ..config()
    };
    let mut desk = Desk::new(config.clone());
    desk.sees(vec![held(5, 9)]);
    assert_eq!(
        desk.wakes(),
        [Command::Observe {
            limit: Duration::from_secs(4)
        }]
    );
    desk.sees(vec![held(5, 10)]);
    let last = desk.wakes();
    assert!(
        matches!(last[1], Command::End(Outcome::NotAcquired { .. })),
        "{last:?}"
    );
    assert_eq!(desk.at, second(10));
    // Without any connection it is the database's fault.
    let mut desk = Desk::new(config);
    let mut last = desk.hears(fails(Fault::Transient));
    while last.is_empty() {
        last = desk.wakes();
        if last.len() == 1 {
            last = desk.hears(fails(Fault::Transient));
        }
    }
    assert_eq!(last, ended(Outcome::Database(no_answer())));
    assert_eq!(desk.at, second(10));
}

#[test]
fn what_is_final_ends_it_at_the_first_connect() {
    for fault in [Fault::Final, Fault::ReadOnly] {
        let mut desk = Desk::new(config());
        // Starting up is waited out, whatever comes after.
        desk.hears(fails(Fault::Transient));
        desk.wakes();
        assert_eq!(
            desk.hears(fails(fault)),
            ended(Outcome::Database(unknown(fault)))
        );
    }
}

#[test]
fn what_has_worked_is_given_one_ttl_to_work_again() {
    let mut desk = Desk::new(config());
    desk.sees(vec![held(5, 9)]);
    let refused_since = desk.at + Duration::from_secs(6);
    let mut last = Vec::new();
    while last.is_empty() {
        assert_eq!(desk.wakes(), [OBSERVE]);
        last = desk.hears(fails(Fault::Final));
    }
    assert_eq!(last, ended(Outcome::Database(unknown(Fault::Final))));
    assert_eq!(desk.at, refused_since + Duration::from_secs(30));
    // What was refused once, and is out of reach then, is not over with that.
    let mut desk = Desk::new(config());
    desk.sees(vec![held(5, 9)]);
    desk.wakes();
    assert_eq!(desk.hears(fails(Fault::Final)), []);
    while desk.at < second(100) {
        assert_eq!(desk.wakes(), [OBSERVE]);
        assert_eq!(desk.hears(fails(Fault::Transient)), []);
        let pause = desk
            .keeper
            .next_wakeup()
            .map(|at| at.saturating_since(desk.at));
        assert!(pause >= Some(Duration::from_secs(2)), "{pause:?}");
    }
    desk.wakes();
    assert_eq!(desk.hears(fails(Fault::Final)), []);
    // A server that is read-only for a while is waited out.
    let mut desk = Desk::new(config());
    desk.sees(vec![held(5, 9)]);
    while desk.at < second(1000) {
        assert_eq!(desk.wakes(), [OBSERVE]);
        assert_eq!(desk.hears(fails(Fault::ReadOnly)), []);
    }
}

#[test]
fn pauses_grow_up_to_one_ttl_and_shrink_again() {
    let mut desk = Desk::new(config());
    let mut pauses = Vec::new();
    for _ in 0..7 {
        desk.hears(fails(Fault::Transient));
        let before = desk.at;
        desk.wakes();
        pauses.push(desk.at.saturating_since(before).as_secs());
    }
    assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(desk.keeper.failures(), 7);
    desk.sees(vec![held(5, 9)]);
    assert_eq!(desk.keeper.failures(), 0);
}

#[test]
fn a_missing_schema_is_created_once_asked_for() {
    let mut desk = Desk::new(config());
    let limit = Duration::from_secs(6);
    assert_eq!(
        desk.hears(Event::Observed(Observed::NoSchema)),
        [Command::Init { limit }]
    );
    assert_eq!(desk.hears(Event::Initialised(Ok(()))), [OBSERVE]);
    assert_eq!(
        desk.hears(Event::Observed(Observed::NoSchema)),
        [],
        "that is no success"
    );
    let mut desk = Desk::new(config());
    desk.hears(Event::Observed(Observed::NoSchema));
    let last = desk.hears(Event::Initialised(Err(unknown(Fault::Final))));
    assert_eq!(last, ended(Outcome::Database(unknown(Fault::Final))));
}

#[test]
fn no_attempt_is_made_before_the_precheck_has_passed() {
    let mut desk = Desk::new(Config {
        precheck: true,
        ..config()
    });
    assert_eq!(desk.sees(vec![released(5, 9)]), [Command::Precheck]);
    assert_eq!(desk.hears(Event::Fit(false)), []);
    assert_eq!(desk.keeper.reason(), Some(&Reason::Unfit));
    assert_eq!(desk.wakes(), [OBSERVE]);
    assert_eq!(desk.sees(vec![released(5, 9)]), [Command::Precheck]);
    acquisition(&desk.hears(Event::Fit(true)));
    let no_wait = Config {
        precheck: true,
        wait: Some(Duration::ZERO),
        ..config()
    };
    let mut desk = Desk::new(no_wait);
    desk.sees(vec![released(5, 9)]);
    let last = desk.hears(Event::Fit(false));
    assert_eq!(last, ended(Outcome::NotAcquired { why: Reason::Unfit }));
}

#[test]
fn signals_end_it_and_nothing_else_stops_it() {
    let mut desk = Desk::new(config());
    for nothing in [StopCause::StepDown, StopCause::Unfit, StopCause::Watchdog] {
        assert_eq!(desk.hears(Event::Stop(nothing)), []);
    }
    assert_eq!(desk.hears(Event::HurryUp), []);
    assert_eq!(
        desk.hears(Event::Stop(StopCause::Signal(15))),
        ended(Outcome::Signaled(15))
    );
    assert_eq!(desk.keeper.phase(), Phase::Ended);
    assert_eq!(desk.keeper.next_wakeup(), None);
    assert_eq!(desk.hears(Event::Changed(None)), []);
}

#[test]
fn a_guard_that_dies_ends_it_unless_it_was_attached() {
    let mut desk = Desk::new(config());
    assert_eq!(desk.guard(GuardEvent::Gone), ended(Outcome::GuardDied));
    let mut desk = Desk::new(Config {
        attached: true,
        ..config()
    });
    assert_eq!(desk.guard(GuardEvent::Gone), []);
    assert_eq!(desk.sees(vec![released(5, 9)]), [], "nothing to run it");
    assert_eq!(desk.keeper.reason(), Some(&Reason::NoGuard));
    acquisition(&desk.guard(GuardEvent::Ready));
}

#[test]
fn ones_own_guard_is_waited_for_in_silence() {
    let mut desk = Desk::without_guard(config());
    assert_eq!(desk.sees(vec![released(5, 9)]), []);
    assert_eq!(desk.told, [], "it is there in a moment");
    acquisition(&desk.guard(GuardEvent::Ready));
}

#[test]
fn looks_that_only_time_has_caused_stay_apart() {
    let mut desk = Desk::new(config());
    let mut row = Record {
        expires_in: Duration::ZERO,
        ..held(5, 9)
    };
    desk.sees(vec![row.clone()]);
    // The database rounds, and says neither that it has expired nor how long yet.
    desk.at(second(33)).hears(Event::Changed(None));
    assert_eq!(desk.sees(vec![row.clone()]), []);
    assert_eq!(desk.keeper.next_wakeup(), Some(millis(33_010)));
    row.expired = true;
    desk.wakes();
    acquisition(&desk.sees(vec![row]));
}

#[test]
fn a_precheck_is_waited_for_as_long_as_wait_says_and_no_longer() {
    let mut desk = Desk::new(Config {
        precheck: true,
        wait: Some(Duration::from_secs(10)),
        ..config()
    });
    assert_eq!(desk.sees(vec![released(5, 9)]), [Command::Precheck]);
    assert_eq!(desk.keeper.next_wakeup(), Some(second(10)));
    desk.at(millis(9_999));
    assert_eq!(desk.hears(Event::Wake), []);
    let why = Reason::Unfit;
    assert_eq!(desk.wakes(), ended(Outcome::NotAcquired { why }));
}

#[test]
fn a_precheck_that_passes_without_a_guard_makes_it_look_again() {
    let mut desk = Desk::new(Config {
        precheck: true,
        attached: true,
        ..config()
    });
    desk.sees(vec![released(5, 9)]);
    desk.guard(GuardEvent::Gone);
    assert_eq!(desk.hears(Event::Fit(true)), [OBSERVE]);
    desk.sees(vec![released(5, 9)]);
    assert_eq!(desk.keeper.reason(), Some(&Reason::NoGuard));
}

#[test]
fn a_guard_that_comes_changes_nothing_while_another_one_holds_it() {
    let mut desk = Desk::without_guard(Config {
        attached: true,
        ..config()
    });
    desk.sees(vec![held(5, 9)]);
    desk.at(second(2));
    assert_eq!(desk.guard(GuardEvent::Ready), []);
    assert_eq!(desk.keeper.next_wakeup(), Some(second(6)));
}

#[test]
fn no_pause_is_longer_than_an_hour() {
    let options = TimingOptions {
        poll_interval: Some(Duration::from_secs(24 * 60 * 60)),
        jitter: Some(0.0),
        ..TimingOptions::default()
    };
    let mut desk = Desk::new(Config {
        timing: Timing::new(options).expect("times that fit"),
        ..config()
    });
    let mut paused = observation(vec![]);
    paused.paused = Some(Pause {
        reason: String::new(),
    });
    assert_eq!(desk.hears(Event::Observed(Observed::Seen(paused))), []);
    assert_eq!(desk.keeper.next_wakeup(), Some(second(60 * 60)));
}
