//! The only place that reads a clock.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::lease::time::BootInstant;

/// The present instant of `CLOCK_BOOTTIME`, which goes on while the host is
/// suspended (`clock_gettime(2)`).
pub fn now() -> BootInstant {
    BootInstant::from_nanos(nanos(ClockId::CLOCK_BOOTTIME))
}

/// This host's wall clock, since the Unix epoch. For people only: `doctor`
/// says how far the database's clock is from it; it decides nothing.
pub fn wall() -> Duration {
    Duration::from_nanos(nanos(ClockId::CLOCK_REALTIME))
}

/// `CLOCK_MONOTONIC`, for what must *not* come due by a suspend.
pub(super) fn monotonic_now() -> Duration {
    Duration::from_nanos(nanos(ClockId::CLOCK_MONOTONIC))
}

fn nanos(clock: ClockId) -> u64 {
    // Neither clock can fail on a kernel that leasewrap runs on (both are
    // older than subreapers); should it, then every deadline has passed.
    let Ok(time) = clock_gettime(clock) else {
        return u64::MAX;
    };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(u64::MAX);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(u64::MAX);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The inode of this process's time namespace (`time_namespaces(7)`): two
/// boot clocks mean the same only within one. 0 where there is none.
pub fn time_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/time").map_or(0, |namespace| namespace.ino())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_goes_forward() {
        let before = super::now();
        assert!(super::now() >= before);
        assert!(before.as_nanos() > 0);
    }
}
