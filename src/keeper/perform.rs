//! What the machine asks for, done.

use std::collections::VecDeque;

use super::any_link::{AnyLink, GuardFrom};
use super::watchdog::Pace;
use super::{Audience, Loop, PARTING, now, start_guard};
use crate::lease::keeper::event::{Command, Event, GuardEvent, StopCause, Transition};
use crate::lease::record::{Acquired, Fault, Term, Unknown};
use crate::lease::time::BootInstant;
use crate::store::Store;
use crate::sys::SysError;
use crate::wire::{PgOptions, Start, ToGuard, Variable};

impl<S, B, A> Loop<S, B, A>
where
    S: Store,
    B: FnMut() -> S::Watch,
    A: Audience,
{
    pub(super) fn perform_all(&mut self, commands: Vec<Command>, at: BootInstant) {
        let mut at_once = VecDeque::new();
        for command in commands {
            at_once.extend(self.perform(command, at));
        }
        while let Some(event) = at_once.pop_front() {
            let now = now();
            for command in self.keeper.step(event, &now) {
                at_once.extend(self.perform(command, now.at));
            }
        }
        self.watcher.spread(self.keeper.term().is_none());
        self.audience.stepped(&self.keeper, at);
    }

    /// Performs a command; an event where it could not be.
    fn perform(&mut self, command: Command, at: BootInstant) -> Option<Event> {
        match command {
            Command::Acquire { ref request, .. } => {
                if let Err(error) = self.claims.attempt(request) {
                    return Some(not_sent(&error, at));
                }
                self.calls.perform(command);
            }
            Command::Observe { .. }
            | Command::Init { .. }
            | Command::Renew { .. }
            | Command::Settle { .. }
            | Command::Release { .. } => self.calls.perform(command),
            Command::Spawn { term, deadline } => {
                let start = self.start_frame(&term, deadline);
                self.killing = false;
                self.link.tell(&ToGuard::Start(start), at);
            }
            Command::Extend { deadline } => self.link.extend(deadline, at),
            Command::StopTree { signal, kill_by } => {
                let signal = signal.unwrap_or(self.settings.stop_signal);
                self.link.tell(&ToGuard::Stop { signal, kill_by }, at);
            }
            Command::KillTree => {
                self.killing = true;
                self.link.kill(at);
            }
            Command::Dismiss(outcome) => {
                let audience = &self.audience;
                let words = || audience.words(&outcome, at);
                self.link.dismiss(&outcome, words);
            }
            Command::NewGuard => return self.new_guard(),
            Command::Precheck => self.hooks.precheck(at),
            Command::Tell(transition) => self.tell(&transition, at),
            Command::End(outcome) => {
                self.outcome = Some(outcome);
                self.hooks.end(at);
            }
        }
        None
    }

    fn start_frame(&self, term: &Term, deadline: BootInstant) -> Start {
        let timing = &self.settings.config.timing;
        Start {
            name: self.settings.name.clone(),
            slot: term.slot,
            holder: term.holder,
            token: term.token,
            ttl: timing.ttl(),
            pgoptions: match self.settings.pgoptions {
                false => PgOptions::Leave,
                true if self.calls.finds_lost_clients() => PgOptions::ExtendAndCheck,
                true => PgOptions::Extend,
            },
            deadline,
            grace: timing.grace(),
            stop_signal: self.settings.stop_signal,
            stop_to: self.settings.stop_to,
            stop_timeout: timing.stop_timeout(),
            variables: self.variables(),
        }
    }

    /// What else the worker's environment says.
    fn variables(&self) -> Vec<Variable> {
        match (&self.watchdog, &self.settings.notify_socket) {
            (Some(watchdog), _) => watchdog.variables(),
            (None, Some(socket)) => vec![Variable::text("NOTIFY_SOCKET", socket)],
            (None, None) => Vec::new(),
        }
    }

    fn new_guard(&mut self) -> Option<Event> {
        self.stop_asked = false;
        self.killing = false;
        self.link.see_off();
        let started = start_guard(&self.settings.setup, &self.claims);
        match started.and_then(|guard| AnyLink::new(GuardFrom::Child(guard))) {
            Ok(link) => {
                self.link = link;
                // The end of the one before may have been told when it was
                // not yet an orphan's.
                self.reap_orphans();
                None
            }
            Err(error) => {
                tracing::error!(event = "no-guard", "cannot {error}");
                Some(Event::Guard(GuardEvent::Gone))
            }
        }
    }

    fn tell(&mut self, transition: &Transition, at: BootInstant) {
        let written = match transition {
            Transition::Waiting { .. } => {
                self.watcher.begin_at(at);
                Ok(())
            }
            Transition::Acquired { term, grant, .. } => {
                self.why_known = false;
                self.claims.granted(term, grant)
            }
            Transition::Renewed { grant, .. } => match self.keeper.term() {
                Some(term) => self.claims.granted(term, grant),
                None => Ok(()),
            },
            Transition::Released { .. } => {
                self.pace(Pace::end);
                self.parts_at = self.watcher.has_begun().then(|| at + PARTING);
                self.claims.nothing()
            }
            Transition::Stopping(cause) => {
                self.pace(Pace::end);
                self.why_ended(cause.name(), &stop_words(cause));
                Ok(())
            }
            Transition::Losing { .. } => {
                self.pace(Pace::end);
                self.why_ended("deadline", "no renewal came through in time");
                Ok(())
            }
            Transition::Lost { loss: Some(loss) } => {
                self.why_ended(loss.name(), &loss.to_string());
                Ok(())
            }
            Transition::Lost { loss: None } => {
                self.why_ended("deadline", "no renewal came through in time");
                Ok(())
            }
            Transition::CallFailed { .. }
            | Transition::IncarnationChanged { .. }
            | Transition::HolderChanged { .. } => Ok(()),
        };
        if let Err(error) = written {
            // What stood there before still finds the row.
            tracing::warn!(event = "claim-not-written", "cannot {error}");
        }
        self.audience.told(transition, &self.keeper, at);
        self.hooks.told(transition, at);
    }
}

/// An acquisition that the releaser could not be told of must not be sent.
fn not_sent(error: &SysError, at: BootInstant) -> Event {
    Event::Acquired {
        sent_at: at,
        reply: Acquired::Unknown(Unknown {
            fault: Fault::Transient,
            message: format!("cannot {error}"),
        }),
    }
}

/// Why it was stopped, for the history.
fn stop_words(cause: &StopCause) -> String {
    match cause {
        StopCause::Signal(signal) => {
            format!("leasewrap got {}", crate::sys::signals::name(*signal))
        }
        StopCause::Attach(signal) => {
            format!("attach got {}", crate::sys::signals::name(*signal))
        }
        StopCause::StepDown => "asked to step down".to_owned(),
        StopCause::Unfit => "the precheck did not pass".to_owned(),
        StopCause::Watchdog => "the worker's watchdog ran out".to_owned(),
    }
}
