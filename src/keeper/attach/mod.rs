//! The loop of `attach`: what happens becomes an [`Event`], the machine of
//! [`crate::lease::attach`] decides, and its actions are performed. It has no
//! store and no credentials: `serve` on one side, its own guard on the other.

mod serve;
mod tell;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Origin;
use signal_hook_tokio::SignalsInfo;

use self::serve::{Serve, hear};
use super::alarm::Alarm;
use super::link::Link;
use super::news::News;
use super::signals::{self, Doing, Meaning, Terminal};
use super::{KILLING_LIMIT, SELF_KILL_AFTER};
use crate::lease::attach::{Action, Attach, End, Event, How, Now, Phase, Told};
use crate::lease::ids::LeaseName;
use crate::lease::keeper::event::GuardEvent;
use crate::lease::time::BootInstant;
use crate::lease::timing::Chance;
use crate::sys::guard_process::{THIS_PROGRAM, spawn_for_attach};
use crate::sys::memfd::Setup;
use crate::sys::timer::SelfKill;
use crate::sys::{Result, SysError, clock, inherited, process};
use crate::wire::attach::FromAttach;
use crate::wire::{FromGuard, Hello, ToGuard, VERSION};

/// Without waiting, `serve` gets so long for its attempt: it does not say
/// when that has failed, and one that succeeds takes milliseconds.
const ONE_ATTEMPT: Duration = Duration::from_secs(2);

/// Everything that `attach` needs and that does not change.
#[derive(Debug)]
pub struct Settings {
    /// Where `serve` listens.
    pub socket: PathBuf,
    /// The worker's command.
    pub setup: Setup,
    /// `--wait`; zero for `--no-wait`.
    pub wait: Option<Duration>,
}

/// How it ended, and when what happened.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub end: End,
    /// The lease, where it was held.
    pub name: Option<LeaseName>,
    /// Until the lease was held.
    pub waited: Duration,
    /// From then on.
    pub held: Option<Duration>,
}

/// Runs until nothing remains to be done.
///
/// # Errors
/// When the loop's own descriptors cannot be had: nothing was started then.
pub async fn run(settings: Settings) -> Result<Ended> {
    let began = clock::now();
    let hello = Hello {
        version: VERSION,
        time_namespace: clock::time_namespace(),
    };
    let first_process = std::process::id() == 1;
    let no_wait = settings.wait == Some(Duration::ZERO);
    let wait = if no_wait {
        Some(ONE_ATTEMPT)
    } else {
        settings.wait
    };
    Front {
        machine: Attach::new(hello.clone(), first_process, wait, &now()),
        no_wait,
        hello,
        link: None,
        serve: None,
        signals: signals::catch(|signal| inherited::get().ignored().contains(signal))
            .map_err(SysError::on("catch signals"))?,
        alarm: Alarm::new()?,
        self_kill: SelfKill::new()?,
        terminal: Terminal::of_this_process(),
        stop_asked: false,
        end: None,
        began,
        term: None,
        settings,
    }
    .run()
    .await
}

fn now() -> Now {
    Now {
        at: clock::now(),
        chance: Chance(rand::random()),
    }
}

struct Front {
    settings: Settings,
    machine: Attach,
    hello: Hello,
    link: Option<Link>,
    serve: Option<Serve>,
    signals: SignalsInfo<WithOrigin>,
    alarm: Alarm,
    self_kill: SelfKill,
    terminal: Terminal,
    /// What has not worked is not tried again.
    no_wait: bool,
    /// A signal has asked for a stop.
    stop_asked: bool,
    end: Option<End>,
    began: BootInstant,
    /// Which lease is held, and since when.
    term: Option<(LeaseName, BootInstant)>,
}

/// What `select!` has seen.
enum Seen {
    Time,
    Signal(Option<Origin>),
    Guard(News),
    Serve(Option<Event>),
}

async fn news(link: Option<&mut Link>) -> News {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

impl Front {
    async fn run(mut self) -> Result<Ended> {
        self.happened(Event::Wake);
        loop {
            if let Some(end) = self.end.take() {
                let at = clock::now();
                let (name, since) = self.term.unzip();
                return Ok(Ended {
                    end,
                    name,
                    waited: since.unwrap_or(at).saturating_since(self.began),
                    held: since.map(|since| at.saturating_since(since)),
                });
            }
            self.set_timers()?;
            let seen = tokio::select! {
                biased;
                () = self.alarm.fired() => Seen::Time,
                origin = self.signals.next() => Seen::Signal(origin),
                news = news(self.link.as_mut()) => Seen::Guard(news),
                // Last: whoever listens there may say anything, without end.
                event = hear(self.serve.as_mut(), &self.hello) => Seen::Serve(event),
            };
            match seen {
                Seen::Time => self.time(),
                Seen::Signal(Some(origin)) => self.signal(&origin),
                // The stream ends only when its handle is closed, which
                // nobody does.
                Seen::Signal(None) => {}
                Seen::Guard(news) => self.news(news),
                Seen::Serve(Some(event)) => self.happened(event),
                Seen::Serve(None) => {}
            }
        }
    }

    fn set_timers(&mut self) -> Result<()> {
        let link = self.link.as_ref().and_then(Link::next_wakeup);
        let next = [self.machine.next_wakeup(), link];
        self.alarm.set(next.into_iter().flatten().min())?;
        self.self_kill.set(match self.machine.deadline() {
            Some(_) if self.machine.is_killing() => Some(clock::now() + KILLING_LIMIT),
            Some(deadline) => Some(deadline + SELF_KILL_AFTER),
            None => None,
        })
    }

    fn time(&mut self) {
        let at = clock::now();
        if let Some(link) = &mut self.link {
            let news = link.wake(at, &[]);
            self.news(news);
        }
        if self.machine.next_wakeup().is_some_and(|due| at >= due) {
            self.happened(Event::Wake);
        }
    }

    fn signal(&mut self, origin: &Origin) {
        if signals::is_own_limit(origin) {
            return;
        }
        let typed = signals::typed(origin);
        match signals::meaning(origin.signal, typed, self.doing(), self.terminal) {
            Meaning::Stop(signal) => {
                self.stop_asked = true;
                self.happened(Event::Stop(signal));
            }
            Meaning::HurryUp => self.happened(Event::HurryUp),
            Meaning::PassOn(signal) => self.pass_on(signal),
            Meaning::Child => {
                let now = clock::now();
                let news = match &mut self.link {
                    Some(link) => link.child_changed(now, &[]),
                    None => News::Nothing,
                };
                if !self.link.as_ref().is_some_and(Link::is_sweeping) {
                    let guard = self.link.as_ref().and_then(Link::child);
                    process::reap_orphans(guard.as_slice());
                }
                if let Some(link) = &mut self.link {
                    link.note_strangers(&[], now);
                }
                self.news(news);
            }
            Meaning::StopSelf(signal) => crate::sys::signals::stop_self(signal),
            Meaning::Ignore => {}
        }
    }

    fn doing(&self) -> Doing {
        match self.machine.phase() {
            _ if self.stop_asked => Doing::Stopping,
            Phase::StandingBy => Doing::StandingBy,
            Phase::Starting | Phase::Over => Doing::WithoutWorker,
            Phase::Running => Doing::Running,
        }
    }

    fn pass_on(&mut self, signal: i32) {
        if let Some(link) = &mut self.link {
            link.send(&ToGuard::Signal(signal));
        }
    }

    fn news(&mut self, news: News) {
        match news {
            News::Event(event) => {
                if let GuardEvent::Started { .. } = event {
                    // A pipe must close when the worker closes it.
                    inherited::get().let_go(&[]);
                }
                self.happened(Event::Guard(event));
            }
            News::WorkerStopped(signal) => {
                let guard = self.link.as_ref().and_then(Link::child);
                if signals::follow(signal, self.terminal, guard) {
                    self.pass_on(libc::SIGCONT);
                }
            }
            News::LeftBehind(processes) => {
                tell::left_behind(&processes);
                self.relay(FromGuard::LeftBehind { processes });
            }
            News::Unkillable(process) => {
                tell::unkillable(&process);
                self.relay(FromGuard::Unkillable { process });
            }
            // Only `serve` hears that.
            News::StopAsked(_) | News::Nothing => {}
        }
    }

    fn relay(&mut self, frame: FromGuard) {
        if let Some(serve) = &mut self.serve {
            serve.send(&FromAttach::Guard(frame));
        }
    }

    /// One event, and whatever it brings about at once.
    fn happened(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = now();
            for action in self.machine.step(event, &now) {
                events.extend(self.perform(action, now.at));
            }
        }
    }

    /// Performs an action; an event where it has a reply.
    fn perform(&mut self, action: Action, at: BootInstant) -> Option<Event> {
        match action {
            Action::Connect => {
                return Some(match Serve::reach(&self.settings.socket) {
                    Ok(serve) => {
                        self.serve = Some(serve);
                        Event::Connected
                    }
                    Err(why) => Event::NotConnected(why),
                });
            }
            Action::Disconnect => self.serve = None,
            Action::StartGuard => return self.start_guard(),
            Action::DismissGuard => {
                if let Some(link) = &mut self.link {
                    link.dismiss();
                }
            }
            Action::ToServe(frame) => {
                if let Some(serve) = &mut self.serve {
                    serve.send(&frame);
                }
            }
            Action::ToGuard(frame) => {
                if let Some(link) = &mut self.link {
                    link.tell(&frame, at);
                }
            }
            Action::Extend(deadline) => {
                if let Some(link) = &mut self.link {
                    link.extend(deadline, at);
                    // What the caller's grandchildren leave comes without a word.
                    link.note_strangers(&[], at);
                }
            }
            Action::Kill => {
                if let Some(link) = &mut self.link {
                    link.kill(at);
                }
            }
            Action::Tell(told) => self.tell(&told, at),
            Action::End(end) => self.end = Some(end),
        }
        None
    }

    fn tell(&mut self, told: &Told, at: BootInstant) {
        match told {
            Told::Starting(start) => self.term = Some((start.name.clone(), at)),
            // There is neither a connection nor a guard then.
            Told::Waiting(_) if self.no_wait => {
                self.end = Some(End {
                    how: How::NotAcquired,
                    message: None,
                    told_by: None,
                });
            }
            Told::Waiting(_)
            | Told::Attached
            | Told::Started { .. }
            | Told::Stopping { .. }
            | Told::Losing
            | Told::Killing { .. }
            | Told::GuardDied => {}
        }
        let peer = self.serve.as_ref().and_then(Serve::peer);
        tell::tell(told, &self.settings.socket, peer);
    }

    /// Starts the guard; it knows the way to `serve` too. An event where
    /// there can be none.
    fn start_guard(&mut self) -> Option<Event> {
        let serve = self.serve.as_ref()?;
        if let Some(before) = &self.link {
            before.see_off();
        }
        let guard = spawn_for_attach(
            THIS_PROGRAM,
            inherited::get(),
            &self.settings.setup,
            serve.as_fd(),
        );
        match guard.and_then(Link::new) {
            Ok(link) => {
                self.link = Some(link);
                None
            }
            Err(error) => Some(Event::NoGuard(format!("cannot {error}"))),
        }
    }
}
