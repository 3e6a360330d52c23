//! Events that wait for their hook: in order, and not too many.

use std::collections::VecDeque;

use super::notice::{Happening, Notice};

/// So many wait at the most.
const WAITING: usize = 64;

/// The events that wait.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Notice>,
}

impl Queue {
    /// Adds one. Where there are too many, the one that matters least has to
    /// go: the oldest that only says that a renewal was late, else the oldest
    /// about other holders, else the oldest.
    #[must_use]
    pub fn push(&mut self, notice: Notice) -> Option<Notice> {
        let dropped = (self.waiting.len() == WAITING).then(|| {
            let first_of = |event| self.waiting.iter().position(|old| old.event == event);
            first_of(Happening::RenewedLate)
                .or_else(|| first_of(Happening::HolderChanged))
                .unwrap_or(0)
        });
        let dropped = dropped.and_then(|at| self.waiting.remove(at));
        self.waiting.push_back(notice);
        dropped
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<Notice> {
        self.waiting.pop_front()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many waited that never get their hook.
    pub fn clear(&mut self) -> usize {
        let count = self.waiting.len();
        self.waiting.clear();
        count
    }
}
