//! Frames between keeper and guard, and between `serve` and `attach`.

use std::time::Duration;

use leasewrap::lease::attach::{Action as Asked, Attach, Event as Seen, Now};
use leasewrap::lease::guard::{Action, Event, Guard, KeeperLoss};
use leasewrap::lease::ids::LeaseName;
use leasewrap::lease::keeper::event::GuardEvent;
use leasewrap::lease::time::BootInstant;
use leasewrap::lease::timing::Chance;
use leasewrap::wire::attach::{FromAttach, ToAttach, version_of};
use leasewrap::wire::{FromGuard, Hello, NotStarted, ToGuard, VERSION, WorkerEnd};

use super::take;

const HELLO: Hello = Hello {
    version: VERSION,
    time_namespace: 4,
};

macro_rules! whole_or_none {
    ($bytes:ident: $($frame:ty),*) => {$(
        if let Ok(frame) = <$frame>::decode($bytes) {
            let again = frame.encode();
            assert!(again.len() <= $bytes.len(), "{frame:?} has become longer");
            assert_eq!(<$frame>::decode(&again), Ok(frame));
            let longer = [$bytes, &[0]].concat();
            assert!(<$frame>::decode(&longer).is_err(), "something follows");
            let shorter = &$bytes[..$bytes.len() - 1];
            assert!(<$frame>::decode(shorter).is_err(), "something is missing");
        }
    )*};
}

/// A frame is read whole or not at all, and says the same when it is sent on.
pub fn whole(bytes: &[u8]) {
    whole_or_none!(bytes: ToGuard, FromGuard, FromAttach, ToAttach);
    if let Ok(frame @ FromAttach::Hello(Hello { version, .. })) = FromAttach::decode(bytes) {
        assert_eq!(version_of(&frame.encode()), Some(version));
    }
    if let Ok(ToGuard::Start(start)) = ToGuard::decode(bytes) {
        assert!(LeaseName::new(start.name.as_str()).is_ok(), "{start:?}");
    }
}

/// What somebody says, as a stream: a length, and a frame of that length; or
/// something that happens in between.
struct Script<'a>(&'a [u8]);

enum Step<'a> {
    Frame(&'a [u8]),
    Happens(u8),
}

impl<'a> Iterator for Script<'a> {
    type Item = (Duration, Step<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, later], rest) = self.0.split_first_chunk::<2>()?;
        self.0 = rest;
        let later = Duration::from_millis(u64::from(later) * u64::from(later));
        let step = if kind < 192 {
            Step::Frame(take(&mut self.0, usize::from(kind)))
        } else {
            Step::Happens(kind - 192)
        };
        Some((later, step))
    }
}

fn happening(number: u8) -> Event {
    match number % 10 {
        0 => Event::Wake,
        1 => Event::Forked { pid: 7 },
        2 => Event::NotForked {
            message: String::new(),
        },
        3 => Event::Executed,
        4 => Event::NotExecuted(NotStarted::Late),
        5 => Event::WorkerStopped { signal: 19 },
        6 => Event::WorkerContinued,
        7 => Event::WorkerEnded(WorkerEnd::Exited(0)),
        8 => Event::TreeEmpty { killed: 1 },
        _ => Event::KeeperLost(KeeperLoss::Closed),
    }
}

/// Whatever a guard is told, it starts one worker at most, before the
/// deadline, and always has an end in sight.
pub fn the_guard_keeps_its_rules(script: &[u8]) {
    let (mut guard, _) = Guard::new(HELLO);
    let mut at = BootInstant::from_nanos(1_000_000_000);
    let (mut forks, mut ended) = (0, false);
    for (later, step) in Script(script) {
        at = at + later;
        let event = match step {
            Step::Frame(frame) => ToGuard::decode(frame)
                .map_or(Event::KeeperLost(KeeperLoss::Malformed), Event::Frame),
            Step::Happens(number) => happening(number),
        };
        let late = matches!(event, Event::Forked { .. });
        for action in guard.step(event, at) {
            assert!(!ended || (late && action == Action::KillTree), "{action:?}");
            match action {
                Action::Fork(start) => {
                    forks += 1;
                    assert!(forks == 1 && at < start.deadline, "{start:?}");
                }
                Action::Go { deadline } => assert!(at < deadline),
                Action::Release(_) | Action::Exit => {
                    assert!(!guard.has_tree());
                    ended = true;
                }
                _ => {}
            }
        }
        assert_eq!(guard.has_ended(), ended);
        assert!(!guard.has_tree() || guard.self_kill_at().is_some());
        // What is due has been done, so that it never spins.
        let _actions = guard.step(Event::Wake, at);
        assert!(guard.next_wakeup().is_none_or(|next| next > at));
        ended = guard.has_ended();
    }
}

fn guard_event(number: u8) -> Seen {
    Seen::Guard(match number % 8 {
        0 => GuardEvent::Ready,
        1 => GuardEvent::Started { pid: 7 },
        2 => GuardEvent::WorkerEnded(WorkerEnd::Exited(0)),
        3 => GuardEvent::Empty,
        4 => GuardEvent::NotStarted(NotStarted::Late),
        5 => GuardEvent::Gone,
        6 => GuardEvent::Swept,
        _ => return Seen::Stop(15),
    })
}

/// Whatever `serve` says, `attach` has one worker started at most, and kills
/// it at the deadline.
pub fn attach_keeps_its_rules(script: &[u8]) {
    let mut at = BootInstant::from_nanos(1_000_000_000);
    let now = |at| Now {
        at,
        chance: Chance::MIDDLE,
    };
    let mut attach = Attach::new(HELLO, false, None, &now(at));
    let (mut starts, mut ended) = (0, false);
    for (later, step) in Script(script) {
        at = at + later;
        let event = match step {
            Step::Frame([]) => Seen::Wake,
            Step::Frame([0xff]) => Seen::Connected,
            Step::Frame(frame) => ToAttach::decode(frame).map_or(
                Seen::ServeLost(leasewrap::lease::attach::ServeLoss::Malformed),
                Seen::Serve,
            ),
            Step::Happens(number) => guard_event(number),
        };
        let (had, killing) = (attach.deadline(), attach.is_killing());
        for action in attach.step(event, &now(at)) {
            assert!(!ended, "{action:?} after the end");
            match action {
                Asked::ToGuard(ToGuard::Start(_)) => starts += 1,
                Asked::Extend(_) => {
                    assert!(had.is_some_and(|deadline| at < deadline) && !killing);
                }
                Asked::End(_) => ended = true,
                _ => {}
            }
        }
        assert!(starts <= 1, "a second worker");
        if let Some(deadline) = attach.deadline() {
            assert!(!ended && (at < deadline || attach.is_killing()));
        }
        assert!(!ended || attach.next_wakeup().is_none());
    }
}
