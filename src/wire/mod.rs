//! The frames between keeper and guard: over a socketpair on one host, over
//! a Unix socket for `serve` and `attach`. One frame is one message of a
//! `SOCK_SEQPACKET` socket (`unix(7)` keeps message boundaries), encoded by
//! postcard. Decoding is total: whatever cannot be read is
//! [`Malformed`], and both ends take that as the loss of the other.

use serde::{Deserialize, Serialize};

use crate::lease::ids::{HolderId, LeaseName, Slot, Token};
use crate::lease::time::BootInstant;
use std::time::Duration;

/// Largest frame, in bytes.
pub const MAX_FRAME: usize = 8192;

/// Of this protocol; both ends must speak the same.
pub const VERSION: u16 = 1;

/// A frame that is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the guard's protocol cannot be read")]
pub struct Malformed;

/// The first frame in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u16,
    /// Inode of the sender's time namespace (`time_namespaces(7)`): only
    /// within one do two boot clocks mean the same; 0 where there is none.
    pub time_namespace: u64,
}

/// From the keeper to the guard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToGuard {
    /// First frame.
    Hello(Hello),
    /// The lease is held: start the worker, unless `deadline` is reached.
    Start(Start),
    /// The tree may live until then. Acknowledged with [`FromGuard::Ack`].
    Deadline {
        /// Comes back in the acknowledgement.
        seq: u32,
        /// By the boot clock.
        deadline: BootInstant,
    },
    /// Orderly stop: `signal` to the tree (once to each process), SIGKILL to
    /// whoever is left at `kill_by` (or at the deadline if that is earlier).
    Stop {
        /// Signal number.
        signal: i32,
        /// By the boot clock.
        kill_by: BootInstant,
    },
    /// SIGKILL to the tree at once.
    Kill,
    /// Pass a signal on to the worker.
    Signal(i32),
    /// Are you there? Acknowledged with [`FromGuard::Ack`].
    Ping {
        /// Comes back in the acknowledgement.
        seq: u32,
    },
    /// Nothing runs, or the tree is empty: end, without a release. While
    /// something runs it is a contradiction, and the guard kills and releases.
    Dismiss,
}

/// Whom an orderly stop signals: `--stop-to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopTo {
    /// Every process of the tree.
    Tree,
    /// The worker alone.
    Worker,
}

/// What becomes of the worker's `PGOPTIONS` (contract, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PgOptions {
    /// Nothing: it stays as the caller gave it.
    Leave,
    /// It carries the lease's name, slot and token.
    Extend,
    /// And has the server look for a client that is gone; for servers that
    /// know `client_connection_check_interval` (14 and later).
    ExtendAndCheck,
}

/// Everything that a guard must know of a term.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Start {
    /// `LEASEWRAP_LEASE`.
    pub name: LeaseName,
    /// `LEASEWRAP_SLOT`.
    pub slot: Slot,
    /// `LEASEWRAP_HOLDER`.
    pub holder: HolderId,
    /// `LEASEWRAP_TOKEN`.
    pub token: Token,
    /// `LEASEWRAP_TTL_MS`.
    pub ttl: Duration,
    /// `--pgoptions`.
    pub pgoptions: PgOptions,
    /// The tree must be dead by then.
    pub deadline: BootInstant,
    /// From the stop signal to SIGKILL when the deadline nears: the guard
    /// sends `stop_signal` at `deadline - grace` by itself.
    pub grace: Duration,
    /// `--stop-signal`.
    pub stop_signal: i32,
    /// `--stop-to`.
    pub stop_to: StopTo,
    /// `--stop-timeout`: what the worker leaves behind gets `stop_signal`
    /// and at most 5 s, or this where it is shorter.
    pub stop_timeout: Duration,
    /// What else the environment says, each in place of what stood there
    /// under its name.
    pub variables: Vec<Variable>,
}

/// One variable of the worker's environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub content: Content,
}

/// What becomes of a variable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Content {
    /// This text, which holds no NUL.
    Text(String),
    /// The worker's own process id, as the worker sees it.
    OwnPid,
    /// There is none of this name.
    Absent,
}

impl Variable {
    /// A text.
    pub fn text(name: &str, text: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            content: Content::Text(text.into()),
        }
    }

    /// The worker's own process id.
    pub fn own_pid(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            content: Content::OwnPid,
        }
    }

    /// None of this name.
    pub fn absent(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            content: Content::Absent,
        }
    }
}

/// From the guard to the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FromGuard {
    /// First frame: the guard is ready.
    Hello(Hello),
    /// Answer to [`ToGuard::Deadline`] and [`ToGuard::Ping`].
    Ack {
        /// Of the frame that is answered.
        seq: u32,
    },
    /// The worker runs.
    Started {
        /// Its process id, as the guard sees it.
        pid: i32,
    },
    /// The worker does not run, and nothing is left of it. The keeper answers
    /// as to [`FromGuard::Empty`].
    NotStarted(NotStarted),
    /// A stop signal (TSTP, TTIN, TTOU, STOP) has stopped the worker.
    WorkerStopped {
        /// Which signal.
        signal: i32,
    },
    /// SIGCONT has woken it.
    WorkerContinued,
    /// The worker has ended; its descendants may live on.
    WorkerEnded(WorkerEnd),
    /// What the worker left behind when it ended: `pid comm` each, bounded.
    LeftBehind {
        /// For the log.
        processes: Vec<String>,
    },
    /// The guard has begun to stop or kill by itself.
    Stopping(StopReason),
    /// This process cannot be killed (uninterruptible sleep, no permission).
    Unkillable {
        /// `pid comm (why)` for the log.
        process: String,
    },
    /// `wait` says ECHILD: nothing of the tree is left. The keeper answers at
    /// once with any frame ([`ToGuard::Ping`], say), and with another at least
    /// every half second until it says [`ToGuard::Dismiss`]: a keeper that
    /// says nothing past the deadline stands still, and the guard releases in
    /// its place.
    Empty {
        /// How many processes got SIGKILL.
        killed: u32,
    },
}

/// Why the guard began to stop or kill without being told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopReason {
    /// `deadline - grace` was reached: the stop signal was sent.
    DeadlineNear,
    /// The deadline was reached: SIGKILL.
    DeadlineReached,
}

/// How the worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WorkerEnd {
    /// `_exit(code)`.
    Exited(u8),
    /// By this signal.
    Signaled(i32),
}

/// Why the worker was not started.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NotStarted {
    /// The deadline had passed when the go arrived (or was so near that the
    /// worker would have been told to stop at once), or by the time of the fork.
    Late,
    /// `execve(2)` failed with this errno.
    Exec {
        /// For the exit code: ENOENT is 127, all others are 126.
        errno: i32,
    },
    /// fork or the set-up of the child failed.
    Failed {
        /// For the log.
        message: String,
    },
}

macro_rules! codec {
    ($($frame:ty),*) => {$(
        impl $frame {
            /// Encodes the frame; never longer than [`MAX_FRAME`](crate::wire::MAX_FRAME).
            pub fn encode(&self) -> Vec<u8> {
                // A Vec grows as needed and every field is plain data, so
                // serialization has nothing that could fail.
                postcard::to_stdvec(self).unwrap_or_default()
            }

            /// Decodes one frame, all of it.
            ///
            /// # Errors
            /// [`Malformed`] for anything that is not exactly one frame.
            pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
                match postcard::take_from_bytes(bytes) {
                    Ok((frame, [])) => Ok(frame),
                    Ok(_) | Err(_) => Err(Malformed),
                }
            }
        }
    )*};
}
codec!(ToGuard, FromGuard);

// After the macro that it uses.
pub mod attach;
