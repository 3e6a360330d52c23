use uuid::Uuid;

use super::*;
use crate::lease::ids::{HolderId, LeaseName, Slot, Token};
use crate::wire::attach::{Peer, TermEnd};
use crate::wire::{PgOptions, Start, StopReason, StopTo, VERSION, WorkerEnd};

const TERM: i32 = 15;
const INT: i32 = 2;

pub(super) fn hello() -> Hello {
    Hello {
        version: VERSION,
        time_namespace: 4,
    }
}

pub(super) fn second(seconds: u64) -> BootInstant {
    BootInstant::from_nanos(seconds * 1_000_000_000)
}

fn now(at: BootInstant) -> Now {
    Now {
        at,
        chance: Chance::MIDDLE,
    }
}

pub(super) fn start() -> Start {
    Start {
        name: LeaseName::new("job").unwrap(),
        slot: Slot(0),
        holder: HolderId(Uuid::nil()),
        token: Token(3),
        ttl: Duration::from_secs(30),
        pgoptions: PgOptions::Leave,
        deadline: second(27),
        grace: Duration::from_secs(6),
        stop_signal: 10,
        stop_to: StopTo::Tree,
        stop_timeout: Duration::from_secs(20),
        variables: Vec::new(),
    }
}

/// The machine, and what has come of it.
struct Bench {
    machine: Attach,
    at: BootInstant,
}

impl Bench {
    fn new() -> Self {
        Self::waiting(None)
    }

    fn waiting(wait: Option<Duration>) -> Self {
        Self {
            machine: Attach::new(hello(), false, wait, &now(second(0))),
            at: second(0),
        }
    }

    fn hears(&mut self, event: Event) -> Vec<Action> {
        self.machine.step(event, &now(self.at))
    }

    fn serve(&mut self, frame: ToAttach) -> Vec<Action> {
        self.hears(Event::Serve(frame))
    }

    fn orders(&mut self, frame: ToGuard) -> Vec<Action> {
        self.serve(ToAttach::Guard(frame))
    }

    fn attached() -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.hears(Event::Wake), [Action::Connect]);
        bench.hears(Event::Connected);
        bench.serve(ToAttach::Hello(hello()));
        let actions = bench.serve(ToAttach::Attached);
        assert_eq!(actions[0], Action::StartGuard);
        bench
    }

    fn running() -> Self {
        let mut bench = Self::attached();
        bench.at = second(1);
        let actions = bench.orders(ToGuard::Start(start()));
        assert!(actions.contains(&Action::ToGuard(ToGuard::Start(start()))));
        bench.hears(Event::Guard(GuardEvent::Ready));
        bench.hears(Event::Guard(GuardEvent::Started { pid: 9 }));
        bench
    }

    fn ended(&mut self, end: WorkerEnd) -> Vec<Action> {
        self.hears(Event::Guard(GuardEvent::WorkerEnded(end)));
        self.hears(Event::Guard(GuardEvent::Empty))
    }
}

fn how(actions: &[Action]) -> Option<&How> {
    actions.iter().find_map(|action| match action {
        Action::End(end) => Some(&end.how),
        Action::Connect
        | Action::Disconnect
        | Action::StartGuard
        | Action::DismissGuard
        | Action::ToServe(_)
        | Action::ToGuard(_)
        | Action::Extend(_)
        | Action::Kill
        | Action::Tell(_) => None,
    })
}

fn empty() -> Action {
    Action::ToServe(FromAttach::Guard(FromGuard::Empty { killed: 0 }))
}

fn over(end: TermEnd) -> ToAttach {
    ToAttach::Over {
        end,
        message: "why".to_owned(),
    }
}

#[test]
fn it_waits_for_serve_with_growing_pauses_and_says_each_reason_once() {
    let mut bench = Bench::new();
    let mut pauses = Vec::new();
    let mut told = 0;
    for _ in 0..12 {
        assert_eq!(bench.hears(Event::Wake), [Action::Connect]);
        let actions = bench.hears(Event::NotConnected("connect".to_owned()));
        told += actions.len();
        let until = bench.machine.next_wakeup().unwrap();
        pauses.push(until.saturating_since(bench.at));
        bench.at = until;
    }
    assert_eq!(told, 1);
    // Another reason is said at once, and again while it stays.
    for (at, news) in [(20, true), (619, false), (620, true)] {
        bench.at = second(at);
        let actions = bench.hears(Event::NotConnected("find".to_owned()));
        let why = Away::Unreachable("find".to_owned());
        let told = Action::Tell(Told::Waiting(why));
        assert_eq!(actions.contains(&told), news, "at {at} s");
    }
    assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(pauses[0] < Duration::from_millis(30));
    for (chance, millis) in [(0, 10), (u16::MAX, 30)] {
        let pause = spread(SHORTEST_PAUSE, Chance(chance));
        assert_eq!(pause, Duration::from_millis(millis));
    }
    assert!(*pauses.last().unwrap() < LONGEST_PAUSE * 2);
}

#[test]
fn a_serve_that_is_taken_silent_or_gone_is_tried_again() {
    let by = Peer {
        pid: 7,
        uid: 1,
        gid: 1,
    };
    for (event, why) in [
        (Event::Serve(ToAttach::Taken(by)), Away::Taken(by)),
        (Event::ServeLost(ServeLoss::Closed), Away::Gone),
        (Event::ServeLost(ServeLoss::Malformed), Away::Malformed),
        (Event::Serve(over(TermEnd::Lost)), Away::Malformed),
        (Event::Wake, Away::Silent),
    ] {
        let mut bench = Bench::new();
        bench.hears(Event::Wake);
        bench.hears(Event::Connected);
        bench.serve(ToAttach::Hello(hello()));
        bench.at = second(6);
        let actions = bench.hears(event);
        assert_eq!(
            actions,
            [Action::Disconnect, Action::Tell(Told::Waiting(why))]
        );
        bench.at = bench.machine.next_wakeup().unwrap();
        assert_eq!(bench.hears(Event::Wake), [Action::Connect]);
    }
}

#[test]
fn another_version_or_time_namespace_ends_it() {
    for theirs in [
        Hello {
            version: VERSION + 1,
            ..hello()
        },
        Hello {
            time_namespace: 5,
            ..hello()
        },
    ] {
        let mut bench = Bench::new();
        bench.hears(Event::Wake);
        bench.hears(Event::Connected);
        let actions = bench.serve(ToAttach::Hello(theirs));
        assert!(matches!(how(&actions), Some(How::Failed(_))), "{actions:?}");
    }
}

#[test]
fn serve_gone_while_standing_by_is_waited_for_with_a_new_guard() {
    let mut bench = Bench::attached();
    let actions = bench.hears(Event::ServeLost(ServeLoss::Closed));
    assert_eq!(actions[..2], [Action::DismissGuard, Action::Disconnect]);
    bench.at = second(3);
    assert_eq!(bench.hears(Event::Wake), [Action::Connect]);
}

#[test]
fn an_end_while_standing_by_says_that_nothing_was_started() {
    let mut bench = Bench::attached();
    let actions = bench.hears(Event::Stop(TERM));
    assert_eq!(how(&actions), Some(&How::Signaled(TERM)));
    // A start that crosses it finds its answer.
    assert!(matches!(
        actions[0],
        Action::ToServe(FromAttach::Guard(FromGuard::NotStarted(_)))
    ));
    let mut bench = Bench::waiting(Some(Duration::from_secs(5)));
    bench.hears(Event::Wake);
    bench.at = second(5);
    let actions = bench.hears(Event::Connected);
    assert_eq!(how(&actions), Some(&How::NotAcquired));
}

#[test]
fn the_end_is_what_serve_says_of_it() {
    let worker = WorkerEnd::Exited(3);
    for (said, how, its_words) in [
        (TermEnd::Worker(worker), How::Worker(worker), true),
        (TermEnd::SteppedDown, How::SteppedDown, true),
        (TermEnd::Lost, How::Lost, true),
        (TermEnd::Failed, How::Worker(worker), false),
    ] {
        for message in ["why", ""] {
            let mut bench = Bench::running();
            assert_eq!(bench.ended(worker), [empty()]);
            let actions = bench.serve(ToAttach::Over {
                end: said.clone(),
                message: message.to_owned(),
            });
            let end = End {
                how: how.clone(),
                message: (its_words && message == "why").then(|| message.to_owned()),
                told_by: None,
            };
            assert_eq!(actions.last(), Some(&Action::End(end)));
        }
    }
}

#[test]
fn a_serve_that_says_nothing_is_waited_for_until_the_deadline() {
    let mut bench = Bench::running();
    bench.ended(WorkerEnd::Exited(3));
    let until = bench.machine.next_wakeup().unwrap();
    assert_eq!(until, second(28));
    assert_eq!(bench.hears(Event::Wake), [], "too early");
    bench.at = until;
    let actions = bench.hears(Event::Wake);
    assert_eq!(how(&actions), Some(&How::Worker(WorkerEnd::Exited(3))));
}

#[test]
fn impatience_cuts_the_wait_for_the_last_word_short() {
    let mut bench = Bench::running();
    bench.ended(WorkerEnd::Exited(3));
    assert_eq!(bench.hears(Event::HurryUp), [], "twice at once");
    bench.at = bench.at + Duration::from_millis(500);
    let actions = bench.hears(Event::HurryUp);
    assert_eq!(how(&actions), Some(&How::Worker(WorkerEnd::Exited(3))));
}

#[test]
fn a_greeting_comes_first_and_once_and_is_waited_for() {
    for early in [
        ToAttach::Attached,
        ToAttach::Taken(Peer {
            pid: 1,
            uid: 2,
            gid: 3,
        }),
    ] {
        let mut bench = Bench::new();
        assert_eq!(bench.hears(Event::Wake), [Action::Connect]);
        bench.hears(Event::Connected);
        assert_eq!(bench.hears(Event::Wake), [], "too early");
        let actions = bench.serve(early);
        assert_eq!(actions[0], Action::Disconnect);
        let told = Told::Waiting(Away::Malformed);
        assert!(actions.contains(&Action::Tell(told)));
        assert_eq!(bench.hears(Event::Wake), [], "after a pause");
    }
    let mut bench = Bench::new();
    bench.hears(Event::Connected);
    bench.serve(ToAttach::Hello(hello()));
    let twice = bench.serve(ToAttach::Hello(hello()));
    assert_eq!(twice[0], Action::Disconnect);
}

#[test]
fn what_it_does_is_seen_and_the_deadline_wakes_it() {
    let mut bench = Bench::attached();
    assert_eq!(bench.machine.phase(), Phase::StandingBy);
    bench.orders(ToGuard::Start(start()));
    assert_eq!(bench.machine.phase(), Phase::Starting);
    bench.hears(Event::Guard(GuardEvent::Started { pid: 9 }));
    assert_eq!(bench.machine.phase(), Phase::Running);
    assert!(!bench.machine.is_killing());
    assert_eq!(bench.machine.next_wakeup(), Some(start().deadline));
    bench.at = start().deadline;
    assert!(bench.hears(Event::Wake).contains(&Action::Kill));
    assert!(bench.machine.is_killing());
    assert_eq!(bench.machine.next_wakeup(), None);
}

#[test]
fn serve_gone_means_kill_and_a_loss() {
    for event in [
        Event::ServeLost(ServeLoss::Closed),
        Event::ServeLost(ServeLoss::Malformed),
        Event::Serve(ToAttach::Guard(ToGuard::Start(start()))),
        Event::Serve(ToAttach::Guard(ToGuard::Dismiss)),
        Event::Serve(over(TermEnd::Worker(WorkerEnd::Exited(0)))),
    ] {
        let mut bench = Bench::running();
        let actions = bench.hears(event.clone());
        assert!(actions.contains(&Action::Kill), "{event:?}: {actions:?}");
        assert!(bench.machine.is_killing());
        // Nothing that it says later counts.
        bench.orders(ToGuard::Deadline {
            seq: 1,
            deadline: second(99),
        });
        assert_eq!(bench.machine.deadline(), Some(second(27)));
        let actions = bench.ended(WorkerEnd::Exited(0));
        assert_eq!(how(&actions), Some(&How::Lost), "{event:?}");
    }
}

#[test]
fn a_deadline_that_comes_too_late_revives_nothing() {
    let mut bench = Bench::running();
    let deadline = |seq, deadline| ToGuard::Deadline { seq, deadline };
    let actions = bench.orders(deadline(1, second(33)));
    assert_eq!(actions, [ack(1), Action::Extend(second(33))]);
    bench.at = second(33);
    let actions = bench.orders(deadline(2, second(60)));
    assert!(actions.contains(&Action::Kill), "{actions:?}");
    assert!(!actions.contains(&Action::Extend(second(60))));
    bench.ended(WorkerEnd::Signaled(9));
    // Whatever serve says.
    let actions = bench.serve(over(TermEnd::Worker(WorkerEnd::Signaled(9))));
    assert_eq!(how(&actions), Some(&How::Lost));
}

#[test]
fn a_guard_that_reports_a_deadline_has_lost_the_lease() {
    let mut bench = Bench::running();
    bench.hears(Event::Guard(GuardEvent::Stopping(StopReason::DeadlineNear)));
    assert!(!bench.machine.is_killing(), "it is told to stop");
    bench.ended(WorkerEnd::Exited(0));
    let until = bench.machine.next_wakeup().unwrap();
    let half = Duration::from_millis(500);
    assert_eq!(
        until,
        bench.at + half,
        "its own guard does not wait a second"
    );
    bench.at = until;
    let actions = bench.hears(Event::Wake);
    assert_eq!(how(&actions), Some(&How::Lost));
    let mut bench = Bench::running();
    bench.hears(Event::Guard(GuardEvent::Stopping(
        StopReason::DeadlineReached,
    )));
    assert!(bench.machine.is_killing());
}

#[test]
fn a_stop_takes_effect_at_once_and_serve_is_told() {
    for (signal, sent) in [(TERM, 10), (INT, INT)] {
        let mut bench = Bench::running();
        let actions = bench.hears(Event::Stop(signal));
        let stop = ToGuard::Stop {
            signal: sent,
            kill_by: second(21),
        };
        assert_eq!(
            actions[..2],
            [
                Action::ToGuard(stop),
                Action::ToServe(FromAttach::Stopping { signal })
            ]
        );
        assert_eq!(bench.hears(Event::HurryUp), []);
        bench.at = second(2);
        assert!(bench.hears(Event::HurryUp).contains(&Action::Kill));
        // Whether it went as told is judged by what it was told.
        bench.ended(WorkerEnd::Signaled(9));
        let end = bench.serve(over(TermEnd::Worker(WorkerEnd::Signaled(9))));
        let told_by = Some(sent);
        assert!(
            matches!(&end[..], [.., Action::End(end)] if end.told_by == told_by),
            "{end:?}"
        );
    }
}

#[test]
fn an_order_to_kill_without_a_stop_is_a_loss_should_serve_die_of_it_too() {
    let mut bench = Bench::running();
    let killing = Action::Tell(Told::Killing { loss: None });
    assert_eq!(bench.orders(ToGuard::Kill), [killing, Action::Kill]);
    assert_eq!(bench.orders(ToGuard::Kill), [Action::Kill], "said once");
    bench.ended(WorkerEnd::Signaled(9));
    let actions = bench.hears(Event::ServeLost(ServeLoss::Closed));
    assert_eq!(how(&actions), Some(&How::Lost));
    // After a stop it is the end of its patience.
    let mut bench = Bench::running();
    bench.orders(ToGuard::Stop {
        signal: TERM,
        kill_by: second(5),
    });
    bench.orders(ToGuard::Kill);
    bench.ended(WorkerEnd::Signaled(9));
    let actions = bench.hears(Event::ServeLost(ServeLoss::Closed));
    assert_eq!(how(&actions), Some(&How::Worker(WorkerEnd::Signaled(9))));
}

#[test]
fn a_guard_that_dies_is_told_of_only_when_its_tree_is_gone() {
    let mut bench = Bench::running();
    let actions = bench.hears(Event::Guard(GuardEvent::Gone));
    assert_eq!(actions, [Action::Tell(Told::GuardDied)]);
    assert!(bench.machine.is_killing());
    let actions = bench.hears(Event::Guard(GuardEvent::Swept));
    assert_eq!(actions, [empty()]);
    let actions = bench.serve(over(TermEnd::Failed));
    assert!(matches!(how(&actions), Some(How::Failed(_))), "{actions:?}");
    let mut bench = Bench::running();
    bench.hears(Event::Guard(GuardEvent::Gone));
    assert_eq!(bench.orders(ToGuard::Kill), [], "there is nobody to tell");
}

#[test]
fn a_worker_that_cannot_be_executed_has_its_own_end() {
    let mut bench = Bench::attached();
    bench.orders(ToGuard::Start(start()));
    let why = NotStarted::Exec { errno: 2 };
    bench.hears(Event::Guard(GuardEvent::NotStarted(why.clone())));
    let actions = bench.serve(over(TermEnd::NotStarted(why.clone())));
    assert_eq!(how(&actions), Some(&How::NotStarted(why)));
}
