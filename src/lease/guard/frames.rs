//! What the keeper's frames do to the guard.

use super::{Action, Ending, Guard, KeeperLoss, Limits, Phase, SILENCE_LIMIT, Stop};
use crate::lease::time::BootInstant;
use crate::wire::{FromGuard, Hello, NotStarted, Start, ToGuard};

impl Guard {
    pub(super) fn on_frame(&mut self, frame: ToGuard, now: BootInstant, actions: &mut Vec<Action>) {
        // A keeper that was given up has no say any more: the killing is
        // under way, and the release is the guard's.
        if self.lost.is_some() || self.has_ended() {
            return;
        }
        if let Phase::Empty { answer_by } = &mut self.phase {
            *answer_by = now + SILENCE_LIMIT;
        }
        match frame {
            ToGuard::Hello(theirs) => self.on_hello(&theirs, now, actions),
            // Nothing may be asked before both know to mean the same.
            ToGuard::Start(_)
            | ToGuard::Deadline { .. }
            | ToGuard::Stop { .. }
            | ToGuard::Kill
            | ToGuard::Signal(_)
            | ToGuard::Ping { .. }
            | ToGuard::Dismiss
                if !self.greeted =>
            {
                self.lose_keeper(KeeperLoss::Nonsense, now, actions);
            }
            ToGuard::Start(start) => self.on_start(start, now, actions),
            ToGuard::Deadline { seq, deadline } => {
                self.on_deadline(deadline, now, actions);
                actions.push(Action::Send(FromGuard::Ack { seq }));
            }
            ToGuard::Stop { signal, kill_by } => {
                self.on_stop(Stop { signal, kill_by }, now, actions);
            }
            ToGuard::Kill => self.on_kill(now, actions),
            ToGuard::Signal(signal) => self.on_signal(signal, actions),
            ToGuard::Ping { seq } => actions.push(Action::Send(FromGuard::Ack { seq })),
            ToGuard::Dismiss => self.on_dismiss(now, actions),
        }
    }

    fn on_hello(&mut self, theirs: &Hello, now: BootInstant, actions: &mut Vec<Action>) {
        if self.greeted {
            self.lose_keeper(KeeperLoss::Nonsense, now, actions);
        } else if theirs.version != self.hello.version
            || theirs.time_namespace != self.hello.time_namespace
        {
            self.lose_keeper(KeeperLoss::Foreign, now, actions);
        } else {
            self.greeted = true;
        }
    }

    fn on_start(&mut self, start: Start, now: BootInstant, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Idle => {
                let limits = Limits::of(&start);
                self.named = start.deadline;
                // A worker that would be told to stop at once is not started.
                if now >= limits.stop_at() {
                    self.nothing_started(NotStarted::Late, now, actions);
                } else {
                    self.phase = Phase::Armed {
                        limits,
                        child: None,
                        stop: None,
                    };
                    actions.push(Action::Fork(Box::new(start)));
                }
            }
            // Never a second tree beside, or after, the first.
            Phase::Armed { .. }
            | Phase::Running(_)
            | Phase::Stopping(_)
            | Phase::LeftBehind(_)
            | Phase::Killing { .. }
            | Phase::Empty { .. }
            | Phase::Ended => self.lose_keeper(KeeperLoss::Nonsense, now, actions),
        }
    }

    fn on_deadline(&mut self, new: BootInstant, now: BootInstant, actions: &mut Vec<Action>) {
        self.named = new;
        match &mut self.phase {
            Phase::Armed { limits, .. } | Phase::Running(limits) => limits.deadline = new,
            Phase::Stopping(ending) | Phase::LeftBehind(ending) => {
                // Told to stop because the deadline came near: a renewal that
                // succeeds now comes too late, and the stop goes on.
                if !ending.lost {
                    ending.limits.deadline = new;
                }
            }
            // No tree, no right: SIGKILL is not taken back, and a deadline
            // before the start comes with the start.
            Phase::Idle | Phase::Killing { .. } | Phase::Empty { .. } | Phase::Ended => {}
        }
        // The new deadline itself may have been reached.
        self.let_time_act(now, actions);
    }

    pub(super) fn on_stop(&mut self, stop: Stop, now: BootInstant, actions: &mut Vec<Action>) {
        match &mut self.phase {
            // The signal would hit our own code in the child: it waits until
            // the worker is there to take it.
            Phase::Armed {
                stop: waiting,
                child,
                ..
            } => {
                // Which never is one that something has stopped before.
                if child.is_some() {
                    actions.push(Action::WakeWorker);
                }
                *waiting = Some(match *waiting {
                    Some(first) => Stop {
                        signal: first.signal,
                        kill_by: first.kill_by.min(stop.kill_by),
                    },
                    None => stop,
                });
            }
            Phase::Running(limits) => {
                actions.push(Action::StopTree {
                    signal: stop.signal,
                    to: limits.stop_to,
                });
                self.phase = Phase::Stopping(Ending {
                    limits: limits.clone(),
                    kill_by: stop.kill_by,
                    lost: false,
                });
            }
            // Each process has had its one stop signal; only the end can come sooner.
            Phase::Stopping(ending) | Phase::LeftBehind(ending) => {
                ending.kill_by = ending.kill_by.min(stop.kill_by);
            }
            // Nothing there to stop, or past stopping.
            Phase::Idle | Phase::Killing { .. } | Phase::Empty { .. } | Phase::Ended => {}
        }
        self.let_time_act(now, actions);
    }

    fn on_kill(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Armed { .. } | Phase::Running(_) | Phase::Stopping(_) | Phase::LeftBehind(_) => {
                self.kill(now, None, actions)
            }
            // Under way.
            Phase::Killing { .. } => {}
            // Nothing there to kill.
            Phase::Idle | Phase::Empty { .. } | Phase::Ended => {}
        }
    }

    fn on_signal(&self, signal: i32, actions: &mut Vec<Action>) {
        match &self.phase {
            // The child blocks everything until it executes: it waits there.
            Phase::Armed { child: Some(_), .. } | Phase::Running(_) | Phase::Stopping(_) => {
                actions.push(Action::SignalWorker(signal));
            }
            // There is no worker (any more), or it is being killed.
            Phase::Idle
            | Phase::Armed { child: None, .. }
            | Phase::LeftBehind(_)
            | Phase::Killing { .. }
            | Phase::Empty { .. }
            | Phase::Ended => {}
        }
    }

    fn on_dismiss(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        match &self.phase {
            Phase::Idle | Phase::Empty { .. } => {
                actions.push(Action::Exit);
                self.phase = Phase::Ended;
            }
            // A keeper that believes that nothing runs is not to be believed.
            Phase::Armed { .. }
            | Phase::Running(_)
            | Phase::Stopping(_)
            | Phase::LeftBehind(_)
            | Phase::Killing { .. } => self.lose_keeper(KeeperLoss::Nonsense, now, actions),
            // The last action was issued.
            Phase::Ended => {}
        }
    }
}
