//! Each rule once, and the invariants under arbitrary events.

mod self_kill;
mod starting;

use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::{
    Action, Event, FIRST_ANSWER_LIMIT, Guard, KILL_AGAIN_INTERVAL, Keeper, KeeperLoss,
    SILENCE_LIMIT,
};
use crate::lease::ids::{HolderId, LeaseName, Slot, Token};
use crate::lease::time::BootInstant;
use crate::wire::{
    FromGuard, Hello, NotStarted, PgOptions, Start, StopReason, StopTo, ToGuard, VERSION, WorkerEnd,
};

const TERM: i32 = 15;
const INT: i32 = 2;

fn at(ms: u64) -> BootInstant {
    BootInstant::ZERO + Duration::from_millis(ms)
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        time_namespace: 7,
    }
}

/// Deadline at 10 s, grace 2 s, stop timeout 20 s.
fn start(stop_to: StopTo) -> Start {
    Start {
        name: LeaseName::new("n").unwrap(),
        slot: Slot(0),
        holder: HolderId(Uuid::nil()),
        token: Token(1),
        ttl: Duration::from_secs(12),
        pgoptions: PgOptions::Leave,
        deadline: at(10_000),
        grace: Duration::from_secs(2),
        stop_signal: TERM,
        stop_to,
        stop_timeout: Duration::from_secs(20),
        variables: Vec::new(),
    }
}

fn greeted() -> Guard {
    let (mut guard, actions) = Guard::new(hello());
    assert_eq!(actions, [Action::Send(FromGuard::Hello(hello()))]);
    assert_eq!(frame(&mut guard, ToGuard::Hello(hello()), 0), []);
    guard
}

fn frame(guard: &mut Guard, frame: ToGuard, ms: u64) -> Vec<Action> {
    guard.step(Event::Frame(frame), at(ms))
}

fn running_to(stop_to: StopTo) -> Guard {
    let mut guard = greeted();
    let go = frame(&mut guard, ToGuard::Start(start(stop_to)), 100);
    assert_eq!(go, [Action::Fork(Box::new(start(stop_to)))]);
    let forked = guard.step(Event::Forked { pid: 42 }, at(100));
    let deadline = at(10_000);
    assert_eq!(forked, [Action::Go { deadline }]);
    let executed = guard.step(Event::Executed, at(101));
    assert_eq!(executed, [Action::Send(FromGuard::Started { pid: 42 })]);
    guard
}

fn running() -> Guard {
    running_to(StopTo::Tree)
}

fn empty() -> Guard {
    let mut guard = running();
    let _ = frame(&mut guard, ToGuard::Kill, 200);
    let gone = guard.step(Event::TreeEmpty { killed: 3 }, at(201));
    assert_eq!(gone, [Action::Send(FromGuard::Empty { killed: 3 })]);
    guard
}

fn stop_tree(signal: i32, to: StopTo) -> Action {
    Action::StopTree { signal, to }
}

#[test]
fn a_deadline_that_nears_stops_and_then_kills() {
    let mut guard = running();
    assert_eq!(guard.next_wakeup(), Some(at(8_000)));
    assert_eq!(guard.step(Event::Wake, at(7_999)), []);
    assert_eq!(
        guard.step(Event::Wake, at(8_000)),
        [
            Action::Send(FromGuard::Stopping(StopReason::DeadlineNear)),
            stop_tree(TERM, StopTo::Tree),
        ]
    );
    assert_eq!(guard.next_wakeup(), Some(at(10_000)));
    assert_eq!(
        guard.step(Event::Wake, at(10_000)),
        [
            Action::Send(FromGuard::Stopping(StopReason::DeadlineReached)),
            Action::KillTree,
        ]
    );
    assert!(guard.is_killing());
}

#[test]
fn a_suspended_host_kills_at_once_without_a_stop_signal() {
    let mut guard = running();
    assert_eq!(
        guard.step(Event::Wake, at(3_600_000)),
        [
            Action::Send(FromGuard::Stopping(StopReason::DeadlineReached)),
            Action::KillTree,
        ]
    );
}

#[test]
fn an_extension_moves_both_instants() {
    let mut guard = running();
    let deadline = at(20_000);
    let ack = frame(&mut guard, ToGuard::Deadline { seq: 5, deadline }, 7_000);
    assert_eq!(ack, [Action::Send(FromGuard::Ack { seq: 5 })]);
    assert_eq!(guard.step(Event::Wake, at(10_000)), []);
    assert_eq!(guard.next_wakeup(), Some(at(18_000)));
    assert_eq!(guard.self_kill_at(), Some(at(20_600)));
}

#[test]
fn an_extension_that_arrives_late_revives_nothing() {
    for (arrives, kill) in [(8_500, false), (10_000, true)] {
        let mut guard = running();
        let deadline = at(20_000);
        let actions = frame(&mut guard, ToGuard::Deadline { seq: 5, deadline }, arrives);
        assert_eq!(actions.contains(&Action::KillTree), kill, "{actions:?}");
        assert_eq!(
            actions.last(),
            Some(&Action::Send(FromGuard::Ack { seq: 5 }))
        );
        if !kill {
            assert!(actions.contains(&stop_tree(TERM, StopTo::Tree)));
            let killed = guard.step(Event::Wake, at(10_000));
            assert!(killed.contains(&Action::KillTree), "the stop goes on");
        }
    }
}

#[test]
fn a_start_at_or_near_the_deadline_is_refused() {
    for ms in [8_000, 10_000, 99_000] {
        let mut guard = greeted();
        let refused = [Action::Send(FromGuard::NotStarted(NotStarted::Late))];
        assert_eq!(
            frame(&mut guard, ToGuard::Start(start(StopTo::Tree)), ms),
            refused
        );
        assert!(!guard.has_tree());
    }
}

#[test]
fn the_deadline_is_checked_again_after_the_fork() {
    let mut guard = greeted();
    let _ = frame(&mut guard, ToGuard::Start(start(StopTo::Tree)), 100);
    let forked = guard.step(Event::Forked { pid: 42 }, at(8_000));
    assert_eq!(forked, [Action::KillTree]);
    let ended = Event::WorkerEnded(WorkerEnd::Signaled(9));
    assert_eq!(guard.step(ended, at(8_001)), []);
    assert_eq!(
        guard.step(Event::TreeEmpty { killed: 1 }, at(8_001)),
        [Action::Send(FromGuard::NotStarted(NotStarted::Late))]
    );
}

#[test]
fn a_lost_keeper_means_kill_and_then_release() {
    for loss in [KeeperLoss::Closed, KeeperLoss::Malformed] {
        let mut guard = running();
        let lost = guard.step(Event::KeeperLost(loss), at(500));
        assert_eq!(lost, [Action::KillTree]);
        assert!(guard.has_lost_keeper() && guard.is_killing() && guard.has_tree());
        let ping = frame(&mut guard, ToGuard::Ping { seq: 1 }, 500);
        assert_eq!(ping, [], "it has no say any more");
        assert_eq!(
            guard.step(Event::TreeEmpty { killed: 1 }, at(501)),
            [
                Action::Send(FromGuard::Empty { killed: 1 }),
                Action::Release(Keeper::Lost(loss)),
            ]
        );
        assert!(guard.has_ended());
    }
}

#[test]
fn a_keeper_lost_before_the_start_means_release_at_once() {
    let (mut guard, _) = Guard::new(hello());
    let lost = guard.step(Event::KeeperLost(KeeperLoss::Closed), at(1));
    assert_eq!(lost, [Action::Release(Keeper::Lost(KeeperLoss::Closed))]);
}

#[test]
fn a_keeper_that_makes_no_sense_is_lost() {
    let mut second_start = running();
    let again = frame(&mut second_start, ToGuard::Start(start(StopTo::Tree)), 200);
    assert_eq!(again, [Action::KillTree]);

    let mut dismissed = running();
    let dismiss = frame(&mut dismissed, ToGuard::Dismiss, 200);
    assert_eq!(dismiss, [Action::KillTree]);

    let (mut not_greeted, _) = Guard::new(hello());
    let start = frame(&mut not_greeted, ToGuard::Start(start(StopTo::Tree)), 0);
    let nonsense = Keeper::Lost(KeeperLoss::Nonsense);
    assert_eq!(start, [Action::Release(nonsense)]);

    for (version, time_namespace) in [(VERSION + 1, 7), (VERSION, 8)] {
        let (mut foreign, _) = Guard::new(hello());
        let theirs = Hello {
            version,
            time_namespace,
        };
        let refused = frame(&mut foreign, ToGuard::Hello(theirs), 0);
        assert_eq!(
            refused,
            [Action::Release(Keeper::Lost(KeeperLoss::Foreign))]
        );
    }
}

#[test]
fn an_orderly_stop_renews_on_and_kills_at_its_limit() {
    let mut guard = running();
    let stop = ToGuard::Stop {
        signal: INT,
        kill_by: at(21_000),
    };
    assert_eq!(
        frame(&mut guard, stop.clone(), 1_000),
        [stop_tree(INT, StopTo::Tree)]
    );
    assert_eq!(frame(&mut guard, stop, 1_001), [], "each process once");
    let deadline = at(30_000);
    let _ = frame(&mut guard, ToGuard::Deadline { seq: 1, deadline }, 5_000);
    assert_eq!(guard.step(Event::Wake, at(10_000)), []);
    let ended = WorkerEnd::Exited(0);
    assert_eq!(
        guard.step(Event::WorkerEnded(ended), at(11_000)),
        [Action::Send(FromGuard::WorkerEnded(ended))],
        "everyone has until the limit, after the worker's own end too"
    );
    assert_eq!(guard.step(Event::Wake, at(21_000)), [Action::KillTree]);
}

#[test]
fn an_orderly_stop_ends_at_the_deadline_if_that_is_earlier() {
    let mut guard = running();
    let stop = ToGuard::Stop {
        signal: TERM,
        kill_by: at(21_000),
    };
    let _ = frame(&mut guard, stop, 1_000);
    assert_eq!(guard.next_wakeup(), Some(at(10_000)));
    assert!(
        guard
            .step(Event::Wake, at(10_000))
            .contains(&Action::KillTree)
    );
}

#[test]
fn what_the_worker_leaves_behind_is_stopped_and_killed() {
    let mut guard = running();
    let end = WorkerEnd::Exited(3);
    assert_eq!(
        guard.step(Event::WorkerEnded(end), at(1_000)),
        [
            Action::Send(FromGuard::WorkerEnded(end)),
            Action::StopLeftBehind { signal: TERM },
        ]
    );
    assert_eq!(guard.next_wakeup(), Some(at(6_000)));
    assert_eq!(guard.step(Event::Wake, at(6_000)), [Action::KillTree]);
}

#[test]
fn with_stop_to_worker_the_rest_counts_as_left_behind() {
    let mut guard = running_to(StopTo::Worker);
    let stop = ToGuard::Stop {
        signal: INT,
        kill_by: at(4_000),
    };
    assert_eq!(
        frame(&mut guard, stop, 1_000),
        [stop_tree(INT, StopTo::Worker)]
    );
    let end = WorkerEnd::Signaled(INT);
    assert_eq!(
        guard.step(Event::WorkerEnded(end), at(2_000)),
        [
            Action::Send(FromGuard::WorkerEnded(end)),
            Action::StopLeftBehind { signal: TERM },
        ]
    );
    assert_eq!(guard.next_wakeup(), Some(at(4_000)));
}

#[test]
fn a_keeper_that_says_nothing_past_the_deadline_is_replaced() {
    let mut guard = empty();
    assert_eq!(guard.next_wakeup(), Some(at(10_000)));
    assert_eq!(guard.step(Event::Wake, at(9_999)), []);
    let mut stopped = guard.clone();
    let released = [Action::Release(Keeper::StandsStill)];
    assert_eq!(stopped.step(Event::Wake, at(10_000)), released);
    // One that answers has all the time it needs, as long as it goes on.
    let mut now = 210;
    for seq in 0..50 {
        let ack = [Action::Send(FromGuard::Ack { seq })];
        assert_eq!(frame(&mut guard, ToGuard::Ping { seq }, now), ack);
        now += 500;
    }
    assert_eq!(guard.next_wakeup(), Some(at(now - 500) + SILENCE_LIMIT));
    assert_eq!(frame(&mut guard, ToGuard::Dismiss, now), [Action::Exit]);
    assert_eq!(guard.next_wakeup(), None);
}

#[test]
fn what_a_keeper_has_said_counts_before_its_silence() {
    // This guard has stood still itself: what it reads now was said in time.
    let ack = [Action::Send(FromGuard::Ack { seq: 1 })];
    let mut guard = empty();
    assert_eq!(frame(&mut guard, ToGuard::Ping { seq: 1 }, 60_000), ack);
    assert_eq!(guard.next_wakeup(), Some(at(60_000) + SILENCE_LIMIT));
    assert_eq!(frame(&mut guard, ToGuard::Dismiss, 90_000), [Action::Exit]);
    assert_eq!(guard.step(Event::Wake, at(90_000)), []);
}

#[test]
fn a_keeper_that_stands_still_at_the_deadline_is_replaced_soon_after() {
    let mut guard = running();
    let _ = guard.step(Event::Wake, at(10_000));
    let _ = guard.step(Event::TreeEmpty { killed: 1 }, at(10_003));
    let due = at(10_003) + FIRST_ANSWER_LIMIT;
    assert_eq!(guard.next_wakeup(), Some(due));
    let released = [Action::Release(Keeper::StandsStill)];
    assert_eq!(guard.step(Event::Wake, due), released);
}

#[test]
fn killing_is_repeated_until_nothing_is_left() {
    let mut guard = running();
    assert_eq!(frame(&mut guard, ToGuard::Kill, 200), [Action::KillTree]);
    let again = at(200) + KILL_AGAIN_INTERVAL;
    assert_eq!(guard.next_wakeup(), Some(again));
    assert_eq!(guard.step(Event::Wake, again), [Action::KillTree]);
    assert!(guard.self_kill_at() > Some(again));
    assert_eq!(guard.next_wakeup(), Some(again + KILL_AGAIN_INTERVAL));
    let stopped = guard.step(Event::WorkerStopped { signal: 19 }, again);
    assert_eq!(stopped, [], "that is of the killing");
}

#[test]
fn signals_are_passed_on_only_to_a_worker() {
    let usr1 = ToGuard::Signal(10);
    assert_eq!(frame(&mut greeted(), usr1.clone(), 1), []);
    let mut guard = running();
    assert!(guard.has_tree() && !guard.is_killing() && !guard.has_lost_keeper());
    assert_eq!(
        frame(&mut guard, usr1.clone(), 200),
        [Action::SignalWorker(10)]
    );
    let stopped = FromGuard::WorkerStopped { signal: 20 };
    assert_eq!(
        guard.step(Event::WorkerStopped { signal: 20 }, at(201)),
        [Action::Send(stopped)]
    );
    assert_eq!(frame(&mut empty(), usr1, 205), []);
}

fn any_frame() -> impl Strategy<Value = ToGuard> {
    let instant = (0u64..20_000).prop_map(at);
    prop_oneof![
        Just(ToGuard::Hello(hello())),
        (instant.clone(), prop::bool::ANY).prop_map(|(deadline, tree)| {
            let to = if tree { StopTo::Tree } else { StopTo::Worker };
            ToGuard::Start(Start {
                deadline,
                ..start(to)
            })
        }),
        (any::<u32>(), instant.clone())
            .prop_map(|(seq, deadline)| ToGuard::Deadline { seq, deadline }),
        instant.prop_map(|kill_by| ToGuard::Stop {
            signal: TERM,
            kill_by
        }),
        Just(ToGuard::Kill),
        Just(ToGuard::Signal(1)),
        Just(ToGuard::Ping { seq: 0 }),
        Just(ToGuard::Dismiss),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any_frame().prop_map(Event::Frame),
        1 => Just(Event::KeeperLost(KeeperLoss::Closed)),
        2 => Just(Event::Forked { pid: 42 }),
        1 => Just(Event::NotForked { message: String::new() }),
        2 => Just(Event::Executed),
        1 => Just(Event::NotExecuted(NotStarted::Exec { errno: 2 })),
        1 => Just(Event::WorkerStopped { signal: 20 }),
        1 => Just(Event::WorkerContinued),
        2 => Just(Event::WorkerEnded(WorkerEnd::Exited(0))),
        2 => Just(Event::TreeEmpty { killed: 0 }),
        2 => Just(Event::Wake),
    ]
}

proptest! {
    /// Whatever happens in whatever order: one fork and one go at most, no go
    /// at or after the deadline, SIGKILL by the deadline, a release or an end
    /// only without a tree, and nothing after the last action.
    #[test]
    fn the_invariants_hold(
        greet in prop::bool::weighted(0.9),
        events in prop::collection::vec((any_event(), 0u64..3_000), 0..40),
    ) {
        let mut guard = if greet { greeted() } else { Guard::new(hello()).0 };
        let mut now = BootInstant::ZERO;
        let (mut forks, mut goes, mut asked) = (0, 0, 0);
        // The latest deadline that any frame has named so far.
        let mut right = None;
        for (event, later) in events {
            now = now + Duration::from_millis(later);
            if let Event::Frame(ToGuard::Start(Start { deadline, .. })
                | ToGuard::Deadline { deadline, .. }) = &event
            {
                right = right.max(Some(*deadline));
            }
            let had_ended = guard.has_ended();
            let was_killing = guard.is_killing();
            let reaped = matches!(event, Event::TreeEmpty { .. } | Event::NotForked { .. });
            let actions = guard.step(event, now);
            prop_assert!(!had_ended || actions.iter().all(|a| *a == Action::KillTree));
            for action in &actions {
                match action {
                    Action::Fork(start) => {
                        forks += 1;
                        prop_assert!(now < start.deadline);
                    }
                    Action::Go { deadline } => {
                        goes += 1;
                        prop_assert!(now < *deadline && Some(*deadline) <= right);
                    }
                    Action::StopTree { .. } | Action::StopLeftBehind { .. } => asked += 1,
                    Action::Release(_) | Action::Exit => prop_assert!(!guard.has_tree()),
                    Action::Send(FromGuard::Empty { .. }) => prop_assert!(reaped),
                    Action::Send(_)
                    | Action::SignalWorker(_)
                    | Action::WakeWorker
                    | Action::KillTree => {}
                }
            }
            prop_assert!(forks <= 1 && goes <= 1 && asked <= 2);
            prop_assert!(!guard.has_tree() || guard.is_killing() || Some(now) < right);
            // SIGKILL is never taken back while something may live.
            prop_assert!(!was_killing || guard.is_killing() || !guard.has_tree());
            prop_assert!(guard.has_ended() || !guard.has_tree() || guard.next_wakeup() > Some(now));
        }
    }
}
