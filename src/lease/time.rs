//! Instants on the boot clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant on `CLOCK_BOOTTIME` of this host (`clock_gettime(2)`), in
/// nanoseconds. There is no `now()` here: only `sys::clock` reads the clock.
///
/// `CLOCK_BOOTTIME` and not `CLOCK_MONOTONIC`, because the latter stands
/// still while the host is suspended. Instants of different boots, or of
/// different time namespaces, must never be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootInstant(u64);

impl BootInstant {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);

    /// An instant that many nanoseconds after the clock's origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How far `self` lies after `earlier`; zero when it does not.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for BootInstant {
    type Output = Self;

    /// Saturates: an instant too far away is "never".
    fn add(self, by: Duration) -> Self {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for BootInstant {
    type Output = Self;

    /// Saturates at the origin: a deadline before the boot has passed.
    fn sub(self, by: Duration) -> Self {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

impl fmt::Debug for BootInstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot+{:?}", Duration::from_nanos(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_counted_from_the_origin_and_saturate() {
        let second = Duration::from_secs(1);
        let instant = BootInstant::from_nanos(7) + second;
        assert_eq!(instant.as_nanos(), 1_000_000_007);
        assert_eq!(instant - second, BootInstant::from_nanos(7));
        assert_eq!(instant - Duration::MAX, BootInstant::ZERO);
        assert_eq!(instant + Duration::MAX, BootInstant::from_nanos(u64::MAX));
        assert_eq!(
            instant.saturating_since(BootInstant::ZERO + second),
            Duration::from_nanos(7)
        );
        assert_eq!(BootInstant::ZERO.saturating_since(instant), Duration::ZERO);
    }
}
