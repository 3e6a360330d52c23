//! Alarms on the boot clock.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::sys::timerfd::{self, TimerFd, TimerFlags};
use nix::time::ClockId;

use super::clock;
use super::{Result, SysError};
use crate::lease::time::BootInstant;

/// An alarm on `CLOCK_BOOTTIME` that makes a descriptor readable. It fires
/// right after a resume when its instant passed during a suspend.
#[derive(Debug)]
pub struct BootTimer {
    timer: TimerFd,
    set_to: Option<BootInstant>,
}

impl BootTimer {
    /// One that is not set; non-blocking and close-on-exec.
    ///
    /// # Errors
    /// `timerfd_create(2)`.
    pub fn new() -> Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(timerfd::ClockId::CLOCK_BOOTTIME, flags)
            .map_err(SysError::on("create a timer"))?;
        Ok(Self {
            timer,
            set_to: None,
        })
    }

    /// Sets or unsets it; an instant that has passed fires at once.
    ///
    /// # Errors
    /// `timerfd_settime(2)`.
    pub fn set(&mut self, at: Option<BootInstant>) -> Result<()> {
        if at == self.set_to {
            return Ok(());
        }
        match at {
            Some(at) => self.timer.set(
                timerfd::Expiration::OneShot(time_spec(at)),
                timerfd::TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => self.timer.unset(),
        }
        .map_err(SysError::on("set a timer"))?;
        self.set_to = at;
        Ok(())
    }

    /// After the descriptor became readable: makes it unreadable, and forgets
    /// what was set.
    pub fn consume(&mut self) {
        // EAGAIN (it did not fire after all) and success come to the same.
        let _ = self.timer.wait();
        self.set_to = None;
    }
}

impl AsFd for BootTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl AsRawFd for BootTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_fd().as_raw_fd()
    }
}

/// A POSIX timer that sends SIGKILL to its own process, which ends a stopped
/// one too.
///
/// It counts on `CLOCK_MONOTONIC`, set to the same distance as the instant on
/// the boot clock that is asked for: the two differ by suspends alone. On the
/// boot clock itself the timers of keeper *and* guard would both have fired
/// when a host wakes from a suspend beyond the deadline, and with both dead
/// in the same instant nobody would be left to kill the worker's descendants.
/// So the first thing that acts on a resume is the guard's [`BootTimer`].
#[derive(Debug)]
pub struct SelfKill(SignalTimer);

impl SelfKill {
    /// One that is not set. Neither fork nor exec hands it down.
    ///
    /// # Errors
    /// `timer_create(2)`.
    pub fn new() -> Result<Self> {
        SignalTimer::new(ClockId::CLOCK_MONOTONIC, Signal::SIGKILL).map(Self)
    }

    /// Sets it anew, or unsets it.
    ///
    /// # Errors
    /// `timer_settime(2)`.
    pub fn set(&mut self, at: Option<BootInstant>) -> Result<()> {
        self.0.set(at, |at| {
            // Read in this order: a stop or suspend between the two makes the
            // timer early, never late.
            let monotonic = clock::monotonic_now();
            monotonic + at.saturating_since(clock::now())
        })
    }
}

/// A POSIX timer on `CLOCK_BOOTTIME` that sends SIGCONT to its own process:
/// whoever has stopped it, it runs on at this instant. To a process that is
/// not stopped, and ignores SIGCONT, it is nothing at all.
#[derive(Debug)]
pub struct SelfWake(SignalTimer);

impl SelfWake {
    /// One that is not set. Neither fork nor exec hands it down.
    ///
    /// # Errors
    /// `timer_create(2)`.
    pub fn new() -> Result<Self> {
        SignalTimer::new(ClockId::CLOCK_BOOTTIME, Signal::SIGCONT).map(Self)
    }

    /// Sets it anew, or unsets it.
    ///
    /// # Errors
    /// `timer_settime(2)`.
    pub fn set(&mut self, at: Option<BootInstant>) -> Result<()> {
        self.0.set(at, |at| Duration::from_nanos(at.as_nanos()))
    }
}

/// A POSIX timer that sends its own process a signal.
#[derive(Debug)]
struct SignalTimer {
    timer: Timer,
    set_to: Option<BootInstant>,
}

impl SignalTimer {
    fn new(clock: ClockId, signal: Signal) -> Result<Self> {
        let event = SigEvent::new(SigevNotify::SigevSignal {
            signal,
            si_value: 0,
        });
        let timer = Timer::new(clock, event).map_err(SysError::on("create a timer"))?;
        Ok(Self {
            timer,
            set_to: None,
        })
    }

    /// `on_its_clock` says where that instant is on the timer's clock.
    fn set(
        &mut self,
        at: Option<BootInstant>,
        on_its_clock: impl FnOnce(BootInstant) -> Duration,
    ) -> Result<()> {
        if at == self.set_to {
            return Ok(());
        }
        // Zero would unset it; the first nanosecond has passed long ago.
        let (target, flags) = match at.map(on_its_clock) {
            Some(target) => (
                target.max(Duration::from_nanos(1)),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => (Duration::ZERO, TimerSetTimeFlags::empty()),
        };
        let expiration = Expiration::OneShot(TimeSpec::from_duration(target.min(FAR)));
        self.timer
            .set(expiration, flags)
            .map_err(SysError::on("set a timer"))?;
        self.set_to = at;
        Ok(())
    }
}

/// What a `timespec` surely holds: some 146 years.
const FAR: Duration = Duration::from_secs(i64::MAX as u64 / 2_000_000_000);

fn time_spec(at: BootInstant) -> TimeSpec {
    let at = Duration::from_nanos(at.as_nanos());
    TimeSpec::from_duration(at.clamp(Duration::from_nanos(1), FAR))
}
