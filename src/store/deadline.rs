//! By when a call must be over, here and on the database's clock.

use std::time::Duration;

use tokio::time::sleep;

use super::Clock;
use crate::lease::time::BootInstant;

/// An instant on the boot clock by which a call must be over.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: BootInstant,
    clock: Clock,
}

impl Deadline {
    /// So long from now.
    pub(super) fn new(clock: Clock, limit: Duration) -> Self {
        let at = clock() + limit;
        Self { at, clock }
    }

    /// How long yet.
    pub(super) fn left(&self) -> Duration {
        self.at.saturating_since((self.clock)())
    }

    /// The same, but at most so long from now.
    pub(super) fn at_most(&self, limit: Duration) -> Self {
        let at = self.at.min((self.clock)() + limit);
        Self { at, ..*self }
    }
}

/// When a releaser looks, in sixteenths of its limit.
const LOOKS: [u32; 6] = [0, 1, 2, 4, 8, 14];

/// When a releaser looks whether an acquisition that was never answered has
/// taken something after all: again and again, until its limit is over.
pub(super) struct Looks {
    end: Deadline,
    limit: Duration,
    ahead: std::array::IntoIter<u32, { LOOKS.len() }>,
}

impl Looks {
    /// From now on.
    pub(super) fn new(clock: Clock, limit: Duration) -> Self {
        Self {
            end: Deadline::new(clock, limit),
            limit,
            ahead: LOOKS.into_iter(),
        }
    }

    /// Waits for the next one; by when it must be over.
    pub(super) async fn next(&mut self) -> Option<Deadline> {
        let rest = self.limit * (16 - self.ahead.next()?) / 16;
        sleep(self.end.left().saturating_sub(rest)).await;
        Some(self.end.at_most(self.limit / 3))
    }
}

/// The database's clock when a poll was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeenTime {
    /// When the poll was sent.
    pub sent_at: BootInstant,
    /// Microseconds since the Unix epoch.
    pub database_us: i64,
}

impl SeenTime {
    /// What that clock shows, in microseconds, when an acquisition that has
    /// so long from `now` counts as given up: a statement that was stuck in the
    /// network must not take the lease for somebody who has long gone. A step
    /// of that clock costs one refusal.
    pub(super) fn given_up(self, now: BootInstant, left: Duration) -> i64 {
        let later = now.saturating_since(self.sent_at) + left;
        let later = i64::try_from(later.as_micros()).unwrap_or(i64::MAX);
        self.database_us.saturating_add(later)
    }
}
