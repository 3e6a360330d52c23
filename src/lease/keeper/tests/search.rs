//! What is known and said while there is no lease.

use std::time::Duration;

use super::desk::{
    Desk, acquisition, config, ended, granted, held, incarnation, no_answer, observation, released,
    second, unknown,
};
use super::standby::{OBSERVE, fails, waits};
use crate::lease::ids::{HolderId, Revision, Slot, Token};
use crate::lease::keeper::event::{Command, Event, GuardEvent, Outcome, Transition};
use crate::lease::keeper::search::{Attempt, Search};
use crate::lease::keeper::{Config, Context};
use crate::lease::record::{
    Acquire, Acquired, Expected, Fault, Loss, Observed, Record, Refusal, Released, Renewed,
};
use crate::lease::watch::Basis;

/// Who may read may not be allowed to write: an acquisition that is refused at
/// the first connect ends it like any other call.
#[test]
fn an_acquisition_that_may_not_be_ends_it_at_the_first_connect_only() {
    let refused = || Acquired::Unknown(unknown(Fault::Final));
    let last = ended(Outcome::Database(unknown(Fault::Final)));
    let mut desk = Desk::new(config());
    acquisition(&desk.sees(vec![released(5, 9)]));
    assert_eq!(desk.acquired(second(0), refused()), last);
    // Nor does creating the schema make it a later one.
    let mut desk = Desk::new(config());
    desk.hears(Event::Observed(Observed::NoSchema));
    desk.hears(Event::Initialised(Ok(())));
    acquisition(&desk.sees(vec![released(5, 9)]));
    assert_eq!(desk.acquired(second(0), refused()), last);
    // What has stood by for long, or has written, has one ttl.
    let mut waited = Desk::new(config());
    for poll in 1..=2 {
        waited.sees(vec![held(5, poll)]);
        waited.wakes();
    }
    let mut wrote = Desk::new(config());
    acquisition(&wrote.sees(vec![released(5, 9)]));
    wrote.acquired(second(0), Acquired::Refused(Refusal::Changed));
    for mut desk in [waited, wrote] {
        let since = desk.at;
        let mut ends = Vec::new();
        while ends.is_empty() {
            acquisition(&desk.sees(vec![released(5, 9)]));
            ends = desk.acquired(desk.at, refused());
            if ends.is_empty() {
                assert!(desk.at < since + Duration::from_secs(30), "for ever");
                assert_eq!(desk.wakes(), [OBSERVE]);
            }
        }
        assert_eq!(ends, last);
        assert_eq!(desk.at, since + Duration::from_secs(30));
    }
}

#[test]
fn an_acquisition_that_was_answered_starts_the_patience_anew() {
    let mut desk = Desk::new(config());
    acquisition(&desk.sees(vec![released(5, 9)]));
    let at = desk.at;
    desk.acquired(at, Acquired::Refused(Refusal::Paused));
    for _ in 0..3 {
        desk.wakes();
        acquisition(&desk.sees(vec![released(5, 9)]));
        let at = desk.at;
        let answer = Acquired::Unknown(unknown(Fault::Final));
        assert_eq!(desk.acquired(at, answer), []);
        assert_eq!(desk.keeper.failures(), 1);
        desk.at(at + Duration::from_secs(20)).hears(Event::Wake);
        acquisition(&desk.sees(vec![released(5, 9)]));
        let at = desk.at;
        desk.acquired(at, Acquired::Refused(Refusal::Paused));
        assert_eq!(desk.keeper.failures(), 0);
    }
}

#[test]
fn a_failure_is_told_of_at_once_or_by_the_last_line() {
    let failed = Transition::CallFailed {
        what: "read the lease",
        unknown: no_answer(),
        left: None,
    };
    let told = |desk: &Desk| desk.told.contains(&failed);
    let waiting = |seconds| {
        Desk::new(Config {
            wait: Some(Duration::from_secs(seconds)),
            ..config()
        })
    };
    // It is tried again.
    let mut desk = waiting(60);
    assert_eq!(desk.hears(fails(Fault::Transient)), []);
    assert!(told(&desk));
    // It is the last line.
    let mut desk = waiting(0);
    assert_eq!(
        desk.hears(fails(Fault::Transient)),
        ended(Outcome::Database(no_answer()))
    );
    assert!(!told(&desk));
    // The last line is that another one holds it.
    let mut desk = waiting(4);
    desk.sees(vec![held(5, 9)]);
    desk.hears(Event::Changed(None));
    desk.at(second(4));
    let last = desk.hears(fails(Fault::Transient));
    assert!(
        matches!(last[1], Command::End(Outcome::NotAcquired { .. })),
        "{last:?}"
    );
    assert!(told(&desk));
}

#[test]
fn it_says_who_holds_a_slot_that_it_could_have() {
    let mut desk = Desk::new(Config {
        slots: 2,
        ..config()
    });
    let of = |slot, record| Record {
        slot: Slot(slot),
        ..record
    };
    let holder = of(1, held(7, 1));
    desk.sees(vec![
        of(2, held(6, 1)),
        of(0, released(5, 1)),
        holder.clone(),
    ]);
    let [Transition::Waiting { holder: told, .. }] = &desk.told[..] else {
        panic!("{:?}", desk.told);
    };
    assert_eq!(*told, Some(holder));
    let (at, seen) = desk.keeper.observation().expect("a reply");
    assert_eq!((at, seen.records.len()), (second(0), 3));
}

#[test]
fn of_one_poll_it_is_said_once_that_it_waits() {
    let mut desk = Desk::without_guard(Config {
        attached: true,
        ..config()
    });
    desk.sees(vec![released(5, 9)]);
    assert_eq!(waits(&desk), [1]);
    acquisition(&desk.guard(GuardEvent::Ready));
    let by = "pid 7".to_owned();
    desk.acquired(second(0), Acquired::Refused(Refusal::Locked { by }));
    assert_eq!(waits(&desk), [1]);
}

#[test]
fn a_power_of_two_that_passed_unsaid_is_made_up_for() {
    let mut desk = Desk::new(config());
    desk.sees(vec![held(5, 1)]);
    assert_eq!(desk.wakes(), [OBSERVE]);
    // The second answer is out of date before it is there.
    assert_eq!(desk.hears(Event::Changed(None)), []);
    assert_eq!(desk.sees(vec![held(5, 2)]), [OBSERVE]);
    desk.sees(vec![held(5, 3)]);
    assert_eq!(waits(&desk), [1, 3]);
    desk.wakes();
    desk.sees(vec![held(5, 4)]);
    assert_eq!(waits(&desk), [1, 3, 4]);
}

/// One that has held the lease, lost it, and stands by again; a precheck was
/// under way.
fn rejoined() -> Desk {
    let mut desk = Desk::new(Config {
        rejoin: true,
        precheck: true,
        ..config()
    });
    assert_eq!(desk.sees(vec![released(5, 9)]), [Command::Precheck]);
    acquisition(&desk.hears(Event::Fit(true)));
    desk.acquired(second(0), granted(6, 10));
    assert!(matches!(
        desk.wakes()[..],
        [Command::Renew { .. }, Command::Precheck]
    ));
    let at = desk.at;
    desk.renewed(at, Renewed::Lost(Loss::Closed));
    desk.guard(GuardEvent::Empty);
    let commands = desk.released(Released::Done);
    assert!(
        matches!(commands[..], [.., Command::Observe { .. }]),
        "{commands:?}"
    );
    desk.guard(GuardEvent::Ready);
    desk
}

#[test]
fn a_poll_does_not_show_that_the_server_can_be_written_to() {
    let mut desk = Desk::new(config());
    acquisition(&desk.sees(vec![released(5, 9)]));
    let read_only = Acquired::Unknown(unknown(Fault::ReadOnly));
    let commands = desk.acquired(second(0), read_only.clone());
    assert!(
        matches!(commands[..], [.., Command::End(Outcome::Database(_))]),
        "{commands:?}"
    );
    // One that has waited for long waits on: it may pass.
    let mut desk = Desk::new(config());
    for poll in 1..=3 {
        desk.sees(vec![held(5, poll)]);
        desk.wakes();
    }
    acquisition(&desk.sees(vec![released(5, 9)]));
    let at = desk.at;
    assert_eq!(desk.acquired(at, read_only), []);
}

#[test]
fn after_a_term_no_refusal_is_one_of_the_first_connect() {
    for fault in [Fault::Final, Fault::ReadOnly] {
        let mut desk = rejoined();
        assert_eq!(desk.hears(fails(fault)), []);
        let mut desk = rejoined();
        desk.sees(vec![released(6, 11)]);
        acquisition(&desk.hears(Event::Fit(true)));
        let at = desk.at;
        assert_eq!(desk.acquired(at, Acquired::Unknown(unknown(fault))), []);
    }
}

#[test]
fn a_precheck_that_is_under_way_since_the_last_term_will_do() {
    let mut desk = rejoined();
    assert_eq!(desk.sees(vec![released(6, 11)]), []);
    acquisition(&desk.hears(Event::Fit(true)));
}

#[test]
fn of_many_unanswered_acquisitions_one_that_can_do_nothing_any_more_is_forgotten() {
    let config = config();
    let mut desk = Desk::new(config.clone());
    let request = acquisition(&desk.sees(vec![released(5, 9)]));
    let now = desk.now();
    let context = Context {
        config: &config,
        now: &now,
    };
    let mut search = Search::new(&context);
    let mut unanswered = |number, revision| {
        let request = Acquire {
            holder: HolderId(uuid::Uuid::from_u128(number)),
            expected: Expected::Unchanged {
                token: Token(5),
                revision: Revision(revision),
                incarnation: incarnation(1),
            },
            ..request.clone()
        };
        search.haunted_by(Attempt {
            request,
            basis: Basis::Released,
        });
        search.seen(observation(vec![released(5, 9)]), &context, &mut Vec::new());
        search.unsettled().map(|attempt| attempt.request.holder.0)
    };
    let first = unanswered(1, 9);
    assert!(first.is_some());
    for number in 2..10 {
        assert_eq!(unanswered(number, 8), first, "{number}");
    }
}
