//! The guard as the keeper sees it: started before any thread or runtime
//! exists, watched by its handle, woken and killed when it stands still.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::child::{Forked, Image, end_child, fork};
use super::inherited::Inherited;
use super::memfd::{ReleaseFile, Setup, SetupFile};
use super::namespace::Probe;
use super::process::{self, Change, Waited};
use super::role::{GUARD_NAME, GUARD_VARIABLE};
use super::socket::Channel;
use super::{Result, SysError, clock, environment};
use crate::exit;
use crate::wire::{Hello, ToGuard, VERSION};

/// A guard that was started.
#[derive(Debug)]
pub struct GuardProcess {
    pid: i32,
    handle: OwnedFd,
    channel: Channel,
    probe: Option<Probe>,
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

/// Where a hook reads from and writes to.
#[derive(Debug, Clone, Copy)]
pub struct HookStreams<'a> {
    /// Its standard input.
    pub input: BorrowedFd<'a>,
    /// Its standard output and standard error.
    pub output: BorrowedFd<'a>,
}

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
    let (probe, report) = setup
        .pid_namespace
        .then(Probe::by_other)
        .transpose()?
        .unzip();
    let setup = SetupFile::create(setup)?;
    let (channel, theirs) = Channel::pair()?;
    let [socket, setup_fd, release_fd] =
        [theirs.as_fd(), setup.as_fd(), release.as_fd()].map(|fd| fd.as_raw_fd());
    let keeper = std::process::id();
    let mut named =
        format!("socket={socket},setup={setup_fd},release={release_fd},keeper={keeper}");
    let mut handed_down = vec![socket, setup_fd, release_fd];
    if let Some(report) = &report {
        named.push_str(&format!(",report={}", report.as_raw_fd()));
        handed_down.push(report.as_raw_fd());
    }
    let image = image(program, environment::for_guard(), &named);
    let guard = fork_guard(image, channel, &handed_down, inherited, || {
        inherited.hand_down();
    })?;
    Ok(GuardProcess { probe, ..guard })
}

/// Starts the guard of `attach`. It has nothing to release: when the process
/// that starts it is gone or stands still, it tells `serve` itself, by
/// `serve`, that its tree is empty.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_for_attach(
    program: &CStr,
    inherited: &Inherited,
    setup: &Setup,
    serve: BorrowedFd<'_>,
) -> Result<GuardProcess> {
    let setup = SetupFile::create(setup)?;
    let (channel, theirs) = Channel::pair()?;
    let handed_down = [
        theirs.as_raw_fd(),
        setup.as_fd().as_raw_fd(),
        serve.as_raw_fd(),
    ];
    let [socket, setup_fd, serve_fd] = handed_down;
    let keeper = std::process::id();
    let named = format!("socket={socket},setup={setup_fd},serve={serve_fd},keeper={keeper}");
    let image = image(program, environment::for_guard(), &named);
    fork_guard(image, channel, &handed_down, inherited, || {
        inherited.hand_down();
    })
}

/// Starts the guard of a hook. It has none of the caller's descriptors, and
/// no terminal: a session of its own, so that what is typed reaches no hook.
/// It has nothing to release, and leaves a keeper that stands still alone.
///
/// # Errors
/// As [`spawn`].
pub fn spawn_for_hook(
    program: &CStr,
    inherited: &Inherited,
    setup: &Setup,
    streams: HookStreams<'_>,
) -> Result<GuardProcess> {
    let setup = SetupFile::create(setup)?;
    let (channel, theirs) = Channel::pair()?;
    let handed_down = [theirs.as_raw_fd(), setup.as_fd().as_raw_fd()];
    let [socket, setup_fd] = handed_down;
    let named = format!("socket={socket},setup={setup_fd}");
    let image = image(program, environment::for_hook(), &named);
    let [input, output] = [streams.input, streams.output].map(|fd| fd.as_raw_fd());
    fork_guard(image, channel, &handed_down, inherited, || {
        // SAFETY: numbers. A fresh child leads no group, so it may lead a
        // session; 0, 1 and 2 are always open in a keeper, so that neither of
        // the streams is one of them, and a copy is not close-on-exec.
        unsafe {
            libc::setsid();
            libc::dup2(input, 0);
            libc::dup2(output, 1);
            libc::dup2(output, 2);
        }
    })
}

fn image(program: &CStr, mut variables: Vec<CString>, named: &str) -> Image {
    // Digits and letters: no NUL.
    variables.extend(CString::new(format!("{GUARD_VARIABLE}={named}")));
    Image::new(program.to_owned(), vec![GUARD_NAME.to_owned()], variables)
}

/// `prepare` is called in the child, and must be async-signal-safe.
fn fork_guard(
    mut image: Image,
    channel: Channel,
    handed_down: &[RawFd],
    inherited: &Inherited,
    prepare: impl FnOnce(),
) -> Result<GuardProcess> {
    let prepared = image.prepare();
    let pid = match fork().map_err(SysError::on("fork the guard"))? {
        Forked::Parent { child } => child,
        Forked::Child => {
            for fd in handed_down {
                // SAFETY: two numbers.
                unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) };
            }
            prepare();
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
        probe: None,
    })
}

impl GuardProcess {
    /// A child that is to pass for one, with this channel.
    #[cfg(test)]
    pub fn of_child(child: &std::process::Child, channel: Channel) -> Self {
        let pid = child.id().cast_signed();
        Self {
            pid,
            handle: process::pidfd_open(pid).unwrap(),
            channel,
            probe: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// With `--pid-namespace`: whether it is possible. To be asked before
    /// anything is taken, and once.
    pub fn take_probe(&mut self) -> Option<Probe> {
        self.probe.take()
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

    /// Ends a guard that nobody has spoken to: there is nothing to do.
    pub fn dismiss(self) {
        let hello = ToGuard::Hello(Hello {
            version: VERSION,
            time_namespace: clock::time_namespace(),
        });
        for frame in [hello, ToGuard::Dismiss] {
            // One that is gone has ended too.
            let _ = self.channel.send(&frame.encode());
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
