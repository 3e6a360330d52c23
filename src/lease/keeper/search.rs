//! What a keeper knows while it has no lease; it outlives single attempts.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::event::{Command, Transition};
use super::{Commands, Context};
use crate::lease::ids::HolderId;
use crate::lease::record::{Acquire, Fault, Freed, Observation, Record, Unknown};
use crate::lease::time::BootInstant;
use crate::lease::watch::{Basis, Candidate, Contender, Reason, Verdict, Watch};

/// At least so often a standby says that it waits.
const TELL_EVERY: Duration = Duration::from_secs(60 * 60);

/// How many unanswered acquisitions are kept in mind: each may come to life as
/// long as the row is as it was when it was sent.
const GHOSTS: usize = 4;

/// An acquisition, and what gave the right to send it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Attempt {
    pub(super) request: Acquire,
    pub(super) basis: Basis,
}

/// An acquisition whose answer never came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ghost {
    attempt: Attempt,
    /// A later look has shown that it can do nothing any more.
    settled: bool,
}

/// What a keeper knows while it has no lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Search {
    /// The guard could start a worker.
    pub(super) guard_ready: bool,
    /// A precheck is under way.
    pub(super) prechecking: bool,
    /// What was seen of the lease.
    pub(super) watch: Watch,
    /// Why it is not ours.
    pub(super) reason: Reason,
    /// How many polls were sent, and what was said of them.
    pub(super) polls: Polls,
    /// How many calls in a row have failed.
    pub(super) failures: u32,
    /// How many attempts in a row were refused.
    pub(super) refusals: u32,
    /// A writable server has answered.
    worked: bool,
    /// The last failure.
    unknown: Option<Unknown>,
    /// An acquisition was answered.
    wrote: bool,
    /// Since when the database has said what is final at a first connect.
    refused: Option<Refused>,
    /// `--wait` ends then.
    wait_until: Option<BootInstant>,
    /// Others go first until then.
    not_before: Option<BootInstant>,
    ghosts: Vec<Ghost>,
}

/// When to say that we wait: at the 1st, 2nd, 4th, 8th… poll, and hourly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Polls {
    /// How many were sent.
    pub(super) sent: u64,
    /// The last one that was told of, and when.
    told: Option<(u64, BootInstant)>,
}

/// An acquisition that comes as early as this belongs to the first connect:
/// one poll, and another one where the schema had to be created.
const FIRST_POLLS: u64 = 2;

/// A call that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Call {
    /// A poll.
    Observe,
    /// The creation of the schema.
    Init,
    /// An acquisition.
    Acquire,
    /// What became of an acquisition.
    Settle,
}

impl Call {
    /// Reads after "cannot".
    fn words(self) -> &'static str {
        match self {
            Self::Observe => "read the lease",
            Self::Init => "create the schema",
            Self::Acquire => "acquire the lease",
            Self::Settle => "settle an acquisition",
        }
    }

    /// Whether it needs more rights than a poll.
    fn writes(self) -> bool {
        match self {
            Self::Acquire | Self::Settle => true,
            Self::Observe | Self::Init => false,
        }
    }
}

/// The database says what is final at a first connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Refused {
    call: Call,
    since: BootInstant,
}

/// What this one brings along.
fn contender<'a>(context: &Context<'a>) -> Contender<'a> {
    let config = context.config;
    Contender {
        takeover: config.takeover,
        slots: config.slots,
        label: config.terms.label.as_str(),
        ttl: config.terms.ttl,
        takeover_delay: config.terms.takeover_delay,
    }
}

/// It counts for ever, and decides about nothing but words: for the model
/// checker, standbys that differ in nothing else are the same.
impl Hash for Polls {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

impl Polls {
    fn is_due(&mut self, at: BootInstant) -> bool {
        let due = match self.told {
            None => true,
            Some((poll, _)) if poll == self.sent => false,
            // A power of two may have passed unsaid, its answer being out of date.
            Some((poll, told_at)) => {
                self.sent.checked_ilog2() > poll.checked_ilog2() || at >= told_at + TELL_EVERY
            }
        };
        if due {
            self.told = Some((self.sent, at));
        }
        due
    }
}

impl Search {
    pub(super) fn new(context: &Context<'_>) -> Self {
        Self {
            guard_ready: false,
            prechecking: false,
            watch: Watch::default(),
            reason: Reason::Starting,
            polls: Polls::default(),
            failures: 0,
            refusals: 0,
            worked: false,
            unknown: None,
            wrote: false,
            refused: None,
            wait_until: context.config.wait.map(|wait| context.at() + wait),
            not_before: None,
            ghosts: Vec::new(),
        }
    }

    /// After a term (`--rejoin`).
    pub(super) fn again(context: &Context<'_>, prechecking: bool, pause: Duration) -> Self {
        Self {
            prechecking,
            worked: true,
            wrote: true,
            not_before: Some(context.at() + pause),
            ..Self::new(context)
        }
    }

    /// The limit of the next call: `--wait` bounds it too.
    pub(super) fn call_limit(&self, context: &Context<'_>) -> Duration {
        let limit = context.timing().call_timeout();
        match self.wait_until {
            Some(until) if !self.no_wait(context) => {
                // Too short a limit would fail a database that is merely far.
                let left = until.saturating_since(context.at());
                limit.min(left.max(Duration::from_millis(100)))
            }
            Some(_) | None => limit,
        }
    }

    /// The limit of an acquisition: its answer must leave time to use it.
    pub(super) fn acquire_limit(&self, context: &Context<'_>) -> Duration {
        self.call_limit(context).min(Self::settle_limit(context))
    }

    /// The same without `--wait`.
    pub(super) fn settle_limit(context: &Context<'_>) -> Duration {
        let timing = context.timing();
        timing.call_limit(timing.trust() - timing.grace())
    }

    fn no_wait(&self, context: &Context<'_>) -> bool {
        context.config.wait == Some(Duration::ZERO)
    }

    /// Nothing is left of `--wait`: what has not worked is not tried again.
    pub(super) fn over(&self, context: &Context<'_>) -> bool {
        self.wait_until.is_some_and(|until| context.at() >= until)
    }

    /// When `--wait` ends what goes on; `--no-wait` lets one attempt finish.
    pub(super) fn wait_until(&self, context: &Context<'_>) -> Option<BootInstant> {
        self.wait_until.filter(|_| !self.no_wait(context))
    }

    /// Whether others go first, and until when.
    pub(super) fn held_off(&self, context: &Context<'_>) -> Option<BootInstant> {
        self.not_before.filter(|until| context.at() < *until)
    }

    /// A poll was answered.
    pub(super) fn seen(
        &mut self,
        observation: Observation,
        context: &Context<'_>,
        out: &mut Commands,
    ) {
        self.worked = true;
        self.failures = 0;
        // Who may read may not be allowed to write.
        self.refused.take_if(|refused| !refused.call.writes());
        // On a new incarnation, what it may have taken is free by watching
        // only, for us as for everybody.
        let incarnation = &observation.server.incarnation;
        self.ghosts
            .retain(|ghost| ghost.attempt.request.server_incarnation == *incarnation);
        for ghost in &mut self.ghosts {
            ghost.settled = ghost.attempt.request.cannot_come_true(&observation);
        }
        for record in self.watch.see(observation, context.at()) {
            if self
                .ghosts
                .iter()
                .all(|ghost| Some(ghost.holder()) != record.holder)
            {
                out.push(Command::Tell(Transition::HolderChanged { record }));
            }
        }
    }

    /// The database has answered an acquisition, whatever it said.
    pub(super) fn answered(&mut self) {
        self.wrote = true;
        self.failures = 0;
        self.refused = None;
    }

    pub(super) fn verdict(&self, context: &Context<'_>) -> Verdict {
        self.watch
            .verdict(&contender(context), context.at(), context.now.chance)
    }

    /// What a notification makes worth an attempt.
    pub(super) fn freed(&self, freed: Freed, context: &Context<'_>) -> Option<Candidate> {
        self.watch.freed(freed, &contender(context))
    }

    pub(super) fn attempt(&self, candidate: Candidate, context: &Context<'_>) -> Attempt {
        Attempt {
            request: Acquire {
                slot: candidate.slot,
                slots: context.config.slots,
                above: candidate.above,
                holder: context.now.fresh,
                expected: candidate.expected,
                server_incarnation: candidate.server_incarnation,
                in_doubt: candidate.in_doubt,
                furthest: candidate.furthest,
                from_unreleased: candidate.from_unreleased,
                terms: context.config.terms.clone(),
            },
            basis: candidate.basis,
        }
    }

    /// A call had no usable answer. Returns the failure where it is final.
    pub(super) fn failed(
        &mut self,
        call: Call,
        unknown: Unknown,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> Option<Unknown> {
        self.failures = self.failures.saturating_add(1);
        self.reason = Reason::Unreachable {
            message: unknown.message.clone(),
        };
        self.unknown = Some(unknown.clone());
        // What does not answer does not refuse: a later refusal is a new one.
        if unknown.fault != Fault::Final {
            self.refused = None;
        }
        // A poll does not show that there is a right to write, nor that the
        // server can be written to.
        let worked = if call.writes() {
            self.wrote || self.polls.sent > FIRST_POLLS
        } else {
            self.worked
        };
        let last = match unknown.fault {
            Fault::Transient => false,
            Fault::ReadOnly => !worked,
            Fault::Final => {
                // Credentials rotate: what has worked may work again.
                let at = context.at();
                let refused = self.refused.get_or_insert(Refused { call, since: at });
                !worked || at >= refused.since + context.timing().ttl()
            }
        };
        // What ends it is told by the last line, once.
        if last || (self.over(context) && !self.worked) {
            return last.then_some(unknown);
        }
        out.push(Command::Tell(Transition::CallFailed {
            what: call.words(),
            unknown,
            left: None,
        }));
        None
    }

    /// The pause after a failure.
    pub(super) fn retry_at(&self, context: &Context<'_>) -> BootInstant {
        let pause = context.timing().backoff(self.failures, context.now.chance);
        let last = self
            .refused
            .as_ref()
            .map(|refused| refused.since + context.timing().ttl());
        let retry = context.at() + pause;
        last.map_or(retry, |last| retry.min(last))
    }

    /// What made a database unusable that has never worked.
    pub(super) fn never_worked(&self) -> Option<Unknown> {
        self.unknown.clone().filter(|_| !self.worked)
    }

    /// An acquisition's answer never came.
    pub(super) fn haunted_by(&mut self, attempt: Attempt) {
        self.ghosts
            .retain(|ghost| ghost.holder() != attempt.request.holder);
        if self.ghosts.len() == GHOSTS {
            let settled = self.ghosts.iter().position(|ghost| ghost.settled);
            self.ghosts.remove(settled.unwrap_or(0));
        }
        self.ghosts.push(Ghost {
            attempt,
            settled: false,
        });
    }

    /// What looked like the work of an acquisition is not ours after all.
    pub(super) fn laid(&mut self, attempt: &Attempt) {
        self.ghosts
            .retain(|ghost| ghost.holder() != attempt.request.holder);
    }

    /// An unanswered acquisition that turns out to have taken a row.
    pub(super) fn come_to_life(&self) -> Option<Attempt> {
        let (_, observation) = self.watch.last()?;
        let mut ghosts = self.ghosts.iter();
        let live = ghosts.find(|ghost| observation.shows(ghost.holder()))?;
        Some(live.attempt.clone())
    }

    /// An acquisition of which nothing is known yet.
    pub(super) fn unsettled(&self) -> Option<Attempt> {
        let ghost = self.ghosts.iter().find(|ghost| !ghost.settled)?;
        Some(ghost.attempt.clone())
    }

    /// Says why we wait, if it is time to.
    pub(super) fn tell(&mut self, context: &Context<'_>, out: &mut Commands) {
        // One's own is there in a moment: nobody waits.
        if self.reason == Reason::NoGuard && !context.config.attached {
            return;
        }
        if self.polls.is_due(context.at()) {
            out.push(Command::Tell(Transition::Waiting {
                holder: self.holder(context),
                why: self.reason.clone(),
                attempts: self.polls.sent,
            }));
        }
    }

    fn holder(&self, context: &Context<'_>) -> Option<Record> {
        let (_, observation) = self.watch.last()?;
        let held = |record: &&Record| !record.released && record.slot.0 < context.config.slots;
        observation.records.iter().find(held).cloned()
    }
}

impl Ghost {
    fn holder(&self) -> HolderId {
        self.attempt.request.holder
    }
}
