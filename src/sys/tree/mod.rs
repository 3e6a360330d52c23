//! The process tree below this process: found by the `children` files of
//! /proc, signalled without ever hitting a process that has inherited a pid.
//!
//! - [`stop::stop_tree`]: a signal once to each process.
//! - [`sweep::Sweep`]: SIGKILL to all of them until `wait` says ECHILD.
//! - [`strangers`]: children that are in no tree.
//! - [`stat`], [`children`]: what /proc tells.
//!
//! A pid stays what it is as long as nobody has reaped it. Our own children
//! are reaped by us alone, so they are signalled by pid. Anybody else is
//! signalled through a handle (`pidfd_open(2)`), after a look at its parent
//! that was made with the handle already in hand: only a process whose parent
//! is in the tree is in the tree.

pub mod children;
pub mod stat;
pub mod stop;
pub mod strangers;
pub mod sweep;

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;

use super::role::GUARD_NAME;
use super::{Result, SysError, process};
use stat::Stat;

pub use children::children_of_self;
pub use stop::stop_tree;
pub use sweep::{Round, Sweep};

/// Makes sure that children can be found, and notes those that are there
/// already. To be called before there are any of one's own.
///
/// # Errors
/// /proc is not mounted, or shows another PID namespace.
pub fn settle_in() -> Result<()> {
    let seen = std::fs::read_link("/proc/self").ok();
    if seen.is_none_or(|seen| seen.as_os_str() != &*std::process::id().to_string()) {
        return Err(SysError {
            what: "find the processes of a worker",
            source: io::Error::other(
                "/proc is not mounted or shows another PID namespace; mount the one of this \
                 namespace there (mount -t proc proc /proc)",
            ),
        });
    }
    children::hold_own();
    strangers::note(strangers::children_but(&[]));
    Ok(())
}

fn is_guard(found: &Stat) -> bool {
    found.name.as_bytes() == GUARD_NAME.to_bytes()
}

/// One process of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    pid: i32,
    /// A child of this process.
    own: bool,
}

/// Whether `pid` is `ancestor` or descends from it; `None` when that cannot be
/// told: there is no such process (any more), or one above is out of sight.
pub fn descends_from(pid: i32, ancestor: i32) -> Option<bool> {
    // Whoever ends while it is looked at hands its children on, so that they
    // are looked at again. Bounded, should it go on like that.
    for _ in 0..16 {
        let mut at = pid;
        loop {
            // Before it is read: a guard is out of sight below `hidepid`.
            if at == ancestor {
                return Some(true);
            }
            match stat::read(at) {
                // 0: the parent is out of sight.
                Some(found) if found.parent <= 0 => return Some(false),
                Some(found) => at = found.parent,
                None if at == pid => return None,
                None => break,
            }
        }
    }
    None
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signalled {
    /// It was sent.
    Sent,
    /// The process has ended, or was never of this tree.
    Gone,
    /// EPERM: another user's.
    Refused,
}

/// Sends `signals` to a process of the tree, if it still is one.
fn signal_member(member: Member, signals: &[i32], is_in_tree: impl Fn(i32) -> bool) -> Signalled {
    if member.own {
        return each(signals, |signal| process::signal(member.pid, signal));
    }
    match process::pidfd_open(member.pid) {
        Ok(handle) => {
            if !has_parent_in(member.pid, is_in_tree) {
                return Signalled::Gone;
            }
            each(signals, |signal| {
                process::pidfd_signal(handle.as_fd(), signal)
            })
        }
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Signalled::Gone,
        // No handles (an old kernel, a filter, no descriptor left): the
        // parent is looked at right before. Were it not stopped it could reap
        // in between; it is, but for the first moments.
        Err(_) => {
            if !has_parent_in(member.pid, is_in_tree) {
                return Signalled::Gone;
            }
            each(signals, |signal| process::signal(member.pid, signal))
        }
    }
}

fn has_parent_in(pid: i32, is_in_tree: impl Fn(i32) -> bool) -> bool {
    stat::read(pid).is_some_and(|found| is_in_tree(found.parent) || is_self(found.parent))
}

fn is_self(pid: i32) -> bool {
    pid == std::process::id().cast_signed()
}

fn each(signals: &[i32], send: impl Fn(i32) -> io::Result<()>) -> Signalled {
    for signal in signals {
        match send(*signal).map_err(|error| error.raw_os_error().map(Errno::from_raw)) {
            Ok(()) => {}
            Err(Some(Errno::EPERM)) => return Signalled::Refused,
            Err(_) => return Signalled::Gone,
        }
    }
    Signalled::Sent
}
