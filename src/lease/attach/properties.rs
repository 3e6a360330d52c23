//! Whatever happens, in whatever order.

use proptest::prelude::*;

use super::tests::{hello, second, start};
use super::*;
use crate::wire::attach::{Peer, TermEnd};
use crate::wire::{StopReason, VERSION, WorkerEnd};

fn event() -> impl Strategy<Value = Event> {
    let order = |frame| Event::Serve(ToAttach::Guard(frame));
    let guard = Event::Guard;
    prop_oneof![
        4 => Just(Event::Wake),
        2 => Just(Event::Connected),
        1 => Just(Event::NotConnected("why".to_owned())),
        3 => Just(Event::Serve(ToAttach::Hello(hello()))),
        3 => Just(Event::Serve(ToAttach::Attached)),
        1 => Just(Event::Serve(ToAttach::Taken(Peer { pid: 1, uid: 2, gid: 3 }))),
        1 => Just(Event::Serve(ToAttach::Over { end: TermEnd::Lost, message: String::new() })),
        4 => Just(order(ToGuard::Start(start()))),
        6 => (0..60_u64).prop_map(move |at| {
            order(ToGuard::Deadline { seq: 1, deadline: second(at) })
        }),
        1 => (0..60_u64).prop_map(move |at| {
            order(ToGuard::Stop { signal: 15, kill_by: second(at) })
        }),
        1 => Just(order(ToGuard::Kill)),
        1 => Just(order(ToGuard::Dismiss)),
        1 => Just(order(ToGuard::Ping { seq: 2 })),
        1 => Just(Event::ServeLost(ServeLoss::Closed)),
        1 => Just(Event::ServeLost(ServeLoss::Version(VERSION + 1))),
        1 => Just(guard(GuardEvent::Ready)),
        3 => Just(guard(GuardEvent::Started { pid: 4 })),
        1 => Just(guard(GuardEvent::WorkerEnded(WorkerEnd::Exited(0)))),
        1 => Just(guard(GuardEvent::Stopping(StopReason::DeadlineNear))),
        1 => Just(guard(GuardEvent::Stopping(StopReason::DeadlineReached))),
        1 => Just(guard(GuardEvent::Empty)),
        1 => Just(guard(GuardEvent::NotStarted(NotStarted::Late))),
        1 => Just(guard(GuardEvent::Gone)),
        1 => Just(guard(GuardEvent::Swept)),
        1 => Just(Event::NoGuard("why".to_owned())),
        1 => Just(Event::Stop(15)),
        1 => Just(Event::HurryUp),
    ]
}

/// What `serve` would take as the guard's word that nothing is left.
fn says_empty(action: &Action) -> bool {
    matches!(
        action,
        Action::ToServe(FromAttach::Guard(
            FromGuard::Empty { .. } | FromGuard::NotStarted(_)
        ))
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn its_rules_are_kept(events in proptest::collection::vec((event(), 0..3_u64), 1..60)) {
        let now = |at| Now { at, chance: Chance::MIDDLE };
        let mut at = second(0);
        let mut machine = Attach::new(hello(), false, None, &now(at));
        let (mut starts, mut lost, mut ended) = (0, false, false);
        for (event, later) in events {
            at = at + Duration::from_secs(later);
            let had = machine.deadline();
            let done = matches!(
                event,
                Event::Guard(GuardEvent::Empty | GuardEvent::Swept | GuardEvent::NotStarted(_))
            );
            let actions = machine.step(event, &now(at));
            prop_assert!(!ended || actions.is_empty());
            for action in &actions {
                match action {
                    Action::ToGuard(ToGuard::Start(_)) => starts += 1,
                    Action::Extend(_) => {
                        prop_assert!(had.is_some_and(|deadline| at < deadline), "too late");
                        // One that is killed after a stop is renewed on, to
                        // keep others out: the guard takes no kill back.
                        prop_assert!(!lost, "no right comes back");
                    }
                    Action::StartGuard => lost = false,
                    Action::Disconnect
                    | Action::Tell(
                        Told::Losing | Told::GuardDied | Told::Killing { loss: Some(_) },
                    ) => lost = true,
                    Action::End(_) => ended = true,
                    _ => {}
                }
                if says_empty(action) && had.is_some() {
                    prop_assert!(done, "there may be something left");
                }
            }
            prop_assert!(starts <= 1, "a second worker");
            if let Some(deadline) = machine.deadline() {
                prop_assert!(!ended);
                prop_assert!(at < deadline || machine.is_killing(), "beyond the deadline");
            }
            if ended {
                prop_assert_eq!(machine.next_wakeup(), None);
            }
        }
    }
}
