use std::time::Duration;

use super::desk::{Desk, config, ended, grant, incarnation, millis, no_answer, renewed, second};
use crate::lease::keeper::event::{
    Command, Event, GivenBack, GuardEvent, Outcome, StopCause, Transition,
};
use crate::lease::keeper::{Config, Phase};
use crate::lease::record::{Grant, Loss, Released, Renewed};
use crate::lease::time::BootInstant;
use crate::wire::{NotStarted, StopReason, WorkerEnd};

const KILLED: WorkerEnd = WorkerEnd::Signaled(9);

fn stopping(config: Config) -> Desk {
    let mut desk = Desk::holding(config);
    desk.hears(Event::Stop(StopCause::Signal(15)));
    desk
}

/// Nothing is left of the tree, and the lease is given back: how it ends.
fn outcome(desk: &mut Desk) -> Outcome {
    let commands = desk.guard(GuardEvent::Empty);
    assert!(
        matches!(commands[..], [Command::Release { .. }]),
        "{commands:?}"
    );
    match &desk.released(Released::Done)[..] {
        [Command::Dismiss(_), Command::End(outcome)] => outcome.clone(),
        other => panic!("{other:?}"),
    }
}

/// Answers every renewal until something else is asked for.
fn renews_until_something_else(desk: &mut Desk) -> Vec<Command> {
    loop {
        let commands = desk.wakes();
        if !matches!(commands[..], [Command::Renew { .. }]) {
            return commands;
        }
        let deadline = desk.at + Duration::from_secs(27);
        assert_eq!(
            desk.renewed(desk.at, renewed(11)),
            [Command::Extend { deadline }]
        );
    }
}

#[test]
fn an_orderly_stop_is_renewed_and_extended_until_the_tree_is_empty() {
    let mut desk = stopping(config());
    assert_eq!(renews_until_something_else(&mut desk), [Command::KillTree]);
    // The guard has the stop timeout from us, and kills by itself.
    assert_eq!(desk.at, second(20 + 2));
    desk.guard(GuardEvent::WorkerEnded(WorkerEnd::Exited(3)));
    assert_eq!(outcome(&mut desk), Outcome::Worker(WorkerEnd::Exited(3)));
}

#[test]
fn impatience_kills_but_not_twice_at_once() {
    let mut desk = stopping(config());
    desk.at(millis(499));
    assert_eq!(desk.hears(Event::HurryUp), []);
    assert_eq!(desk.hears(Event::Stop(StopCause::Signal(2))), []);
    desk.at(millis(500));
    assert_eq!(desk.hears(Event::HurryUp), [Command::KillTree]);
    desk.guard(GuardEvent::WorkerEnded(KILLED));
    assert_eq!(outcome(&mut desk), Outcome::Worker(KILLED));
}

#[test]
fn a_stop_without_renewals_ends_at_the_deadline_as_a_loss() {
    let mut desk = Desk::holding(config());
    desk.at(second(20))
        .hears(Event::Stop(StopCause::Signal(15)));
    while desk.at < second(27) {
        for command in desk.wakes() {
            match command {
                Command::Renew { .. } => {
                    assert_eq!(desk.renewed(desk.at, Renewed::Unknown(no_answer())), []);
                }
                Command::KillTree => assert_eq!(desk.at, second(27)),
                other => panic!("{other:?}"),
            }
        }
    }
    desk.guard(GuardEvent::WorkerEnded(KILLED));
    assert_eq!(outcome(&mut desk), Outcome::Lost { loss: None });
}

#[test]
fn a_loss_is_an_exit_of_its_own_whatever_the_worker_does() {
    for (loss, tells) in [
        (
            None,
            Event::Guard(GuardEvent::Stopping(StopReason::DeadlineNear)),
        ),
        (
            Some(Loss::Closed),
            Event::Checked(Renewed::Lost(Loss::Closed)),
        ),
    ] {
        let mut desk = Desk::holding(config());
        desk.hears(tells);
        desk.guard(GuardEvent::WorkerEnded(WorkerEnd::Exited(0)));
        assert_eq!(outcome(&mut desk), Outcome::Lost { loss: loss.clone() });
        let told = desk
            .told
            .iter()
            .filter(|told| matches!(told, Transition::Lost { .. }));
        assert_eq!(told.count(), 1);
    }
}

#[test]
fn a_loss_during_an_orderly_stop_kills() {
    let mut desk = stopping(config());
    let lost = Event::Checked(Renewed::Lost(Loss::Released));
    assert_eq!(desk.hears(lost), [Command::KillTree]);
    assert_eq!(
        outcome(&mut desk),
        Outcome::Lost {
            loss: Some(Loss::Released)
        }
    );
}

#[test]
fn what_cannot_be_killed_keeps_the_lease_renewed_but_gets_no_right() {
    let mut desk = Desk::holding(config());
    desk.at(second(30));
    assert_eq!(desk.hears(Event::Wake)[0], Command::KillTree);
    for _ in 0..100 {
        let sent_at = desk.at;
        let commands = desk.renewed(sent_at, renewed(11));
        assert_eq!(commands, [], "no extension");
        let commands = desk.wakes();
        assert!(
            matches!(commands[..], [Command::Renew { .. }]),
            "{commands:?}"
        );
    }
    assert!(desk.at > second(600));
    assert_eq!(desk.keeper.phase(), Phase::Stopping);
}

/// With nothing left of the right, another one may have taken the lease,
/// which a failover may have lost.
#[test]
fn past_the_deadline_a_renewal_is_for_the_known_incarnation_only() {
    let mut desk = Desk::holding(config());
    // At the deadline already.
    desk.at(second(27));
    let commands = desk.hears(Event::Wake);
    let [Command::KillTree, Command::Settle { request, .. }] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(
        Some(request.holder),
        desk.keeper.term().map(|term| term.holder)
    );
    assert_eq!(request.server_incarnation, grant(6, 10).incarnation);
    // And by holder alone: another token under its name is a loss.
    let reply = Renewed::Granted {
        grant: grant(9, 11),
        request: None,
    };
    assert_eq!(desk.renewed(second(27), reply), [Command::KillTree]);
    assert_eq!(desk.keeper.next_wakeup(), None);
    // It is the one of the last renewal, not of the acquisition.
    let mut desk = Desk::holding(config());
    desk.wakes();
    let promoted = Grant {
        incarnation: incarnation(2),
        ..grant(6, 11)
    };
    let reply = Renewed::Granted {
        grant: promoted,
        request: None,
    };
    desk.renewed(second(6), reply);
    let commands = desk.at(second(33)).hears(Event::Wake);
    let [Command::KillTree, Command::Settle { request, .. }] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!(request.server_incarnation, incarnation(2));
}

#[test]
fn a_guard_that_dies_is_swept_after_and_is_an_exit_of_its_own() {
    let mut desk = Desk::holding(config());
    assert_eq!(desk.guard(GuardEvent::Gone), []);
    let commands = desk.wakes();
    assert!(
        matches!(commands[..], [Command::Renew { .. }]),
        "{commands:?}"
    );
    assert_eq!(desk.renewed(desk.at, renewed(11)), [], "nobody to extend");
    let commands = desk.guard(GuardEvent::Swept);
    assert!(
        matches!(commands[..], [Command::Release { .. }]),
        "{commands:?}"
    );
    assert_eq!(desk.released(Released::Done), ended(Outcome::GuardDied));
}

#[test]
fn a_guard_that_is_gone_at_the_deadline_was_not_its_own_end() {
    for before in [desk_that_holds as fn() -> Desk, desk_that_stops] {
        let mut desk = before();
        desk.at(second(27)).guard(GuardEvent::Gone);
        let told: Vec<_> = desk.told.iter().collect();
        assert!(
            matches!(told[..], [.., Transition::Lost { loss: None }]),
            "{told:?}"
        );
        desk.renewed(desk.at, renewed(11));
        desk.guard(GuardEvent::Swept);
        let lost = Outcome::Lost { loss: None };
        assert_eq!(desk.released(Released::Done), ended(lost));
    }
}

fn desk_that_holds() -> Desk {
    Desk::holding(config())
}

fn desk_that_stops() -> Desk {
    let mut desk = Desk::holding(config());
    desk.hears(Event::Stop(StopCause::Signal(15)));
    desk
}

#[test]
fn a_guard_that_dies_after_a_loss_changes_nothing() {
    let mut desk = Desk::holding(config());
    desk.hears(Event::Checked(Renewed::Lost(Loss::Missing)));
    desk.guard(GuardEvent::Gone);
    assert_eq!(
        desk.guard(GuardEvent::Empty).len(),
        1,
        "said before it died"
    );
    let outcome = Outcome::Lost {
        loss: Some(Loss::Missing),
    };
    assert_eq!(desk.released(Released::NotOurs), ended(outcome));
}

#[test]
fn a_worker_that_does_not_start_frees_the_lease_at_once() {
    let late = Outcome::Lost { loss: None };
    let exec = NotStarted::Exec { errno: 2 };
    for (reason, outcome) in [
        (exec.clone(), Outcome::NotStarted(exec)),
        (NotStarted::Late, late),
    ] {
        let mut desk = Desk::new(config());
        desk.acquires();
        let commands = desk.guard(GuardEvent::NotStarted(reason));
        assert!(
            matches!(commands[..], [Command::Release { .. }]),
            "{commands:?}"
        );
        assert_eq!(desk.released(Released::Done), ended(outcome));
    }
}

#[test]
fn a_stop_before_the_worker_has_started_ends_as_the_signal() {
    let mut desk = Desk::new(config());
    desk.acquires();
    desk.hears(Event::Stop(StopCause::Signal(15)));
    assert_eq!(outcome(&mut desk), Outcome::Signaled(15));
}

#[test]
fn the_precheck_and_the_watchdog_step_down() {
    for why in [StopCause::Unfit, StopCause::Watchdog] {
        let mut desk = Desk::holding(config());
        desk.hears(Event::Stop(why.clone()));
        desk.guard(GuardEvent::WorkerEnded(WorkerEnd::Exited(0)));
        assert_eq!(outcome(&mut desk), Outcome::SteppedDown { why });
    }
}

#[test]
fn the_lease_of_an_attached_guard_that_leaves_runs_out() {
    let config = Config {
        attached: true,
        ..config()
    };
    // Whatever a renewal says that was under way.
    for answer in [renewed(11), Renewed::Lost(Loss::Closed)] {
        let mut desk = Desk::holding(config.clone());
        desk.wakes();
        assert_eq!(desk.guard(GuardEvent::Gone), []);
        let commands = desk.renewed(second(6), answer);
        let [Command::Dismiss(_), Command::Observe { .. }] = commands[..] else {
            panic!("{commands:?}");
        };
    }
    let mut desk = Desk::holding(config);
    desk.at(second(5));
    let commands = desk.guard(GuardEvent::Gone);
    let [Command::Dismiss(_), Command::Observe { .. }] = commands[..] else {
        panic!("{commands:?}");
    };
    let left = Duration::from_secs(25);
    assert!(desk.has_told(
        |told| matches!(told, Transition::Released { result, .. } if *result == GivenBack::RunsOut { left })
    ));
    assert_eq!(desk.keeper.phase(), Phase::Standby);
}

#[test]
fn a_stop_that_attach_has_begun_ends_the_term_and_not_the_keeper() {
    let config = Config {
        attached: true,
        ..config()
    };
    let mut desk = Desk::holding(config);
    let commands = desk.hears(Event::Stop(StopCause::Attach(2)));
    assert!(
        matches!(
            commands[..],
            [Command::StopTree {
                signal: Some(2),
                ..
            }]
        ),
        "{commands:?}"
    );
    // A second one is the guard's business: it is nearer to the worker.
    assert_eq!(desk.hears(Event::Stop(StopCause::Attach(2))), []);
    desk.guard(GuardEvent::WorkerEnded(WorkerEnd::Exited(4)));
    desk.guard(GuardEvent::Empty);
    let commands = desk.released(Released::Done);
    let [
        Command::Dismiss(Outcome::Worker(WorkerEnd::Exited(4))),
        Command::Observe { .. },
    ] = commands[..]
    else {
        panic!("{commands:?}");
    };
}

#[test]
fn the_deadline_is_shown_as_long_as_there_is_a_term() {
    let mut desk = stopping(config());
    assert_eq!(desk.keeper.deadline(), Some(second(27)));
    assert_eq!(desk.keeper.held_since(), Some(second(0)));
    desk.guard(GuardEvent::Empty);
    assert_eq!(desk.keeper.deadline(), Some(second(27)));
    desk.released(Released::Done);
    assert_eq!(desk.keeper.deadline(), None::<BootInstant>);
}

/// The word of a guard that is there still is `Empty`: anything else would
/// release the lease of a tree that lives.
#[test]
fn only_of_a_guard_that_is_gone_it_is_said_that_its_tree_was_swept() {
    let mut desk = stopping(config());
    assert_eq!(desk.guard(GuardEvent::Swept), []);
    assert_eq!(desk.keeper.phase(), Phase::Stopping);
    desk.guard(GuardEvent::Gone);
    let commands = desk.guard(GuardEvent::Swept);
    assert!(
        matches!(commands[..], [Command::Release { .. }]),
        "{commands:?}"
    );
}

#[test]
fn what_the_tree_was_killed_for_stays_the_reason_whatever_its_guard_sees() {
    for reason in [StopReason::DeadlineNear, StopReason::DeadlineReached] {
        let mut desk = Desk::holding(config());
        desk.hears(Event::Checked(Renewed::Lost(Loss::Closed)));
        assert_eq!(desk.guard(GuardEvent::Stopping(reason)), []);
        let loss = Some(Loss::Closed);
        assert_eq!(outcome(&mut desk), Outcome::Lost { loss });
    }
}

#[test]
fn why_it_stops_is_named_for_machines() {
    for (cause, name) in [
        (StopCause::Signal(15), "signal"),
        (StopCause::Attach(15), "signal"),
        (StopCause::StepDown, "step-down"),
        (StopCause::Unfit, "precheck"),
        (StopCause::Watchdog, "watchdog"),
    ] {
        assert_eq!(cause.name(), name);
    }
}
