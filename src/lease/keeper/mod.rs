//! The keeper's machine: what to do next, given what happened and when.
//!
//! ```text
//! Standby → Acquiring → Starting → Holding → Stopping → Releasing → Ended
//!    ↑          |                                            |
//!    +----------+-------------- --rejoin --------------------+
//! ```
//!
//! Each state is a file and decides about every event by name. What hangs on
//! time is decided by comparing `now`, whatever the event: a host that was
//! suspended, or a loop that was late, finds the same answer.

mod acquiring;
pub mod event;
mod holding;
mod releasing;
mod search;
mod standby;
mod stopping;
mod tenure;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use self::acquiring::Acquiring;
use self::event::{Command, Event};
use self::holding::Holding;
use self::releasing::Releasing;
use self::search::Search;
use self::standby::Standby;
use self::stopping::Stopping;
use self::tenure::Tenure;
use super::ids::HolderId;
use super::record::{Grant, Observation, Term, Terms};
use super::time::BootInstant;
use super::timing::{Chance, Timing};
use super::watch::Reason;
pub use super::watch::Takeover;

/// What a step may use of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Now {
    /// The boot clock, read when the event was received or later.
    pub at: BootInstant,
    /// Drawn anew for each step.
    pub chance: Chance,
    /// A UUID drawn anew for each step: the identity of the next attempt.
    pub fresh: HolderId,
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
    /// is waited for again, nothing can be said of the tree of one that
    /// leaves in a term, and after a term the next one is waited for.
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

impl Phase {
    /// It holds nothing, and would like to.
    pub fn stands_by(self) -> bool {
        matches!(self, Self::Standby | Self::Acquiring)
    }
}

/// What a state decides by.
struct Context<'a> {
    config: &'a Config,
    now: &'a Now,
}

impl Context<'_> {
    fn at(&self) -> BootInstant {
        self.now.at
    }

    fn timing(&self) -> &Timing {
        &self.config.timing
    }

    /// Until a failed call is tried again.
    fn retry_at(&self) -> BootInstant {
        self.at() + self.timing().retry_pause(self.now.chance)
    }
}

/// What is asked for, in order.
type Commands = Vec<Command>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Standby(Standby),
    Acquiring(Acquiring),
    Holding(Holding),
    Stopping(Stopping),
    Releasing(Releasing),
    Ended,
}

/// The keeper's machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keeper {
    config: Arc<Config>,
    state: State,
    since: BootInstant,
}

impl Keeper {
    /// A keeper that has done nothing yet.
    pub fn new(config: Arc<Config>, now: &Now) -> Self {
        let search = Search::new(&Context {
            config: &config,
            now,
        });
        Self {
            config,
            state: State::Standby(Standby::new(search, now.at)),
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
        let context = Context {
            config: &self.config,
            now,
        };
        let mut out = Vec::new();
        let before = self.phase();
        self.state = match mem::replace(&mut self.state, State::Ended) {
            State::Standby(state) => state.step(event, &context, &mut out),
            State::Acquiring(state) => state.step(event, &context, &mut out),
            State::Holding(state) => state.step(event, &context, &mut out),
            State::Stopping(state) => state.step(event, &context, &mut out),
            State::Releasing(state) => state.step(event, &context, &mut out),
            // Nothing that happens now can be of any consequence.
            State::Ended => State::Ended,
        };
        let phase = self.phase();
        // An acquisition that is refused does not begin the standing by anew.
        if phase != before && !(phase.stands_by() && before.stands_by()) {
            self.since = now.at;
        }
        out
    }

    /// When to step with [`Event::Wake`] if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        match &self.state {
            State::Standby(state) => state.wakeup(),
            State::Acquiring(state) => state.wakeup(),
            State::Holding(state) => state.wakeup(&self.config),
            State::Stopping(state) => state.wakeup(),
            State::Releasing(state) => state.wakeup(),
            State::Ended => None,
        }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Standby(_) => Phase::Standby,
            State::Acquiring(_) => Phase::Acquiring,
            State::Holding(state) if state.worker().is_none() => Phase::Starting,
            State::Holding(_) => Phase::Holding,
            State::Stopping(_) => Phase::Stopping,
            State::Releasing(_) => Phase::Releasing,
            State::Ended => Phase::Ended,
        }
    }

    /// It ends when its present term has, whatever happens yet.
    pub fn will_end(&self) -> bool {
        match &self.state {
            State::Standby(_) | State::Acquiring(_) | State::Holding(_) => false,
            State::Stopping(state) => state.will_end(&self.config),
            State::Releasing(state) => state.will_end(),
            State::Ended => true,
        }
    }

    /// Since when it stands there; standing by, since that began.
    pub fn since(&self) -> BootInstant {
        self.since
    }

    /// The term that it holds.
    pub fn term(&self) -> Option<&Term> {
        self.tenure().map(|tenure| &tenure.term)
    }

    /// What was granted last in this term.
    pub fn grant(&self) -> Option<&Grant> {
        self.tenure().map(|tenure| &tenure.grant)
    }

    /// Since when the lease is held: when its acquisition was sent.
    pub fn held_since(&self) -> Option<BootInstant> {
        self.tenure().map(|tenure| tenure.since)
    }

    /// Until when the worker's tree may live.
    pub fn deadline(&self) -> Option<BootInstant> {
        self.tenure().map(|tenure| tenure.deadline)
    }

    /// The limit of a call in a term, sent now.
    pub fn call_limit(&self, at: BootInstant) -> Duration {
        let timing = &self.config.timing;
        self.tenure().map_or(timing.call_timeout(), |tenure| {
            tenure.call_limit(timing, at)
        })
    }

    /// The worker's pid, once it runs.
    pub fn worker(&self) -> Option<i32> {
        match &self.state {
            State::Holding(state) => state.worker(),
            State::Standby(_)
            | State::Acquiring(_)
            | State::Stopping(_)
            | State::Releasing(_)
            | State::Ended => None,
        }
    }

    /// What the last poll of a writable server saw, and when its reply came.
    pub fn observation(&self) -> Option<(BootInstant, &Observation)> {
        self.search().and_then(|search| search.watch.last())
    }

    /// Why the lease is not ours, while standing by.
    pub fn reason(&self) -> Option<&Reason> {
        self.search().map(|search| &search.reason)
    }

    /// How many polls were sent while standing by.
    pub fn attempts(&self) -> u64 {
        self.search().map_or(0, |search| search.polls.sent)
    }

    /// How many calls in a row have failed.
    pub fn failures(&self) -> u32 {
        match (self.search(), self.tenure()) {
            (Some(search), _) => search.failures,
            (None, Some(tenure)) => tenure.failures,
            (None, None) => 0,
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn tenure(&self) -> Option<&Tenure> {
        match &self.state {
            State::Holding(state) => Some(&state.tenure),
            State::Stopping(state) => Some(&state.tenure),
            State::Releasing(state) => Some(&state.tenure),
            State::Standby(_) | State::Acquiring(_) | State::Ended => None,
        }
    }

    fn search(&self) -> Option<&Search> {
        match &self.state {
            State::Standby(state) => Some(&state.search),
            State::Acquiring(state) => Some(&state.search),
            State::Holding(_) | State::Stopping(_) | State::Releasing(_) | State::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests;
