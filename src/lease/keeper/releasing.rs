//! The tree is empty: the lease is given back.

use std::time::Duration;

use super::event::{Command, Event, GivenBack, Outcome, StopCause, Transition};
use super::search::Search;
use super::standby::{self, Standby};
use super::tenure::Tenure;
use super::{Commands, Context, State};
use crate::lease::HURRY_AFTER;
use crate::lease::record::{Loss, Released, Renewed};
use crate::lease::time::BootInstant;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Releasing {
    pub(super) tenure: Tenure,
    then: Then,
    doing: Doing,
    tries: Tries,
    failed: bool,
    began: BootInstant,
}

/// What comes after the release.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Then {
    End(Outcome),
    /// With a new guard, and after a pause if others are to go first.
    StandBy {
        outcome: Outcome,
        pause: Duration,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Doing {
    /// A last renewal is under way, and there is only one call at a time.
    AwaitingRenewal,
    Releasing,
    Pausing {
        until: BootInstant,
    },
}

/// How often it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Tries {
    /// Nobody knows whether the tree is empty: the lease must run out.
    None,
    Once,
    /// And once at least.
    UntilDeadline,
}

impl Tries {
    /// After a loss nothing may be left to be given back, and one try makes
    /// sure of it; but `break` waits for the holder to confirm by releasing.
    pub(super) fn after(loss: &Loss) -> Self {
        match loss {
            Loss::Missing | Loss::OtherHolder { .. } | Loss::OtherToken(_) | Loss::Released => {
                Self::Once
            }
            Loss::Closed => Self::UntilDeadline,
        }
    }
}

impl Releasing {
    pub(super) fn enter(
        tenure: Tenure,
        then: Then,
        tries: Tries,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        let new = Self {
            tenure,
            then,
            doing: Doing::AwaitingRenewal,
            tries,
            failed: false,
            began: context.at(),
        };
        if new.tenure.calling {
            return State::Releasing(new);
        }
        new.release(context, out)
    }

    pub(super) fn wakeup(&self) -> Option<BootInstant> {
        match self.doing {
            Doing::Pausing { until } => Some(until),
            // Answered within its own limit.
            Doing::AwaitingRenewal | Doing::Releasing => None,
        }
    }

    /// No other term will follow.
    pub(super) fn will_end(&self) -> bool {
        matches!(self.then, Then::End(_))
    }

    pub(super) fn step(mut self, event: Event, context: &Context<'_>, out: &mut Commands) -> State {
        match event {
            Event::Wake => match self.doing {
                Doing::Pausing { until } if context.at() >= until => {
                    if self.is_hopeless(context) {
                        return self.runs_out(context, out);
                    }
                    self.release(context, out)
                }
                Doing::Pausing { .. } | Doing::AwaitingRenewal | Doing::Releasing => {
                    State::Releasing(self)
                }
            },
            Event::Renewed { sent_at, reply } => self.renewed(sent_at, reply, context, out),
            Event::Released(reply) => self.released(reply, context, out),
            Event::Stop(StopCause::Signal(_)) => {
                self.end_after();
                State::Releasing(self)
            }
            Event::HurryUp if self.failed && context.at() >= self.began + HURRY_AFTER => {
                self.end_after();
                self.runs_out(context, out)
            }
            Event::Fit(_) => {
                self.tenure.prechecking = false;
                State::Releasing(self)
            }
            // The first try is under way, and is short.
            Event::HurryUp
            // There is no worker any more.
            | Event::Stop(
                StopCause::Attach(_) | StopCause::StepDown | StopCause::Unfit | StopCause::Watchdog,
            )
            // The guard has done its work; whatever becomes of it now does
            // not matter, and the next one is not asked for yet.
            | Event::Guard(_)
            // It is being given up anyway.
            | Event::Checked(_)
            // While standing by only.
            | Event::Changed(_)
            // No such call is under way.
            | Event::Observed(_)
            | Event::Initialised(_)
            | Event::Acquired { .. } => State::Releasing(self),
        }
    }

    fn renewed(
        mut self,
        sent_at: BootInstant,
        reply: Renewed,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        if self.doing != Doing::AwaitingRenewal {
            return State::Releasing(self); // Not asked for.
        }
        self.tenure.calling = false;
        match reply {
            // The release carries the incarnation of the last answered call.
            Renewed::Granted { grant, request: _ } => {
                self.tenure.granted(grant, sent_at, context, out);
            }
            // The release touches nothing that is not ours.
            Renewed::Lost(loss) if self.tries == Tries::UntilDeadline => {
                self.tries = Tries::after(&loss);
            }
            Renewed::Lost(_) => {}
            Renewed::Unknown(_) => {}
        }
        self.release(context, out)
    }

    fn release(mut self, context: &Context<'_>, out: &mut Commands) -> State {
        if self.tries == Tries::None {
            return self.runs_out(context, out);
        }
        let timing = context.timing();
        let limit = if self.failed {
            self.tenure.call_limit(timing, context.at())
        } else {
            // However little is left: it may be the only one.
            timing.call_limit(timing.trust())
        };
        self.doing = Doing::Releasing;
        out.push(Command::Release {
            term: self.tenure.term.clone(),
            incarnation: self.tenure.grant.incarnation.clone(),
            limit,
        });
        State::Releasing(self)
    }

    fn released(mut self, reply: Released, context: &Context<'_>, out: &mut Commands) -> State {
        if self.doing != Doing::Releasing {
            return State::Releasing(self); // Not asked for.
        }
        match reply {
            Released::Done => self.finish(GivenBack::Done, context, out),
            Released::NotOurs => self.finish(GivenBack::NotOurs, context, out),
            Released::Unknown(unknown) => {
                self.failed = true;
                self.tenure
                    .tell_failure("release the lease", unknown, context, out);
                if self.is_hopeless(context) {
                    return self.runs_out(context, out);
                }
                let until = context.retry_at().min(self.tenure.deadline);
                self.doing = Doing::Pausing { until };
                State::Releasing(self)
            }
        }
    }

    /// There is no rejoining.
    fn end_after(&mut self) {
        if let Then::StandBy { outcome, .. } = &self.then {
            self.then = Then::End(outcome.clone());
        }
    }

    fn is_hopeless(&self, context: &Context<'_>) -> bool {
        match self.tries {
            Tries::None | Tries::Once => true,
            Tries::UntilDeadline => context.at() >= self.tenure.deadline,
        }
    }

    fn runs_out(self, context: &Context<'_>, out: &mut Commands) -> State {
        // By the database's clock it was renewed after the renewal was sent,
        // and before its answer came.
        let run_out = self.tenure.deadline + context.timing().margin();
        let left = run_out.saturating_since(context.at());
        self.finish(GivenBack::RunsOut { left }, context, out)
    }

    fn finish(self, result: GivenBack, context: &Context<'_>, out: &mut Commands) -> State {
        let slot = self.tenure.term.slot;
        out.push(Command::Tell(Transition::Released { slot, result }));
        match self.then {
            Then::End(outcome) => standby::end(outcome, out),
            Then::StandBy { outcome, pause } => {
                out.push(Command::Dismiss(outcome));
                if !context.config.attached {
                    out.push(Command::NewGuard);
                }
                let search = Search::again(context, self.tenure.prechecking, pause);
                Standby::look(search, context, out)
            }
        }
    }
}
