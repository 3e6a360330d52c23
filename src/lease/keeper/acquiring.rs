//! An acquisition is under way, or it is being found out what became of one
//! whose answer never came.

use std::time::Duration;

use super::event::{Command, Event, GuardEvent, Outcome, StopCause};
use super::holding::Holding;
use super::releasing::{Releasing, Then, Tries};
use super::search::{Attempt, Call, Search};
use super::standby::{self, Standby};
use super::tenure::Tenure;
use super::{Commands, Context, State};
use crate::lease::HURRY_AFTER;
use crate::lease::record::{Acquired, Fault, Grant, Renewed, Unknown};
use crate::lease::time::BootInstant;
use crate::lease::watch::Candidate;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Acquiring {
    pub(super) search: Search,
    attempt: Attempt,
    doing: Doing,
    ending: Option<Ending>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Doing {
    Asking {
        /// A notification said that it is worthwhile, and no look.
        told: bool,
    },
    /// A poll is under way still, and there is only one call at a time.
    Waiting,
    Settling,
    /// Until the next attempt to settle.
    Pausing {
        until: BootInstant,
    },
}

/// We end as soon as nothing is held any more, and nothing can be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ending {
    outcome: Outcome,
    began: BootInstant,
}

impl Ending {
    fn new(outcome: Outcome, context: &Context<'_>) -> Self {
        Self {
            outcome,
            began: context.at(),
        }
    }

    /// A row that turns out to be ours after all would still be of use.
    fn only_for_want_of_it(&self) -> bool {
        match self.outcome {
            Outcome::NotAcquired { .. } | Outcome::Database(_) => true,
            Outcome::Worker(_)
            | Outcome::SteppedDown { .. }
            | Outcome::Lost { .. }
            | Outcome::NotStarted(_)
            | Outcome::GuardDied
            | Outcome::Signaled(_) => false,
        }
    }
}

impl Acquiring {
    /// Sends an acquisition; a notification has caused it if it was `told`.
    pub(super) fn ask(
        search: Search,
        candidate: Candidate,
        told: bool,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        let attempt = search.attempt(candidate, context);
        let limit = search.acquire_limit(context);
        out.push(Command::Acquire {
            request: attempt.request.clone(),
            limit,
        });
        State::Acquiring(Self {
            search,
            attempt,
            doing: Doing::Asking { told },
            ending: None,
        })
    }

    /// Finds out whether `attempt` has taken a row, and renews that.
    pub(super) fn settle(
        search: Search,
        attempt: Attempt,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        Self {
            search,
            attempt,
            doing: Doing::Settling,
            ending: None,
        }
        .send_settle(context, out)
    }

    /// Ends with `outcome` once it is known that no acquisition has taken a
    /// row. A poll may be under way.
    pub(super) fn settle_and_end(
        search: Search,
        outcome: Outcome,
        polling: bool,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        Self::end(search, Ending::new(outcome, context), polling, context, out)
    }

    fn end(
        search: Search,
        ending: Ending,
        polling: bool,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        let Some(attempt) = search.unsettled() else {
            return standby::end(ending.outcome, out);
        };
        let new = Self {
            search,
            attempt,
            doing: Doing::Waiting,
            ending: Some(ending),
        };
        if polling {
            State::Acquiring(new)
        } else {
            new.send_settle(context, out)
        }
    }

    pub(super) fn wakeup(&self) -> Option<BootInstant> {
        match self.doing {
            Doing::Pausing { until } => Some(until),
            // Answered within its own limit.
            Doing::Asking { .. } | Doing::Waiting | Doing::Settling => None,
        }
    }

    pub(super) fn step(mut self, event: Event, context: &Context<'_>, out: &mut Commands) -> State {
        match event {
            Event::Wake => match self.doing {
                Doing::Pausing { until } if context.at() >= until => {
                    self.send_settle(context, out)
                }
                Doing::Pausing { .. } | Doing::Asking { .. } | Doing::Waiting | Doing::Settling => {
                    State::Acquiring(self)
                }
            },
            Event::Acquired { sent_at, reply } => self.acquired(sent_at, reply, context, out),
            Event::Renewed { sent_at, reply } => self.found_out(sent_at, reply, context, out),
            Event::Guard(event) => self.guard(event, context),
            Event::Stop(StopCause::Signal(signal)) => {
                self.end_with(Outcome::Signaled(signal), context);
                State::Acquiring(self)
            }
            Event::HurryUp => self.hurry_up(context, out),
            Event::Fit(_) => {
                self.search.prechecking = false;
                State::Acquiring(self)
            }
            // What it says, settling says too.
            Event::Observed(_) | Event::Initialised(_) => match self.doing {
                Doing::Waiting => self.send_settle(context, out),
                Doing::Asking { .. } | Doing::Settling | Doing::Pausing { .. } => State::Acquiring(self),
            },
            // The next look will show it.
            Event::Changed(_)
            // There is no worker that could be stopped.
            | Event::Stop(
                StopCause::Attach(_) | StopCause::StepDown | StopCause::Unfit | StopCause::Watchdog,
            )
            // No such call is under way.
            | Event::Released(_)
            // Of a term that is over.
            | Event::Checked(_) => State::Acquiring(self),
        }
    }

    fn acquired(
        mut self,
        sent_at: BootInstant,
        reply: Acquired,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        let Doing::Asking { told } = self.doing else {
            return State::Acquiring(self); // Not asked for.
        };
        match (reply, self.ending.take()) {
            (Acquired::Granted(grant), ending) => {
                self.ending = ending;
                self.granted(&grant, sent_at, context, out)
            }
            // An earlier one may have taken a row.
            (Acquired::Refused(_), Some(ending)) => {
                Self::end(self.search, ending, false, context, out)
            }
            (Acquired::Refused(refusal), None) => {
                Standby::refused(self.search, refusal, context, out)
            }
            // The database has said no, to this or to the connection: what was
            // sent has done nothing.
            (Acquired::Unknown(unknown), ending) if is_no(&unknown) => match ending {
                // An earlier one may have taken a row.
                Some(ending) => Self::end(self.search, ending, false, context, out),
                None => Self::failed(self.search, unknown, told, context, out),
            },
            // It may have happened, or may yet happen. The next reply shows
            // the row; before that, there is no other attempt.
            (Acquired::Unknown(_), Some(ending)) => {
                self.search.haunted_by(self.attempt.clone());
                self.ending = Some(ending);
                self.send_settle(context, out)
            }
            (Acquired::Unknown(unknown), None) => {
                self.search.haunted_by(self.attempt);
                Self::failed(self.search, unknown, told, context, out)
            }
        }
    }

    /// One that a notification caused had no look before it: it may have been
    /// the first to find that an idle connection is gone. So there is a look
    /// now; the next attempt comes after that, or waits.
    fn failed(
        search: Search,
        unknown: Unknown,
        told: bool,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        match Standby::failed(search, Call::Acquire, unknown, context, out) {
            State::Standby(standby) if told => standby.observe(false, context, out),
            state => state,
        }
    }

    fn found_out(
        mut self,
        sent_at: BootInstant,
        reply: Renewed,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        if self.doing != Doing::Settling {
            return State::Acquiring(self); // Not asked for.
        }
        match (reply, self.ending.take()) {
            // A request is told again by the first renewal.
            (Renewed::Granted { grant, request: _ }, ending) => {
                self.ending = ending;
                self.granted(&grant, sent_at, context, out)
            }
            (Renewed::Lost(_), ending) => {
                self.search.laid(&self.attempt);
                match ending {
                    Some(ending) => Self::end(self.search, ending, false, context, out),
                    None => Standby::look(self.search, context, out),
                }
            }
            (Renewed::Unknown(unknown), Some(ending)) => {
                self.still_unknown(unknown, ending, context, out)
            }
            (Renewed::Unknown(unknown), None) => {
                Standby::failed(self.search, Call::Settle, unknown, context, out)
            }
        }
    }

    /// What it may have taken has run out after one ttl by itself.
    fn still_unknown(
        mut self,
        unknown: Unknown,
        ending: Ending,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        // That failure is told of; the outcome stands already.
        let _stands = self.search.failed(Call::Settle, unknown, context, out);
        let gives_up = ending.began + context.timing().ttl();
        if context.at() >= gives_up {
            return standby::end(ending.outcome, out);
        }
        self.ending = Some(ending);
        self.doing = Doing::Pausing {
            until: context.retry_at().min(gives_up),
        };
        State::Acquiring(self)
    }

    fn send_settle(mut self, context: &Context<'_>, out: &mut Commands) -> State {
        self.doing = Doing::Settling;
        // What is to be given back is not what `--wait` waits for: a limit of
        // what that leaves would give up on a database that is merely far.
        let limit = match self.ending {
            Some(_) => Search::settle_limit(context),
            None => self.search.acquire_limit(context),
        };
        let request = self.attempt.request.clone();
        out.push(Command::Settle { request, limit });
        State::Acquiring(self)
    }

    /// The row is ours: use it, or give it back if we are about to end.
    fn granted(
        mut self,
        grant: &Grant,
        sent_at: BootInstant,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        self.search.answered();
        let tenure = Tenure::new(&self.attempt, grant, sent_at, &self.search, context);
        match self.ending.take_if(|ending| !ending.only_for_want_of_it()) {
            Some(ending) => {
                let then = Then::End(ending.outcome);
                Releasing::enter(tenure, then, Tries::UntilDeadline, context, out)
            }
            None if !self.search.guard_ready => {
                let then = Then::StandBy {
                    outcome: Outcome::GuardDied,
                    pause: Duration::ZERO,
                };
                Releasing::enter(tenure, then, Tries::UntilDeadline, context, out)
            }
            // The host was suspended, or this process stopped, until hardly
            // anything was left of the right: renew first, then use it.
            None if context.at() >= tenure.deadline - context.timing().grace() => {
                self.search.haunted_by(self.attempt.clone());
                self.send_settle(context, out)
            }
            None => Holding::enter(tenure, self.attempt.basis, out),
        }
    }

    /// What came first stays the reason.
    fn end_with(&mut self, outcome: Outcome, context: &Context<'_>) {
        if self.ending.as_ref().is_none_or(Ending::only_for_want_of_it) {
            self.ending = Some(Ending::new(outcome, context));
        }
    }

    fn guard(mut self, event: GuardEvent, context: &Context<'_>) -> State {
        match event {
            GuardEvent::Ready => self.search.guard_ready = true,
            GuardEvent::Gone => {
                self.search.guard_ready = false;
                if !context.config.attached {
                    self.end_with(Outcome::GuardDied, context);
                }
            }
            // It has not been told to start anything.
            GuardEvent::Started { .. }
            | GuardEvent::NotStarted(_)
            | GuardEvent::WorkerEnded(_)
            | GuardEvent::Stopping(_)
            | GuardEvent::Empty
            | GuardEvent::Swept => {}
        }
        State::Acquiring(self)
    }

    fn hurry_up(self, context: &Context<'_>, out: &mut Commands) -> State {
        match (&self.doing, &self.ending) {
            // What it may have taken runs out by itself.
            (Doing::Waiting | Doing::Settling | Doing::Pausing { .. }, Some(ending))
                if context.at() >= ending.began + HURRY_AFTER =>
            {
                standby::end(ending.outcome.clone(), out)
            }
            // The answer comes within the limit of the call.
            (Doing::Asking { .. }, _)
            // Twice at once.
            | (Doing::Waiting | Doing::Settling | Doing::Pausing { .. }, Some(_))
            // Nothing was asked to stop.
            | (Doing::Waiting | Doing::Settling | Doing::Pausing { .. }, None) => State::Acquiring(self),
        }
    }
}

/// Whether it is an answer after all, and the answer is no.
fn is_no(unknown: &Unknown) -> bool {
    match unknown.fault {
        Fault::Final | Fault::ReadOnly => true,
        Fault::Transient => false,
    }
}
