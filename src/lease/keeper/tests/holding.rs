use std::time::Duration;

use super::desk::{
    Desk, config, grant, held, incarnation, millis, no_answer, renewed, second, step_down,
};
use crate::lease::ids::Token;
use crate::lease::keeper::event::{Command, Event, GuardEvent, StopCause, Transition};
use crate::lease::keeper::{Config, Phase};
use crate::lease::record::{Loss, Observed, Renewed};
use crate::lease::timing::{Timing, TimingOptions};
use crate::wire::{StopReason, WorkerEnd};

/// The limit of the renewal that is asked for.
fn limit(commands: &[Command]) -> Duration {
    match commands {
        [Command::Renew { limit, .. }] => *limit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_renewal_moves_the_deadline_from_when_it_was_sent() {
    let mut desk = Desk::holding(config());
    assert_eq!(limit(&desk.wakes()), Duration::from_secs(6));
    assert_eq!(desk.at, second(6));
    desk.at(second(10));
    let deadline = second(6 + 27);
    assert_eq!(
        desk.renewed(second(6), renewed(11)),
        [Command::Extend { deadline }]
    );
    assert_eq!(desk.keeper.deadline(), Some(deadline));
    let late = Some(Duration::from_secs(4));
    let took = Duration::from_secs(4);
    assert_eq!(
        desk.told,
        [Transition::Renewed {
            grant: grant(6, 11),
            deadline,
            took,
            late
        }]
    );
    desk.wakes();
    assert_eq!(desk.at, second(12), "and so does the next one");
}

#[test]
fn a_slow_success_does_not_extend_the_trust() {
    let mut desk = Desk::holding(config());
    desk.wakes();
    // Sent at 6 s; heard when the right that it gave is nearly over.
    desk.at(millis(20_999));
    desk.renewed(second(6), renewed(11));
    assert_eq!(desk.keeper.deadline(), Some(second(33)));
}

#[test]
fn no_answer_moves_nothing_and_is_tried_again_soon() {
    let mut desk = Desk::holding(config());
    desk.wakes();
    let mut limits = Vec::new();
    for _ in 0..5 {
        desk.told.clear();
        assert_eq!(desk.renewed(desk.at, Renewed::Unknown(no_answer())), []);
        let failed = Transition::CallFailed {
            what: "renew the lease",
            unknown: no_answer(),
            left: Some(second(27).saturating_since(desk.at)),
        };
        assert_eq!(desk.told, [failed]);
        assert_eq!(desk.keeper.deadline(), Some(second(27)));
        let before = desk.at;
        limits.push(limit(&desk.wakes()).as_secs());
        assert_eq!(desk.at.saturating_since(before), Duration::from_secs(2));
        desk.at(desk.at + Duration::from_millis(500));
    }
    // At most a third of what is left until the deadline.
    assert_eq!(limits, [6, 5, 4, 3, 3]);
    assert_eq!(desk.keeper.failures(), 5);
    desk.renewed(desk.at, renewed(11));
    assert_eq!(desk.keeper.failures(), 0);
    let late = |told: &Transition| matches!(told, Transition::Renewed { late: Some(late), .. } if late.as_secs() == 12);
    assert!(desk.has_told(late), "{:?}", desk.told.last());
}

#[test]
fn no_call_outlasts_a_third_of_what_is_left_whatever_its_own_limit() {
    let options = TimingOptions {
        call_timeout: Some(Duration::from_secs(60)),
        ..TimingOptions::default()
    };
    let mut desk = Desk::holding(Config {
        timing: Timing::new(options).expect("times that fit"),
        ..config()
    });
    for (at, limit) in [(0, 9), (12, 5), (27, 9), (99, 9)] {
        let limit = Duration::from_secs(limit);
        assert_eq!(desk.keeper.call_limit(second(at)), limit, "at {at} s");
    }
    let released = desk.worker_ends(0);
    assert!(
        matches!(released[..], [Command::Release { limit, .. }] if limit.as_secs() == 9),
        "{released:?}"
    );
}

#[test]
fn there_is_one_call_at_a_time() {
    let mut desk = Desk::holding(config());
    desk.wakes();
    desk.at(second(13));
    assert_eq!(desk.hears(Event::Wake), [], "one is under way");
    assert_eq!(
        desk.keeper.next_wakeup(),
        Some(second(21)),
        "then it is told to stop"
    );
}

#[test]
fn whatever_shows_another_holder_kills_at_once() {
    let losses = [
        Loss::Missing,
        Loss::OtherHolder {
            label: "them".to_owned(),
            token: Token(7),
        },
        Loss::OtherToken(Token(7)),
        Loss::Closed,
        Loss::Released,
    ];
    for loss in losses {
        let mut desk = Desk::holding(config());
        let checked = Event::Checked(Renewed::Lost(loss.clone()));
        assert_eq!(desk.hears(checked), [Command::KillTree]);
        assert_eq!(
            desk.told,
            [Transition::Lost {
                loss: Some(loss.clone())
            }]
        );
        let mut desk = Desk::holding(config());
        desk.wakes();
        assert_eq!(
            desk.renewed(desk.at, Renewed::Lost(loss)),
            [Command::KillTree]
        );
        assert_eq!(desk.keeper.next_wakeup(), None, "there is nothing to renew");
    }
}

#[test]
fn a_lower_revision_alone_is_no_loss() {
    let mut desk = Desk::holding(config());
    desk.wakes();
    let reply = Renewed::Granted {
        grant: crate::lease::record::Grant {
            incarnation: incarnation(2),
            ..grant(6, 3)
        },
        request: None,
    };
    assert_eq!(
        desk.renewed(desk.at, reply),
        [Command::Extend {
            deadline: second(33)
        }]
    );
    let (from, to) = (incarnation(1), incarnation(2));
    assert_eq!(desk.told[0], Transition::IncarnationChanged { from, to });
}

#[test]
fn reading_the_row_moves_no_deadline() {
    let mut desk = Desk::holding(config());
    desk.at(second(5));
    assert_eq!(desk.hears(Event::Checked(renewed(10))), []);
    assert_eq!(
        desk.hears(Event::Checked(Renewed::Unknown(no_answer()))),
        []
    );
    assert_eq!(desk.keeper.deadline(), Some(second(27)));
}

#[test]
fn a_worker_is_told_to_stop_one_grace_before_the_deadline() {
    let mut desk = Desk::holding(config());
    desk.wakes();
    assert_eq!(desk.keeper.next_wakeup(), Some(second(21)));
    let deadline = second(27);
    assert_eq!(
        desk.wakes(),
        [Command::StopTree {
            signal: None,
            kill_by: deadline
        }]
    );
    assert_eq!(desk.told, [Transition::Losing { deadline }]);
    assert_eq!(desk.keeper.phase(), Phase::Stopping);
    assert_eq!(desk.wakes(), [Command::KillTree]);
    assert_eq!(desk.at, deadline);
    assert_eq!(desk.told[1], Transition::Lost { loss: None });
}

#[test]
fn one_that_wakes_past_the_deadline_kills_whatever_it_hears_first() {
    let events = [
        Event::Wake,
        Event::Renewed {
            sent_at: second(6),
            reply: renewed(11),
        },
        Event::Checked(renewed(10)),
        Event::Stop(StopCause::Signal(15)),
        Event::Fit(true),
        Event::Changed(None),
        Event::HurryUp,
        Event::Observed(Observed::NoSchema),
    ];
    for event in events {
        let mut desk = Desk::holding(config());
        desk.wakes();
        desk.at(second(100));
        let first = desk.hears(event.clone()).into_iter().next();
        assert_eq!(first, Some(Command::KillTree), "{event:?}");
        assert!(desk.has_told(|told| *told == Transition::Lost { loss: None }));
    }
}

#[test]
fn a_success_that_comes_after_the_stop_revives_nothing() {
    let mut desk = Desk::holding(config());
    desk.wakes();
    desk.at(second(21));
    let commands = desk.renewed(second(6), renewed(11));
    let kill_by = second(27);
    assert_eq!(
        commands[0],
        Command::StopTree {
            signal: None,
            kill_by
        }
    );
    assert_eq!(desk.renewed(desk.at, renewed(12)), []);
    // It is renewed on, to keep others out, and still killed on time.
    while desk.at < second(27) {
        for command in desk.wakes() {
            match command {
                Command::Renew { .. } => assert_eq!(desk.renewed(desk.at, renewed(12)), []),
                Command::KillTree => assert_eq!(desk.at, second(27)),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn the_guard_may_be_first_to_see_the_deadline() {
    let mut desk = Desk::holding(config());
    desk.at(second(20))
        .guard(GuardEvent::Stopping(StopReason::DeadlineNear));
    assert_eq!(
        desk.told,
        [Transition::Losing {
            deadline: second(26)
        }]
    );
    assert_eq!(desk.keeper.phase(), Phase::Stopping);
    let mut desk = Desk::holding(config());
    let commands = desk
        .at(second(20))
        .guard(GuardEvent::Stopping(StopReason::DeadlineReached));
    assert_eq!(commands[0], Command::KillTree);
}

#[test]
fn a_request_is_void_for_any_other_token() {
    let kill_by = second(6 + 20);
    let stop = Command::StopTree {
        signal: None,
        kill_by,
    };
    for (token, asked) in [(5, vec![]), (7, vec![]), (6, vec![stop])] {
        let mut desk = Desk::holding(config());
        desk.wakes();
        let mut commands = desk.renewed(second(6), step_down(token));
        assert_eq!(
            commands.remove(0),
            Command::Extend {
                deadline: second(33)
            }
        );
        assert_eq!(commands, asked, "for token {token}");
        let mut desk = Desk::holding(config());
        desk.at(second(6));
        assert_eq!(
            desk.hears(Event::Checked(step_down(token))),
            asked,
            "for token {token}"
        );
    }
}

#[test]
fn the_precheck_is_run_beside_every_regular_renewal() {
    let mut desk = Desk::new(Config {
        precheck: true,
        ..config()
    });
    desk.sees(vec![super::desk::released(5, 9)]);
    desk.hears(Event::Fit(true));
    desk.acquired(second(0), super::desk::granted(6, 10));
    let commands = desk.wakes();
    assert!(
        matches!(commands[..], [Command::Renew { .. }, Command::Precheck]),
        "{commands:?}"
    );
    desk.renewed(desk.at, renewed(11));
    assert!(
        matches!(desk.wakes()[..], [Command::Renew { .. }]),
        "one at a time"
    );
    // Also while renewals fail, and not beside every retry.
    desk.hears(Event::Fit(true));
    let mut prechecks = 0;
    for _ in 0..3 {
        desk.renewed(desk.at, Renewed::Unknown(no_answer()));
        prechecks += desk.wakes().len() - 1;
        desk.hears(Event::Fit(true));
    }
    assert_eq!(prechecks, 2);
    let kill_by = desk.at + Duration::from_secs(20);
    assert_eq!(
        desk.hears(Event::Fit(false)),
        [Command::StopTree {
            signal: None,
            kill_by
        }]
    );
    assert_eq!(
        desk.told.last(),
        Some(&Transition::Stopping(StopCause::Unfit))
    );
}

#[test]
fn signals_are_passed_on_as_they_are_or_as_the_stop_signal() {
    for (signal, passed) in [(15, None), (2, Some(2)), (3, Some(3))] {
        let mut desk = Desk::holding(config());
        let commands = desk.hears(Event::Stop(StopCause::Signal(signal)));
        assert_eq!(
            commands,
            [Command::StopTree {
                signal: passed,
                kill_by: second(20)
            }]
        );
    }
}

#[test]
fn a_worker_that_ends_by_itself_ends_the_term_when_nothing_is_left() {
    let mut desk = Desk::holding(config());
    desk.at(second(3));
    assert_eq!(
        desk.guard(GuardEvent::WorkerEnded(WorkerEnd::Exited(7))),
        []
    );
    // What it has left behind is still covered.
    let commands = desk.wakes();
    assert!(
        matches!(commands[..], [Command::Renew { .. }]),
        "{commands:?}"
    );
    desk.renewed(second(6), renewed(11));
    assert_eq!(desk.wakes(), [Command::KillTree], "five seconds are enough");
    // Which the guard has from us, and kills by itself.
    assert_eq!(desk.at, second(8 + 2));
    assert!(matches!(
        desk.guard(GuardEvent::Empty)[..],
        [Command::Release { .. }]
    ));
}

#[test]
fn what_does_not_concern_a_holder_is_ignored() {
    let mut desk = Desk::holding(config());
    let before = desk.keeper.clone();
    desk.hears(Event::HurryUp);
    desk.hears(Event::Changed(None));
    desk.sees(vec![held(9, 9)]);
    desk.hears(Event::Initialised(Ok(())));
    desk.guard(GuardEvent::Ready);
    desk.guard(GuardEvent::Swept);
    assert_eq!(desk.keeper, before);
}

#[test]
fn a_renewal_is_late_after_a_failure_or_by_more_than_a_retry_takes() {
    for (failed, answered, late) in [
        (false, 6_100, None),
        (false, 8_000, None),
        (false, 8_001, Some(2_001)),
        (true, 8_000, Some(2_000)),
    ] {
        let mut desk = Desk::holding(config());
        desk.wakes();
        if failed {
            desk.renewed(second(6), Renewed::Unknown(no_answer()));
            desk.wakes();
        }
        let sent_at = desk.at;
        desk.at(millis(answered)).renewed(sent_at, renewed(11));
        let expected = late.map(Duration::from_millis);
        let told = |told: &Transition| matches!(told, Transition::Renewed { late, .. } if *late == expected);
        assert!(desk.has_told(told), "{:?}", desk.told);
    }
}

#[test]
fn a_term_can_be_looked_at() {
    let mut desk = Desk::new(config());
    assert_eq!(desk.keeper.grant(), None);
    assert_eq!(desk.keeper.worker(), None);
    desk.at(second(3)).acquires();
    assert_eq!(desk.keeper.grant(), Some(&grant(6, 10)));
    assert_eq!(desk.keeper.worker(), None, "it is being started");
    desk.at(second(4)).guard(GuardEvent::Started { pid: 42 });
    assert_eq!(desk.keeper.worker(), Some(42));
    desk.at(second(5)).hears(Event::Wake);
    assert_eq!(
        desk.keeper.since(),
        second(4),
        "it has gone on holding since"
    );
    desk.at(second(9));
    desk.hears(Event::Wake);
    desk.renewed(second(9), renewed(11));
    assert_eq!(desk.keeper.grant(), Some(&grant(6, 11)));
    desk.hears(Event::Stop(StopCause::StepDown));
    assert_eq!(desk.keeper.since(), second(9));
    assert_eq!(desk.keeper.worker(), None, "it is being ended");
}
