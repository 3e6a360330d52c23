//! The keeper's machine: what to do next, given what happened and when.
//!
//! `Standby → Acquiring → Starting → Holding → Stopping → Releasing → Ended`

pub mod event;

use std::sync::Arc;
use std::time::Duration;

use self::event::{Command, Event};
use super::ids::HolderId;
use super::record::{Grant, Observation, Term, Terms};
use super::time::BootInstant;
use super::timing::{Chance, Timing};
use super::watch::Reason;

/// What a step may use of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Now {
    /// The boot clock.
    pub at: BootInstant,
    /// Drawn anew for each step.
    pub chance: Chance,
    /// A UUID drawn anew for each step: the identity of the next attempt.
    pub fresh: HolderId,
}

/// `--takeover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Takeover {
    /// Only what was watched long enough oneself is free.
    Observed,
    /// What the database's clock says has expired is free.
    Clock,
}

/// What never changes while a keeper lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// All times.
    pub timing: Timing,
    /// `--slots`, at least 1.
    pub slots: u32,
    /// What is written into the row.
    pub terms: Terms,
    /// When an unreleased lease is free.
    pub takeover: Takeover,
    /// How long to stand by; `None` for ever, zero for `--no-wait`.
    pub wait: Option<Duration>,
    /// Stand by again after a loss, a failed precheck or a step-down.
    pub rejoin: bool,
    /// There is a precheck: no attempt before it has passed.
    pub precheck: bool,
    /// The guard is attached to `serve`: one that leaves while nothing runs
    /// is waited for again, and nothing can be said of the tree of one that
    /// leaves in a term.
    pub attached: bool,
}

/// Where a keeper stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Watching the lease.
    Standby,
    /// An acquisition is under way, or what became of it is being found out.
    Acquiring,
    /// The lease is held, the worker is being started.
    Starting,
    /// The lease is held and the worker runs.
    Holding,
    /// The worker's tree is being ended.
    Stopping,
    /// The tree is empty, the lease is being given back.
    Releasing,
    /// Nothing remains to be done.
    Ended,
}

/// The keeper's machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keeper {
    config: Arc<Config>,
    since: BootInstant,
}

impl Keeper {
    /// A keeper that has done nothing yet.
    pub fn new(config: Arc<Config>, now: &Now) -> Self {
        Self {
            config,
            since: now.at,
        }
    }

    /// What to do first.
    #[must_use]
    pub fn start(&mut self, now: &Now) -> Vec<Command> {
        self.step(Event::Wake, now)
    }

    /// What to do because of `event`, in order.
    #[must_use]
    pub fn step(&mut self, event: Event, now: &Now) -> Vec<Command> {
        let (_, _) = (event, now);
        Vec::new()
    }

    /// When to step with [`Event::Wake`] if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        None
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        Phase::Standby
    }

    /// Since when it stands there.
    pub fn since(&self) -> BootInstant {
        self.since
    }

    /// The term that it holds.
    pub fn term(&self) -> Option<&Term> {
        None
    }

    /// What was granted last in this term.
    pub fn grant(&self) -> Option<&Grant> {
        None
    }

    /// When the worker's tree must be dead.
    pub fn deadline(&self) -> Option<BootInstant> {
        None
    }

    /// What the last poll saw, and when its reply came.
    pub fn observation(&self) -> Option<(BootInstant, &Observation)> {
        None
    }

    /// Why the lease is not ours, while standing by.
    pub fn reason(&self) -> Option<&Reason> {
        None
    }

    /// How many polls were answered or given up while standing by.
    pub fn attempts(&self) -> u64 {
        0
    }

    /// How many calls in a row have failed.
    pub fn failures(&self) -> u32 {
        0
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
