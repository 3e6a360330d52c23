//! The guard of a pod, and the tree that it owns.

use std::time::Duration;

use leasewrap::lease::attach::Event;
use leasewrap::lease::guard;
use leasewrap::lease::keeper::event::GuardEvent;
use leasewrap::wire::{NotStarted, Start, WorkerEnd};
use rand::RngExt;

use super::{KILL_TIME, Pod};
use crate::coverage;
use crate::world::guard_loop::heard;

impl Pod {
    /// The child comes to be the worker, and the worker to its end.
    pub fn tree_goes_on(&mut self) {
        if let Some(start) = self.forked.take() {
            let failed = guard::Event::NotForked {
                message: "no memory".to_owned(),
            };
            if self.rng.random_ratio(1, 10) {
                self.guard_hears(failed);
            } else {
                self.forked_child(&start);
            }
        } else if let Some(executed) = self.went.take_if(|_| self.rng.random()) {
            self.guard_hears(if executed {
                guard::Event::Executed
            } else {
                guard::Event::NotExecuted(NotStarted::Exec { errno: 2 })
            });
        } else if self.went == Some(false) {
            // The child has ended, which the kernel may tell first.
            self.is_empty(None);
        } else if self.worker && self.rng.random_ratio(1, 4) {
            (self.worker, self.rest) = (false, self.rng.random());
            let end = WorkerEnd::Exited(0);
            self.guard_hears(guard::Event::WorkerEnded(end));
            if !self.rest {
                self.is_empty(None);
            }
        }
    }

    pub fn forked_child(&mut self, start: &Start) {
        let actions = self.guard_steps(guard::Event::Forked { pid: 1 });
        let go = actions.iter().find_map(|action| match action {
            guard::Action::Go { deadline } => Some(*deadline),
            _ => None,
        });
        self.guard_acts(actions);
        let Some(deadline) = go else { return };
        let executed = self.at < deadline && !self.rng.random_ratio(1, 5);
        self.went = Some(executed);
        if executed {
            assert!(self.at < start.deadline || self.named > Some(self.at));
            (self.worker, self.rest) = (true, true);
            self.workers += 1;
        }
    }

    /// Nothing is left: whoever waits for it hears so.
    pub fn is_empty(&mut self, worker: Option<WorkerEnd>) {
        self.dies_at = None;
        if std::mem::take(&mut self.sweeping) {
            self.hears(Event::Guard(GuardEvent::Swept));
        } else {
            if let Some(end) = worker {
                self.guard_hears(guard::Event::WorkerEnded(end));
            }
            self.guard_hears(guard::Event::TreeEmpty { killed: 0 });
        }
    }

    /// The worker dies by its parent-death signal, the rest is swept.
    pub fn guard_dies(&mut self) {
        if self.guard.take().is_some() {
            (self.worker, self.forked, self.went) = (false, None, None);
            self.guard_is_gone();
        }
    }

    pub fn dies_by(&mut self, time: Duration) {
        let by = self.at + time;
        self.dies_at = Some(self.dies_at.map_or(by, |at| at.min(by)));
    }

    pub fn guard_is_gone(&mut self) {
        if !std::mem::take(&mut self.reported) {
            return;
        }
        self.hears(Event::Guard(GuardEvent::Gone));
        if self.ended {
            return;
        }
        if self.rest {
            self.sweeping = true;
            self.dies_by(KILL_TIME);
        } else if self.attach.deadline().is_some() {
            self.hears(Event::Guard(GuardEvent::Swept));
        }
    }

    pub fn guard_hears(&mut self, event: guard::Event) {
        let actions = self.guard_steps(event);
        self.guard_acts(actions);
    }

    pub fn guard_steps(&mut self, event: guard::Event) -> Vec<guard::Action> {
        let Some(guard) = &mut self.guard else {
            return Vec::new();
        };
        let state = coverage::first_name(guard);
        let name = coverage::guard::event(&event);
        self.driven.note(&coverage::guard::TABLE, &state, name);
        guard.step(event, self.at)
    }

    pub fn guard_acts(&mut self, actions: Vec<guard::Action>) {
        for action in actions {
            match action {
                guard::Action::Send(frame) => {
                    if let Some(event) = heard(frame).filter(|_| self.reported) {
                        self.hears(Event::Guard(event));
                    }
                }
                guard::Action::Fork(start) => self.forked = Some(*start),
                guard::Action::KillTree if self.worker || self.rest => self.dies_by(KILL_TIME),
                // What is being forked, or is about to be the worker, is there
                // until that is reported.
                guard::Action::KillTree if self.forked.is_some() || self.went.is_some() => {}
                guard::Action::KillTree => {
                    self.guard_hears(guard::Event::TreeEmpty { killed: 0 });
                }
                guard::Action::StopTree { .. } | guard::Action::StopLeftBehind { .. } => {
                    if self.rng.random() {
                        self.dies_by(KILL_TIME * 3);
                    }
                }
                guard::Action::Release(_) | guard::Action::Exit => {
                    self.guard = None;
                    self.guard_is_gone();
                }
                guard::Action::Go { .. }
                | guard::Action::SignalWorker(_)
                | guard::Action::WakeWorker => {}
            }
        }
    }
}
