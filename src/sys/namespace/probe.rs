//! Whether a PID namespace can be had, tried before a lease is thought of and
//! by the same steps: by the guard when it begins, or, for who has none, by
//! this binary executed anew. (By nobody else: some of the steps are for a
//! process that has nothing to hide.)

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use super::maker::Record;
use super::{Forked, Refusal, Step, enter_mounts, fork, reap, reap_all};
use crate::exit;
use crate::sys::child::{self, Image, end_child};
use crate::sys::guard_process::THIS_PROGRAM;
use crate::sys::role::{Fields, take};
use crate::sys::{Result, SysError, environment, inherited};

/// The name, and the whole command line, of a process that tries.
pub(in crate::sys) const PROBE_NAME: &CStr = c"lw-probe";

/// Names the descriptor for the answer.
pub(in crate::sys) const PROBE_VARIABLE: &str = "LW_PROBE";

/// How a namespace is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By root, or with `CAP_SYS_ADMIN`.
    Direct,
    /// Below a user namespace in which the caller is itself, and nobody else
    /// exists: set-user-id programs have no effect in there, and what belongs
    /// to others shows as nobody's.
    UserNamespace,
}

impl Way {
    pub(super) fn number(self) -> i32 {
        match self {
            Self::Direct => 0,
            Self::UserNamespace => 1,
        }
    }

    pub(super) fn of(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::Direct),
            1 => Some(Self::UserNamespace),
            _ => None,
        }
    }
}

/// An attempt that is under way.
#[derive(Debug)]
pub struct Probe {
    /// Who was executed for it, and nothing else.
    child: Option<i32>,
    answer: File,
}

const WHAT: &str = "try a PID namespace";

/// Whoever has not answered by then stands still.
const LIMIT: Duration = Duration::from_secs(10);

/// Begins the attempt in a process of its own.
///
/// # Errors
/// No process, no descriptors.
pub fn probe() -> Result<Probe> {
    let (mut probe, theirs) = Probe::by_other()?;
    let mut variables = environment::for_guard();
    let named = format!("{PROBE_VARIABLE}=report={}", theirs.as_raw_fd());
    variables.extend(CString::new(named));
    let arguments = vec![PROBE_NAME.to_owned()];
    let mut image = Image::new(THIS_PROGRAM.to_owned(), arguments, variables);
    let prepared = image.prepare();
    match child::fork().map_err(SysError::on(WHAT))? {
        child::Forked::Parent { child } => {
            probe.child = Some(child);
            Ok(probe)
        }
        child::Forked::Child => {
            // SAFETY: two numbers.
            unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) };
            inherited::get().restore_signals();
            prepared.execute();
            end_child(exit::FAILED.into());
        }
    }
}

impl Probe {
    /// One that a child is to make, and to report through this descriptor.
    pub(in crate::sys) fn by_other() -> Result<(Self, OwnedFd)> {
        let (answer, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(SysError::on(WHAT))?;
        let probe = Self {
            child: None,
            answer: answer.into(),
        };
        Ok((probe, theirs))
    }

    /// What it came to; waits for it, some milliseconds at the most.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn answer(mut self) -> std::result::Result<Way, Refusal> {
        let answer = read(&mut self.answer);
        if let Some(child) = self.child {
            reap(child);
        }
        answer
    }
}

fn read(from: &mut File) -> std::result::Result<Way, Refusal> {
    let limit = PollTimeout::try_from(LIMIT).unwrap_or(PollTimeout::MAX);
    let mut waited = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    // Cut short by a signal it is read all the same.
    if poll(&mut waited, limit) == Ok(0) {
        return Err(Refusal::new(Step::Fork, Errno::ETIMEDOUT));
    }
    let mut bytes = Record::BYTES;
    let read = from.read_exact(&mut bytes).ok();
    match read.and_then(|()| Record::decode(bytes)) {
        Some(Record::Init { way, .. }) => Ok(way),
        Some(Record::Refused(refusal)) => Err(refusal),
        Some(Record::Worker { .. }) | None => Err(Refusal::new(Step::Fork, Errno::ECHILD)),
    }
}

/// What a process has that is to make the attempt.
#[derive(Debug)]
pub struct ProbeTask {
    report: OwnedFd,
}

impl ProbeTask {
    pub(in crate::sys) fn inherited(named: &OsStr) -> Option<Self> {
        Self::of(&Fields::of(named)?)
    }

    pub(in crate::sys) fn of(fields: &Fields<'_>) -> Option<Self> {
        let report = take(fields.number("report")?)?;
        Some(Self { report })
    }

    /// Tries, and reports; to be called while this process has neither
    /// children nor threads. `secret` as for a worker.
    pub fn run(self, secret: &[RawFd]) {
        let mut report = File::from(self.report);
        attempt(secret, |answer| {
            let record = match answer {
                Ok(way) => Record::Init { pid: 0, way },
                Err(refusal) => Record::Refused(refusal),
            };
            // Whoever asked and is gone needs no answer.
            let _ = report.write_all(&record.encode());
        });
        // Who was forked for it has ended, or is ending.
        reap_all();
    }
}

/// Everything up to where the worker would be executed.
fn attempt(secret: &[RawFd], mut report: impl FnMut(std::result::Result<Way, Refusal>)) {
    let failed = |errno| Refusal::new(Step::Fork, errno);
    let (mounts, tell) = match pipe2(OFlag::O_CLOEXEC) {
        Ok(pipe) => pipe,
        Err(errno) => return report(Err(failed(errno))),
    };
    match fork(secret) {
        Err(refusal) => report(Err(refusal)),
        Ok(Forked::Child) => {
            let record = match enter_mounts() {
                Ok(()) => Record::Worker { pid: 0 },
                Err(refusal) => Record::Refused(refusal),
            };
            let _ = nix::unistd::write(&tell, &record.encode());
            end_child(0);
        }
        Ok(Forked::Parent { namespace, .. }) => {
            drop(tell);
            let mut bytes = Record::BYTES;
            let read = File::from(mounts).read_exact(&mut bytes).ok();
            report(match read.and_then(|()| Record::decode(bytes)) {
                Some(Record::Worker { .. }) => Ok(namespace.way()),
                Some(Record::Refused(refusal)) => Err(refusal),
                Some(Record::Init { .. }) | None => Err(failed(Errno::ECHILD)),
            });
            // The init ends when nobody holds its namespace any more.
            drop(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let refusal = Refusal::new(Step::Proc, Errno::EPERM);
        for record in [
            Record::Init {
                pid: 4_194_303,
                way: Way::UserNamespace,
            },
            Record::Worker { pid: 7 },
            Record::Refused(refusal),
        ] {
            assert_eq!(Record::decode(record.encode()), Some(record));
        }
        assert_eq!(Record::decode(Record::BYTES), None);
    }
}
