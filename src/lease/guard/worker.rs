//! What becomes of the worker, and what that does to the guard.

use super::{Action, Ending, Guard, LEFT_BEHIND_LIMIT, Phase};
use crate::lease::time::BootInstant;
use crate::wire::{FromGuard, NotStarted, StopTo, WorkerEnd};

impl Guard {
    pub(super) fn on_forked(&mut self, pid: i32, now: BootInstant, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Armed {
                limits,
                child: child @ None,
                ..
            } => {
                *child = Some(pid);
                // Checked again: the fork itself, or a stop before it, may
                // have taken any time.
                if now >= limits.stop_at() {
                    self.kill(now, Some(NotStarted::Late), actions);
                } else {
                    actions.push(Action::Go {
                        deadline: limits.deadline,
                    });
                }
            }
            // Answered before.
            Phase::Armed { child: Some(_), .. } => {}
            // Given up while the fork was under way: without the go the child
            // executes nothing, and this SIGKILL finds it.
            Phase::Idle
            | Phase::Running(_)
            | Phase::Stopping(_)
            | Phase::LeftBehind(_)
            | Phase::Killing { .. }
            | Phase::Empty { .. }
            | Phase::Ended => actions.push(Action::KillTree),
        }
    }

    pub(super) fn on_not_forked(
        &mut self,
        message: String,
        now: BootInstant,
        actions: &mut Vec<Action>,
    ) {
        match &self.phase {
            Phase::Armed { .. } | Phase::Killing { .. } => {
                self.nothing_started(NotStarted::Failed { message }, now, actions);
            }
            // No fork was asked for, or it was answered before.
            Phase::Idle
            | Phase::Running(_)
            | Phase::Stopping(_)
            | Phase::LeftBehind(_)
            | Phase::Empty { .. }
            | Phase::Ended => {}
        }
    }

    pub(super) fn on_executed(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Armed {
                limits,
                child: Some(pid),
                stop,
            } => {
                let stop = *stop;
                actions.push(Action::Send(FromGuard::Started { pid: *pid }));
                self.phase = Phase::Running(limits.clone());
                if let Some(stop) = stop {
                    self.on_stop(stop, now, actions);
                } else {
                    self.let_time_act(now, actions);
                }
            }
            // Killed in the same instant, or not a worker of ours.
            Phase::Idle
            | Phase::Armed { child: None, .. }
            | Phase::Running(_)
            | Phase::Stopping(_)
            | Phase::LeftBehind(_)
            | Phase::Killing { .. }
            | Phase::Empty { .. }
            | Phase::Ended => {}
        }
    }

    pub(super) fn on_not_executed(
        &mut self,
        why: NotStarted,
        now: BootInstant,
        actions: &mut Vec<Action>,
    ) {
        match &mut self.phase {
            // The child is ending; SIGKILL makes sure, ECHILD reports.
            Phase::Armed { .. } => self.kill(now, Some(why), actions),
            Phase::Killing { not_started, .. } => *not_started = Some(why),
            // It was executed, or there is none.
            Phase::Idle
            | Phase::Running(_)
            | Phase::Stopping(_)
            | Phase::LeftBehind(_)
            | Phase::Empty { .. }
            | Phase::Ended => {}
        }
    }

    pub(super) fn worker_may_be_stopped(&self) -> bool {
        match &self.phase {
            // Right before it executes, the child takes what was sent to it
            // till then: a Ctrl-Z stops it there.
            Phase::Armed { child: Some(_), .. } | Phase::Running(_) | Phase::Stopping(_) => true,
            // While killing, the stops are our own.
            Phase::Idle
            | Phase::Armed { child: None, .. }
            | Phase::LeftBehind(_)
            | Phase::Killing { .. }
            | Phase::Empty { .. }
            | Phase::Ended => false,
        }
    }

    pub(super) fn on_worker_ended(
        &mut self,
        end: WorkerEnd,
        now: BootInstant,
        actions: &mut Vec<Action>,
    ) {
        match &self.phase {
            Phase::Armed { child: Some(_), .. } => {
                // It ended before its execution was heard of: in this order
                // the keeper hears of both.
                self.on_executed(now, actions);
                self.on_worker_ended(end, now, actions);
            }
            Phase::Running(limits) => {
                let limits = limits.clone();
                let kill_by = now + limits.stop_timeout.min(LEFT_BEHIND_LIMIT);
                actions.push(Action::Send(FromGuard::WorkerEnded(end)));
                self.leave_behind(
                    Ending {
                        limits,
                        kill_by,
                        lost: false,
                    },
                    actions,
                );
            }
            Phase::Stopping(ending) => {
                actions.push(Action::Send(FromGuard::WorkerEnded(end)));
                match ending.limits.stop_to {
                    // All of them have had the stop signal, and the same time.
                    StopTo::Tree => {}
                    StopTo::Worker => {
                        let mut ending = ending.clone();
                        let limit = ending.limits.stop_timeout.min(LEFT_BEHIND_LIMIT);
                        ending.kill_by = ending.kill_by.min(now + limit);
                        self.leave_behind(ending, actions);
                    }
                }
            }
            Phase::Killing {
                not_started: None, ..
            } => actions.push(Action::Send(FromGuard::WorkerEnded(end))),
            // It was our own code in the child, not the worker.
            Phase::Killing {
                not_started: Some(_),
                ..
            } => {}
            // It has ended before, or there was none.
            Phase::Idle
            | Phase::Armed { child: None, .. }
            | Phase::LeftBehind(_)
            | Phase::Empty { .. }
            | Phase::Ended => {}
        }
    }
}
