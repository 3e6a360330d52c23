//! The keeper's guard, whichever it is: its own child, or one that has
//! attached to `serve`.

use super::attached::Attached;
use super::link::Link;
use super::news::News;
use crate::lease::keeper::event::Outcome;
use crate::lease::time::BootInstant;
use crate::sys::Result;
use crate::sys::guard_process::GuardProcess;
use crate::sys::listening::Listening;
use crate::wire::ToGuard;

/// Where a keeper's guard comes from.
#[derive(Debug)]
pub enum GuardFrom {
    /// It was started.
    Child(GuardProcess),
    /// It is waited for, and comes over this socket, which has this mode
    /// whenever it has to be made anew.
    Socket(Listening, Option<u32>),
}

impl GuardFrom {
    /// Nothing has begun: a guard that was started is told that this is no
    /// crash.
    pub fn dismiss(self) {
        if let Self::Child(guard) = self {
            guard.dismiss();
        }
    }
}

/// A [`Link`] or an [`Attached`].
pub(super) enum AnyLink {
    Child(Box<Link>),
    Attached(Box<Attached>),
}

impl AnyLink {
    /// Begins to listen to it.
    pub(super) fn new(from: GuardFrom) -> Result<Self> {
        Ok(match from {
            GuardFrom::Child(guard) => Self::Child(Box::new(Link::new(guard)?)),
            GuardFrom::Socket(listening, mode) => {
                Self::Attached(Box::new(Attached::new(listening, mode)?))
            }
        })
    }

    /// Whether the guard is in another container.
    pub(super) fn is_attached(&self) -> bool {
        matches!(self, Self::Attached(_))
    }

    /// The child that is the guard.
    pub(super) fn child(&self) -> Option<i32> {
        match self {
            Self::Child(link) => link.child(),
            Self::Attached(_) => None,
        }
    }

    /// Whether a child's tree is being swept here.
    pub(super) fn is_sweeping(&self) -> bool {
        match self {
            Self::Child(link) => link.is_sweeping(),
            Self::Attached(_) => false,
        }
    }

    pub(super) fn send(&mut self, frame: &ToGuard) {
        match self {
            Self::Child(link) => link.send(frame),
            Self::Attached(attached) => attached.send(frame),
        }
    }

    pub(super) fn extend(&mut self, deadline: BootInstant, now: BootInstant) {
        match self {
            Self::Child(link) => link.extend(deadline, now),
            Self::Attached(attached) => attached.extend(deadline, now),
        }
    }

    pub(super) fn tell(&mut self, frame: &ToGuard, now: BootInstant) {
        match self {
            Self::Child(link) => link.tell(frame, now),
            Self::Attached(attached) => attached.tell(frame, now),
        }
    }

    pub(super) fn kill(&mut self, now: BootInstant) {
        match self {
            Self::Child(link) => link.kill(now),
            Self::Attached(attached) => attached.kill(now),
        }
    }

    /// It has done its work; `words` say to people how that has ended.
    pub(super) fn dismiss(&mut self, outcome: &Outcome, words: impl FnOnce() -> String) {
        match self {
            Self::Child(link) => link.dismiss(),
            Self::Attached(attached) => attached.dismiss(outcome, words()),
        }
    }

    /// It is not to act any more: another one comes.
    pub(super) fn see_off(&self) {
        if let Self::Child(link) = self {
            link.see_off();
        }
    }

    pub(super) fn next_wakeup(&self) -> Option<BootInstant> {
        match self {
            Self::Child(link) => link.next_wakeup(),
            Self::Attached(attached) => attached.next_wakeup(),
        }
    }

    pub(super) fn wake(&mut self, now: BootInstant, hooks: &[i32]) -> News {
        match self {
            Self::Child(link) => link.wake(now, hooks),
            Self::Attached(attached) => attached.wake(now),
        }
    }

    pub(super) fn child_changed(&mut self, now: BootInstant, hooks: &[i32]) -> News {
        match self {
            Self::Child(link) => link.child_changed(now, hooks),
            Self::Attached(_) => News::Nothing,
        }
    }

    pub(super) fn note_strangers(&mut self, hooks: &[i32], now: BootInstant) {
        match self {
            Self::Child(link) => link.note_strangers(hooks, now),
            Self::Attached(_) => {}
        }
    }

    /// Cancel safe.
    pub(super) async fn next(&mut self) -> News {
        match self {
            Self::Child(link) => link.next().await,
            Self::Attached(attached) => attached.next().await,
        }
    }
}
