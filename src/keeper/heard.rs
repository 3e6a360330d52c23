//! What the guard and the database's notifications have to say.

use std::time::Duration;

use super::news::News;
use super::signals;
use super::watchdog::{self, Pace, Said};
use super::watcher::AFTER_START;
use super::{Audience, Loop};
use crate::lease::keeper::Phase;
use crate::lease::keeper::event::{Event, GuardEvent, StopCause};
use crate::lease::record::Freed;
use crate::lease::time::BootInstant;
use crate::store::{Notice, Store};
use crate::sys::notify_socket::Message;
use crate::sys::tree::descends_from;
use crate::sys::{clock, process};
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
                if has_no_worker(&event) {
                    self.pace(Pace::end);
                }
                match &event {
                    GuardEvent::Started { .. } => {
                        let now = clock::now();
                        self.watcher.begin_at(now + AFTER_START);
                        self.pace(|pace| pace.begin(now));
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
            News::StopAsked(signal) => self.happened(Event::Stop(StopCause::Attach(signal))),
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
        if !signals::follow(signal, self.terminal, self.link.child()) {
            return;
        }
        self.link.send(&ToGuard::Signal(libc::SIGCONT));
        // It had no chance to say anything.
        self.pace(|pace| pace.begin_anew(clock::now()));
    }

    /// The worker's watchdog, where there is one.
    pub(super) fn pace(&mut self, change: impl FnOnce(&mut Pace)) {
        if let Some(watchdog) = &mut self.watchdog {
            change(watchdog.pace());
        }
    }

    /// Whether the worker has said often enough that it is alive.
    pub(super) fn look_at_watchdog(&mut self, now: BootInstant) {
        let Some(watchdog) = &self.watchdog else {
            return;
        };
        if watchdog.next_wakeup().is_none_or(|until| now < until) {
            return;
        }
        // What it has said while nobody looked.
        for message in watchdog.waiting() {
            self.worker_said(&message, now);
        }
        let over = self
            .watchdog
            .as_mut()
            .is_some_and(|watchdog| watchdog.pace().is_over(now));
        if over {
            self.happened(Event::Stop(StopCause::Watchdog));
        }
    }

    /// A message on the worker's socket.
    pub(super) fn worker_said(&mut self, message: &Message, now: BootInstant) {
        if !self.is_from_worker(message) {
            tracing::debug!(
                event = "foreign-message",
                name = %self.settings.name,
                pid = message.pid,
                uid = message.uid,
                "a message on the worker's socket is not from the worker"
            );
            return;
        }
        for said in watchdog::said(&message.text) {
            self.pace(|pace| pace.heard(&said, now));
            match said {
                Said::Alive => {}
                Said::Status(text) => {
                    tracing::debug!(
                        event = "worker-status",
                        name = %self.settings.name,
                        "the worker says: {text}"
                    );
                    self.audience.worker_status(&text);
                }
                Said::Ready => tracing::info!(
                    event = "worker-ready",
                    name = %self.settings.name,
                    "the worker says that it is ready"
                ),
                Said::Stopping => tracing::info!(
                    event = "worker-stopping",
                    name = %self.settings.name,
                    "the worker says that it ends"
                ),
                Said::Trigger => tracing::warn!(
                    event = "worker-trigger",
                    name = %self.settings.name,
                    "the worker has set off its watchdog itself"
                ),
            }
        }
    }

    /// Whether a message comes from the worker's tree. Of a sender that has
    /// ended already (`systemd-notify` in a script) the user alone is known:
    /// the worker's own, or ours.
    fn is_from_worker(&self, message: &Message) -> bool {
        let Some(guard) = self.link.child() else {
            return false;
        };
        descends_from(message.pid, guard).unwrap_or_else(|| {
            let worker = self.keeper.worker().and_then(process::user_of);
            message.uid == process::user() || Some(message.uid) == worker
        })
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Connected => self.changed(None),
            Notice::Changed(freed) => self.changed(freed),
            Notice::Unavailable(unknown) => tracing::info!(
                event = "listen-unavailable",
                name = %self.settings.name,
                "notifications do not arrive, polling carries on: {}",
                unknown.message
            ),
        }
    }

    fn changed(&mut self, freed: Option<Freed>) {
        match self.keeper.phase() {
            Phase::Standby => self.happened(Event::Changed(freed)),
            Phase::Starting | Phase::Holding | Phase::Stopping => {
                if let Some(term) = self.keeper.term().cloned() {
                    self.calls.check(term, self.check_limit());
                }
            }
            // The reply that is awaited says more.
            Phase::Acquiring | Phase::Releasing | Phase::Ended => {}
        }
    }

    /// A renewal may have to wait for it.
    fn check_limit(&self) -> Duration {
        self.keeper.call_limit(clock::now()) / 3
    }
}

/// Nobody is there any more who could speak.
fn has_no_worker(event: &GuardEvent) -> bool {
    match event {
        GuardEvent::WorkerEnded(_)
        | GuardEvent::NotStarted(_)
        | GuardEvent::Stopping(_)
        | GuardEvent::Empty
        | GuardEvent::Gone
        | GuardEvent::Swept => true,
        GuardEvent::Ready | GuardEvent::Started { .. } => false,
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
