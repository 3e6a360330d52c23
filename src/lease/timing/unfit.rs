//! Why times cannot be used, and a set that could.

use std::fmt;
use std::time::Duration;

use super::{LONGEST, Millionths, Shown};

/// Why times cannot be used. A message is a fragment that reads after the
/// flag that [`TimingError::flag`] names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// Below what makes sense.
    #[error("is {}; give at least {}", Shown(*given), Shown(*least))]
    TooShort {
        /// Which one.
        flag: &'static str,
        /// What was given.
        given: Duration,
        /// What would do.
        least: Duration,
    },
    /// Above what can be counted with.
    #[error("is {}; give at most {}", Shown(*given), Shown(LONGEST))]
    TooLong {
        /// Which one.
        flag: &'static str,
        /// What was given.
        given: Duration,
    },
    /// Not a fraction.
    #[error("is {given}; give a number from 0 to 1, such as 0.2")]
    Jitter {
        /// What was given.
        given: String,
    },
    /// They do not fit into the ttl.
    #[error("{0}")]
    Unfit(Box<Unfit>),
}

/// `2 × renew × (1 + jitter) + grace + margin` is more than the ttl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    given: Parts,
    works: Parts,
}

/// The times that have to fit into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) ttl: Duration,
    pub(super) renew_interval: Duration,
    pub(super) jitter: Millionths,
    pub(super) grace: Duration,
    pub(super) margin: Duration,
}

impl TimingError {
    /// The flag that it is about.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::TooShort { flag, .. } | Self::TooLong { flag, .. } => flag,
            Self::Jitter { .. } => "--jitter",
            Self::Unfit(_) => "--ttl",
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts {
            ttl,
            renew_interval,
            jitter,
            grace,
            margin,
        } = self.given;
        write!(
            f,
            "is {}, but 2 × --renew-every {} × (1 + --jitter {jitter}) + --grace {} + --margin {} = {} must fit into it; \
             this works: {}",
            Shown(ttl),
            Shown(renew_interval),
            Shown(grace),
            Shown(margin),
            Shown(self.given.needed()),
            self.works,
        )
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "--ttl {} --renew-every {} --jitter {} --grace {} --margin {}",
            Shown(self.ttl),
            Shown(self.renew_interval),
            self.jitter,
            Shown(self.grace),
            Shown(self.margin)
        )
    }
}

impl Parts {
    /// The error that names these, and what would work.
    pub(super) fn unfit(self) -> TimingError {
        TimingError::Unfit(Box::new(Unfit {
            given: self,
            works: self.fitted(),
        }))
    }

    /// Two renewals may be missed before the worker has to be told to stop.
    fn needed(&self) -> Duration {
        self.jitter.longest(self.renew_interval) * 2 + self.grace + self.margin
    }

    pub(super) fn fits(&self) -> bool {
        self.needed() <= self.ttl
    }

    /// A set near to this one that fits: the ttl and the jitter stay, and as
    /// much of the rest as can.
    pub(super) fn fitted(mut self) -> Self {
        if self.grace + self.margin > self.ttl / 2 {
            self.grace = self.grace.min(rounded_down(self.ttl / 5));
            self.margin = self.margin.min(rounded_down(self.ttl / 10));
        }
        let room = self.ttl - self.grace - self.margin;
        // Round down: what is printed must fit as it is printed.
        self.renew_interval = self
            .renew_interval
            .min(rounded_down(self.jitter.share_of_longest(room) / 2));
        self
    }
}

/// To whole tenths of a second from a second on, else to whole milliseconds.
fn rounded_down(duration: Duration) -> Duration {
    let step = if duration >= Duration::from_secs(1) {
        100
    } else {
        1
    };
    let millis = duration.as_millis() / step * step;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}
