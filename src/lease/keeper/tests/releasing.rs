use std::time::Duration;

use super::desk::{
    Desk, config, ended, held, millis, no_answer, released, renewed, second, step_down,
};
use crate::lease::keeper::event::{
    Command, Event, GivenBack, GuardEvent, Outcome, StopCause, Transition,
};
use crate::lease::keeper::{Config, Phase};
use crate::lease::record::{Loss, Released, Renewed};
use crate::lease::watch::Reason;
use crate::wire::WorkerEnd;

const DONE: Outcome = Outcome::Worker(WorkerEnd::Exited(0));

/// The worker has ended, nothing is left, the lease is being given back.
fn releasing(config: Config) -> Desk {
    let mut desk = Desk::holding(config);
    let commands = desk.worker_ends(0);
    assert!(
        matches!(commands[..], [Command::Release { .. }]),
        "{commands:?}"
    );
    desk
}

fn results(desk: &Desk) -> Vec<GivenBack> {
    let told = desk.told.iter();
    let results = told.filter_map(|told| match told {
        Transition::Released { result, .. } => Some(*result),
        _ => None,
    });
    results.collect()
}

#[test]
fn a_release_ends_it() {
    let mut desk = releasing(config());
    assert_eq!(desk.released(Released::Done), ended(DONE));
    assert_eq!(results(&desk), [GivenBack::Done]);
    let mut desk = releasing(config());
    assert_eq!(desk.released(Released::NotOurs), ended(DONE));
    assert_eq!(results(&desk), [GivenBack::NotOurs]);
}

#[test]
fn it_is_tried_until_the_deadline_and_changes_no_exit_code() {
    let mut desk = releasing(config());
    let mut tries = 1;
    let last = loop {
        let commands = desk.released(Released::Unknown(no_answer()));
        assert_eq!(commands, []);
        let failed = Transition::CallFailed {
            what: "release the lease",
            unknown: no_answer(),
            left: Some(second(27).saturating_since(desk.at)),
        };
        assert_eq!(desk.told.last(), Some(&failed));
        if desk.at < second(27) {
            assert_eq!(desk.hears(Event::Wake), [], "too early");
        }
        let commands = desk.wakes();
        if !matches!(commands[..], [Command::Release { .. }]) {
            break commands;
        }
        tries += 1;
    };
    assert_eq!(last, ended(DONE));
    assert_eq!(desk.at, second(27));
    assert_eq!(tries, 14);
    assert_eq!(
        results(&desk),
        [GivenBack::RunsOut {
            left: Duration::from_secs(3)
        }]
    );
}

#[test]
fn past_the_deadline_it_is_still_tried_once() {
    let mut desk = Desk::holding(config());
    desk.at(second(40)).hears(Event::Wake);
    desk.renewed(second(40), Renewed::Unknown(no_answer()));
    let commands = desk.guard(GuardEvent::Empty);
    assert!(
        matches!(commands[..], [Command::Release { .. }]),
        "{commands:?}"
    );
    let last = desk.released(Released::Unknown(no_answer()));
    assert_eq!(last, ended(Outcome::Lost { loss: None }));
}

#[test]
fn what_another_one_has_is_tried_once_and_what_was_broken_until_it_is_confirmed() {
    let mut desk = Desk::holding(config());
    desk.hears(Event::Checked(Renewed::Lost(Loss::Missing)));
    desk.guard(GuardEvent::Empty);
    let last = desk.released(Released::Unknown(no_answer()));
    assert_eq!(
        last,
        ended(Outcome::Lost {
            loss: Some(Loss::Missing)
        })
    );
    let mut desk = Desk::holding(config());
    desk.hears(Event::Checked(Renewed::Lost(Loss::Closed)));
    desk.guard(GuardEvent::Empty);
    assert_eq!(desk.released(Released::Unknown(no_answer())), []);
    assert!(matches!(desk.wakes()[..], [Command::Release { .. }]));
}

#[test]
fn a_renewal_that_is_under_way_is_waited_for() {
    let answers = [
        (renewed(11), false),
        (Renewed::Unknown(no_answer()), false),
        (Renewed::Lost(Loss::Released), true),
        // `break` waits for the confirmation.
        (Renewed::Lost(Loss::Closed), false),
    ];
    for (answer, once) in answers {
        let mut desk = Desk::holding(config());
        desk.wakes();
        assert_eq!(desk.worker_ends(0), [], "one call at a time");
        assert_eq!(desk.keeper.phase(), Phase::Releasing);
        let commands = desk.renewed(second(6), answer);
        assert!(
            matches!(commands[..], [Command::Release { .. }]),
            "{commands:?}"
        );
        // What is not ours is not tried for again.
        let last = desk.released(Released::Unknown(no_answer()));
        assert_eq!(last, if once { ended(DONE) } else { vec![] });
    }
}

#[test]
fn impatience_ends_it_once_a_try_has_failed() {
    let mut desk = releasing(config());
    desk.at(second(1));
    assert_eq!(desk.hears(Event::HurryUp), [], "the first is under way");
    desk.released(Released::Unknown(no_answer()));
    assert_eq!(desk.hears(Event::HurryUp), ended(DONE));
    let mut desk = releasing(config());
    desk.released(Released::Unknown(no_answer()));
    desk.at(millis(499));
    assert_eq!(desk.hears(Event::HurryUp), [], "twice at once");
}

#[test]
fn nothing_that_the_guard_says_matters_any_more() {
    let mut desk = releasing(config());
    let before = desk.keeper.clone();
    for event in [
        GuardEvent::Gone,
        GuardEvent::Swept,
        GuardEvent::Empty,
        GuardEvent::Ready,
    ] {
        assert_eq!(desk.guard(event), []);
    }
    assert_eq!(desk.keeper, before);
}

#[test]
fn rejoining_follows_a_loss_a_failed_precheck_and_a_step_down() {
    let rejoining = Config {
        rejoin: true,
        ..config()
    };
    let causes = [
        Event::Checked(Renewed::Lost(Loss::Closed)),
        Event::Guard(GuardEvent::Stopping(crate::wire::StopReason::DeadlineNear)),
        Event::Stop(StopCause::Unfit),
        Event::Checked(step_down(6)),
    ];
    for cause in causes {
        let mut desk = Desk::holding(rejoining.clone());
        let first = desk.keeper.term().map(|term| term.holder);
        desk.hears(cause.clone());
        desk.worker_ends(0);
        let commands = desk.released(Released::Done);
        let [
            Command::Dismiss(_),
            Command::NewGuard,
            Command::Observe { .. },
        ] = commands[..]
        else {
            panic!("{cause:?}: {commands:?}");
        };
        desk.guard(GuardEvent::Ready);
        let mut commands = desk.sees(vec![released(6, 11)]);
        if cause == Event::Checked(step_down(6)) {
            assert_eq!(commands, [], "others go first");
            assert!(matches!(
                desk.keeper.reason(),
                Some(Reason::SteppedDown { .. })
            ));
            while desk.at < second(12) {
                desk.wakes();
                commands = desk.sees(vec![released(6, 11)]);
            }
        }
        let next = super::desk::acquisition(&commands);
        assert_ne!(Some(next.holder), first, "a new holder");
    }
}

#[test]
fn whoever_would_rejoin_ends_once_a_signal_has_come() {
    let rejoining = Config {
        rejoin: true,
        ..config()
    };
    for while_releasing in [false, true] {
        let mut desk = Desk::holding(rejoining.clone());
        desk.hears(Event::Stop(StopCause::StepDown));
        assert!(!desk.keeper.will_end());
        if while_releasing {
            desk.guard(GuardEvent::Empty);
            assert!(!desk.keeper.will_end());
        }
        desk.hears(Event::Stop(StopCause::Signal(15)));
        assert!(desk.keeper.will_end());
    }
}

/// A service manager that is told of an end gives it a minute.
#[test]
fn an_end_that_a_loss_may_still_undo_is_none_yet() {
    let rejoining = Config {
        rejoin: true,
        ..config()
    };
    for first in [
        Event::Guard(GuardEvent::WorkerEnded(WorkerEnd::Exited(0))),
        Event::Stop(StopCause::Watchdog),
    ] {
        let mut desk = Desk::holding(rejoining.clone());
        desk.hears(first);
        assert!(!desk.keeper.will_end());
        let mut ended = desk.clone();
        ended.worker_ends(0);
        assert!(ended.keeper.will_end());
        desk.hears(Event::Checked(Renewed::Lost(Loss::Closed)));
        desk.guard(GuardEvent::Empty);
        assert!(!desk.keeper.will_end());
        let commands = desk.released(Released::Done);
        assert!(commands.contains(&Command::NewGuard), "{commands:?}");
    }
}

#[test]
fn nothing_else_is_followed_by_rejoining() {
    let rejoining = Config {
        rejoin: true,
        ..config()
    };
    let ends = |desk: &mut Desk| {
        desk.worker_ends(0);
        let commands = desk.released(Released::Done);
        assert!(
            matches!(commands[..], [Command::Dismiss(_), Command::End(_)]),
            "{commands:?}"
        );
    };
    ends(&mut Desk::holding(rejoining.clone()));
    for cause in [StopCause::Signal(15), StopCause::Watchdog] {
        let mut desk = Desk::holding(rejoining.clone());
        desk.hears(Event::Stop(cause));
        ends(&mut desk);
    }
    // A signal ends it, whatever it was stopped for before.
    let mut desk = Desk::holding(rejoining.clone());
    desk.hears(Event::Stop(StopCause::StepDown));
    desk.hears(Event::Stop(StopCause::Signal(15)));
    ends(&mut desk);
    let mut desk = Desk::holding(rejoining);
    desk.hears(Event::Stop(StopCause::StepDown));
    desk.worker_ends(0);
    desk.hears(Event::Stop(StopCause::Signal(15)));
    assert_eq!(desk.released(Released::Done), ended(DONE));
}

#[test]
fn an_attached_guard_is_waited_for_again() {
    let mut desk = releasing(Config {
        attached: true,
        ..config()
    });
    let commands = desk.released(Released::Done);
    let [Command::Dismiss(_), Command::Observe { .. }] = commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(desk.sees(vec![held(9, 1)]), []);
}
