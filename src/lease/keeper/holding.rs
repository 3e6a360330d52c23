//! The lease is held, and the worker runs or is being started.

use super::event::{Command, Event, GuardEvent, StopCause, Transition};
use super::stopping::{Cause, Stopping};
use super::tenure::Tenure;
use super::{Commands, Config, Context, State};
use crate::lease::record::{Renewed, Request};
use crate::lease::time::BootInstant;
use crate::lease::watch::Basis;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Holding {
    pub(super) tenure: Tenure,
    worker: Option<i32>,
    /// No precheck is due before.
    precheck_at: BootInstant,
}

impl Holding {
    /// Starts the worker.
    pub(super) fn enter(tenure: Tenure, basis: Basis, out: &mut Commands) -> State {
        let (term, deadline) = (tenure.term.clone(), tenure.deadline);
        out.push(Command::Spawn {
            term: term.clone(),
            deadline,
        });
        out.push(Command::Tell(Transition::Acquired {
            term,
            grant: tenure.grant.clone(),
            deadline,
            basis,
        }));
        State::Holding(Self {
            precheck_at: tenure.since,
            tenure,
            worker: None,
        })
    }

    pub(super) fn worker(&self) -> Option<i32> {
        self.worker
    }

    pub(super) fn wakeup(&self, config: &Config) -> Option<BootInstant> {
        let stop = self.tenure.deadline - config.timing.grace();
        Some(
            self.tenure
                .wakeup()
                .map_or(stop, |renewal| renewal.min(stop)),
        )
    }

    pub(super) fn step(mut self, event: Event, context: &Context<'_>, out: &mut Commands) -> State {
        match event {
            // The guard reports what has happened already, whatever the time.
            Event::Guard(event) => self.guard(event, context, out),
            // A loss is a loss, whatever the time.
            Event::Renewed { reply: Renewed::Lost(loss), .. } => {
                self.tenure.calling = false;
                self.stop(Cause::Lost(Some(loss)), context, out)
            }
            Event::Checked(Renewed::Lost(loss)) => {
                self.stop(Cause::Lost(Some(loss)), context, out)
            }
            // An answer never revives a right that has run out: the guard has
            // told the worker to stop by now.
            _ if self.near_the_end(context) => self.too_late(event, context, out),
            Event::Wake => self.on_time(context, out),
            Event::Renewed { sent_at, reply: Renewed::Granted { grant, request } } => {
                self.tenure.granted(grant, sent_at, context, out);
                out.push(Command::Extend { deadline: self.tenure.deadline });
                self.asked(request.as_ref(), context, out)
            }
            Event::Renewed { reply: Renewed::Unknown(unknown), .. } => {
                self.tenure.failed(unknown, context, out);
                State::Holding(self)
            }
            // Reading one's row moves no deadline.
            Event::Checked(Renewed::Granted { request, .. }) => {
                self.asked(request.as_ref(), context, out)
            }
            Event::Stop(cause) => self.stop(Cause::Asked(cause), context, out),
            Event::Fit(fit) => {
                self.tenure.prechecking = false;
                if fit {
                    State::Holding(self)
                } else {
                    self.stop(Cause::Asked(StopCause::Unfit), context, out)
                }
            }
            // The next renewal will tell.
            Event::Checked(Renewed::Unknown(_))
            // Nothing was asked to stop.
            | Event::HurryUp
            // While standing by only.
            | Event::Changed(_)
            // No such call is under way in a term.
            | Event::Observed(_)
            | Event::Initialised(_)
            | Event::Acquired { .. }
            | Event::Released(_) => State::Holding(self),
        }
    }

    fn near_the_end(&self, context: &Context<'_>) -> bool {
        context.at() >= self.tenure.deadline - context.timing().grace()
    }

    /// The worker is told to stop; what `event` says is still noted.
    fn too_late(self, event: Event, context: &Context<'_>, out: &mut Commands) -> State {
        Stopping::begin(self.tenure, Cause::Lost(None), context, out).step(event, context, out)
    }

    fn on_time(mut self, context: &Context<'_>, out: &mut Commands) -> State {
        let renewed = self.tenure.renew(context, out);
        let prechecks = context.config.precheck && !self.tenure.prechecking;
        if renewed && prechecks && context.at() >= self.precheck_at {
            self.tenure.prechecking = true;
            // Beside every regular renewal, and not beside every retry.
            self.precheck_at = context.at() + context.timing().renew_interval() / 2;
            out.push(Command::Precheck);
        }
        State::Holding(self)
    }

    fn asked(self, request: Option<&Request>, context: &Context<'_>, out: &mut Commands) -> State {
        if self.tenure.steps_down(request) {
            self.stop(Cause::Asked(StopCause::StepDown), context, out)
        } else {
            State::Holding(self)
        }
    }

    fn guard(mut self, event: GuardEvent, context: &Context<'_>, out: &mut Commands) -> State {
        match event {
            GuardEvent::Started { pid } => {
                self.worker = Some(pid);
                State::Holding(self)
            }
            // Whatever this is the end of, what follows is the same: the
            // lease is renewed until nothing is left of the tree.
            GuardEvent::WorkerEnded(_)
            | GuardEvent::NotStarted(_)
            | GuardEvent::Stopping(_)
            | GuardEvent::Empty
            | GuardEvent::Gone => Stopping::begin(self.tenure, Cause::Worker, context, out).step(
                Event::Guard(event),
                context,
                out,
            ),
            // It was ready before; it is not gone.
            GuardEvent::Ready | GuardEvent::Swept => State::Holding(self),
        }
    }

    fn stop(self, cause: Cause, context: &Context<'_>, out: &mut Commands) -> State {
        State::Stopping(Stopping::begin(self.tenure, cause, context, out))
    }
}
