//! What wakes the loops: a timer on the boot clock that tokio waits for.

use std::os::fd::{AsFd as _, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::lease::time::BootInstant;
use crate::sys::timer::BootTimer;
use crate::sys::{Result, readiness};

/// Wakes a loop at an instant.
pub struct Alarm {
    timer: BootTimer,
    ready: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// One that is not set.
    ///
    /// # Errors
    /// No timer, or one that cannot be watched.
    pub fn new() -> Result<Self> {
        let timer = BootTimer::new()?;
        Ok(Self {
            ready: readiness::watch(timer.as_fd(), Interest::READABLE)?,
            timer,
        })
    }

    /// Sets or unsets it, as [`BootTimer::set`] does.
    ///
    /// # Errors
    /// `timerfd_settime(2)`.
    pub fn set(&mut self, at: Option<BootInstant>) -> Result<()> {
        self.timer.set(at)
    }

    /// Waits until it has fired, and forgets what was set. Cancel safe.
    pub async fn fired(&mut self) {
        // The reactor is gone only together with the loop.
        if let Ok(mut ready) = self.ready.readable().await {
            ready.clear_ready();
        }
        self.timer.consume();
    }
}
