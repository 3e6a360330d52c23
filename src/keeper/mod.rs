//! The keeper's loop: what happens becomes an [`Event`], the pure machine
//! decides, and its commands are performed. Nothing in here decides about a
//! lease, and nothing in here waits for anything but the next event.

mod alarm;
mod any_link;
pub mod attach;
mod attached;
mod calls;
pub mod claim;
mod door;
mod frames;
mod heard;
pub mod hooks;
mod link;
mod news;
mod perform;
mod pulse;
pub mod releaser;
pub mod signals;
pub mod watchdog;
mod watcher;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook_tokio::SignalsInfo;
use uuid::Uuid;

pub use self::any_link::GuardFrom;

use self::alarm::Alarm;
use self::any_link::AnyLink;
use self::calls::{CLOSING, Calls};
use self::claim::ClaimFile;
use self::hooks::{HookSettings, Hooks};
use self::news::News;
use self::signals::{Doing, Meaning, Terminal};
use self::watchdog::{Watchdog, WatchdogSettings};
use self::watcher::Watcher;
use crate::lease::ids::HolderId;
use crate::lease::keeper::event::{Event, Outcome, StopCause, Transition};
use crate::lease::keeper::{Config, Keeper, Now, Phase};
use crate::lease::time::BootInstant;
use crate::lease::timing::Chance;
use crate::store::{Notice, Store};
use crate::sys::guard_process::{self, GuardProcess};
use crate::sys::inherited;
use crate::sys::memfd::Setup;
use crate::sys::notify_socket::Message;
use crate::sys::timer::SelfKill;
use crate::sys::{Result, SysError, clock, process};
use crate::wire::{StopTo, ToGuard};

/// The keeper's own timer fires this long after the deadline: the guard's
/// comes first (contract, section 3).
const SELF_KILL_AFTER: Duration = Duration::from_secs(1);

/// While the tree is being killed the keeper is needed for longer, but a
/// keeper that does not get to a single step in this long stands still.
const KILLING_LIMIT: Duration = Duration::from_secs(60);

/// The same, for a keeper that acquires: beyond two ttls, since nothing that
/// it waits for then takes that long. One that somebody stops when it has the
/// lease, and has not told its guard, would else stay there for ever.
const ACQUIRING_LIMIT: Duration = Duration::from_secs(5);

/// How long a holder that others may wait for stays when it has given the
/// lease back. The end of a session costs its server some milliseconds of a
/// core, and so does that of a process its host: both would compete with the
/// successor's start, and halve its speed where the cores are few.
const PARTING: Duration = Duration::from_millis(10);

/// Everything that a run needs and that does not change.
#[derive(Debug)]
pub struct Settings {
    /// The machine's.
    pub config: Arc<Config>,
    /// Which lease.
    pub name: crate::lease::ids::LeaseName,
    /// The worker's command.
    pub setup: Setup,
    /// `--stop-signal`.
    pub stop_signal: i32,
    /// `--stop-to`.
    pub stop_to: StopTo,
    /// `--pgoptions`.
    pub pgoptions: bool,
    /// `--precheck`, `--on-event`, `--hook-timeout`.
    pub hooks: HookSettings,
    /// `--worker-watchdog`.
    pub watchdog: Option<WatchdogSettings>,
    /// `--pass-notify`: the caller's `NOTIFY_SOCKET`, where there is one.
    pub notify_socket: Option<String>,
}

/// Who is told what happens: the log, and whatever else shows it. Must never
/// delay anything.
pub trait Audience {
    /// Something has changed.
    fn told(&mut self, transition: &Transition, keeper: &Keeper, now: BootInstant);
    /// The machine has made a step.
    fn stepped(&mut self, keeper: &Keeper, now: BootInstant);
    /// How a term has ended, in words for whoever has started `attach`.
    fn words(&self, outcome: &Outcome, now: BootInstant) -> String {
        let _ = (outcome, now);
        String::new()
    }
    /// The worker says how it is (`STATUS=` of `sd_notify(3)`).
    fn worker_status(&mut self, text: &str);
}

/// Starts a guard; also the first thing that a run does, before any thread
/// exists.
///
/// # Errors
/// When there can be none.
pub fn start_guard(setup: &Setup, claims: &ClaimFile) -> Result<GuardProcess> {
    guard_process::spawn(
        guard_process::THIS_PROGRAM,
        inherited::get(),
        setup,
        claims.file(),
    )
}

/// Runs until nothing remains to be done.
///
/// # Errors
/// When the loop's own descriptors cannot be had: nothing was taken then.
pub async fn run<S, A>(
    mut settings: Settings,
    store: S,
    watch: impl FnMut() -> S::Watch,
    guard: GuardFrom,
    claims: ClaimFile,
    audience: A,
) -> Result<Outcome>
where
    S: Store + 'static,
    A: Audience,
{
    let stop_timeout = settings.config.timing.stop_timeout();
    let watchdog = settings
        .watchdog
        .take()
        .map(|watchdog| Watchdog::new(watchdog, stop_timeout));
    let (signals, alarm, self_kill, watchdog) = match own(watchdog) {
        Ok(own) => own,
        Err(error) => {
            guard.dismiss();
            return Err(error);
        }
    };
    Loop::<S, _, _> {
        keeper: Keeper::new(Arc::clone(&settings.config), &now()),
        link: AnyLink::new(guard)?,
        calls: Calls::start(store, settings.config.terms.clone()),
        watcher: Watcher::new(watch),
        signals,
        alarm,
        self_kill,
        terminal: Terminal::of_this_process(),
        hooks: Hooks::new(
            settings.hooks.clone(),
            settings.name.clone(),
            settings.config.terms.clone(),
        ),
        watchdog,
        stop_asked: false,
        killing: false,
        why_known: false,
        outcome: None,
        parts_at: None,
        settings,
        claims,
        audience,
    }
    .run()
    .await
}

/// The loop's own descriptors.
type Own = (SignalsInfo<WithOrigin>, Alarm, SelfKill, Option<Watchdog>);

fn own(watchdog: Option<Result<Watchdog>>) -> Result<Own> {
    let signals = signals::catch(|signal| inherited::get().ignored().contains(signal))
        .map_err(SysError::on("catch signals"))?;
    Ok((
        signals,
        Alarm::new()?,
        SelfKill::new()?,
        watchdog.transpose()?,
    ))
}

/// What the machine may use of the world, for one step.
fn now() -> Now {
    Now {
        at: clock::now(),
        chance: Chance(rand::random()),
        fresh: HolderId(Uuid::new_v4()),
    }
}

struct Loop<S: Store, B, A> {
    settings: Settings,
    keeper: Keeper,
    link: AnyLink,
    claims: ClaimFile,
    calls: Calls,
    watcher: Watcher<S::Watch, B>,
    signals: SignalsInfo<WithOrigin>,
    alarm: Alarm,
    self_kill: SelfKill,
    terminal: Terminal,
    audience: A,
    hooks: Hooks,
    watchdog: Option<Watchdog>,
    /// A stop was asked for, in this term or while standing by.
    stop_asked: bool,
    /// The tree was told to die.
    killing: bool,
    /// The store knows why this term ends.
    why_known: bool,
    outcome: Option<Outcome>,
    /// It stays until then, whatever the outcome.
    parts_at: Option<BootInstant>,
}

/// The worker's next message, where it can send any.
async fn message(watchdog: Option<&Watchdog>) -> Option<Message> {
    match watchdog {
        Some(watchdog) => watchdog.next().await,
        None => std::future::pending().await,
    }
}

/// What `select!` has seen.
enum Seen {
    Time,
    Signal(Option<signal_hook::low_level::siginfo::Origin>),
    Guard(News),
    Reply(Event),
    Notice(Notice),
    Hook(hooks::Seen),
    Worker(Option<Message>),
}

impl<S, B, A> Loop<S, B, A>
where
    S: Store,
    B: FnMut() -> S::Watch,
    A: Audience,
{
    async fn run(mut self) -> Result<Outcome> {
        let first = now();
        let commands = self.keeper.start(&first);
        self.perform_all(commands, first.at);
        loop {
            if self.hooks.are_done()
                && self.parts_at.is_none_or(|at| clock::now() >= at)
                && let Some(outcome) = self.outcome.take()
            {
                // The store's own connection is the last one.
                self.watcher.close(CLOSING).await;
                self.calls.close().await;
                return Ok(outcome);
            }
            self.set_timers()?;
            let seen = tokio::select! {
                biased;
                () = self.alarm.fired() => Seen::Time,
                origin = self.signals.next() => Seen::Signal(origin),
                news = self.link.next() => Seen::Guard(news),
                reply = self.calls.next() => Seen::Reply(reply),
                notice = self.watcher.next() => Seen::Notice(notice),
                hook = self.hooks.next() => Seen::Hook(hook),
                // Last: anybody may write to that socket, and without end.
                message = message(self.watchdog.as_ref()) => Seen::Worker(message),
            };
            self.handle(seen);
        }
    }

    fn set_timers(&mut self) -> Result<()> {
        let wakeups = [
            self.keeper.next_wakeup(),
            self.link.next_wakeup(),
            self.watcher.next_wakeup(),
            self.hooks.next_wakeup(),
            self.watchdog.as_ref().and_then(Watchdog::next_wakeup),
            self.parts_at.filter(|_| self.outcome.is_some()),
        ];
        self.alarm.set(wakeups.into_iter().flatten().min())?;
        let kill_at = match self.keeper.phase() {
            Phase::Stopping if self.killing || self.link.is_sweeping() => {
                Some(clock::now() + KILLING_LIMIT)
            }
            Phase::Starting | Phase::Holding | Phase::Stopping => self
                .keeper
                .deadline()
                .map(|deadline| deadline + SELF_KILL_AFTER),
            Phase::Acquiring => {
                let ttl = self.keeper.config().timing.ttl();
                Some(clock::now() + ttl * 2 + ACQUIRING_LIMIT)
            }
            Phase::Standby | Phase::Releasing | Phase::Ended => None,
        };
        self.self_kill.set(kill_at)
    }

    fn handle(&mut self, seen: Seen) {
        match seen {
            Seen::Time => self.time(),
            Seen::Signal(Some(origin)) if signals::is_own_limit(&origin) => {}
            Seen::Signal(Some(origin)) => {
                let typed = signals::typed(&origin);
                self.signal(origin.signal, typed);
            }
            // The stream ends only when its handle is closed, which nobody does.
            Seen::Signal(None) => {}
            Seen::Guard(news) => self.news(news),
            Seen::Reply(event) => self.happened(event),
            Seen::Notice(notice) => self.notice(notice),
            Seen::Hook(hook) => {
                if let Some(fit) = self.hooks.happened(hook, clock::now()) {
                    self.happened(Event::Fit(fit));
                }
            }
            Seen::Worker(Some(message)) => self.worker_said(&message, clock::now()),
            Seen::Worker(None) => {}
        }
    }

    fn time(&mut self) {
        let at = clock::now();
        self.watcher.wake(at);
        let news = self.link.wake(at, &self.hooks.children());
        self.news(news);
        self.hooks.wake(at);
        self.look_at_watchdog(at);
        if self.keeper.next_wakeup().is_some_and(|due| at >= due) {
            self.happened(Event::Wake);
        }
    }

    fn signal(&mut self, signal: i32, typed: bool) {
        let meaning = if self.link.is_attached() {
            signals::meaning_to_serve(signal, typed, self.doing())
        } else {
            signals::meaning(signal, typed, self.doing(), self.terminal)
        };
        match meaning {
            Meaning::Stop(signal) => {
                self.stop_asked = true;
                self.happened(Event::Stop(StopCause::Signal(signal)));
            }
            Meaning::HurryUp if self.outcome.is_some() => self.hooks.hurry_up(clock::now()),
            Meaning::HurryUp => self.happened(Event::HurryUp),
            Meaning::PassOn(signal) => self.link.send(&ToGuard::Signal(signal)),
            Meaning::Child => {
                let now = clock::now();
                self.hooks.child_changed(now);
                let hooks = self.hooks.children();
                let news = self.link.child_changed(now, &hooks);
                if !self.link.is_sweeping() {
                    self.reap_orphans();
                }
                self.link.note_strangers(&hooks, now);
                self.news(news);
            }
            Meaning::StopSelf(signal) => crate::sys::signals::stop_self(signal),
            Meaning::Ignore => {}
        }
    }

    /// All that end but those whose end somebody here waits for.
    fn reap_orphans(&self) {
        let mut ours = self.hooks.children();
        ours.extend(self.link.child());
        process::reap_orphans(&ours);
    }

    fn doing(&self) -> Doing {
        match self.keeper.phase() {
            // Only hooks are waited for.
            _ if self.stop_asked || self.outcome.is_some() => Doing::Stopping,
            Phase::Standby | Phase::Acquiring => Doing::StandingBy,
            Phase::Starting | Phase::Releasing | Phase::Ended => Doing::WithoutWorker,
            Phase::Holding | Phase::Stopping => Doing::Running,
        }
    }

    /// One event, and whatever it brings about at once.
    fn happened(&mut self, event: Event) {
        let now = now();
        let commands = self.keeper.step(event, &now);
        self.perform_all(commands, now.at);
    }
}
