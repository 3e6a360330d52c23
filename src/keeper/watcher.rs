//! The watch for changes of the lease, begun only when there is something to
//! wait for: a short worker of a free lease never pays for it.

use std::time::Duration;

use crate::lease::time::BootInstant;
use crate::store::{Notice, Watch};

/// A worker that is done within this long needs no watch of its lease: a
/// renewal or the deadline would not have come any sooner either.
pub const AFTER_START: Duration = Duration::from_millis(100);

/// The watch, or how to begin it.
pub struct Watcher<W, B> {
    begin: B,
    watch: Option<W>,
    begin_at: Option<BootInstant>,
    spread: bool,
}

impl<W: Watch, B: FnMut() -> W> Watcher<W, B> {
    /// Nothing is watched yet.
    pub fn new(begin: B) -> Self {
        Self {
            begin,
            watch: None,
            begin_at: None,
            spread: false,
        }
    }

    /// Begins at `at`, if it has not begun and nothing earlier was said.
    pub fn begin_at(&mut self, at: BootInstant) {
        if self.watch.is_none() && self.begin_at.is_none_or(|earlier| at < earlier) {
            self.begin_at = Some(at);
        }
    }

    /// Whether changes are watched: others may do so, too.
    pub fn has_begun(&self) -> bool {
        self.watch.is_some()
    }

    /// When [`Self::wake`] is due.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        self.begin_at
    }

    /// Begins when it is time.
    pub fn wake(&mut self, now: BootInstant) {
        if self.begin_at.is_some_and(|at| now >= at) {
            self.begin_at = None;
            let watch = (self.begin)();
            watch.spread(self.spread);
            self.watch = Some(watch);
        }
    }

    /// Whether a change may be told a little later, where a crowd is told of
    /// it: to those who stand by, so that they do not all come at once.
    pub fn spread(&mut self, spread: bool) {
        if self.spread != spread {
            self.spread = spread;
            if let Some(watch) = &self.watch {
                watch.spread(spread);
            }
        }
    }

    /// The next notice. Cancel safe.
    pub async fn next(&mut self) -> Notice {
        match &mut self.watch {
            Some(watch) => watch.next().await,
            None => std::future::pending().await,
        }
    }

    /// Ends it in order.
    pub async fn close(self, limit: Duration) {
        if let Some(watch) = self.watch {
            watch.close(limit).await;
        }
    }
}
