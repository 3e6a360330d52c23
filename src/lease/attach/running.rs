//! There is a worker, or what is left of one; and the wait for `serve`'s last
//! word on it.

use std::time::Duration;

use super::{Action, Actions, End, Event, How, Now, ServeLoss, State, Told, ack};
use crate::lease::keeper::event::GuardEvent;
use crate::lease::time::BootInstant;
use crate::lease::{HURRY_AFTER, stop_signal_of};
use crate::wire::attach::{FromAttach, TermEnd, ToAttach};
use crate::wire::{FromGuard, NotStarted, Start, StopReason, ToGuard, WorkerEnd};

/// How long `serve` may take for its last word when the lease is lost: our
/// own guard gives this process a second before it kills it.
const LAST_WORD_OF_A_LOSS: Duration = Duration::from_millis(500);

/// And past the deadline, until which it may try to release, otherwise.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Why the lease counts as lost, by what is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The deadline came near, or was reached.
    Deadline,
    Serve(ServeLoss),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    /// The tree must be dead by then.
    pub(super) deadline: BootInstant,
    /// The worker runs, or has run.
    pub(super) started: bool,
    /// SIGKILL was asked for.
    pub(super) killing: bool,
    stop_signal: i32,
    stop_timeout: Duration,
    /// Since when an orderly stop is under way, and its signal.
    stopping: Option<(BootInstant, i32)>,
    /// `serve` has ordered SIGKILL without an orderly stop before.
    cut_off: bool,
    guard_gone: bool,
    loss: Option<Loss>,
    worker: Option<WorkerEnd>,
}

/// Nothing is left of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reporting {
    began: BootInstant,
    pub(super) until: BootInstant,
    loss: Option<Loss>,
    told_by: Option<i32>,
    /// How it ended, if `serve` says nothing else.
    how: How,
}

impl Running {
    pub(super) fn new(start: &Start) -> Self {
        Self {
            deadline: start.deadline,
            started: false,
            killing: false,
            stop_signal: start.stop_signal,
            stop_timeout: start.stop_timeout,
            stopping: None,
            cut_off: false,
            guard_gone: false,
            loss: None,
            worker: None,
        }
    }

    /// The guard enforces the deadline by itself; this makes sure of it.
    pub(super) fn wakeup(&self) -> Option<BootInstant> {
        (!self.killing).then_some(self.deadline)
    }

    pub(super) fn step(mut self, event: Event, now: &Now, out: &mut Actions) -> State {
        match event {
            Event::Serve(ToAttach::Guard(frame)) => self.ordered(frame, now, out),
            // A serve that believes that nothing runs is not to be believed.
            Event::Serve(
                ToAttach::Over { .. }
                | ToAttach::Hello(_)
                | ToAttach::Attached
                | ToAttach::Taken(_),
            ) => self.lose_serve(ServeLoss::Malformed, out),
            Event::ServeLost(loss) => self.lose_serve(loss, out),
            Event::Guard(event) => return self.guard(event, now, out),
            Event::Stop(signal) => self.stop(signal, now, out),
            Event::HurryUp => {
                let hurries = |(began, _)| now.at >= began + HURRY_AFTER;
                if self.stopping.is_some_and(hurries) {
                    self.kill(None, out);
                }
            }
            // Time acts below.
            Event::Wake
            // Not asked for.
            | Event::Connected
            | Event::NotConnected(_)
            | Event::NoGuard(_) => {}
        }
        self.on_time(now, out)
    }

    /// What the clock alone decides.
    pub(super) fn on_time(mut self, now: &Now, out: &mut Actions) -> State {
        if now.at >= self.deadline && !self.killing {
            self.loss.get_or_insert(Loss::Deadline);
            self.kill(None, out);
        }
        State::Running(self)
    }

    fn ordered(&mut self, frame: ToGuard, now: &Now, out: &mut Actions) {
        match frame {
            ToGuard::Deadline { seq, deadline } => {
                out.push(ack(seq));
                // An extension revives nothing.
                if self.loss.is_none() && now.at < self.deadline {
                    self.deadline = deadline;
                    if !self.guard_gone {
                        out.push(Action::Extend(deadline));
                    }
                }
            }
            ToGuard::Stop { signal, kill_by } => {
                if self.stopping.is_none() {
                    self.stopping = Some((now.at, signal));
                    out.push(Action::Tell(Told::Stopping { signal: None }));
                }
                out.push(Action::ToGuard(ToGuard::Stop { signal, kill_by }));
            }
            ToGuard::Kill => {
                self.cut_off |= self.stopping.is_none();
                self.kill(None, out);
            }
            ToGuard::Signal(signal) => out.push(Action::ToGuard(ToGuard::Signal(signal))),
            ToGuard::Ping { seq } => out.push(ack(seq)),
            // Never a second worker, and no end while there is one.
            ToGuard::Start(_) | ToGuard::Hello(_) | ToGuard::Dismiss => {
                self.lose_serve(ServeLoss::Malformed, out);
            }
        }
    }

    /// Each process gets the stop signal once: what `serve` orders later only
    /// brings SIGKILL nearer (see the guard's machine).
    fn stop(&mut self, signal: i32, now: &Now, out: &mut Actions) {
        let sent = stop_signal_of(signal).unwrap_or(self.stop_signal);
        out.push(Action::ToGuard(ToGuard::Stop {
            signal: sent,
            kill_by: now.at + self.stop_timeout,
        }));
        out.push(Action::ToServe(FromAttach::Stopping { signal }));
        if self.stopping.is_none() {
            self.stopping = Some((now.at, sent));
            out.push(Action::Tell(Told::Stopping {
                signal: Some(signal),
            }));
        }
    }

    fn kill(&mut self, loss: Option<ServeLoss>, out: &mut Actions) {
        if !self.killing {
            out.push(Action::Tell(Told::Killing { loss }));
        }
        self.killing = true;
        if !self.guard_gone {
            out.push(Action::Kill);
        }
    }

    fn lose_serve(&mut self, loss: ServeLoss, out: &mut Actions) {
        if let Some(Loss::Serve(_)) = self.loss {
            return;
        }
        // What was known before stands, but there is nobody to wait for.
        self.loss = Some(Loss::Serve(loss));
        self.kill(Some(loss), out);
        out.push(Action::Disconnect);
    }

    fn guard(mut self, event: GuardEvent, now: &Now, out: &mut Actions) -> State {
        match event {
            GuardEvent::Started { pid } => {
                self.started = true;
                out.push(Action::Tell(Told::Started { pid }));
                out.push(relay(FromGuard::Started { pid }));
            }
            GuardEvent::NotStarted(why) => {
                out.push(relay(FromGuard::NotStarted(why.clone())));
                return self.report(Some(why), now, out);
            }
            GuardEvent::WorkerEnded(end) => {
                self.worker = Some(end);
                out.push(relay(FromGuard::WorkerEnded(end)));
            }
            GuardEvent::Stopping(reason) => {
                out.push(relay(FromGuard::Stopping(reason)));
                if self.loss.is_none() {
                    self.loss = Some(Loss::Deadline);
                    out.push(Action::Tell(Told::Losing));
                }
                if reason == StopReason::DeadlineReached {
                    self.killing = true;
                }
            }
            GuardEvent::Gone => {
                (self.guard_gone, self.killing) = (true, true);
                out.push(Action::Tell(Told::GuardDied));
            }
            GuardEvent::Empty | GuardEvent::Swept => {
                out.push(relay(FromGuard::Empty { killed: 0 }));
                return self.report(None, now, out);
            }
            // It was ready before.
            GuardEvent::Ready => {}
        }
        self.on_time(now, out)
    }

    /// The tree is empty.
    fn report(self, not_started: Option<NotStarted>, now: &Now, out: &mut Actions) -> State {
        let how = self.how(not_started);
        let limit = match self.loss {
            Some(Loss::Serve(_)) => return end(how, None, None, out),
            Some(Loss::Deadline) => now.at + LAST_WORD_OF_A_LOSS,
            None => now.at.max(self.deadline) + LAST_WORD,
        };
        State::Reporting(Reporting {
            began: now.at,
            until: limit,
            loss: self.loss,
            told_by: self.stopping.map(|(_, signal)| signal),
            how,
        })
    }

    /// By what is known here.
    fn how(&self, not_started: Option<NotStarted>) -> How {
        match (self.loss, not_started, self.worker) {
            (Some(_), _, _) | (None, Some(NotStarted::Late), _) => How::Lost,
            (None, Some(why), _) => How::NotStarted(why),
            (None, None, _) if self.cut_off => How::Lost,
            (None, None, Some(end)) => How::Worker(end),
            (None, None, None) => How::Failed(
                "the guard process died, so the worker was killed; look for who killed lw-guard (the kernel log, if memory ran out)"
                    .to_owned(),
            ),
        }
    }
}

impl Reporting {
    pub(super) fn step(self, event: Event, now: &Now, out: &mut Actions) -> State {
        match event {
            Event::Serve(ToAttach::Over { end: how, message }) => self.over(how, message, out),
            Event::Serve(ToAttach::Guard(
                ToGuard::Ping { seq } | ToGuard::Deadline { seq, .. },
            )) => {
                out.push(ack(seq));
                State::Reporting(self)
            }
            Event::ServeLost(_) => end(self.how, None, self.told_by, out),
            Event::HurryUp if now.at >= self.began + HURRY_AFTER => {
                end(self.how, None, self.told_by, out)
            }
            Event::Wake if now.at >= self.until => end(self.how, None, self.told_by, out),
            // Sent before it heard that the tree is empty.
            Event::Serve(
                ToAttach::Guard(_)
                | ToAttach::Hello(_)
                | ToAttach::Attached
                | ToAttach::Taken(_),
            )
            // Too early.
            | Event::Wake
            // It ends anyway.
            | Event::Stop(_)
            | Event::HurryUp
            // The guard has nothing more to say.
            | Event::Guard(_)
            // Not asked for.
            | Event::Connected
            | Event::NotConnected(_)
            | Event::NoGuard(_) => State::Reporting(self),
        }
    }

    /// `serve` knows why a term ended, but not whether its own deadlines have
    /// arrived: a loss that was seen here is one.
    fn over(self, said: TermEnd, message: String, out: &mut Actions) -> State {
        let message = Some(message).filter(|message| !message.is_empty());
        match (self.loss, said) {
            (Some(_), TermEnd::Lost) | (None, TermEnd::Lost) => end(How::Lost, message, None, out),
            (Some(_), _) => end(How::Lost, None, None, out),
            (None, TermEnd::Worker(worker)) => end(How::Worker(worker), message, self.told_by, out),
            (None, TermEnd::SteppedDown) => end(How::SteppedDown, message, self.told_by, out),
            // Here it is known which program it was.
            (None, TermEnd::NotStarted(_) | TermEnd::Failed) => {
                end(self.how, None, self.told_by, out)
            }
        }
    }
}

fn relay(frame: FromGuard) -> Action {
    Action::ToServe(FromAttach::Guard(frame))
}

fn end(how: How, message: Option<String>, told_by: Option<i32>, out: &mut Actions) -> State {
    out.push(Action::DismissGuard);
    out.push(Action::Disconnect);
    out.push(Action::End(End {
        how,
        message,
        told_by,
    }));
    State::Ended
}
