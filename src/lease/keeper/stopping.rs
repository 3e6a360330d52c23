//! The worker's tree is being ended. The lease is renewed as long as it may
//! be, since that keeps others out while anything of the tree is left.

use std::time::Duration;

use super::event::{Command, Event, GuardEvent, Outcome, StopCause, Transition};
use super::releasing::{Releasing, Then, Tries};
use super::tenure::Tenure;
use super::{Commands, Config, Context, State};
use crate::lease::guard::LEFT_BEHIND_LIMIT;
use crate::lease::record::{Loss, Renewed};
use crate::lease::time::BootInstant;
use crate::lease::{HURRY_AFTER, stop_signal_of};
use crate::wire::{NotStarted, StopReason, WorkerEnd};

/// At the end of a stop the guard kills by itself, and where the tree is large
/// it is busy for longer than it may take to answer. So long after it the
/// keeper makes sure; at the deadline, at once.
const GUARD_FIRST: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stopping {
    pub(super) tenure: Tenure,
    cause: Cause,
    /// How the worker itself has ended.
    worker: Option<WorkerEnd>,
    began: BootInstant,
    /// When the guard is told to kill if anything is left of the tree; `None`
    /// once it is. It does that by itself; this makes sure of it.
    kill_at: Option<BootInstant>,
    /// The row is ours as far as is known, and can be renewed.
    ours: bool,
    guard_gone: bool,
    /// A signal has asked us to end: there is no rejoining.
    signaled: bool,
    /// The loss was told of.
    told: bool,
}

/// Why the tree is being ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    /// The worker ended by itself, or never started.
    Worker,
    /// An orderly stop.
    Asked(StopCause),
    /// The lease is lost: another one was seen, or (`None`) its time is up.
    Lost(Option<Loss>),
    /// The guard is gone.
    GuardDied,
}

impl Stopping {
    pub(super) fn begin(
        tenure: Tenure,
        cause: Cause,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> Self {
        let mut new = Self {
            tenure,
            cause: Cause::Worker,
            worker: None,
            began: context.at(),
            kill_at: None,
            ours: true,
            guard_gone: false,
            signaled: false,
            told: false,
        };
        match cause {
            Cause::Asked(cause) => new.asked(cause, context, out),
            Cause::Lost(Some(loss)) => new.lost(loss, out),
            Cause::Lost(None) => new.losing(context, out),
            Cause::Worker | Cause::GuardDied => {
                let patience = context.timing().stop_timeout().min(LEFT_BEHIND_LIMIT);
                new.kill_at = Some(context.at() + patience + GUARD_FIRST);
            }
        }
        new
    }

    pub(super) fn wakeup(&self) -> Option<BootInstant> {
        let renewal = self.tenure.wakeup().filter(|_| self.ours);
        let deadline = Some(self.tenure.deadline).filter(|_| self.may_live());
        [renewal, deadline, self.kill_at]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn step(mut self, event: Event, context: &Context<'_>, out: &mut Commands) -> State {
        match event {
            Event::Guard(event) => return self.guard(event, context, out),
            Event::Wake => {}
            // Settling, which renews past the deadline, takes any token.
            Event::Renewed { reply: Renewed::Granted { grant, .. }, .. }
                if grant.token != self.tenure.term.token =>
            {
                self.tenure.calling = false;
                self.lost(Loss::OtherToken(grant.token), out);
            }
            Event::Renewed { sent_at, reply: Renewed::Granted { grant, request: _ } } => {
                // Before the answer is noted: it never revives a right.
                self.enforce(context, out);
                self.tenure.granted(grant, sent_at, context, out);
                if self.may_live() && !self.guard_gone {
                    out.push(Command::Extend { deadline: self.tenure.deadline });
                }
            }
            Event::Renewed { reply: Renewed::Lost(loss), .. } => {
                self.tenure.calling = false;
                self.lost(loss, out);
            }
            Event::Renewed { reply: Renewed::Unknown(unknown), .. } => {
                self.tenure.failed(unknown, context, out);
            }
            Event::Checked(Renewed::Lost(loss)) => self.lost(loss, out),
            Event::Stop(StopCause::Signal(_)) => {
                if self.signaled {
                    self.hurry_up(context, out);
                }
                // What was asked for before goes on; it only ends otherwise.
                self.signaled = true;
            }
            Event::HurryUp => self.hurry_up(context, out),
            Event::Fit(_) => self.tenure.prechecking = false,
            // It is being stopped already.
            Event::Stop(
                StopCause::Attach(_) | StopCause::StepDown | StopCause::Unfit | StopCause::Watchdog,
            )
            | Event::Checked(Renewed::Granted { .. } | Renewed::Unknown(_))
            // While standing by only.
            | Event::Changed(_)
            // No such call is under way in a term.
            | Event::Observed(_)
            | Event::Initialised(_)
            | Event::Acquired { .. }
            | Event::Released(_) => {}
        }
        self.on_time(context, out);
        State::Stopping(self)
    }

    fn guard(mut self, event: GuardEvent, context: &Context<'_>, out: &mut Commands) -> State {
        match event {
            GuardEvent::Empty => return self.emptied(context, out),
            GuardEvent::Swept if self.guard_gone => return self.emptied(context, out),
            GuardEvent::NotStarted(reason) => return self.not_started(reason, context, out),
            GuardEvent::Gone if context.config.attached => return self.left_alone(context, out),
            // What is left is being killed already.
            GuardEvent::Gone => {
                // At the deadline its own timer may have ended it: then it is
                // the lease that was lost.
                self.enforce(context, out);
                (self.guard_gone, self.kill_at) = (true, None);
                if self.may_live() {
                    self.cause = Cause::GuardDied;
                }
            }
            GuardEvent::WorkerEnded(end) => self.worker = Some(end),
            // It measures the deadline that it was told last: the answer of a
            // renewal may have moved ours since, too late for the worker.
            GuardEvent::Stopping(reason) if self.may_live() => {
                self.cause = Cause::Lost(None);
                let deadline = self.tenure.deadline.min(context.at() + context.timing().grace());
                match reason {
                    StopReason::DeadlineNear => {
                        self.kill_at = Some(deadline);
                        out.push(Command::Tell(Transition::Losing { deadline }));
                    }
                    StopReason::DeadlineReached => self.kill(out),
                }
            }
            // It is being stopped or killed already.
            GuardEvent::Stopping(StopReason::DeadlineNear | StopReason::DeadlineReached)
            // Started just before it was told to stop, which it does.
            | GuardEvent::Started { .. }
            // It was ready before; it is not gone.
            | GuardEvent::Ready
            | GuardEvent::Swept => {}
        }
        self.on_time(context, out);
        State::Stopping(self)
    }

    /// The tree has a right to live until the deadline.
    fn may_live(&self) -> bool {
        match self.cause {
            Cause::Worker | Cause::Asked(_) => true,
            Cause::Lost(_) | Cause::GuardDied => false,
        }
    }

    fn on_time(&mut self, context: &Context<'_>, out: &mut Commands) {
        self.enforce(context, out);
        if self.ours {
            self.tenure.renew(context, out);
        }
    }

    /// What the clock alone decides.
    fn enforce(&mut self, context: &Context<'_>, out: &mut Commands) {
        if self.may_live() && context.at() >= self.tenure.deadline {
            self.losing(context, out);
        }
        if self.kill_at.is_some_and(|kill_at| context.at() >= kill_at) {
            self.kill(out);
        }
    }

    fn kill(&mut self, out: &mut Commands) {
        self.kill_at = None;
        out.push(Command::KillTree);
        self.tell_loss(out);
    }

    fn tell_loss(&mut self, out: &mut Commands) {
        if let Cause::Lost(loss) = &self.cause
            && !self.told
        {
            out.push(Command::Tell(Transition::Lost { loss: loss.clone() }));
            self.told = true;
        }
    }

    fn asked(&mut self, cause: StopCause, context: &Context<'_>, out: &mut Commands) {
        let kill_by = context.at() + context.timing().stop_timeout();
        let signal = match cause {
            StopCause::Signal(signal) | StopCause::Attach(signal) => stop_signal_of(signal),
            StopCause::StepDown | StopCause::Unfit | StopCause::Watchdog => None,
        };
        out.push(Command::StopTree { signal, kill_by });
        out.push(Command::Tell(Transition::Stopping(cause.clone())));
        self.signaled = matches!(cause, StopCause::Signal(_));
        self.kill_at = Some(kill_by + GUARD_FIRST);
        self.cause = Cause::Asked(cause);
    }

    /// No renewal has come through in time.
    fn losing(&mut self, context: &Context<'_>, out: &mut Commands) {
        self.cause = Cause::Lost(None);
        let deadline = self.tenure.deadline;
        if context.at() >= deadline {
            self.kill(out);
        } else {
            self.kill_at = Some(deadline);
            out.push(Command::StopTree {
                signal: None,
                kill_by: deadline,
            });
            out.push(Command::Tell(Transition::Losing { deadline }));
        }
    }

    /// It is not ours any more: no grace.
    fn lost(&mut self, loss: Loss, out: &mut Commands) {
        self.ours = false;
        if self.cause != Cause::GuardDied {
            self.cause = Cause::Lost(Some(loss));
        }
        self.kill(out);
    }

    fn hurry_up(&mut self, context: &Context<'_>, out: &mut Commands) {
        if context.at() >= self.began + HURRY_AFTER {
            self.kill(out);
        }
    }

    /// The worker was never there.
    fn not_started(
        mut self,
        reason: NotStarted,
        context: &Context<'_>,
        out: &mut Commands,
    ) -> State {
        if !self.may_live() {
            return self.emptied(context, out);
        }
        match reason {
            NotStarted::Late => {
                self.cause = Cause::Lost(None);
                self.emptied(context, out)
            }
            NotStarted::Exec { .. } | NotStarted::Failed { .. } => {
                let then = self.then(Outcome::NotStarted(reason), context);
                Releasing::enter(self.tenure, then, Tries::UntilDeadline, context, out)
            }
        }
    }

    /// Nothing is left of the tree.
    fn emptied(mut self, context: &Context<'_>, out: &mut Commands) -> State {
        self.tell_loss(out);
        let then = self.then(self.outcome(), context);
        let tries = match self.cause {
            Cause::Lost(Some(ref loss)) => Tries::after(loss),
            Cause::Lost(None) | Cause::Worker | Cause::Asked(_) | Cause::GuardDied => {
                Tries::UntilDeadline
            }
        };
        Releasing::enter(self.tenure, then, tries, context, out)
    }

    /// The guard of another container is gone, and nobody can say what is
    /// left of its tree: the lease must run out.
    fn left_alone(mut self, context: &Context<'_>, out: &mut Commands) -> State {
        self.tell_loss(out);
        let then = self.then(Outcome::GuardDied, context);
        Releasing::enter(self.tenure, then, Tries::None, context, out)
    }

    fn outcome(&self) -> Outcome {
        match (&self.cause, self.worker) {
            (Cause::Lost(loss), _) => Outcome::Lost { loss: loss.clone() },
            (Cause::Asked(why @ (StopCause::Unfit | StopCause::Watchdog)), _) => {
                Outcome::SteppedDown { why: why.clone() }
            }
            (Cause::Asked(_) | Cause::Worker, Some(end)) => Outcome::Worker(end),
            (Cause::Asked(StopCause::Signal(signal)), None) => Outcome::Signaled(*signal),
            // A guard that says nothing of its worker is as good as dead.
            (Cause::Asked(StopCause::Attach(_) | StopCause::StepDown) | Cause::Worker, None)
            | (Cause::GuardDied, _) => Outcome::GuardDied,
        }
    }

    /// No other term will follow, whatever happens yet: a loss, which may come
    /// until the tree is empty, is followed by rejoining.
    pub(super) fn will_end(&self, config: &Config) -> bool {
        self.signaled || !(config.rejoin || config.attached)
    }

    fn then(&self, outcome: Outcome, context: &Context<'_>) -> Then {
        let config = context.config;
        let rejoins = match &self.cause {
            Cause::Lost(_) | Cause::Asked(StopCause::Unfit | StopCause::StepDown) => config.rejoin,
            Cause::Worker
            | Cause::GuardDied
            | Cause::Asked(StopCause::Signal(_) | StopCause::Attach(_) | StopCause::Watchdog) => {
                false
            }
        };
        // It would not start in another term either.
        let is_hopeless = matches!(outcome, Outcome::NotStarted(_)) && !config.attached;
        if is_hopeless || self.signaled || !(rejoins || config.attached) {
            return Then::End(outcome);
        }
        let pause = match self.cause {
            // Others get the chance that the operator wanted them to have.
            Cause::Asked(StopCause::StepDown) => context.timing().poll_interval() * 2,
            Cause::Worker | Cause::Asked(_) | Cause::Lost(_) | Cause::GuardDied => Duration::ZERO,
        };
        Then::StandBy { outcome, pause }
    }
}
