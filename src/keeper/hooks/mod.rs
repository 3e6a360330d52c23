//! The hooks: `--precheck` and `--on-event`. They never delay anything: what
//! they say and how they end comes through an arm of the loop like everything
//! else, and they are killed in time by guards of their own.

mod command;
mod notice;
mod output;
mod queue;
mod report;

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use uuid::Uuid;

use self::command::{Heard, Progress, Running, What};
use self::notice::{Beside, Notice, Why};
use self::queue::Queue;
use crate::lease::HURRY_AFTER;
use crate::lease::ids::{HolderId, LeaseName, Slot, Token};
use crate::lease::keeper::event::Transition;
use crate::lease::record::{Term, Terms};
use crate::lease::time::BootInstant;
use crate::sys::Result;
use crate::wire::{PgOptions, Start, StopTo, Variable};

/// So many hooks that cannot be killed are put up with; then no more are run.
const STUCK: usize = 4;

/// What a hook leaves behind has so long to end: the next one waits for it.
const LEFT_BEHIND: Duration = Duration::from_millis(100);

/// The ttl that a hook's guard counts with: its own timer fires half a second
/// after the deadline. On a busy host it would else end before it has killed,
/// and nobody is there to finish that.
const GUARDED: Duration = Duration::from_secs(10);

/// When leasewrap ends: so long after they were killed, hooks that are still
/// there are left to their guards.
const KILL_LIMIT: Duration = Duration::from_secs(1);

/// The options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSettings {
    /// `--precheck`.
    pub precheck: Option<OsString>,
    /// `--on-event`.
    pub on_event: Option<OsString>,
    /// `--hook-timeout`.
    pub timeout: Duration,
}

/// What the keeper has of its hooks.
pub struct Hooks {
    settings: HookSettings,
    lease: LeaseName,
    /// Our own label and value.
    terms: Terms,
    /// Our term, or the last one.
    term: Option<Term>,
    /// Why it ended.
    why: Option<Why>,
    /// The loss was told of.
    lost: bool,
    queue: Queue,
    running: Vec<Running>,
    /// A precheck is asked for and not started: the one before is still there.
    wanted: bool,
    /// The answer to a precheck, not fetched yet.
    fit: Option<bool>,
    /// What is wrong since the last precheck that passed.
    unfit: Option<String>,
    ending: Option<Ending>,
}

/// leasewrap ends as soon as its hooks have.
#[derive(Debug)]
struct Ending {
    began: BootInstant,
    kill_at: BootInstant,
    killed: bool,
    given_up: bool,
}

/// What the loop has seen of the hooks.
#[derive(Debug)]
pub enum Seen {
    /// A precheck has passed, or not.
    Fit(bool),
    /// An event may have its hook now.
    Due,
    /// The hook at this place has something to say.
    Heard(usize, Heard),
}

impl Hooks {
    /// None runs yet.
    pub fn new(settings: HookSettings, lease: LeaseName, terms: Terms) -> Self {
        Self {
            settings,
            lease,
            terms,
            term: None,
            why: None,
            lost: false,
            queue: Queue::default(),
            running: Vec::new(),
            wanted: false,
            fit: None,
            unfit: None,
            ending: None,
        }
    }

    /// Runs the precheck; the answer comes as [`Seen::Fit`].
    pub fn precheck(&mut self, now: BootInstant) {
        self.wanted = true;
        self.start_precheck(now);
    }

    /// The present term has ended because of this; what comes first counts.
    pub fn because(&mut self, reason: &'static str, words: &str) {
        self.why.get_or_insert_with(|| (reason, words.to_owned()));
    }

    /// Something has changed: there may be a hook for it.
    pub fn told(&mut self, transition: &Transition, now: BootInstant) {
        if let Transition::Acquired { term, .. } = transition {
            self.term = Some(term.clone());
            self.why = None;
            self.lost = false;
        }
        if self.settings.on_event.is_some() {
            let notice = Notice::of(
                transition,
                &Beside {
                    term: self.term.as_ref(),
                    terms: &self.terms,
                    why: self.why.as_ref(),
                    lost: self.lost,
                    now,
                },
            );
            if let Some(dropped) = notice.and_then(|notice| self.queue.push(notice)) {
                report::dropped(&self.lease, &dropped);
            }
        }
        self.lost |= matches!(transition, Transition::Lost { .. });
        if let Transition::Released { .. } = transition {
            self.term = None;
        }
    }

    /// What happens next. Cancel safe.
    pub async fn next(&mut self) -> Seen {
        if let Some(fit) = self.fit.take() {
            return Seen::Fit(fit);
        }
        if self.may_start() {
            return Seen::Due;
        }
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let all = self
            .running
            .iter_mut()
            .map(|running| running.next().boxed_local());
        let (heard, place, _) = select_all(all).await;
        Seen::Heard(place, heard)
    }

    /// Does what was seen. `Some`: a precheck has passed, or not.
    pub fn happened(&mut self, seen: Seen, now: BootInstant) -> Option<bool> {
        match seen {
            Seen::Fit(fit) => return Some(fit),
            Seen::Due => self.start_next(now),
            Seen::Heard(place, heard) => {
                if let Some(running) = self.running.get_mut(place) {
                    let progress = running.take(heard, now);
                    self.progressed(place, progress, now);
                }
            }
        }
        None
    }

    fn progressed(&mut self, place: usize, progress: Progress, now: BootInstant) {
        if progress.concluded {
            self.conclude(place, now);
        }
        if progress.gone {
            let mut gone = self.running.remove(place);
            gone.read(now, true);
            self.start_precheck(now);
        }
    }

    /// It is known how a hook has ended.
    fn conclude(&mut self, place: usize, now: BootInstant) {
        let Some(running) = self.running.get_mut(place) else {
            return;
        };
        // What it said last comes first.
        running.read(now, true);
        if !running.is_precheck() {
            report::event(running, now);
        } else if self.ending.is_none() {
            self.unfit = report::precheck(running, self.unfit.as_deref(), now);
            self.fit = Some(self.unfit.is_none());
        }
    }

    fn start_precheck(&mut self, now: BootInstant) {
        if !self.wanted {
            return;
        }
        let before = self.running.iter().find(|running| running.is_precheck());
        if before.is_some_and(|before| !before.is_late()) {
            return; // Comes back here when it is gone, or late.
        }
        self.wanted = false;
        let Some(command) = &self.settings.precheck else {
            self.fit = Some(true);
            return;
        };
        let started = if before.is_some() {
            Err("the one before cannot be killed".to_owned())
        } else {
            let term = self.term.as_ref();
            self.run(What::Precheck, command, term_variables(term), b"", now)
                .map_err(|error| format!("cannot {error}"))
        };
        match started {
            Ok(running) => self.running.push(running),
            Err(why) => {
                report::unfit(&self.lease, self.unfit.as_deref(), &why);
                self.unfit = Some(why);
                self.fit = Some(false);
            }
        }
    }

    /// Whether the next event may have its hook: one at a time, in order.
    fn may_start(&self) -> bool {
        let busy = self
            .running
            .iter()
            .any(|running| !running.is_precheck() && !running.is_late());
        let stuck = self.running.iter().filter(|running| running.is_late());
        !self.queue.is_empty() && !busy && stuck.count() < STUCK
    }

    fn start_next(&mut self, now: BootInstant) {
        let Some(command) = &self.settings.on_event else {
            return;
        };
        let Some(notice) = self.queue.pop() else {
            return;
        };
        let event = notice.event.name();
        let (variables, input) = (notice.variables(), notice.json(&self.lease));
        let what = What::Event(Box::new(notice));
        match self.run(what, command, variables, input.as_bytes(), now) {
            Ok(running) => self.running.push(running),
            Err(error) => report::not_started(&self.lease, event, &format!("cannot {error}")),
        }
    }

    fn run(
        &self,
        what: What,
        command: &OsStr,
        variables: Vec<Variable>,
        input: &[u8],
        now: BootInstant,
    ) -> Result<Running> {
        let timeout = self.settings.timeout;
        let start = Start {
            name: self.lease.clone(),
            // What is known of these stands in the variables.
            slot: Slot(0),
            holder: HolderId(Uuid::nil()),
            token: Token(0),
            ttl: GUARDED,
            pgoptions: PgOptions::Leave,
            deadline: now + timeout,
            grace: Duration::ZERO,
            stop_signal: libc::SIGTERM,
            stop_to: StopTo::Tree,
            stop_timeout: LEFT_BEHIND,
            variables,
        };
        Running::start(what, command, start, input, now)
    }

    /// The guards' processes: children that nobody else may reap or kill.
    pub fn children(&self) -> Vec<i32> {
        self.running.iter().filter_map(Running::child).collect()
    }

    /// When [`Self::wake`] is due.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        let ending = self.ending.as_ref().and_then(Ending::next_wakeup);
        let running = self.running.iter().filter_map(Running::next_wakeup);
        running.chain(ending).min()
    }

    /// Does what has become due.
    pub fn wake(&mut self, now: BootInstant) {
        for place in 0..self.running.len() {
            if let Some(running) = self.running.get_mut(place) {
                let progress = running.wake(now);
                self.progressed(place, progress, now);
            }
        }
        self.start_precheck(now);
        self.hurry_to_the_end(now);
    }

    /// A child has changed its state.
    pub fn child_changed(&mut self, now: BootInstant) {
        for running in &mut self.running {
            running.child_changed(now);
        }
    }

    /// leasewrap ends: no prechecks any more, and `--hook-timeout` for the
    /// rest.
    pub fn end(&mut self, now: BootInstant) {
        self.wanted = false;
        let prechecks = self
            .running
            .iter_mut()
            .filter(|running| running.is_precheck());
        prechecks.for_each(|running| running.kill(now));
        self.ending = Some(Ending {
            began: now,
            kill_at: now + self.settings.timeout,
            killed: false,
            given_up: false,
        });
    }

    /// A signal that came while they are waited for.
    pub fn hurry_up(&mut self, now: BootInstant) {
        if let Some(ending) = &mut self.ending
            && now >= ending.began + HURRY_AFTER
        {
            ending.kill_at = ending.kill_at.min(now);
        }
        self.hurry_to_the_end(now);
    }

    fn hurry_to_the_end(&mut self, now: BootInstant) {
        let Some(ending) = &mut self.ending else {
            return;
        };
        if !ending.killed && now >= ending.kill_at {
            ending.killed = true;
            let waiting = self.queue.clear();
            if waiting > 0 || !self.running.is_empty() {
                report::cut_short(&self.lease, self.running.len(), waiting);
            }
            self.running
                .iter_mut()
                .for_each(|running| running.kill(now));
        }
        ending.given_up |= now >= ending.kill_at + KILL_LIMIT;
    }

    /// Whether leasewrap may end.
    pub fn are_done(&self) -> bool {
        let idle = self.running.is_empty() && self.queue.is_empty();
        idle || self.ending.as_ref().is_some_and(|ending| ending.given_up)
    }
}

impl Ending {
    fn next_wakeup(&self) -> Option<BootInstant> {
        if !self.killed {
            Some(self.kill_at)
        } else {
            (!self.given_up).then(|| self.kill_at + KILL_LIMIT)
        }
    }
}

/// What a precheck is told of the term that is held, where one is.
fn term_variables(term: Option<&Term>) -> Vec<Variable> {
    let Some(term) = term else {
        let ours = [
            "LEASEWRAP_SLOT",
            "LEASEWRAP_TOKEN",
            "LEASEWRAP_HOLDER",
            "LEASEWRAP_TTL_MS",
        ];
        return ours.map(Variable::absent).to_vec();
    };
    vec![
        Variable::text("LEASEWRAP_SLOT", term.slot.to_string()),
        Variable::text("LEASEWRAP_TOKEN", term.token.to_string()),
        Variable::text("LEASEWRAP_HOLDER", term.holder.to_string()),
        Variable::absent("LEASEWRAP_TTL_MS"),
    ]
}
