//! What can happen to a keeper, and what it can ask for.

use std::time::Duration;

use crate::lease::ids::{Incarnation, Slot};
use crate::lease::record::{
    Acquire, Acquired, Freed, Grant, Loss, Observed, Record, Released, Renewed, Term, Unknown,
};
use crate::lease::time::BootInstant;
use crate::lease::watch::{Basis, Reason};
use crate::wire::{NotStarted, StopReason, WorkerEnd};

/// Something happened. `now` is given beside it and is when it was *received*.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The instant of `next_wakeup()` has come (waking too early is harmless).
    Wake,
    /// Reply to [`Command::Observe`].
    Observed(Observed),
    /// Reply to [`Command::Init`].
    Initialised(Result<(), Unknown>),
    /// Reply to [`Command::Acquire`] (with `sent_at` of that statement).
    Acquired {
        /// When the statement was sent.
        sent_at: BootInstant,
        /// What came back.
        reply: Acquired,
    },
    /// Reply to [`Command::Renew`] or [`Command::Settle`].
    Renewed {
        /// When the statement was sent.
        sent_at: BootInstant,
        /// What came back.
        reply: Renewed,
    },
    /// Reply to [`Command::Release`].
    Released(Released),
    /// The listener read the row of the term outside a renewal (a
    /// notification came, or the listener has (re)connected).
    Checked(Renewed),
    /// While standing by: a notification came, and what it says of a release.
    /// The row may have changed.
    Changed(Option<Freed>),
    /// The guard said something, or is gone.
    Guard(GuardEvent),
    /// An orderly stop is asked for.
    Stop(StopCause),
    /// A further INT or TERM, or a typed Ctrl-C, after a stop was asked for.
    /// The machine itself leaves out what comes within half a second
    /// (`timeout` and `killall` deliver twice at once).
    HurryUp,
    /// Reply to [`Command::Precheck`]: fit to hold or not.
    Fit(bool),
}

/// What the keeper sees of its guard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GuardEvent {
    /// It can start a worker (Hello received).
    Ready,
    /// The worker runs.
    Started {
        /// Its pid.
        pid: i32,
    },
    /// It does not, and nothing is left.
    NotStarted(NotStarted),
    /// The worker itself has ended.
    WorkerEnded(WorkerEnd),
    /// The guard has begun to stop or kill by itself.
    Stopping(StopReason),
    /// The tree is empty.
    Empty,
    /// The guard is gone (end of file, or its process has ended) before it
    /// said `Empty`. On one host the keeper kills the tree itself and reports
    /// `Swept` when it is empty; for `serve` nothing can be said of it.
    Gone,
    /// After [`GuardEvent::Gone`]: what was left of the tree is gone too.
    Swept,
}

/// Why an orderly stop is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StopCause {
    /// A process sent this signal to leasewrap.
    Signal(i32),
    /// A process sent this signal to `attach`, which has begun the stop.
    /// `serve` itself goes on.
    Attach(i32),
    /// An operator's `step-down`.
    StepDown,
    /// `--precheck` says: not fit to hold.
    Unfit,
    /// `--worker-watchdog` ran out.
    Watchdog,
}

impl StopCause {
    /// For machines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Signal(_) | Self::Attach(_) => "signal",
            Self::StepDown => "step-down",
            Self::Unfit => "precheck",
            Self::Watchdog => "watchdog",
        }
    }
}

/// Something to be done, in the order given.
///
/// At most one call to the database (observe, init, acquire, renew, settle,
/// release) is under way at a time, and each is answered exactly once, at
/// the latest when its limit is over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// Run the precheck. At most one is under way at a time.
    Precheck,
    /// Poll the lease.
    Observe {
        /// Time limit of the call.
        limit: Duration,
    },
    /// Create or upgrade the schema.
    Init {
        /// Time limit of the call.
        limit: Duration,
    },
    /// Try to take a slot.
    Acquire {
        /// What to send.
        request: Acquire,
        /// Time limit of the call.
        limit: Duration,
    },
    /// Renew.
    Renew {
        /// Our term.
        term: Term,
        /// Time limit of the call.
        limit: Duration,
    },
    /// Find out what became of an acquisition that was never answered, and
    /// renew what it has taken, but only on the incarnation that it names;
    /// or, with nothing left of our right, renew on that incarnation only.
    Settle {
        /// The acquisition.
        request: Acquire,
        /// Time limit of the call.
        limit: Duration,
    },
    /// Give the lease back.
    Release {
        /// Our term.
        term: Term,
        /// The incarnation known from the last answered call.
        incarnation: Incarnation,
        /// Time limit of the call.
        limit: Duration,
    },
    /// Tell the guard to start the worker.
    Spawn {
        /// Our term.
        term: Term,
        /// The tree must be dead by then.
        deadline: BootInstant,
    },
    /// Tell the guard the new deadline.
    Extend {
        /// The tree must be dead by then.
        deadline: BootInstant,
    },
    /// Tell the guard to stop the tree in an orderly way.
    StopTree {
        /// The signal, where the cause names one (INT, QUIT); else `--stop-signal`.
        signal: Option<i32>,
        /// SIGKILL for whoever is left then.
        kill_by: BootInstant,
    },
    /// Have the tree killed, now. A guard that stands still is killed, and
    /// the tree with it: that is reported as `Gone` and `Swept`.
    KillTree,
    /// Tell the guard to end: it has nothing (any more). What is heard of
    /// that guard from then on is not reported. How it ended is for one that
    /// is attached, and has an exit code of its own.
    Dismiss(Outcome),
    /// The guard was dismissed or is gone; start a new one (`--rejoin`).
    /// Answered by [`GuardEvent::Ready`], or by [`GuardEvent::Gone`].
    NewGuard,
    /// Say what happened (log, hooks, metrics, notify). Changes nothing.
    Tell(Transition),
    /// Nothing remains to be done.
    End(Outcome),
}

/// What is told to people and machines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transition {
    /// Standing by, at the 1st, 2nd, 4th, 8th… attempt and at least hourly.
    Waiting {
        /// Who holds it, as far as is known.
        holder: Option<Record>,
        /// Why it is not ours yet, and for how long at the most.
        why: Reason,
        /// How many polls so far.
        attempts: u64,
    },
    /// The lease is ours.
    Acquired {
        /// The term.
        term: Term,
        /// What was granted.
        grant: Grant,
        /// The first deadline.
        deadline: BootInstant,
        /// What gave the right to take it.
        basis: Basis,
    },
    /// A renewal succeeded.
    Renewed {
        /// What was granted.
        grant: Grant,
        /// The new deadline.
        deadline: BootInstant,
        /// From the send to the reply.
        took: Duration,
        /// Later than planned, by this much: retries were needed.
        late: Option<Duration>,
    },
    /// A call failed; it is tried again.
    CallFailed {
        /// Which one.
        what: &'static str,
        /// How.
        unknown: Unknown,
        /// What is left until the deadline, where there is one.
        left: Option<Duration>,
    },
    /// The database changed its incarnation below us and the lease survived.
    IncarnationChanged {
        /// Before.
        from: Incarnation,
        /// Now.
        to: Incarnation,
    },
    /// No renewal came through: the worker is told to stop before the deadline.
    Losing {
        /// When whoever is left is killed.
        deadline: BootInstant,
    },
    /// The lease is lost: the tree is killed.
    Lost {
        /// What was seen; `None`: the deadline passed without a renewal.
        loss: Option<Loss>,
    },
    /// An orderly stop begins.
    Stopping(StopCause),
    /// The lease was given back, or could not be.
    Released {
        /// The slot.
        slot: Slot,
        /// What came of it.
        result: GivenBack,
    },
    /// Standing by: another holder than before is seen.
    HolderChanged {
        /// Its row.
        record: Record,
    },
}

/// What came of giving the lease back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GivenBack {
    /// It is free.
    Done,
    /// It was no longer ours.
    NotOurs,
    /// No answer, or it must not be: others have to wait until it has run out.
    RunsOut {
        /// When at the earliest, from now on.
        left: Duration,
    },
}

/// How it ended; the exit code follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The worker ended by itself, or after an orderly stop.
    Worker(WorkerEnd),
    /// The precheck or the watchdog: exit 120.
    SteppedDown {
        /// For the last line.
        why: StopCause,
    },
    /// Not acquired in time: exit 121.
    NotAcquired {
        /// For the last line.
        why: Reason,
    },
    /// Lost: exit 122.
    Lost {
        /// What was seen; `None`: the deadline passed without a renewal.
        loss: Option<Loss>,
    },
    /// The database cannot be used: exit 123.
    Database(Unknown),
    /// The worker could not be started: 126, 127 or 125.
    NotStarted(NotStarted),
    /// The guard died: exit 125.
    GuardDied,
    /// A signal while standing by: 128 + N.
    Signaled(i32),
}
