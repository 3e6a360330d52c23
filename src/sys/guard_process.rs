//! The guard as the keeper sees it: started before any thread or runtime
//! exists, watched by its handle, woken and killed when it stands still.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::child::{Forked, Image, end_child, fork};
use super::inherited::Inherited;
use super::memfd::{ReleaseFile, Setup, SetupFile};
use super::process::{self, Change, Waited};
use super::role::{GUARD_NAME, GUARD_VARIABLE};
use super::socket::Channel;
use super::{Result, SysError, environment};
use crate::exit;

/// A guard that was started.
#[derive(Debug)]
pub struct GuardProcess {
    pid: i32,
    handle: OwnedFd,
    channel: Channel,
}

/// How the guard's process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardState {
    /// Nothing new: it runs, or stands still as reported before.
    AsBefore,
    /// Something has stopped it; reported once.
    Stopped,
    /// It was woken; reported once.
    Continued,
    /// It has ended and was reaped.
    Ended,
}

/// This binary, however it was found and even if it was replaced since.
pub const THIS_PROGRAM: &CStr = c"/proc/self/exe";

/// Starts the guard: `program` ([`THIS_PROGRAM`]) named `lw-guard`, with the caller's
/// signals, descriptors and environment (less what stays with leasewrap).
/// Make [`process::become_subreaper`] true before, so that nothing of the
/// tree is lost when the guard dies.
///
/// # Errors
/// No process, no descriptors. An exec that fails shows as a guard that is
/// gone.
pub fn spawn(
    program: &CStr,
    inherited: &Inherited,
    setup: &Setup,
    release: &ReleaseFile,
) -> Result<GuardProcess> {
    let setup = SetupFile::create(setup)?;
    let (channel, theirs) = Channel::pair()?;
    let handed_down = [
        theirs.as_raw_fd(),
        setup.as_fd().as_raw_fd(),
        release.as_fd().as_raw_fd(),
    ];
    let [socket, setup_fd, release_fd] = handed_down;
    let keeper = std::process::id();
    let named = format!(
        "{GUARD_VARIABLE}=socket={socket},setup={setup_fd},release={release_fd},keeper={keeper}"
    );
    let mut variables = environment::for_guard();
    // Digits and letters: no NUL.
    variables.extend(CString::new(named));
    let mut image = Image::new(program.to_owned(), vec![GUARD_NAME.to_owned()], variables);
    let prepared = image.prepare();
    let pid = match fork().map_err(SysError::on("fork the guard"))? {
        Forked::Parent { child } => child,
        Forked::Child => {
            for fd in handed_down {
                // SAFETY: two numbers.
                unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
            }
            inherited.hand_down();
            inherited.restore_signals();
            prepared.execute();
            end_child(exit::FAILED.into());
        }
    };
    // Its number cannot be given away before it is reaped here.
    let handle = process::pidfd_open(pid).map_err(|error| {
        let _ = process::signal(pid, libc::SIGKILL);
        SysError::on("open a handle of the guard")(error)
    })?;
    Ok(GuardProcess {
        pid,
        handle,
        channel,
    })
}

impl GuardProcess {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Becomes readable when the guard has ended.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// The frames' channel; readable and writable as sockets are.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// What is new of its process; to be asked at every SIGCHLD, and when the
    /// handle is readable, until it says [`GuardState::AsBefore`].
    pub fn state(&self) -> GuardState {
        match process::wait_pidfd(self.handle.as_fd()) {
            Waited::Nothing => GuardState::AsBefore,
            Waited::Changed {
                change: Change::Stopped(_),
                ..
            } => GuardState::Stopped,
            Waited::Changed {
                change: Change::Continued,
                ..
            } => GuardState::Continued,
            Waited::Changed {
                change: Change::Exited(_) | Change::Killed(_),
                ..
            }
            | Waited::NoChild => GuardState::Ended,
        }
    }

    /// Wakes it when it is stopped.
    pub fn wake(&self) {
        // It may have ended, which is seen elsewhere.
        let _ = process::pidfd_signal(self.handle.as_fd(), libc::SIGCONT);
    }

    /// Ends it: the worker dies by its parent-death signal, and what is left
    /// becomes this process's, for [`super::tree::Sweep`].
    pub fn kill(&self) {
        // As above.
        let _ = process::pidfd_signal(self.handle.as_fd(), libc::SIGKILL);
    }
}
