//! The machine of `attach`: it stands between `serve`, which holds the lease
//! in another container, and its own guard, which owns the worker tree.
//!
//! `Away → Greeting → Idle → Running → Reporting → Ended`
//!
//! Rules that it keeps whatever `serve` does:
//!
//! - One worker in its life: with the end of a term it ends too.
//! - A `serve` that is gone, or that cannot be understood, while anything of
//!   the tree may be alive means SIGKILL to it. Before, it is waited for again.
//! - Whatever ends the tree, `serve` hears that it is empty only when `wait`
//!   has said so: the guard's, or this process's own when the guard has died.
//! - Signals that ask for a stop take effect at once, whether `serve` answers
//!   or not. It is told, so that it goes on renewing.
//! - Every state but standing by ends by a bounded time.

mod event;
mod running;

use std::mem;
use std::time::Duration;

pub use event::{Action, Away, End, Event, How, Now, ServeLoss, Told};

use self::running::{Reporting, Running};
use super::keeper::event::GuardEvent;
use super::time::BootInstant;
use super::timing::Chance;
use crate::wire::attach::{FromAttach, ToAttach};
use crate::wire::{FromGuard, Hello, NotStarted, ToGuard};

/// `serve` answers a greeting within a millisecond; one that stands still may
/// have been replaced by another one meanwhile.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// Between two attempts to reach `serve`: from the shortest, doubled each
/// time, to the longest; each up to half shorter or longer by chance.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// That it waits is said at every change of the reason, and so often.
const TELL_EVERY: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not connected.
    Away {
        until: BootInstant,
    },
    /// Connected, and not yet known to be the guard.
    Greeting {
        until: BootInstant,
        greeted: bool,
    },
    /// Attached; nothing runs.
    Idle,
    Running(Running),
    Reporting(Reporting),
    Ended,
}

/// The machine: see the module.
#[derive(Debug)]
pub struct Attach {
    state: State,
    hello: Hello,
    first_process: bool,
    /// `--wait` ends then.
    give_up_at: Option<BootInstant>,
    pause: Duration,
    /// What was said of waiting last, and when.
    told: Option<(Away, BootInstant)>,
}

/// What is asked for, in order.
type Actions = Vec<Action>;

impl Attach {
    /// One that tries to reach `serve` when it is woken. `first_process`: it
    /// is the first process of a PID namespace.
    pub fn new(hello: Hello, first_process: bool, wait: Option<Duration>, now: &Now) -> Self {
        Self {
            state: State::Away { until: now.at },
            hello,
            first_process,
            give_up_at: wait.map(|wait| now.at + wait),
            pause: SHORTEST_PAUSE,
            told: None,
        }
    }

    /// What to do because of `event`, in order.
    #[must_use]
    pub fn step(&mut self, event: Event, now: &Now) -> Vec<Action> {
        let mut out = Vec::new();
        self.state = match mem::replace(&mut self.state, State::Ended) {
            State::Running(running) => running.step(event, now, &mut out),
            State::Reporting(reporting) => reporting.step(event, now, &mut out),
            // Nothing that happens now can be of any consequence.
            State::Ended => State::Ended,
            standing_by if self.is_over(now.at) => {
                drop(standing_by);
                self.leave(How::NotAcquired, &mut out)
            }
            State::Away { until } => self.away(until, event, now, &mut out),
            State::Greeting { until, greeted } => {
                self.greeting(until, greeted, event, now, &mut out)
            }
            State::Idle => self.idle(event, now, &mut out),
        };
        out
    }

    /// When to step with [`Event::Wake`] if nothing else happens before.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        let due = match &self.state {
            State::Away { until } | State::Greeting { until, .. } => Some(*until),
            State::Idle => None,
            State::Running(running) => return running.wakeup(),
            State::Reporting(reporting) => return Some(reporting.until),
            State::Ended => return None,
        };
        [due, self.give_up_at].into_iter().flatten().min()
    }

    /// What is being done, as far as signals go.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Away { .. } | State::Greeting { .. } | State::Idle => Phase::StandingBy,
            State::Running(running) if !running.started => Phase::Starting,
            State::Running(_) => Phase::Running,
            State::Reporting(_) | State::Ended => Phase::Over,
        }
    }

    /// Until when the worker's tree may live, while there is one.
    pub fn deadline(&self) -> Option<BootInstant> {
        match &self.state {
            State::Running(running) => Some(running.deadline),
            State::Away { .. }
            | State::Greeting { .. }
            | State::Idle
            | State::Reporting(_)
            | State::Ended => None,
        }
    }

    /// The tree was told to die.
    pub fn is_killing(&self) -> bool {
        matches!(&self.state, State::Running(running) if running.killing)
    }

    fn is_over(&self, at: BootInstant) -> bool {
        self.give_up_at.is_some_and(|until| at >= until)
    }

    fn away(&mut self, until: BootInstant, event: Event, now: &Now, out: &mut Actions) -> State {
        match event {
            Event::Wake if now.at >= until => {
                out.push(Action::Connect);
                State::Away { until }
            }
            Event::Connected => {
                out.push(Action::ToServe(FromAttach::Hello(self.hello.clone())));
                out.push(Action::ToServe(FromAttach::Attach {
                    first_process: self.first_process,
                }));
                State::Greeting {
                    until: now.at + GREETING_LIMIT,
                    greeted: false,
                }
            }
            Event::NotConnected(why) => self.wait(Away::Unreachable(why), now, out),
            Event::Stop(signal) => self.leave(How::Signaled(signal), out),
            // Too early.
            Event::Wake
            // There is no connection, and no guard.
            | Event::Serve(_)
            | Event::ServeLost(_)
            | Event::Guard(_)
            | Event::NoGuard(_)
            // Nothing was asked to stop.
            | Event::HurryUp => State::Away { until },
        }
    }

    fn greeting(
        &mut self,
        until: BootInstant,
        greeted: bool,
        event: Event,
        now: &Now,
        out: &mut Actions,
    ) -> State {
        match event {
            Event::Serve(ToAttach::Hello(theirs)) if !greeted => {
                match ServeLoss::of(&theirs, &self.hello) {
                    Some(loss) => self.foreign(loss, out),
                    None => State::Greeting {
                        until,
                        greeted: true,
                    },
                }
            }
            Event::Serve(ToAttach::Attached) if greeted => {
                (self.pause, self.told) = (SHORTEST_PAUSE, None);
                out.push(Action::StartGuard);
                out.push(Action::Tell(Told::Attached));
                State::Idle
            }
            Event::Serve(ToAttach::Taken(by)) if greeted => {
                out.push(Action::Disconnect);
                self.wait(Away::Taken(by), now, out)
            }
            // A serve that knows another version says so in its first frame.
            Event::ServeLost(loss @ (ServeLoss::Version(_) | ServeLoss::TimeNamespace { .. })) => {
                self.foreign(loss, out)
            }
            Event::Serve(
                ToAttach::Hello(_)
                | ToAttach::Attached
                | ToAttach::Taken(_)
                | ToAttach::Guard(_)
                | ToAttach::Over { .. },
            )
            | Event::ServeLost(ServeLoss::Malformed) => {
                out.push(Action::Disconnect);
                self.wait(Away::Malformed, now, out)
            }
            Event::ServeLost(ServeLoss::Closed) => {
                out.push(Action::Disconnect);
                self.wait(Away::Gone, now, out)
            }
            Event::Wake if now.at >= until => {
                out.push(Action::Disconnect);
                self.wait(Away::Silent, now, out)
            }
            Event::Stop(signal) => self.leave(How::Signaled(signal), out),
            // Too early.
            Event::Wake
            // Not asked for.
            | Event::Connected
            | Event::NotConnected(_)
            // There is no guard.
            | Event::Guard(_)
            | Event::NoGuard(_)
            // Nothing was asked to stop.
            | Event::HurryUp => State::Greeting { until, greeted },
        }
    }

    fn idle(&mut self, event: Event, now: &Now, out: &mut Actions) -> State {
        match event {
            Event::Serve(ToAttach::Guard(ToGuard::Start(start))) => {
                out.push(Action::Tell(Told::Starting(start.clone())));
                let running = Running::new(&start);
                out.push(Action::ToGuard(ToGuard::Start(start)));
                // It may have lain in the queue of a process that was stopped.
                running.on_time(now, out)
            }
            Event::Serve(ToAttach::Guard(ToGuard::Ping { seq } | ToGuard::Deadline { seq, .. })) => {
                out.push(ack(seq));
                State::Idle
            }
            // Of a term that never came to a start.
            Event::Serve(ToAttach::Guard(
                ToGuard::Stop { .. } | ToGuard::Kill | ToGuard::Signal(_) | ToGuard::Dismiss,
            )) => State::Idle,
            Event::Serve(
                ToAttach::Guard(ToGuard::Hello(_))
                | ToAttach::Hello(_)
                | ToAttach::Attached
                | ToAttach::Taken(_)
                | ToAttach::Over { .. },
            ) => self.detach(Away::Malformed, now, out),
            Event::ServeLost(ServeLoss::Closed) => self.detach(Away::Gone, now, out),
            Event::ServeLost(
                ServeLoss::Malformed | ServeLoss::Version(_) | ServeLoss::TimeNamespace { .. },
            ) => self.detach(Away::Malformed, now, out),
            Event::NoGuard(message) => self.fail(message, out),
            Event::Guard(GuardEvent::Gone) => {
                self.fail("its guard process died before there was a worker".to_owned(), out)
            }
            Event::Stop(signal) => self.leave(How::Signaled(signal), out),
            // It is ready when it is, and starts nothing before it is told to.
            Event::Guard(
                GuardEvent::Ready
                | GuardEvent::Started { .. }
                | GuardEvent::NotStarted(_)
                | GuardEvent::WorkerEnded(_)
                | GuardEvent::Stopping(_)
                | GuardEvent::Empty
                | GuardEvent::Swept,
            )
            // Nothing is due but the end of waiting.
            | Event::Wake
            // Not asked for.
            | Event::Connected
            | Event::NotConnected(_)
            // Nothing was asked to stop.
            | Event::HurryUp => State::Idle,
        }
    }

    /// The connection is no more; there is no worker.
    fn detach(&mut self, why: Away, now: &Now, out: &mut Actions) -> State {
        out.push(Action::DismissGuard);
        out.push(Action::Disconnect);
        self.wait(why, now, out)
    }

    fn wait(&mut self, why: Away, now: &Now, out: &mut Actions) -> State {
        let news = self
            .told
            .as_ref()
            .is_none_or(|(told, at)| *told != why || now.at >= *at + TELL_EVERY);
        if news {
            self.told = Some((why.clone(), now.at));
            out.push(Action::Tell(Told::Waiting(why)));
        }
        let pause = spread(self.pause, now.chance);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        State::Away {
            until: now.at + pause,
        }
    }

    /// Ends without a worker. Should `serve` have just said that it is to
    /// start one, then it hears that nothing was started, and need not let
    /// the lease run out.
    fn leave(&self, how: How, out: &mut Actions) -> State {
        if let Some(refused) = match &how {
            How::Signaled(_) | How::NotAcquired => Some("attach ends"),
            How::Failed(message) => Some(message.as_str()),
            How::Worker(_) | How::SteppedDown | How::Lost | How::NotStarted(_) => None,
        } {
            out.push(Action::ToServe(FromAttach::Guard(FromGuard::NotStarted(
                NotStarted::Failed {
                    message: refused.to_owned(),
                },
            ))));
        }
        out.push(Action::DismissGuard);
        out.push(Action::Disconnect);
        out.push(Action::End(End {
            how,
            message: None,
            told_by: None,
        }));
        State::Ended
    }

    fn fail(&self, message: String, out: &mut Actions) -> State {
        self.leave(How::Failed(message), out)
    }

    fn foreign(&self, loss: ServeLoss, out: &mut Actions) -> State {
        self.fail(loss.to_string(), out)
    }
}

/// What `attach` is doing, as far as signals go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is no worker yet.
    StandingBy,
    /// It is being started.
    Starting,
    /// It runs, or what is left of it.
    Running,
    /// Nothing of it is left.
    Over,
}

fn ack(seq: u32) -> Action {
    Action::ToServe(FromAttach::Guard(FromGuard::Ack { seq }))
}

/// From half of it to half as much again.
fn spread(pause: Duration, chance: Chance) -> Duration {
    pause / 2 + pause.mul_f64(f64::from(chance.0) / f64::from(u16::MAX))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
