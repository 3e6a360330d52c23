//! From guard to releaser: the guard executes the same binary in its own
//! place, so that the lease is given back by code that can speak to a
//! database, in a process that the worker's user can look into no more than
//! into the guard.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::child::Image;
use super::guard_process::THIS_PROGRAM;
use super::memfd::ReleaseFile;
use super::role::{Fields, GUARD_NAME, GUARD_VARIABLE, RELEASE_VARIABLE, take};
use super::{SysError, environment, process};
use crate::lease::guard::{Keeper, KeeperLoss};

/// How long a keeper that was woken has to end.
pub const KEEPER_END_LIMIT: Duration = Duration::from_secs(1);

/// What a releaser is to do.
#[derive(Debug)]
pub struct ReleaseTask {
    /// What the keeper has left for it.
    pub file: ReleaseFile,
    /// What became of the keeper.
    pub keeper: Keeper,
    /// How many processes of the tree got SIGKILL.
    pub killed: u32,
    handle: Option<OwnedFd>,
}

/// Executes the releaser in place of this process. Returns only when that
/// cannot be done.
pub fn execute(
    file: &ReleaseFile,
    keeper: Keeper,
    handle: Option<BorrowedFd<'_>>,
    killed: u32,
) -> SysError {
    let mut named = format!(
        "release={},loss={},killed={}",
        file.as_fd().as_raw_fd(),
        loss_number(keeper),
        killed.min(i32::MAX.cast_unsigned()),
    );
    if let Some(handle) = handle {
        named.push_str(&format!(",handle={}", handle.as_raw_fd()));
    }
    let variables = environment::without(&[GUARD_VARIABLE])
        .into_iter()
        .chain(CString::new(format!("{RELEASE_VARIABLE}={named}")))
        .collect();
    let image = Image::new(
        THIS_PROGRAM.to_owned(),
        vec![GUARD_NAME.to_owned()],
        variables,
    );
    let handed_down = [Some(file.as_fd()), handle];
    for fd in handed_down.into_iter().flatten() {
        // SAFETY: two numbers.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) };
    }
    let failed = image.execute();
    SysError::on("execute the releaser")(failed)
}

impl ReleaseTask {
    pub(super) fn inherited(named: &OsStr) -> Option<Self> {
        let fields = Fields::of(named)?;
        Some(Self {
            file: ReleaseFile::inherited(take(fields.number("release")?)?),
            keeper: keeper_of(fields.number("loss")?)?,
            killed: fields.number("killed")?.cast_unsigned(),
            handle: fields.number("handle").and_then(take),
        })
    }

    /// After the release, whatever came of it: wakes a keeper that stands
    /// still, and kills it when it has not ended within a second. Whoever
    /// started leasewrap must see an end.
    pub fn see_to_keeper(&self) {
        if let Some(handle) = &self.handle {
            see_to_keeper(self.keeper, handle.as_fd());
        }
    }
}

/// Wakes a keeper that stands still, and kills it when it has not ended
/// within a second.
pub fn see_to_keeper(keeper: Keeper, handle: BorrowedFd<'_>) {
    match keeper {
        Keeper::Lost(_) => {}
        Keeper::StandsStill => {
            if process::pidfd_signal(handle, libc::SIGCONT).is_ok()
                && !ends_within(handle, KEEPER_END_LIMIT)
            {
                let _ = process::pidfd_signal(handle, libc::SIGKILL);
            }
        }
    }
}

/// Whether the process ends in time.
fn ends_within(handle: BorrowedFd<'_>, limit: Duration) -> bool {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    // Every signal is ignored here, so nothing can cut it short.
    poll(&mut [PollFd::new(handle, PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
}

fn loss_number(keeper: Keeper) -> i32 {
    match keeper {
        Keeper::StandsStill => 0,
        Keeper::Lost(KeeperLoss::Closed) => 1,
        Keeper::Lost(KeeperLoss::Malformed) => 2,
        Keeper::Lost(KeeperLoss::Foreign) => 3,
        Keeper::Lost(KeeperLoss::Nonsense) => 4,
    }
}

fn keeper_of(number: i32) -> Option<Keeper> {
    match number {
        0 => Some(Keeper::StandsStill),
        1 => Some(Keeper::Lost(KeeperLoss::Closed)),
        2 => Some(Keeper::Lost(KeeperLoss::Malformed)),
        3 => Some(Keeper::Lost(KeeperLoss::Foreign)),
        4 => Some(Keeper::Lost(KeeperLoss::Nonsense)),
        _ => None,
    }
}
