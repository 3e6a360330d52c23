//! By when a call must be over.

use std::time::Duration;

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
