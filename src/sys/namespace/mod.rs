//! `--pid-namespace`: the worker's tree in a PID namespace of its own
//! (`pid_namespaces(7)`), which the kernel ends as a whole, daemons, fork
//! loops and processes of other users included, when its init ends.
//!
//! ```text
//! guard ─┬─ lw-init   PID 1 in there: dies with the guard, reaps orphans
//!        └─ worker    PID 2 in there, with a /proc of its own
//! ```
//!
//! The guard stays outside, and both are its own children: so stops, ends and
//! the worker's exit code come to it as without a namespace. A process in
//! between, the maker, sees to that: it enters what new namespaces there have
//! to be (which the guard could not leave again) and forks both with
//! `CLONE_PARENT`.
//!
//! The init is ended by its parent-death signal, and by the end of file of a
//! pipe whose other end the guard alone holds, whichever comes first: the
//! pipe covers a guard that died before the signal was asked for. Nothing
//! from within can end it, nor can it be stopped from there: an init gets
//! only the signals that it has handlers for, and it has none.
//!
//! `wait` returns for an init only when nothing else of its namespace is left
//! (`zap_pid_ns_processes` in kernel/pid_namespace.c). So ECHILD in the guard
//! means here what it always means: the tree is empty.

mod maker;
mod probe;
mod refusal;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, pipe2};

use self::maker::{Maker, Record};
use super::{Result, SysError, child, process};

pub use self::maker::enter_mounts;
pub(super) use self::probe::{PROBE_NAME, PROBE_VARIABLE};
pub use self::probe::{Probe, ProbeTask, Way, probe};
pub use self::refusal::{Refusal, Step};

/// A namespace that the guard has made: as long as this lives, and the guard
/// does, its init does.
#[derive(Debug)]
pub struct Namespace {
    init: i32,
    way: Way,
    hold: OwnedFd,
}

/// Which of the two a fork into a new namespace has returned in.
pub(super) enum Forked {
    /// The new process, with every signal blocked; it has still to give itself
    /// its mounts ([`enter_mounts`]).
    Child,
    /// The old one.
    Parent {
        /// The new process, by its number out here.
        child: i32,
        /// What it lives in.
        namespace: Namespace,
    },
}

/// Forks a child into a new PID namespace, beside an init of its own; both are
/// children of this process, which must have one thread. `secret` are
/// descriptors that nobody may see in a process that can be looked into for
/// a moment (where a user namespace is needed). The process in between is a
/// child too, and has to be reaped.
///
/// # Errors
/// [`Refusal`] where the kernel says no; whatever had begun is gone then.
pub(super) fn fork(secret: &[RawFd]) -> std::result::Result<Forked, Refusal> {
    let failed = |errno| Refusal::new(Step::Fork, errno);
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed);
    let (held, hold) = pipe()?;
    let (told, tell) = pipe()?;
    let guard = std::process::id().cast_signed();
    let maker = Maker::new(guard, secret);
    match child::fork().map_err(|error| failed(errno_of(&error)))? {
        child::Forked::Parent { .. } => {}
        child::Forked::Child => {
            drop(told);
            maker.make(&held, &tell);
            // Only the worker-to-be comes here. The pipe that keeps the init
            // alive must be the guard's alone.
            drop((held, hold, tell));
            return Ok(Forked::Child);
        }
    }
    drop((held, tell));
    listen(&mut File::from(told), hold)
}

/// What the maker says. It has ended then, or is about to; where all went well
/// it is reaped as any other child, and nobody waits for it.
fn listen(told: &mut File, hold: OwnedFd) -> std::result::Result<Forked, Refusal> {
    let mut init = None;
    let mut next = || {
        let mut bytes = Record::BYTES;
        // Its end of file: somebody has killed it.
        told.read_exact(&mut bytes).ok()?;
        Record::decode(bytes)
    };
    let why = loop {
        match next() {
            Some(Record::Init { pid, way }) => init = Some((pid, way)),
            Some(Record::Worker { pid }) => {
                let Some((init, way)) = init else {
                    break Refusal::new(Step::Fork, Errno::EPROTO);
                };
                let namespace = Namespace { init, way, hold };
                return Ok(Forked::Parent {
                    child: pid,
                    namespace,
                });
            }
            Some(Record::Refused(refusal)) => break refusal,
            None => break Refusal::new(Step::Fork, Errno::ECHILD),
        }
    };
    // Whatever was forked ends with the init; one that we have not heard of
    // ends by its pipe.
    drop(hold);
    if let Some((init, _)) = init {
        let _ = process::signal(init, libc::SIGKILL);
    }
    // The init ends only after everybody in there was reaped, and that is for
    // us too: for a worker-to-be of which the maker, killed, did not tell.
    reap_all();
    Err(why)
}

impl Namespace {
    /// Its init, by its number out here; a child of the guard.
    pub fn init(&self) -> i32 {
        self.init
    }

    /// How it was made.
    pub fn way(&self) -> Way {
        self.way
    }

    /// To be called once the worker has ended and was reaped: the init then
    /// ends as soon as nothing else is left. (As long as the worker lives it
    /// could not tell: the worker is no child of it.)
    pub fn worker_has_ended(&self) {
        // One byte into an empty pipe, once; an init that is gone needs none.
        let _ = nix::unistd::write(&self.hold, &[1]);
    }
}

/// Waits for a child that ends by itself, or was killed.
fn reap(child: i32) {
    while waitpid(Pid::from_raw(child), Some(WaitPidFlag::__WALL)) == Err(Errno::EINTR) {
        // Once more.
    }
}

/// Waits for all children: each ends by itself, or was killed.
fn reap_all() {
    while waitpid(None, Some(WaitPidFlag::__WALL)) != Err(Errno::ECHILD) {
        // One more.
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// In a forked child: the descriptor takes the number `to`.
fn move_to(fd: &OwnedFd, to: RawFd) -> Result<()> {
    // SAFETY: two numbers; in the child, where nothing else uses `to` any more.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), to) })
        .map(drop)
        .map_err(SysError::on("move a descriptor"))
}
