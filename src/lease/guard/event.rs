//! What can happen to a guard, and what it can ask for.

use std::fmt;

use crate::lease::time::BootInstant;
use crate::wire::{FromGuard, NotStarted, Start, StopTo, ToGuard, WorkerEnd};

/// Something happened. `now` is given beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// A frame from the keeper.
    Frame(ToGuard),
    /// The keeper is gone, or might as well be.
    KeeperLost(KeeperLoss),
    /// Reply to [`Action::Fork`]: the child exists and waits for the go.
    Forked {
        /// Its process id.
        pid: i32,
    },
    /// Reply to [`Action::Fork`]: there is no child.
    NotForked {
        /// For the log.
        message: String,
    },
    /// The child has executed the worker.
    Executed,
    /// The child could not, and ends.
    NotExecuted(NotStarted),
    /// A signal has stopped the worker.
    WorkerStopped {
        /// Which one.
        signal: i32,
    },
    /// SIGCONT has woken it.
    WorkerContinued,
    /// The worker itself was reaped.
    WorkerEnded(WorkerEnd),
    /// `wait` said ECHILD.
    TreeEmpty {
        /// How many processes got SIGKILL so far.
        killed: u32,
    },
    /// The instant of [`Guard::next_wakeup`](super::Guard::next_wakeup) has come (too early is harmless).
    Wake,
}

/// How the keeper was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeeperLoss {
    /// End of file: it has ended, or closed its end.
    Closed,
    /// A frame that is none.
    Malformed,
    /// Another version of the protocol, or another time namespace: its
    /// deadlines cannot be trusted to mean what they say.
    Foreign,
    /// A frame that has no sense at this point (a second start, say).
    Nonsense,
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Tell the keeper. Must never block; a frame that cannot be sent is kept
    /// until it can.
    Send(FromGuard),
    /// Fork a child that waits for the go; answer with [`Event::Forked`] or
    /// [`Event::NotForked`].
    Fork(Box<Start>),
    /// Let the child execute the worker; answer with [`Event::Executed`] or
    /// [`Event::NotExecuted`].
    Go {
        /// The child itself looks at it once more, right before it executes.
        deadline: BootInstant,
    },
    /// Pass a signal on to the worker.
    SignalWorker(i32),
    /// Send CONT to the worker, or to the child that will be it.
    WakeWorker,
    /// Send a signal, followed by CONT, once to each process.
    StopTree {
        /// Which one.
        signal: i32,
        /// To whom.
        to: StopTo,
    },
    /// Send a signal, followed by CONT, once to each process that the worker
    /// has left behind, and name them to the keeper.
    StopLeftBehind {
        /// Which one.
        signal: i32,
    },
    /// SIGKILL to whatever is there (again).
    KillTree,
    /// The tree is empty and the keeper will not do it: give the lease back
    /// (become the releaser), then see to the keeper.
    Release(Keeper),
    /// End; there is nothing to give back.
    Exit,
}

/// What the releaser has to expect of the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keeper {
    /// It is lost: nothing to be done for it.
    Lost(KeeperLoss),
    /// It stands still: to be woken after the release, and killed when it
    /// has not ended a second later.
    StandsStill,
}

impl fmt::Display for Keeper {
    /// For a last line: reads after "leasewrap".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost(KeeperLoss::Closed) => "was killed or has crashed",
            Self::Lost(KeeperLoss::Malformed | KeeperLoss::Nonsense) => {
                "sent its guard what makes no sense"
            }
            Self::Lost(KeeperLoss::Foreign) => {
                "and its guard are of different versions or time namespaces"
            }
            Self::StandsStill => "stood still (was it stopped?)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_what_became_of_the_keeper() {
        for (keeper, words) in [
            (
                Keeper::Lost(KeeperLoss::Closed),
                "was killed or has crashed",
            ),
            (Keeper::StandsStill, "stood still (was it stopped?)"),
        ] {
            assert_eq!(keeper.to_string(), words);
        }
    }
}
