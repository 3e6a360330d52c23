//! The times that a lease lives by. This is the only place that validates
//! durations and the only one that knows how they hang together.

mod unfit;

use std::fmt;
use std::time::Duration;

use self::unfit::Parts;
pub use self::unfit::{TimingError, Unfit};

/// The most that any of the times may be: far above every use, and low
/// enough that no sum or multiple of them can overflow. A year of humantime's
/// has 365.25 days.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The least for times that a loop repeats at: below it the loop would do
/// nothing else.
const SHORTEST: Duration = Duration::from_millis(1);

/// The least ttl.
const SHORTEST_TTL: Duration = Duration::from_secs(1);

/// A million parts: how fractions are kept, so that times can be compared
/// and hashed.
const MILLION: u32 = 1_000_000;

/// What a user may say about times; `None` takes the default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TimingOptions {
    /// `--ttl`: 30 s.
    pub ttl: Option<Duration>,
    /// `--renew-every`: a fifth of the ttl.
    pub renew_interval: Option<Duration>,
    /// `--jitter`: 0.2, both ways.
    pub jitter: Option<f64>,
    /// `--grace`: a fifth of the ttl.
    pub grace: Option<Duration>,
    /// `--margin`: a tenth of the ttl.
    pub margin: Option<Duration>,
    /// `--stop-timeout`: 20 s.
    pub stop_timeout: Option<Duration>,
    /// `--poll-every`: the renewal interval.
    pub poll_interval: Option<Duration>,
    /// `--call-timeout`: a fifth of the ttl.
    pub call_timeout: Option<Duration>,
}

/// A fraction from 0 to 1, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Millionths(u32);

impl Millionths {
    fn new(fraction: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&fraction) {
            return None;
        }
        // Rounded up, so that what is checked is never less than what was
        // meant; but not for what the product is off by: 0.253157 gives
        // 253157.00000000003.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within 0 to a million, checked above"
        )]
        let millionths = (fraction * f64::from(MILLION) - 1e-6).ceil().max(0.0) as u32;
        Some(Self(millionths.min(MILLION)))
    }

    /// `duration × (1 + self)`, rounded up.
    fn longest(self, duration: Duration) -> Duration {
        let nanos = duration.as_nanos() * u128::from(MILLION + self.0);
        nanos_of(nanos.div_ceil(u128::from(MILLION)))
    }

    /// `duration / (1 + self)`, rounded down.
    fn share_of_longest(self, duration: Duration) -> Duration {
        nanos_of(duration.as_nanos() * u128::from(MILLION) / u128::from(MILLION + self.0))
    }

    /// `duration`, moved by at most this fraction both ways.
    fn spread(self, duration: Duration, chance: Chance) -> Duration {
        let (least, span) = (u128::from(MILLION - self.0), u128::from(2 * self.0));
        let factor = least + span * u128::from(chance.0) / u128::from(u16::MAX);
        nanos_of(duration.as_nanos() * factor / u128::from(MILLION))
    }
}

impl fmt::Display for Millionths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / f64::from(MILLION))
    }
}

fn nanos_of(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A duration in one unit, so that it can be typed as it is printed.
#[derive(Debug, Clone, Copy)]
pub struct Shown(
    /// What is shown.
    pub Duration,
);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (unit, name) = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")]
            .into_iter()
            .find(|(unit, _)| nanos.is_multiple_of(*unit))
            .unwrap_or((1, "ns"));
        write!(f, "{}{name}", nanos / unit)
    }
}

/// A duration for people: to the millisecond below ten seconds, to the tenth
/// of a second below a minute, then to the second.
#[derive(Debug, Clone, Copy)]
pub struct Rounded(
    /// What is shown.
    pub Duration,
);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.0.as_secs() {
            0..10 => 1,
            10..60 => 100,
            _ => 1000,
        };
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let rounded = Duration::from_millis(millis / step * step);
        humantime::format_duration(rounded).fmt(f)
    }
}

/// A drawn number, for jitter: an argument of the machines, like the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chance(
    /// All values are equally likely.
    pub u16,
);

impl Chance {
    /// No jitter at all (half a step off, to be exact): for tests.
    pub const MIDDLE: Self = Self(u16::MAX / 2);

    /// One of `count` choices, from 0; 0 when there is none.
    pub fn pick(self, count: usize) -> usize {
        usize::from(self.0).checked_rem(count).unwrap_or(0)
    }
}

/// Validated times of one leasewrap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Timing {
    ttl: Duration,
    renew_interval: Duration,
    jitter: Millionths,
    grace: Duration,
    margin: Duration,
    stop_timeout: Duration,
    poll_interval: Duration,
    call_timeout: Duration,
}

impl Timing {
    /// Fills in the defaults and checks that everything fits.
    ///
    /// # Errors
    /// [`TimingError`] says which flag is wrong and what would be right.
    pub fn new(options: TimingOptions) -> Result<Self, TimingError> {
        let ttl = options.ttl.unwrap_or(Duration::from_secs(30));
        let ttl = within("--ttl", ttl, SHORTEST_TTL)?;
        let or_share = |given: Option<Duration>, share: u32| given.unwrap_or_else(|| ttl / share);
        let renew_interval = within(
            "--renew-every",
            or_share(options.renew_interval, 5),
            SHORTEST,
        )?;
        let jitter = options.jitter.unwrap_or(0.2);
        let jitter = Millionths::new(jitter).ok_or_else(|| TimingError::Jitter {
            given: jitter.to_string(),
        })?;
        let timing = Self {
            ttl,
            renew_interval,
            jitter,
            grace: within("--grace", or_share(options.grace, 5), Duration::ZERO)?,
            // A kill takes time, and clocks run at different rates.
            margin: within("--margin", or_share(options.margin, 10), SHORTEST)?,
            stop_timeout: within(
                "--stop-timeout",
                options.stop_timeout.unwrap_or(Duration::from_secs(20)),
                Duration::ZERO,
            )?,
            poll_interval: within(
                "--poll-every",
                options.poll_interval.unwrap_or(renew_interval),
                SHORTEST,
            )?,
            call_timeout: within(
                "--call-timeout",
                or_share(options.call_timeout, 5),
                SHORTEST,
            )?,
        };
        let parts = timing.parts();
        if parts.fits() {
            Ok(timing)
        } else {
            Err(parts.unfit())
        }
    }

    fn parts(&self) -> Parts {
        Parts {
            ttl: self.ttl,
            renew_interval: self.renew_interval,
            jitter: self.jitter,
            grace: self.grace,
            margin: self.margin,
        }
    }

    /// How long the lease lasts from its last renewal.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Between regular renewals, before jitter.
    pub fn renew_interval(&self) -> Duration {
        self.renew_interval
    }

    /// From the stop signal to SIGKILL when the deadline nears.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// For the kill itself and for clocks of different rates.
    pub fn margin(&self) -> Duration {
        self.margin
    }

    /// From the stop signal to SIGKILL in an orderly stop.
    pub fn stop_timeout(&self) -> Duration {
        self.stop_timeout
    }

    /// Between polls of a standby, before jitter.
    pub fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    /// The limit of every call to the database.
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// How long a renewal or acquisition gives a right, from its sending.
    pub fn trust(&self) -> Duration {
        self.ttl - self.margin
    }

    /// The longest outage of the database that is sure to pass unnoticed by
    /// the worker: it may begin right before a renewal, and end right after
    /// the last retry but one was sent.
    pub fn rides_out(&self) -> Duration {
        (self.ttl - self.margin - self.grace)
            .saturating_sub(self.jitter.longest(self.renew_interval))
            .saturating_sub(self.ttl / 10)
    }

    /// Until the next regular renewal.
    pub fn next_renewal(&self, chance: Chance) -> Duration {
        self.jitter.spread(self.renew_interval, chance)
    }

    /// Until the next regular poll.
    pub fn next_poll(&self, chance: Chance) -> Duration {
        self.jitter.spread(self.poll_interval, chance)
    }

    /// Until a failed call is tried again: well before the next regular one.
    pub fn retry_pause(&self, chance: Chance) -> Duration {
        self.retry_jitter().spread(self.retry_base(), chance)
    }

    /// Until a standby tries a database again that has failed `failures`
    /// times in a row: growing, at most one ttl.
    pub fn backoff(&self, failures: u32, chance: Chance) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let grown = (self.retry_base() * (1 << doublings)).min(self.ttl);
        self.retry_jitter().spread(grown, chance).min(self.ttl)
    }

    /// The limit of a call when `left` is all that remains: a third of it at
    /// most, so that there is time for another one.
    pub fn call_limit(&self, left: Duration) -> Duration {
        self.call_timeout.min(left / 3).max(SHORTEST)
    }

    fn retry_base(&self) -> Duration {
        (self.ttl / 15).min(self.renew_interval)
    }

    /// Retries must stay apart even where regular renewals carry full jitter.
    fn retry_jitter(&self) -> Millionths {
        Millionths(self.jitter.0.min(MILLION / 2))
    }
}

/// How long a row must stay unchanged to be free although it was not
/// released, when the database's clock agrees: 1.1 times the holder's ttl,
/// and its take-over delay on top.
pub fn watch(ttl: Duration, takeover_delay: Duration) -> Duration {
    ttl.saturating_add(ttl / 10).saturating_add(takeover_delay)
}

/// The same, whatever the database's clock says.
pub fn long_watch(ttl: Duration, takeover_delay: Duration) -> Duration {
    let once = watch(ttl, Duration::ZERO);
    once.saturating_add(once).saturating_add(takeover_delay)
}

fn within(flag: &'static str, given: Duration, least: Duration) -> Result<Duration, TimingError> {
    if given < least {
        return Err(TimingError::TooShort { flag, given, least });
    }
    if given > LONGEST {
        return Err(TimingError::TooLong { flag, given });
    }
    Ok(given)
}

#[cfg(test)]
mod tests;
