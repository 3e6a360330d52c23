//! What can happen to `attach`, and what it can ask for.

use std::fmt;

use crate::lease::keeper::event::GuardEvent;
use crate::lease::time::BootInstant;
use crate::lease::timing::Chance;
use crate::wire::attach::{FromAttach, Peer, ToAttach};
use crate::wire::{Hello, NotStarted, Start, ToGuard, VERSION, WorkerEnd};

/// What a step may use of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The boot clock.
    pub at: BootInstant,
    /// Drawn anew for each step.
    pub chance: Chance,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The instant of `next_wakeup()` has come (waking too early is harmless).
    Wake,
    /// Reply to [`Action::Connect`].
    Connected,
    /// The other reply: why, for people.
    NotConnected(String),
    /// `serve` said something.
    Serve(ToAttach),
    /// `serve` is gone, or might as well be.
    ServeLost(ServeLoss),
    /// The guard said something, or is gone.
    Guard(GuardEvent),
    /// Reply to [`Action::StartGuard`] when there can be none.
    NoGuard(String),
    /// A process sent this signal: an orderly stop, or the end of waiting.
    Stop(i32),
    /// A further one.
    HurryUp,
}

/// How `serve` was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServeLoss {
    /// It has closed the connection.
    Closed,
    /// It has sent what is no frame.
    Malformed,
    /// It speaks this version of the protocol.
    Version(u16),
    /// It is in another time namespace.
    TimeNamespace {
        /// Its inode.
        theirs: u64,
        /// And our own.
        ours: u64,
    },
}

impl ServeLoss {
    /// What a Hello says against its sender.
    pub fn of(theirs: &Hello, ours: &Hello) -> Option<Self> {
        if theirs.version != ours.version {
            Some(Self::Version(theirs.version))
        } else if theirs.time_namespace != ours.time_namespace {
            Some(Self::TimeNamespace {
                theirs: theirs.time_namespace,
                ours: ours.time_namespace,
            })
        } else {
            None
        }
    }
}

impl fmt::Display for ServeLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("serve is gone"),
            Self::Malformed => f.write_str("serve has sent what is no frame"),
            Self::Version(theirs) => write!(
                f,
                "serve speaks version {theirs} of the guard's protocol, and this leasewrap version {VERSION}; run the same leasewrap on both sides"
            ),
            Self::TimeNamespace { theirs, ours } => write!(
                f,
                "serve is in another time namespace ({theirs}, this is {ours}), so that deadlines would not mean the same; start both in the same one"
            ),
        }
    }
}

/// Why it is not attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Away {
    /// Nobody answers at the socket.
    Unreachable(String),
    /// Another one is attached.
    Taken(Peer),
    /// `serve` does not answer the greeting.
    Silent,
    /// `serve` was there, and has gone.
    Gone,
    /// What is there does not speak the guard's protocol.
    Malformed,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "cannot {why}"),
            Self::Taken(by) => write!(f, "another one is attached ({by})"),
            Self::Silent => f.write_str("serve does not answer (is it stopped?)"),
            Self::Gone => f.write_str("serve is gone"),
            Self::Malformed => {
                f.write_str("what listens there does not speak the guard's protocol")
            }
        }
    }
}

/// Something to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect to `serve`; answer with [`Event::Connected`] or
    /// [`Event::NotConnected`].
    Connect,
    /// Close the connection, if there is one.
    Disconnect,
    /// Start the guard, with the connection; answer with [`Event::NoGuard`]
    /// if there can be none.
    StartGuard,
    /// Tell the guard, if there is one, to end: nothing runs.
    DismissGuard,
    /// Tell `serve`. Must never block.
    ToServe(FromAttach),
    /// Tell the guard, and want to hear that it arrived.
    ToGuard(ToGuard),
    /// Tell the guard the new deadline.
    Extend(BootInstant),
    /// Have the tree killed, now. A guard that stands still is killed, and the
    /// tree with it.
    Kill,
    /// For the log.
    Tell(Told),
    /// Nothing remains to be done.
    End(End),
}

/// For the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Not attached; tried again.
    Waiting(Away),
    /// Attached.
    Attached,
    /// The lease is held: the worker is being started.
    Starting(Start),
    /// It runs.
    Started {
        /// Its process id.
        pid: i32,
    },
    /// An orderly stop begins: by this signal, or because `serve` says so.
    Stopping {
        /// The signal that came.
        signal: Option<i32>,
    },
    /// No deadline has come in time.
    Losing,
    /// The tree is being killed.
    Killing {
        /// Because `serve` is lost in this way.
        loss: Option<ServeLoss>,
    },
    /// The guard has died; its tree is being killed here.
    GuardDied,
}

/// The end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What the exit code follows from.
    pub how: How,
    /// What `serve` says of it.
    pub message: Option<String>,
    /// The signal of the orderly stop that somebody had asked for.
    pub told_by: Option<i32>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// The worker ended, by itself or when it was told to.
    Worker(WorkerEnd),
    /// The precheck failed.
    SteppedDown,
    /// The lease is lost, or `serve`.
    Lost,
    /// The worker could not be started.
    NotStarted(NotStarted),
    /// `--wait` is over.
    NotAcquired,
    /// A signal while standing by.
    Signaled(i32),
    /// leasewrap itself failed, and how.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_it_is_not_attached_is_said_so_that_something_can_be_done() {
        let by = Peer {
            pid: 7,
            uid: 1,
            gid: 1,
        };
        for (why, words) in [
            (
                Away::Unreachable("connect to /s: gone".to_owned()),
                "cannot connect to /s: gone",
            ),
            (Away::Taken(by), "another one is attached (pid 7, user 1)"),
            (Away::Gone, "serve is gone"),
        ] {
            assert_eq!(why.to_string(), words);
        }
        let foreign = ServeLoss::TimeNamespace { theirs: 5, ours: 4 };
        assert!(
            foreign
                .to_string()
                .starts_with("serve is in another time namespace (5, this is 4)")
        );
    }
}
