//! Standing by: poll, judge, wait.

use std::time::Duration;

use super::acquiring::Acquiring;
use super::event::{Command, Event, GuardEvent, Outcome, StopCause};
use super::search::{Call, Search};
use super::{Commands, Context, State};
use crate::lease::record::{Fault, Freed, Observation, Observed, Refusal, Unknown};
use crate::lease::time::BootInstant;
use crate::lease::watch::{Candidate, Reason, Verdict};

/// The least between two looks that only time has caused: where the
/// database's clock and ours disagree by a hair, this keeps the loop calm.
const CALM: Duration = Duration::from_millis(10);

/// No pause is longer, so that waiting is told of at least so often.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Standby {
    pub(super) search: Search,
    doing: Doing,
    /// Something changed while we were looking: what is seen may be stale.
    look_again: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Doing {
    Idle {
        until: BootInstant,
    },
    Observing {
        initialised: bool,
    },
    Initialising,
    Prechecking {
        /// What is to be taken when it passes.
        candidate: Candidate,
        /// `--wait` ends then.
        until: Option<BootInstant>,
    },
}

impl Standby {
    /// Looks for the first time when it is woken.
    pub(super) fn new(search: Search, at: BootInstant) -> Self {
        Self {
            search,
            doing: Doing::Idle { until: at },
            look_again: false,
        }
    }

    /// Looks at once.
    pub(super) fn look(search: Search, context: &Context<'_>, out: &mut Commands) -> State {
        Self::new(search, context.at()).observe(false, context, out)
    }

    /// An attempt was refused.
    pub(super) fn refused(
        mut search: Search,
        refusal: Refusal,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        search.answered();
        search.refusals = search.refusals.saturating_add(1);
        let (reason, overtaken) = match refusal {
            Refusal::Changed => (Reason::Overtaken, true),
            Refusal::Locked { by } => (Reason::Locked { by }, false),
            Refusal::Paused => (
                Reason::Paused {
                    reason: String::new(),
                },
                false,
            ),
        };
        search.reason = reason;
        // Whoever was overtaken looks again at once: there may be another
        // slot. If it goes on like this, the crowd has to spread out.
        let crowded = search.refusals > context.config.slots.saturating_add(1);
        if overtaken && !crowded {
            return Self::look(search, context, out);
        }
        let standby = Self::new(search, context.at());
        if standby.search.over(context) {
            return standby.give_up(context, out);
        }
        standby.tell_and_wait(context.retry_at(), context, out)
    }

    /// A call had no usable answer.
    pub(super) fn failed(
        mut search: Search,
        call: Call,
        unknown: Unknown,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        let last = search.failed(call, unknown, context, out);
        let standby = Self::new(search, context.at());
        if let Some(unknown) = last {
            return standby.finish(Outcome::Database(unknown), context, out);
        }
        if standby.search.over(context) {
            return standby.give_up(context, out);
        }
        let until = standby.search.retry_at(context);
        standby.tell_and_wait(until, context, out)
    }

    pub(super) fn wakeup(&self) -> Option<BootInstant> {
        match &self.doing {
            Doing::Idle { until } => Some(*until),
            // Its own limit may be far longer.
            Doing::Prechecking { until, .. } => *until,
            // Answered within its own limit.
            Doing::Observing { .. } | Doing::Initialising => None,
        }
    }

    pub(super) fn step(mut self, event: Event, context: &Context<'_>, out: &mut Commands) -> State {
        match event {
            Event::Wake => self.woken(context, out),
            Event::Observed(reply) => self.observed(reply, context, out),
            Event::Initialised(reply) => match (&self.doing, reply) {
                (Doing::Initialising, Ok(())) => self.observe(true, context, out),
                (Doing::Initialising, Err(unknown)) => {
                    Self::failed(self.search, Call::Init, unknown, context, out)
                }
                // Not asked for.
                (Doing::Idle { .. } | Doing::Observing { .. } | Doing::Prechecking { .. }, _) => {
                    State::Standby(self)
                }
            },
            Event::Changed(freed) => match self.doing {
                Doing::Idle { .. } => match freed.and_then(|freed| self.freed(freed, context)) {
                    Some(candidate) => {
                        Acquiring::ask(self.search, candidate, true, context, out)
                    }
                    None => self.observe(false, context, out),
                },
                Doing::Observing { .. } | Doing::Initialising | Doing::Prechecking { .. } => {
                    self.look_again = true;
                    State::Standby(self)
                }
            },
            Event::Fit(fit) => self.prechecked(fit, context, out),
            Event::Guard(event) => self.guard(event, context, out),
            Event::Stop(StopCause::Signal(signal)) => {
                self.finish(Outcome::Signaled(signal), context, out)
            }
            // There is no worker that could be stopped.
            Event::Stop(
                StopCause::Attach(_) | StopCause::StepDown | StopCause::Unfit | StopCause::Watchdog,
            )
            | Event::HurryUp
            // No such call is under way while standing by.
            | Event::Acquired { .. }
            | Event::Renewed { .. }
            | Event::Released(_)
            // Of a term that is over.
            | Event::Checked(_) => State::Standby(self),
        }
    }

    fn woken(mut self, context: &Context<'_>, out: &mut Commands) -> State {
        match self.doing {
            Doing::Idle { until } if context.at() < until => State::Standby(self),
            Doing::Idle { .. } => {
                let waited = self.search.wait_until(context);
                if waited.is_some_and(|until| context.at() >= until) {
                    self.give_up(context, out)
                } else {
                    self.observe(false, context, out)
                }
            }
            Doing::Prechecking {
                until: Some(until), ..
            } if context.at() >= until => {
                self.search.reason = Reason::Unfit;
                self.give_up(context, out)
            }
            Doing::Observing { .. } | Doing::Initialising | Doing::Prechecking { .. } => {
                State::Standby(self)
            }
        }
    }

    pub(super) fn observe(
        mut self,
        initialised: bool,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        self.look_again = false;
        self.search.polls.sent += 1;
        self.doing = Doing::Observing { initialised };
        out.push(Command::Observe {
            limit: self.search.call_limit(context),
        });
        State::Standby(self)
    }

    fn observed(mut self, reply: Observed, context: &Context<'_>, out: &mut Commands) -> State {
        let Doing::Observing { initialised } = self.doing else {
            return State::Standby(self); // Not asked for.
        };
        match reply {
            Observed::Seen(observation) => self.seen(observation, context, out),
            Observed::NoSchema if initialised => {
                let message = "the schema is missing right after it was created".to_owned();
                let unknown = Unknown {
                    fault: Fault::Transient,
                    message,
                };
                Self::failed(self.search, Call::Observe, unknown, context, out)
            }
            Observed::NoSchema => {
                self.doing = Doing::Initialising;
                out.push(Command::Init {
                    limit: self.search.call_limit(context),
                });
                State::Standby(self)
            }
            Observed::Unknown(unknown) => {
                Self::failed(self.search, Call::Observe, unknown, context, out)
            }
        }
    }

    fn seen(
        mut self,
        observation: Observation,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        self.search.seen(observation, context, out);
        if let Some(attempt) = self.search.come_to_life() {
            return Acquiring::settle(self.search, attempt, context, out);
        }
        self.decide(context, out)
    }

    /// Takes what is free, or waits.
    fn decide(mut self, context: &Context<'_>, out: &mut Commands) -> State {
        match self.search.verdict(context) {
            Verdict::Free(candidate) => self.free(candidate, context, out),
            Verdict::Taken { .. } if self.look_again => self.observe(false, context, out),
            Verdict::Taken { reason, until } => {
                self.search.reason = reason;
                self.search.refusals = 0;
                if self.search.over(context) {
                    return self.give_up(context, out);
                }
                let until = until.map(|until| until.max(context.at() + CALM));
                self.wait_for(until, context, out)
            }
        }
    }

    /// What a notification makes worth an attempt, without another look. Not
    /// where something else would have to be asked or waited for first.
    fn freed(&self, freed: Freed, context: &Context<'_>) -> Option<Candidate> {
        let search = &self.search;
        let ready = search.guard_ready
            && !context.config.precheck
            && search.unsettled().is_none()
            && search.held_off(context).is_none()
            && !search.over(context);
        if ready {
            search.freed(freed, context)
        } else {
            None
        }
    }

    fn free(mut self, candidate: Candidate, context: &Context<'_>, out: &mut Commands) -> State {
        if let Some(until) = self.search.held_off(context) {
            let left = until.saturating_since(context.at());
            self.search.reason = Reason::SteppedDown { left };
            return self.wait_for(Some(until), context, out);
        }
        if !self.search.guard_ready {
            self.search.reason = Reason::NoGuard;
            // Our own guard comes soon or is reported gone; one that is
            // attached comes when it comes.
            if context.config.attached && self.search.over(context) {
                return self.give_up(context, out);
            }
            return self.wait_for(None, context, out);
        }
        if !context.config.precheck {
            return Acquiring::ask(self.search, candidate, false, context, out);
        }
        // One that is still under way since the last term will do.
        if !self.search.prechecking {
            self.search.prechecking = true;
            out.push(Command::Precheck);
        }
        self.doing = Doing::Prechecking {
            candidate,
            until: self.search.wait_until(context),
        };
        State::Standby(self)
    }

    fn prechecked(mut self, fit: bool, context: &Context<'_>, out: &mut Commands) -> State {
        self.search.prechecking = false;
        match self.doing {
            // What was judged before is compared by the acquisition itself.
            Doing::Prechecking { candidate, .. } if fit && self.search.guard_ready => {
                Acquiring::ask(self.search, candidate, false, context, out)
            }
            Doing::Prechecking { .. } if fit => self.observe(false, context, out),
            Doing::Prechecking { .. } => {
                self.search.reason = Reason::Unfit;
                if self.search.over(context) {
                    return self.give_up(context, out);
                }
                self.wait_for(None, context, out)
            }
            // Of the term before.
            Doing::Idle { .. } | Doing::Observing { .. } | Doing::Initialising => {
                State::Standby(self)
            }
        }
    }

    fn guard(mut self, event: GuardEvent, context: &Context<'_>, out: &mut Commands) -> State {
        match event {
            GuardEvent::Ready => {
                self.search.guard_ready = true;
                match self.doing {
                    Doing::Idle { .. } if self.search.reason == Reason::NoGuard => {
                        self.decide(context, out)
                    }
                    Doing::Idle { .. }
                    | Doing::Observing { .. }
                    | Doing::Initialising
                    | Doing::Prechecking { .. } => State::Standby(self),
                }
            }
            GuardEvent::Gone if context.config.attached => {
                self.search.guard_ready = false;
                State::Standby(self)
            }
            GuardEvent::Gone => self.finish(Outcome::GuardDied, context, out),
            // Of a guard that was dismissed: it has no worker.
            GuardEvent::Started { .. }
            | GuardEvent::NotStarted(_)
            | GuardEvent::WorkerEnded(_)
            | GuardEvent::Stopping(_)
            | GuardEvent::Empty
            | GuardEvent::Swept => State::Standby(self),
        }
    }

    /// Waits for the next regular poll, or until `until` if that is earlier.
    fn wait_for(
        self,
        until: Option<BootInstant>,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        let poll = context.at() + context.timing().next_poll(context.now.chance);
        self.tell_and_wait(until.map_or(poll, |until| poll.min(until)), context, out)
    }

    fn tell_and_wait(
        mut self,
        until: BootInstant,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        self.search.tell(context, out);
        let until = until.min(context.at() + LONGEST_PAUSE);
        let until = self
            .search
            .wait_until(context)
            .map_or(until, |waited| waited.min(until));
        self.doing = Doing::Idle { until };
        State::Standby(self)
    }

    /// `--wait` is over.
    fn give_up(self, context: &Context<'_>, out: &mut Commands) -> State {
        let outcome = match self.search.never_worked() {
            Some(unknown) => Outcome::Database(unknown),
            None => Outcome::NotAcquired {
                why: self.search.reason.clone(),
            },
        };
        self.finish(outcome, context, out)
    }

    /// Ends, but not before it is known what became of each acquisition.
    fn finish(self, outcome: Outcome, context: &Context<'_>, out: &mut Commands) -> State {
        let polling = match self.doing {
            Doing::Observing { .. } | Doing::Initialising => true,
            Doing::Idle { .. } | Doing::Prechecking { .. } => false,
        };
        Acquiring::settle_and_end(self.search, outcome, polling, context, out)
    }
}

/// Ends a keeper that holds nothing.
pub(super) fn end(outcome: Outcome, out: &mut Commands) -> State {
    out.push(Command::Dismiss(outcome.clone()));
    out.push(Command::End(outcome));
    State::Ended
}
