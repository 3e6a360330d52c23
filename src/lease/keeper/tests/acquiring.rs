use std::time::Duration;

use super::desk::{
    Desk, acquisition, config, ended, grant, granted, held, incarnation, millis, no_answer,
    observation, released, renewed, second, unknown,
};
use crate::lease::ids::{HolderId, Token};
use crate::lease::keeper::event::{Command, Event, GuardEvent, Outcome, StopCause, Transition};
use crate::lease::keeper::{Config, Phase};
use crate::lease::record::{
    Acquire, Acquired, Fault, Loss, Observed, Record, Refusal, Released, Renewed, Term,
};
use crate::lease::timing::{Timing, TimingOptions};
use crate::lease::watch::{Basis, Reason};

fn asking(config: Config) -> (Desk, Acquire) {
    let mut desk = Desk::new(config);
    let request = acquisition(&desk.sees(vec![released(5, 9)]));
    (desk, request)
}

fn settle(request: &Acquire) -> Command {
    Command::Settle {
        request: request.clone(),
        limit: Duration::from_secs(6),
    }
}

fn term(holder: HolderId) -> Term {
    Term {
        slot: crate::lease::ids::Slot(0),
        holder,
        token: Token(6),
    }
}

/// A row that an acquisition of ours has taken.
fn taken_by(holder: HolderId) -> Record {
    Record {
        holder: Some(holder),
        ..held(6, 10)
    }
}

#[test]
fn the_deadline_counts_from_the_sending() {
    let (mut desk, request) = asking(config());
    desk.at(second(5));
    let commands = desk.acquired(second(1), granted(6, 10));
    let deadline = second(1 + 27);
    let term = term(request.holder);
    assert_eq!(
        commands,
        [Command::Spawn {
            term: term.clone(),
            deadline
        }]
    );
    assert_eq!(desk.keeper.deadline(), Some(deadline));
    assert_eq!(desk.keeper.phase(), Phase::Starting);
    let basis = Basis::Released;
    let told = Transition::Acquired {
        term,
        grant: grant(6, 10),
        deadline,
        basis,
    };
    assert_eq!(desk.told, [told]);
}

#[test]
fn a_right_that_has_hardly_any_time_left_is_renewed_before_it_is_used() {
    let (mut desk, request) = asking(config());
    desk.at(second(21));
    assert_eq!(desk.acquired(second(0), granted(6, 10)), [settle(&request)]);
    let commands = desk.renewed(second(21), renewed(11));
    let deadline = second(21 + 27);
    assert_eq!(
        commands,
        [Command::Spawn {
            term: term(request.holder),
            deadline
        }]
    );
}

#[test]
fn one_that_was_overtaken_looks_again_at_once_but_not_for_ever() {
    let (mut desk, _) = asking(config());
    for _ in 0..2 {
        let commands = desk.acquired(second(0), Acquired::Refused(Refusal::Changed));
        assert!(
            matches!(commands[..], [Command::Observe { .. }]),
            "{commands:?}"
        );
        acquisition(&desk.sees(vec![released(5, 9)]));
    }
    assert_eq!(
        desk.acquired(second(0), Acquired::Refused(Refusal::Changed)),
        []
    );
    assert_eq!(desk.keeper.next_wakeup(), Some(second(2)));
}

#[test]
fn a_locked_row_is_tried_again_soon() {
    let refusal = Refusal::Locked {
        by: "pid 7".to_owned(),
    };
    let (mut desk, _) = asking(config());
    assert_eq!(
        desk.acquired(second(0), Acquired::Refused(refusal.clone())),
        []
    );
    assert_eq!(desk.keeper.next_wakeup(), Some(second(2)));
    let (mut desk, _) = asking(Config {
        wait: Some(Duration::ZERO),
        ..config()
    });
    let last = desk.acquired(second(0), Acquired::Refused(refusal));
    let why = Reason::Locked {
        by: "pid 7".to_owned(),
    };
    assert_eq!(last, ended(Outcome::NotAcquired { why }));
}

#[test]
fn an_unanswered_acquisition_that_has_taken_the_row_is_renewed_and_used() {
    let (mut desk, request) = asking(config());
    desk.at(second(6));
    assert_eq!(desk.acquired(second(0), Acquired::Unknown(no_answer())), []);
    assert_eq!(desk.keeper.phase(), Phase::Standby);
    desk.wakes();
    assert_eq!(
        desk.sees(vec![taken_by(request.holder)]),
        [settle(&request)]
    );
    let sent_at = desk.at;
    let commands = desk.renewed(sent_at, renewed(11));
    let deadline = sent_at + Duration::from_secs(27);
    assert_eq!(
        commands,
        [Command::Spawn {
            term: term(request.holder),
            deadline
        }]
    );
    assert!(!desk.has_told(|told| matches!(told, Transition::HolderChanged { .. })));
}

#[test]
fn an_unanswered_acquisition_may_come_to_life_later() {
    let (mut desk, first) = asking(config());
    desk.at(second(6));
    desk.acquired(second(0), Acquired::Unknown(no_answer()));
    desk.wakes();
    // It has done nothing yet: another attempt is made, and is overtaken by it.
    let second_attempt = acquisition(&desk.sees(vec![released(5, 9)]));
    assert_ne!(first.holder, second_attempt.holder);
    let refused = Acquired::Refused(Refusal::Changed);
    desk.acquired(second(8), refused);
    assert_eq!(desk.sees(vec![taken_by(first.holder)]), [settle(&first)]);
}

#[test]
fn what_an_unanswered_acquisition_took_is_left_alone_on_a_new_incarnation() {
    let (mut desk, request) = asking(config());
    desk.at(second(6));
    desk.acquired(second(0), Acquired::Unknown(no_answer()));
    desk.wakes();
    let mut promoted = observation(vec![taken_by(request.holder)]);
    promoted.server.incarnation = incarnation(2);
    // Another one may have taken it over meanwhile, which is lost.
    assert_eq!(desk.hears(Event::Observed(Observed::Seen(promoted))), []);
    assert!(matches!(
        desk.keeper.reason(),
        Some(Reason::Doubting { .. })
    ));
}

#[test]
fn a_settled_acquisition_that_is_not_ours_is_forgotten() {
    let (mut desk, request) = asking(config());
    desk.at(second(6));
    desk.acquired(second(0), Acquired::Unknown(no_answer()));
    desk.wakes();
    desk.sees(vec![taken_by(request.holder)]);
    let commands = desk.renewed(second(8), Renewed::Lost(Loss::Closed));
    assert!(
        matches!(commands[..], [Command::Observe { .. }]),
        "{commands:?}"
    );
    assert_eq!(
        desk.sees(vec![taken_by(request.holder)]),
        [],
        "no second time"
    );
}

#[test]
fn a_signal_waits_for_the_answer_and_gives_back_what_was_granted() {
    let (mut desk, request) = asking(config());
    assert_eq!(desk.hears(Event::Stop(StopCause::Signal(15))), []);
    let commands = desk.acquired(second(0), granted(6, 10));
    let Command::Release {
        term: released_term,
        ..
    } = &commands[0]
    else {
        panic!("{commands:?}");
    };
    assert_eq!(*released_term, term(request.holder));
    assert_eq!(desk.released(Released::Done), ended(Outcome::Signaled(15)));
}

#[test]
fn a_signal_settles_what_was_not_answered() {
    // Found: nothing. The end.
    let (mut desk, request) = asking(config());
    desk.hears(Event::Stop(StopCause::Signal(15)));
    desk.at(second(6));
    assert_eq!(
        desk.acquired(second(0), Acquired::Unknown(no_answer())),
        [settle(&request)]
    );
    let missing = Renewed::Lost(Loss::Missing);
    assert_eq!(
        desk.renewed(second(6), missing),
        ended(Outcome::Signaled(15))
    );

    // Found: it is ours. It is given back.
    let (mut desk, request) = asking(config());
    desk.at(second(6))
        .acquired(second(0), Acquired::Unknown(no_answer()));
    assert_eq!(
        desk.hears(Event::Stop(StopCause::Signal(2))),
        [settle(&request)]
    );
    let commands = desk.renewed(second(6), renewed(11));
    assert!(
        matches!(commands[..], [Command::Release { .. }]),
        "{commands:?}"
    );

    // Nothing is found out: it has run out after one ttl by itself.
    let (mut desk, _) = asking(config());
    desk.hears(Event::Stop(StopCause::Signal(15)));
    desk.acquired(second(0), Acquired::Unknown(no_answer()));
    let mut last = Vec::new();
    while !matches!(last[..], [.., Command::End(_)]) {
        last = desk.renewed(desk.at, Renewed::Unknown(no_answer()));
        if last.is_empty() {
            assert_eq!(desk.hears(Event::Wake), [], "too early");
            assert!(matches!(desk.wakes()[..], [Command::Settle { .. }]));
        }
    }
    assert_eq!(last, ended(Outcome::Signaled(15)));
    assert_eq!(desk.at, second(30));
}

#[test]
fn what_may_be_done_and_not_committed_yet_is_settled_before_the_end() {
    // It waits for a standby server at its commit, say: nobody sees it.
    let refused = Acquired::Refused(Refusal::Changed);
    let no = Acquired::Unknown(unknown(Fault::Final));
    for (row, is_over, answer) in [
        (released(5, 9), false, refused.clone()),
        (released(5, 9), false, no.clone()),
        (released(5, 10), true, refused),
        (released(5, 10), true, no),
    ] {
        let (mut desk, request) = asking(config());
        desk.at(second(6))
            .acquired(second(0), Acquired::Unknown(no_answer()));
        desk.wakes();
        let next = acquisition(&desk.sees(vec![row]));
        assert_ne!(next.holder, request.holder);
        assert_eq!(desk.hears(Event::Stop(StopCause::Signal(15))), []);
        let commands = desk.acquired(desk.at, answer);
        if is_over {
            assert_eq!(commands, ended(Outcome::Signaled(15)));
        } else {
            assert_eq!(commands, [settle(&request)]);
            let missing = Renewed::Lost(Loss::Missing);
            let commands = desk.renewed(desk.at, missing);
            assert_eq!(commands, ended(Outcome::Signaled(15)));
        }
    }
}

/// A limit of what `--wait` leaves is none that a far database can meet.
#[test]
fn an_end_for_want_of_time_has_the_time_to_settle() {
    let (mut desk, request) = asking(Config {
        wait: Some(Duration::from_secs(6)),
        ..config()
    });
    let commands = desk
        .at(second(6))
        .acquired(second(0), Acquired::Unknown(no_answer()));
    assert_eq!(commands, [settle(&request)]);
}

#[test]
fn what_is_ours_and_could_not_be_renewed_is_settled_before_the_end() {
    let (mut desk, request) = asking(config());
    desk.at(second(6))
        .acquired(second(0), Acquired::Unknown(no_answer()));
    desk.wakes();
    assert_eq!(
        desk.sees(vec![taken_by(request.holder)]),
        [settle(&request)]
    );
    assert_eq!(desk.renewed(desk.at, Renewed::Unknown(no_answer())), []);
    let commands = desk.hears(Event::Stop(StopCause::Signal(15)));
    assert_eq!(commands, [settle(&request)]);
}

#[test]
fn a_poll_that_is_under_way_is_waited_for_before_settling() {
    let (mut desk, request) = asking(config());
    desk.at(second(6))
        .acquired(second(0), Acquired::Unknown(no_answer()));
    desk.wakes();
    assert_eq!(desk.hears(Event::Stop(StopCause::Signal(15))), []);
    assert_eq!(desk.sees(vec![released(5, 9)]), [settle(&request)]);
}

#[test]
fn impatience_cuts_settling_short() {
    let (mut desk, _) = asking(config());
    desk.hears(Event::Stop(StopCause::Signal(15)));
    assert_eq!(desk.hears(Event::HurryUp), [], "twice at once");
    desk.acquired(second(0), Acquired::Unknown(no_answer()));
    desk.at(millis(499));
    assert_eq!(desk.hears(Event::HurryUp), []);
    desk.at(millis(500));
    assert_eq!(desk.hears(Event::HurryUp), ended(Outcome::Signaled(15)));
}

#[test]
fn what_no_wait_has_taken_after_all_is_used() {
    let (mut desk, request) = asking(Config {
        wait: Some(Duration::ZERO),
        ..config()
    });
    let commands = desk
        .at(second(6))
        .acquired(second(0), Acquired::Unknown(no_answer()));
    assert_eq!(commands, [settle(&request)]);
    let commands = desk.renewed(second(6), renewed(11));
    assert!(
        matches!(commands[..], [Command::Spawn { .. }]),
        "{commands:?}"
    );
}

#[test]
fn a_guard_that_dies_meanwhile_leaves_nothing_to_run_it_with() {
    let (mut desk, _) = asking(config());
    assert_eq!(desk.guard(GuardEvent::Gone), []);
    let commands = desk.acquired(second(0), granted(6, 10));
    assert!(
        matches!(commands[..], [Command::Release { .. }]),
        "{commands:?}"
    );
    assert_eq!(desk.released(Released::Done), ended(Outcome::GuardDied));
    // One that was attached is waited for again.
    let (mut desk, _) = asking(Config {
        attached: true,
        ..config()
    });
    desk.guard(GuardEvent::Gone);
    let commands = desk.acquired(second(0), granted(6, 10));
    assert!(
        matches!(commands[..], [Command::Release { .. }]),
        "{commands:?}"
    );
    let commands = desk.released(Released::Done);
    assert!(
        matches!(commands[..], [Command::Dismiss(_), Command::Observe { .. }]),
        "{commands:?}"
    );
    // What asked for the end before stays the reason.
    let (mut desk, _) = asking(config());
    desk.hears(Event::Stop(StopCause::Signal(15)));
    desk.guard(GuardEvent::Gone);
    let refused = Acquired::Refused(Refusal::Changed);
    assert_eq!(
        desk.acquired(second(0), refused),
        ended(Outcome::Signaled(15))
    );
}

/// It cannot have taken anything: nothing is looked for, and nothing stands
/// in the way of the end.
#[test]
fn a_no_of_the_database_is_an_answer() {
    for fault in [Fault::Final, Fault::ReadOnly] {
        let no = || Acquired::Unknown(unknown(fault));
        let (mut desk, _) = asking(config());
        desk.hears(Event::Stop(StopCause::Signal(15)));
        assert_eq!(desk.acquired(second(0), no()), ended(Outcome::Signaled(15)));
        // It has worked before, so that it is tried again.
        let (mut desk, request) = asking(config());
        desk.acquired(second(0), Acquired::Refused(Refusal::Changed));
        desk.sees(vec![released(5, 9)]);
        assert_eq!(desk.acquired(second(0), no()), []);
        desk.wakes();
        assert_eq!(
            desk.sees(vec![taken_by(request.holder)]),
            [],
            "whoever that is"
        );
        desk.wakes();
        desk.sees(vec![released(7, 12)]);
        assert_eq!(desk.acquired(desk.at, no()), []);
        assert_eq!(
            desk.hears(Event::Stop(StopCause::Signal(15))),
            ended(Outcome::Signaled(15))
        );
    }
}

#[test]
fn each_of_several_unanswered_acquisitions_may_come_to_life() {
    let (mut desk, first) = asking(config());
    let mut requests = vec![first];
    for _ in 0..4 {
        let at = desk.at;
        desk.acquired(at, Acquired::Unknown(no_answer()));
        desk.wakes();
        requests.push(acquisition(&desk.sees(vec![released(5, 9)])));
    }
    for request in &requests[..4] {
        let mut desk = desk.clone();
        desk.acquired(desk.at, Acquired::Refused(Refusal::Changed));
        assert_eq!(desk.sees(vec![taken_by(request.holder)]), [settle(request)]);
    }
}

#[test]
fn an_acquisition_leaves_time_to_use_its_answer_whatever_its_own_limit() {
    let options = TimingOptions {
        call_timeout: Some(Duration::from_secs(60)),
        ..TimingOptions::default()
    };
    let mut desk = Desk::new(Config {
        timing: Timing::new(options).expect("times that fit"),
        ..config()
    });
    let commands = desk.sees(vec![released(5, 9)]);
    assert!(
        matches!(commands[..], [Command::Acquire { limit, .. }] if limit.as_secs() == 7),
        "a third of the 21 s until the worker would be told to stop: {commands:?}"
    );
}
