//! Descriptors as tokio watches them.

use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Result, SysError};

/// Watches `fd` through a descriptor of its own for the same open file
/// description, whose readiness is the same (`epoll(7)`, question 0).
///
/// # Errors
/// No descriptor left, or one that cannot be watched.
pub fn watch(fd: BorrowedFd<'_>, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    let own = fd
        .try_clone_to_owned()
        .map_err(SysError::on("duplicate a descriptor"))?;
    // SAFETY: an OwnedFd stays open, and the same, until the AsyncFd that
    // owns it is dropped.
    unsafe { AsyncFd::register_with_interest(own, interest) }
        .map_err(SysError::on("watch a descriptor"))
}
