//! What the guard and the database's notifications have to say.

use std::time::Duration;

use super::link::News;
use super::watcher::AFTER_START;
use super::{Audience, Loop};
use crate::lease::keeper::Phase;
use crate::lease::keeper::event::{Event, GuardEvent};
use crate::store::{Notice, Store};
use crate::sys::{clock, terminal};
use crate::wire::{ToGuard, WorkerEnd};

impl<S, B, A> Loop<S, B, A>
where
    S: Store,
    B: FnMut() -> S::Watch,
    A: Audience,
{
    pub(super) fn news(&mut self, news: News) {
        match news {
            News::Event(event) => {
                match &event {
                    GuardEvent::Started { .. } => {
                        self.watcher.begin_at(clock::now() + AFTER_START);
                    }
                    GuardEvent::WorkerEnded(end) => self.why_ended("worker", &worker_words(*end)),
                    GuardEvent::NotStarted(_) => {
                        self.why_ended("not-started", "the worker was not started");
                    }
                    GuardEvent::Gone => self.why_ended("guard-died", "the guard process died"),
                    GuardEvent::Ready
                    | GuardEvent::Stopping(_)
                    | GuardEvent::Empty
                    | GuardEvent::Swept => {}
                }
                self.happened(Event::Guard(event));
            }
            News::WorkerStopped(signal) => self.worker_stopped(signal),
            News::LeftBehind(processes) => tracing::warn!(
                event = "left-behind",
                name = %self.settings.name,
                processes = processes.join(", "),
                "the worker has ended and left processes behind, which are stopped: {}",
                processes.join(", ")
            ),
            News::Unkillable(process) => tracing::error!(
                event = "unkillable",
                name = %self.settings.name,
                process,
                "cannot kill {process}; the lease is kept as long as it may be"
            ),
            News::Nothing => {}
        }
    }

    /// For the history and the hooks: what came first is why the term ended.
    pub(super) fn why_ended(&mut self, reason: &'static str, words: &str) {
        if !self.why_known {
            self.why_known = true;
            self.calls.because(words.to_owned());
            self.hooks.because(reason, words);
        }
    }

    /// leasewrap follows the worker where a shell takes over, and wakes it
    /// where nobody else would.
    fn worker_stopped(&mut self, signal: i32) {
        if !matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) || !self.terminal.shared
        {
            return;
        }
        if terminal::shell_takes_over(self.link.pid()) {
            crate::sys::signals::stop_self(signal);
        }
        self.link.send(&ToGuard::Signal(libc::SIGCONT));
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Connected | Notice::Changed => match self.keeper.phase() {
                Phase::Standby => self.happened(Event::Changed),
                Phase::Starting | Phase::Holding | Phase::Stopping => {
                    if let Some(term) = self.keeper.term().cloned() {
                        self.calls.check(term, self.check_limit());
                    }
                }
                // The reply that is awaited says more.
                Phase::Acquiring | Phase::Releasing | Phase::Ended => {}
            },
            Notice::Unavailable(unknown) => tracing::info!(
                event = "listen-unavailable",
                name = %self.settings.name,
                "notifications do not arrive, polling carries on: {}",
                unknown.message
            ),
        }
    }

    /// A renewal may have to wait for it.
    fn check_limit(&self) -> Duration {
        self.settings.config.timing.call_timeout() / 3
    }
}

/// How the worker has ended, for the history.
fn worker_words(end: WorkerEnd) -> String {
    match end {
        WorkerEnd::Exited(code) => format!("the worker ended with exit code {code}"),
        WorkerEnd::Signaled(signal) => format!(
            "the worker was ended by {}",
            crate::sys::signals::name(signal)
        ),
    }
}
