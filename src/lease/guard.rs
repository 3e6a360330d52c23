//! The guard's machine: what to do with the worker tree, given what was
//! heard and when.
//!
//! `Idle → Armed → Running → Stopping | LeftBehind → Killing → Empty → Ended`
//!
//! Rules that it keeps whatever the keeper does:
//!
//! - Time acts first: before any event is looked at, a deadline that has
//!   been reached takes effect. So a frame that arrives late revives nothing.
//! - The deadline is looked at when the go arrives and again when the forked
//!   child stands ready, right before it may execute the worker.
//! - One tree in a guard's life: a second `Start` is a broken keeper.
//! - A keeper that is gone, or that cannot be understood, means SIGKILL.
//! - Release only when `wait` has said that the tree is empty.

pub mod event;
mod frames;
#[cfg(test)]
mod tests;
mod worker;

use std::time::Duration;

pub use event::{Action, Event, Keeper, KeeperLoss};

use crate::lease::time::BootInstant;
use crate::wire::{FromGuard, Hello, NotStarted, Start, StopReason, StopTo};

/// What a worker leaves behind when it ends has this long at most
/// (`--stop-timeout` where that is shorter).
pub const LEFT_BEHIND_LIMIT: Duration = Duration::from_secs(5);

/// How soon after `Empty` the keeper must have said anything at all, should the
/// deadline have passed by then. A keeper that runs answers within a
/// millisecond, or on a host in distress within hundreds; one that is stopped
/// never does.
pub const FIRST_ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// How long the keeper may be silent past the deadline, after an answer.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(1);

/// While killing: how often SIGKILL is repeated when nothing else happens
/// (a process that could not be killed may be by then).
pub const KILL_AGAIN_INTERVAL: Duration = Duration::from_secs(1);

/// While killing: a guard that does not get to repeat SIGKILL for this long
/// stands still itself, and its own timer ends it.
pub const KILL_STALL_LIMIT: Duration = Duration::from_secs(10);

/// What the worker's tree may count on, from `Start` and later frames.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Limits {
    deadline: BootInstant,
    grace: Duration,
    ttl: Duration,
    stop_signal: i32,
    stop_to: StopTo,
    stop_timeout: Duration,
}

impl Limits {
    fn of(start: &Start) -> Self {
        Self {
            deadline: start.deadline,
            grace: start.grace,
            ttl: start.ttl,
            stop_signal: start.stop_signal,
            stop_to: start.stop_to,
            stop_timeout: start.stop_timeout,
        }
    }

    fn stop_at(&self) -> BootInstant {
        self.deadline - self.grace
    }
}

/// An orderly stop that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stop {
    signal: i32,
    kill_by: BootInstant,
}

/// A tree that has been told to end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ending {
    limits: Limits,
    kill_by: BootInstant,
    /// Begun because the deadline came near: no renewal changes it any more.
    lost: bool,
}

impl Ending {
    fn kill_at(&self) -> BootInstant {
        self.kill_by.min(self.limits.deadline)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// No worker yet.
    Idle,
    /// A child is being forked (`child` is `None`) or about to execute.
    Armed {
        limits: Limits,
        child: Option<i32>,
        /// Asked for meanwhile; takes effect when the worker runs.
        stop: Option<Stop>,
    },
    /// The worker runs.
    Running(Limits),
    /// The stop signal was sent while the worker ran.
    Stopping(Ending),
    /// The worker has ended by itself (or alone was told to) and left something.
    LeftBehind(Ending),
    /// SIGKILL was sent.
    Killing {
        again_at: BootInstant,
        /// Set when the worker was never executed: reported in place of `Empty`.
        not_started: Option<NotStarted>,
    },
    /// Nothing is left; the keeper releases, or is found to stand still: silent
    /// for too long, past the deadline.
    Empty { answer_by: BootInstant },
    /// The last action was issued.
    Ended,
}

/// The guard: see the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Guard {
    phase: Phase,
    hello: Hello,
    greeted: bool,
    lost: Option<KeeperLoss>,
    /// The last deadline that the keeper has named: until then it may hold
    /// the lease, whatever became of the worker.
    named: BootInstant,
}

impl Guard {
    /// A guard that has nothing yet, and what it does first.
    pub fn new(hello: Hello) -> (Self, Vec<Action>) {
        let guard = Self {
            phase: Phase::Idle,
            hello: hello.clone(),
            greeted: false,
            lost: None,
            named: BootInstant::ZERO,
        };
        (guard, vec![Action::Send(FromGuard::Hello(hello))])
    }

    /// Takes an event and says what to do.
    #[must_use]
    pub fn step(&mut self, event: Event, now: BootInstant) -> Vec<Action> {
        let mut actions = Vec::new();
        // Nobody is found silent whose words are still unread: it may have been
        // this process that stood still.
        let hears_first = matches!(self.phase, Phase::Empty { .. });
        if !(hears_first && matches!(event, Event::Frame(_))) {
            self.let_time_act(now, &mut actions);
        }
        match event {
            Event::Frame(frame) => self.on_frame(frame, now, &mut actions),
            Event::KeeperLost(loss) => self.lose_keeper(loss, now, &mut actions),
            Event::Forked { pid } => self.on_forked(pid, now, &mut actions),
            Event::NotForked { message } => self.on_not_forked(message, now, &mut actions),
            Event::Executed => self.on_executed(now, &mut actions),
            Event::NotExecuted(why) => self.on_not_executed(why, now, &mut actions),
            Event::WorkerStopped { signal } => {
                if self.worker_may_be_stopped() {
                    actions.push(Action::Send(FromGuard::WorkerStopped { signal }));
                }
            }
            Event::WorkerContinued => {
                if self.worker_may_be_stopped() {
                    actions.push(Action::Send(FromGuard::WorkerContinued));
                }
            }
            Event::WorkerEnded(end) => self.on_worker_ended(end, now, &mut actions),
            Event::TreeEmpty { killed } => self.on_tree_empty(killed, now, &mut actions),
            // Time has acted above.
            Event::Wake => {}
        }
        actions
    }

    /// When [`Event::Wake`] is due.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        match &self.phase {
            Phase::Idle | Phase::Ended => None,
            Phase::Armed { limits, stop, .. } => {
                Some(stop.map_or(limits.deadline, |stop| stop.kill_by.min(limits.deadline)))
            }
            Phase::Running(limits) => Some(limits.stop_at()),
            Phase::Stopping(ending) | Phase::LeftBehind(ending) => Some(ending.kill_at()),
            Phase::Killing { again_at, .. } => Some(*again_at),
            Phase::Empty { answer_by } => Some(self.give_up_keeper_at(*answer_by)),
        }
    }

    /// When the guard's own SIGKILL is due, unless it is set anew before: the
    /// worker then dies by its parent-death signal. Right after the deadline,
    /// so that a guard that runs has just the time to begin the killing; later
    /// when the killing has begun.
    pub fn self_kill_at(&self) -> Option<BootInstant> {
        match &self.phase {
            Phase::Idle | Phase::Empty { .. } | Phase::Ended => None,
            Phase::Armed { limits, .. } | Phase::Running(limits) => Some(self_kill_at(limits)),
            Phase::Stopping(ending) | Phase::LeftBehind(ending) => {
                Some(self_kill_at(&ending.limits))
            }
            Phase::Killing { again_at, .. } => Some(*again_at + KILL_STALL_LIMIT),
        }
    }

    /// Whether a process of a tree may be alive.
    pub fn has_tree(&self) -> bool {
        match &self.phase {
            Phase::Idle | Phase::Empty { .. } | Phase::Ended => false,
            Phase::Armed { child, .. } => child.is_some(),
            Phase::Running(_)
            | Phase::Stopping(_)
            | Phase::LeftBehind(_)
            | Phase::Killing { .. } => true,
        }
    }

    /// Whether SIGKILL was sent and the tree is not known to be empty.
    pub fn is_killing(&self) -> bool {
        matches!(self.phase, Phase::Killing { .. })
    }

    /// Whether the keeper was given up: nothing it says is heard any more.
    pub fn has_lost_keeper(&self) -> bool {
        self.lost.is_some()
    }

    /// Whether the last action was issued.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// A keeper that stands still before the deadline is nobody's business.
    fn give_up_keeper_at(&self, answer_by: BootInstant) -> BootInstant {
        answer_by.max(self.named)
    }

    /// What has become due by `now`, whatever the event is.
    fn let_time_act(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        match &mut self.phase {
            // Nothing is due without a tree, or after the end.
            Phase::Idle | Phase::Ended => {}
            Phase::Armed { limits, stop, .. } => {
                if now >= limits.deadline {
                    self.kill_at_deadline(now, actions);
                } else if stop.is_some_and(|stop| now >= stop.kill_by) {
                    self.kill(now, None, actions);
                }
            }
            Phase::Running(limits) => {
                if now >= limits.deadline {
                    self.kill_at_deadline(now, actions);
                } else if now >= limits.stop_at() {
                    actions.push(Action::Send(FromGuard::Stopping(StopReason::DeadlineNear)));
                    actions.push(Action::StopTree {
                        signal: limits.stop_signal,
                        to: limits.stop_to,
                    });
                    self.phase = Phase::Stopping(Ending {
                        kill_by: limits.deadline,
                        limits: limits.clone(),
                        lost: true,
                    });
                }
            }
            Phase::Stopping(ending) | Phase::LeftBehind(ending) => {
                if now >= ending.limits.deadline {
                    self.kill_at_deadline(now, actions);
                } else if now >= ending.kill_by {
                    self.kill(now, None, actions);
                }
            }
            Phase::Killing { again_at, .. } => {
                if now >= *again_at {
                    *again_at = now + KILL_AGAIN_INTERVAL;
                    actions.push(Action::KillTree);
                }
            }
            Phase::Empty { answer_by } => {
                let answer_by = *answer_by;
                if now >= self.give_up_keeper_at(answer_by) {
                    actions.push(Action::Release(Keeper::StandsStill));
                    self.phase = Phase::Ended;
                }
            }
        }
    }

    fn lose_keeper(&mut self, loss: KeeperLoss, now: BootInstant, actions: &mut Vec<Action>) {
        if self.lost.is_some() {
            return;
        }
        self.lost = Some(loss);
        match &self.phase {
            // Nothing runs, but an acquisition may be under way.
            Phase::Idle | Phase::Empty { .. } => {
                actions.push(Action::Release(Keeper::Lost(loss)));
                self.phase = Phase::Ended;
            }
            Phase::Armed { .. } | Phase::Running(_) | Phase::Stopping(_) | Phase::LeftBehind(_) => {
                self.kill(now, None, actions)
            }
            // Under way; the release follows when it is done.
            Phase::Killing { .. } => {}
            // The last action was issued.
            Phase::Ended => {}
        }
    }

    fn leave_behind(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        actions.push(Action::StopLeftBehind {
            signal: ending.limits.stop_signal,
        });
        self.phase = Phase::LeftBehind(ending);
    }

    fn on_tree_empty(&mut self, killed: u32, now: BootInstant, actions: &mut Vec<Action>) {
        let report = match &self.phase {
            Phase::Armed { child: Some(_), .. }
            | Phase::Running(_)
            | Phase::Stopping(_)
            | Phase::LeftBehind(_)
            | Phase::Killing {
                not_started: None, ..
            } => FromGuard::Empty { killed },
            Phase::Killing {
                not_started: Some(why),
                ..
            } => FromGuard::NotStarted(why.clone()),
            // Nothing has been there yet, or it was reported.
            Phase::Idle | Phase::Armed { child: None, .. } | Phase::Empty { .. } | Phase::Ended => {
                return;
            }
        };
        self.become_empty(report, now, actions);
    }

    fn nothing_started(&mut self, why: NotStarted, now: BootInstant, actions: &mut Vec<Action>) {
        self.become_empty(FromGuard::NotStarted(why), now, actions);
    }

    fn become_empty(&mut self, report: FromGuard, now: BootInstant, actions: &mut Vec<Action>) {
        actions.push(Action::Send(report));
        self.phase = match self.lost {
            Some(loss) => {
                actions.push(Action::Release(Keeper::Lost(loss)));
                Phase::Ended
            }
            None => Phase::Empty {
                answer_by: now + FIRST_ANSWER_LIMIT,
            },
        };
    }

    fn kill_at_deadline(&mut self, now: BootInstant, actions: &mut Vec<Action>) {
        actions.push(Action::Send(FromGuard::Stopping(
            StopReason::DeadlineReached,
        )));
        self.kill(now, None, actions);
    }

    fn kill(&mut self, now: BootInstant, why: Option<NotStarted>, actions: &mut Vec<Action>) {
        actions.push(Action::KillTree);
        self.phase = Phase::Killing {
            again_at: now + KILL_AGAIN_INTERVAL,
            not_started: why,
        };
    }
}

/// A guard that is stopped wakes itself at the deadline; this ends one that is
/// stopped again and again. Half of the margin (a tenth of the ttl by default)
/// after the deadline: one that is awake, but that a busy host does not schedule,
/// must not be ended before it has killed, since a keeper that stands still
/// would not finish that.
fn self_kill_at(limits: &Limits) -> BootInstant {
    limits.deadline + (limits.ttl / 20).min(Duration::from_millis(750))
}
