//! Children that are in no tree of ours: the caller's, whose program has
//! executed this one, and what those have left.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;

use super::super::process;
use super::stat::{self, Stat};
use super::{children_of_self, is_guard};

static NOTED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// A child, which is told from whoever has its number later.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    known: Known,
}

#[derive(Debug)]
enum Known {
    /// By when it was started.
    Seen(Stat),
    /// By a handle: it may not be looked into (another user's, `hidepid`).
    Unseen(OwnedFd),
}

/// The children that have come since, but for `ours`: what the caller's
/// children leave when they end comes to this process, as the subreaper. As
/// long as the guard runs, what the worker's tree leaves comes to the guard
/// and to nobody else (`find_new_reaper` in kernel/exit.c). So whoever is in
/// this list may be [`note`]d once the guard has done something afterwards.
pub fn newcomers(ours: &[i32]) -> Vec<Child> {
    let mut found = children_but(&[ours, &noted()].concat());
    found.retain(|child| !child.is_guard());
    found
}

pub(super) fn children_but(these: &[i32]) -> Vec<Child> {
    let mut children = Vec::new();
    children_of_self(&mut children);
    children.retain(|pid| !these.contains(pid));
    children.into_iter().filter_map(Child::of).collect()
}

/// They are strangers from now on.
pub fn note(found: Vec<Child>) {
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    noted.retain(Child::is_there);
    noted.extend(found);
}

/// Those that were noted and are there yet.
pub fn noted() -> Vec<i32> {
    let noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    let still = noted.iter().filter(|child| child.is_there());
    still.map(|child| child.pid).collect()
}

impl Child {
    /// Its number cannot be given away before it is reaped, by this process.
    fn of(pid: i32) -> Option<Self> {
        let known = match stat::read(pid) {
            Some(found) => Known::Seen(found),
            None => Known::Unseen(process::pidfd_open(pid).ok()?),
        };
        Some(Self { pid, known })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Ended ones are there, until they are reaped.
    fn is_there(&self) -> bool {
        match &self.known {
            Known::Seen(before) => {
                stat::read(self.pid).is_some_and(|now| now.started == before.started)
            }
            Known::Unseen(handle) => match process::pidfd_signal(handle.as_fd(), 0) {
                Ok(()) => true,
                Err(error) => error.raw_os_error() != Some(Errno::ESRCH as i32),
            },
        }
    }

    /// Of an earlier term, should it not have ended yet.
    fn is_guard(&self) -> bool {
        match &self.known {
            Known::Seen(found) => is_guard(found),
            Known::Unseen(_) => false,
        }
    }
}
