//! The guard's machine.

use leasewrap::lease::guard::{Event, KeeperLoss};
use leasewrap::wire::ToGuard;

use super::{Events, Impossible, Table};

/// What a keeper says, to whichever machine.
pub const FRAMES: &[&str] = &[
    "frame: hello",
    "frame: start",
    "frame: deadline",
    "frame: stop",
    "frame: kill",
    "frame: signal",
    "frame: ping",
    "frame: dismiss",
];

const EVERY: Events = &[
    &["wake"],
    FRAMES,
    &[
        "keeper: closed",
        "keeper: malformed",
        "forked",
        "not forked",
        "executed",
        "not executed",
        "worker stopped",
        "worker continued",
        "worker ended",
        "tree empty",
    ],
];

pub const TABLE: Table = Table {
    machine: "guard",
    states: &[
        "Idle",
        "Armed",
        "Running",
        "Stopping",
        "LeftBehind",
        "Killing",
        "Empty",
        "Ended",
    ],
    events: EVERY,
    impossible: &[
        Impossible {
            states: &["Ended"],
            events: EVERY,
            why: "its process has become the releaser, or is gone",
        },
        Impossible {
            states: &["Idle"],
            events: &[&["wake"]],
            why: "nothing is due",
        },
        Impossible {
            states: &["Idle"],
            events: &[&["frame: deadline", "frame: stop", "frame: kill"]],
            why: "a keeper says that of a worker that it has had started",
        },
        Impossible {
            states: &["Idle", "Running", "Stopping", "LeftBehind", "Empty"],
            events: &[&["forked", "not forked"]],
            why: "the answer to one fork, which is waited for in Armed, or in Killing",
        },
        Impossible {
            states: &["Idle", "Running", "Stopping"],
            events: &[&["executed", "not executed"]],
            why: "the answer to one go, which comes after Armed only where the tree has ended or is killed",
        },
        Impossible {
            states: &["LeftBehind"],
            events: &[&["not executed"]],
            why: "there was a worker",
        },
        Impossible {
            states: &["Idle", "Armed", "LeftBehind", "Empty"],
            events: &[&["worker stopped", "worker continued"]],
            why: "there is no worker (any more)",
        },
        Impossible {
            states: &["Idle", "LeftBehind", "Empty"],
            events: &[&["worker ended"]],
            why: "there was none, or its end was told of",
        },
        Impossible {
            states: &["Idle", "Running"],
            events: &[&["tree empty"]],
            why: "the worker itself is of the tree, and its end is told of first",
        },
    ],
};

pub fn event(event: &Event) -> &'static str {
    match event {
        Event::Wake => "wake",
        Event::Frame(frame) => order(frame),
        Event::KeeperLost(KeeperLoss::Closed) => "keeper: closed",
        // The guard finds out the other two by itself.
        Event::KeeperLost(KeeperLoss::Malformed | KeeperLoss::Foreign | KeeperLoss::Nonsense) => {
            "keeper: malformed"
        }
        Event::Forked { .. } => "forked",
        Event::NotForked { .. } => "not forked",
        Event::Executed => "executed",
        Event::NotExecuted(_) => "not executed",
        Event::WorkerStopped { .. } => "worker stopped",
        Event::WorkerContinued => "worker continued",
        Event::WorkerEnded(_) => "worker ended",
        Event::TreeEmpty { .. } => "tree empty",
    }
}

/// Of [`FRAMES`].
pub fn order(frame: &ToGuard) -> &'static str {
    match frame {
        ToGuard::Hello(_) => "frame: hello",
        ToGuard::Start(_) => "frame: start",
        ToGuard::Deadline { .. } => "frame: deadline",
        ToGuard::Stop { .. } => "frame: stop",
        ToGuard::Kill => "frame: kill",
        ToGuard::Signal(_) => "frame: signal",
        ToGuard::Ping { .. } => "frame: ping",
        ToGuard::Dismiss => "frame: dismiss",
    }
}
