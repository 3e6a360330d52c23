//! The keeper's side of its guard: frames in both directions, whether it
//! answers, and what is left to do when it is gone.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::frames::{Frames, Heard};
use super::news::News;
use super::pulse::{self, Pulse, Remedy};
use crate::lease::keeper::event::GuardEvent;
use crate::lease::time::BootInstant;
use crate::sys::guard_process::{GuardProcess, GuardState};
use crate::sys::tree::strangers::{self, Child};
use crate::sys::tree::{Round, Sweep};
use crate::sys::{Result, clock, readiness};
use crate::wire::{FromGuard, Hello, ToGuard, VERSION};

/// How often a keeper whose tree is empty tells the guard that it lives
/// (half of what the guard allows, [`FromGuard::Empty`]).
const SIGN_OF_LIFE: Duration = Duration::from_millis(250);

/// How often SIGKILL is sent to everybody again while something is left that
/// does not end.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// How long the guard of a hook may say nothing. What a hook has started lives
/// on when its guard is killed, and its own timer ends it in time.
const HOOK_PATIENCE: Duration = Duration::from_secs(2);

/// So many frames at most are read before a guard's silence is judged:
/// whoever talks without end gets no further with it.
pub(super) const READ_AHEAD: usize = 64;

/// The guard, as the keeper sees it.
pub struct Link {
    frames: Frames,
    /// Readable when the guard's process has ended.
    handle: AsyncFd<OwnedFd>,
    guard: GuardProcess,
    pulse: Pulse,
    /// Read before its turn, and not told yet.
    ahead: VecDeque<News>,
    /// Strangers, once this frame has its answer.
    newcomers: Option<(u32, Vec<Child>)>,
    state: State,
    /// What it leaves when it dies is swept here.
    sweeps: bool,
}

#[derive(Debug)]
enum State {
    /// It is there.
    Alive,
    /// It has said that its tree is empty; it waits for `Dismiss`.
    Empty { next_sign: BootInstant },
    /// It was told to end. What comes of it now is nothing to anybody.
    Dismissed,
    /// It is gone; what is left of its tree is being killed.
    Sweeping {
        sweep: Box<Sweep>,
        /// When the next round is due, whatever children do.
        again_at: BootInstant,
        /// When whoever is still there counts as unkillable, and gets SIGKILL
        /// once more.
        patience_ends: BootInstant,
    },
    /// It is gone, and so is its tree.
    Gone,
}

impl Link {
    /// Greets a guard that was just started.
    ///
    /// # Errors
    /// When its descriptors cannot be watched; it is dismissed then.
    pub fn new(guard: GuardProcess) -> Result<Self> {
        let watched = Frames::new(guard.channel()).and_then(|frames| {
            let handle = readiness::watch(guard.handle(), Interest::READABLE)?;
            Ok((frames, handle))
        });
        let (frames, handle) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                guard.dismiss();
                return Err(error);
            }
        };
        let mut link = Self {
            frames,
            handle,
            guard,
            pulse: Pulse::default(),
            ahead: VecDeque::new(),
            newcomers: None,
            state: State::Alive,
            sweeps: true,
        };
        link.send(&ToGuard::Hello(Hello {
            version: VERSION,
            time_namespace: clock::time_namespace(),
        }));
        Ok(link)
    }

    /// Greets the guard of a hook: of one that dies nothing is heard but
    /// that it is gone.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_hook(guard: GuardProcess) -> Result<Self> {
        let mut link = Self::new(guard)?;
        link.sweeps = false;
        // Nothing was asked of it yet.
        link.pulse = Pulse::patient(HOOK_PATIENCE);
        Ok(link)
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.guard.pid()
    }

    /// Its process id while it is a child that others must not reap. (Later
    /// the number may mean anybody.)
    pub fn child(&self) -> Option<i32> {
        match self.state {
            State::Alive | State::Empty { .. } | State::Dismissed => Some(self.guard.pid()),
            State::Sweeping { .. } | State::Gone => None,
        }
    }

    /// Whether it is gone, and nothing more comes of it.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// Sends a frame, now or as soon as the guard reads again.
    pub fn send(&mut self, frame: &ToGuard) {
        match self.state {
            State::Alive | State::Empty { .. } => {
                self.frames.send(self.guard.channel(), frame.encode());
            }
            State::Dismissed | State::Sweeping { .. } | State::Gone => {}
        }
    }

    /// Sends a new deadline; the guard is to acknowledge it.
    pub fn extend(&mut self, deadline: BootInstant, now: BootInstant) {
        // A guard that reads nothing needs the newest deadline alone, and a
        // queue that grows is of no use to it.
        if !self.frames.are_sent() {
            return;
        }
        let seq = self.pulse.ask(now);
        self.send(&ToGuard::Deadline { seq, deadline });
    }

    /// Sends a frame, and wants to hear that it arrived.
    pub fn tell(&mut self, frame: &ToGuard, now: BootInstant) {
        self.send(frame);
        let seq = self.pulse.ask(now);
        self.send(&ToGuard::Ping { seq });
    }

    /// SIGKILL to the tree, by the guard or without it.
    pub fn kill(&mut self, now: BootInstant) {
        self.tell(&ToGuard::Kill, now);
        self.pulse.told_to_kill(now);
    }

    /// Tells it to end: nothing runs.
    pub fn dismiss(&mut self) {
        self.send(&ToGuard::Dismiss);
        if matches!(self.state, State::Alive | State::Empty { .. }) {
            self.state = State::Dismissed;
            self.ahead.clear();
            // It has given up on a keeper that stood still, and is the
            // releaser by now: it would kill this process, which goes on
            // with its hooks or the next term, for not having ended.
            if self.frames.are_over() {
                self.guard.kill();
            }
        }
    }

    /// Ends one that was dismissed, before another one is started. Whoever has
    /// stood still and reads that too late would take this process for one
    /// that does, and give back what is held by then: the next term.
    pub fn see_off(&self) {
        if self.child().is_some() {
            self.guard.kill();
        }
    }

    /// When [`Self::wake`] is due.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        match self.state {
            State::Alive => self.pulse.next_wakeup(),
            State::Empty { next_sign } => Some(next_sign),
            State::Sweeping { again_at, .. } => Some(again_at),
            State::Dismissed | State::Gone => None,
        }
    }

    /// Does what has become due. A sweep leaves `hooks` alone.
    pub fn wake(&mut self, now: BootInstant, hooks: &[i32]) -> News {
        match self.state {
            State::Alive => {
                self.judge_silence(now);
                // Not everybody's end is told here: that of a grandchild is not.
                self.note_strangers(hooks, now);
                News::Nothing
            }
            State::Empty { next_sign } => {
                if now >= next_sign {
                    self.sign_of_life(now);
                }
                News::Nothing
            }
            State::Sweeping { again_at, .. } if now >= again_at => self.sweep(now, hooks),
            State::Sweeping { .. } | State::Dismissed | State::Gone => News::Nothing,
        }
    }

    fn judge_silence(&mut self, now: BootInstant) {
        if self.pulse.next_wakeup().is_none_or(|due| now < due) {
            return;
        }
        self.read_ahead();
        while matches!(self.state, State::Alive)
            && let Some(remedy) = self.pulse.due(now)
        {
            self.remedy(remedy);
        }
    }

    /// What the guard has said by now is told in its turn. It was not silent
    /// where it is this process that has stood still.
    fn read_ahead(&mut self) {
        for _ in self.ahead.len()..READ_AHEAD {
            let channel = self.guard.channel();
            let news = match self.frames.receive(channel, FromGuard::decode) {
                Heard::Nothing | Heard::Closed => return,
                heard @ (Heard::Frame(_) | Heard::Malformed) => self.heard(heard),
            };
            self.ahead.extend(Some(news).filter(News::is_any));
        }
    }

    /// A child has changed its state: a guard that was stopped is woken, and
    /// a sweep goes on, which leaves `hooks` alone.
    pub fn child_changed(&mut self, now: BootInstant, hooks: &[i32]) -> News {
        match self.state {
            State::Alive | State::Empty { .. } | State::Dismissed => {
                // Nobody else stops the guard, and it has nothing to stop for.
                loop {
                    match self.guard.state() {
                        GuardState::Stopped => {
                            let remedy = self.pulse.stopped(now);
                            self.remedy(remedy);
                        }
                        GuardState::Continued => {}
                        GuardState::AsBefore => return News::Nothing,
                        // Reaped; its handle is readable, and comes after the
                        // last frames have been read.
                        GuardState::Ended => return News::Nothing,
                    }
                }
            }
            State::Sweeping { .. } => self.sweep(now, hooks),
            State::Gone => News::Nothing,
        }
    }

    /// Notes the children that are neither the guard nor `hooks`: a sweep
    /// leaves them alone. To be called when whoever has ended was reaped.
    ///
    /// The guard is asked for a sign of life first. One that is about to end,
    /// so that its tree comes to this process, does not give any; nor can that
    /// be seen of it below a /proc with `hidepid`.
    pub fn note_strangers(&mut self, hooks: &[i32], now: BootInstant) {
        let has_its_tree = matches!(self.state, State::Alive | State::Empty { .. });
        if !self.sweeps || !has_its_tree || self.newcomers.is_some() || !self.frames.are_sent() {
            return;
        }
        let found = strangers::newcomers(&[hooks, &[self.pid()]].concat());
        if !found.is_empty() {
            let seq = self.pulse.ask(now);
            self.send(&ToGuard::Ping { seq });
            self.newcomers = Some((seq, found));
        }
    }

    /// The next thing that is heard. Cancel safe.
    pub async fn next(&mut self) -> News {
        match self.state {
            State::Sweeping { .. } | State::Gone => std::future::pending().await,
            State::Alive | State::Empty { .. } | State::Dismissed => {}
        }
        if let Some(news) = self.ahead.pop_front() {
            return news;
        }
        let channel = self.guard.channel();
        let heard = tokio::select! {
            biased;
            heard = self.frames.next(channel, FromGuard::decode) => heard,
            // What it said last may have come together with its end.
            _ = self.handle.readable() => match self.frames.receive(channel, FromGuard::decode) {
                Heard::Nothing | Heard::Closed => return self.ended(clock::now()),
                heard @ (Heard::Frame(_) | Heard::Malformed) => heard,
            },
        };
        self.heard(heard)
    }

    fn heard(&mut self, heard: Heard<FromGuard>) -> News {
        match heard {
            Heard::Frame(frame) if !matches!(self.state, State::Dismissed) => self.hear(frame),
            // A guard that cannot be understood cannot be relied on.
            Heard::Malformed => {
                self.remedy(Remedy::Kill);
                News::Nothing
            }
            // A guard that turns itself into the releaser closes its end, and
            // is seen to end a little later.
            Heard::Closed | Heard::Frame(_) | Heard::Nothing => News::Nothing,
        }
    }

    fn hear(&mut self, frame: FromGuard) -> News {
        match &frame {
            FromGuard::Hello(hello) if hello.version == VERSION => {}
            FromGuard::Hello(_) => {
                self.remedy(Remedy::Kill);
                return News::Nothing;
            }
            FromGuard::Ack { seq } => self.answered(*seq),
            FromGuard::NotStarted(_) | FromGuard::Empty { .. } => self.sign_of_life(clock::now()),
            FromGuard::Started { .. }
            | FromGuard::WorkerStopped { .. }
            | FromGuard::WorkerContinued
            | FromGuard::WorkerEnded(_)
            | FromGuard::LeftBehind { .. }
            | FromGuard::Stopping(_)
            | FromGuard::Unkillable { .. } => {}
        }
        News::of(frame)
    }

    fn answered(&mut self, seq: u32) {
        self.pulse.answered(seq);
        let asked = |(asked, _): &mut (u32, _)| pulse::answers(seq, *asked);
        if let Some((_, found)) = self.newcomers.take_if(asked) {
            let pids: Vec<String> = found.iter().map(|child| child.pid().to_string()).collect();
            let pids = pids.join(" ");
            tracing::debug!(
                event = "strangers",
                pids,
                "processes that the caller's have left are not of the worker's tree: {pids}"
            );
            strangers::note(found);
        }
    }

    /// Says that the keeper lives, and when it will say so again.
    fn sign_of_life(&mut self, now: BootInstant) {
        let seq = self.pulse.ask(now);
        self.send(&ToGuard::Ping { seq });
        self.state = State::Empty {
            next_sign: now + SIGN_OF_LIFE,
        };
    }

    fn remedy(&self, remedy: Remedy) {
        let (whose, then) = if self.sweeps {
            ("the guard", "it is killed, and its tree with it")
        } else {
            let then = "it is killed, and the hook with it; what that had started may live on";
            ("the guard of a hook", then)
        };
        match remedy {
            Remedy::Wake => {
                tracing::warn!(
                    event = "guard-stands-still",
                    guard_pid = self.pid(),
                    "{whose} stands still; it is woken"
                );
                self.guard.wake();
            }
            Remedy::Kill => {
                tracing::error!(
                    event = "guard-killed",
                    guard_pid = self.pid(),
                    "{whose} does not answer; {then}"
                );
                self.guard.kill();
            }
        }
    }

    /// The guard's process has ended, and all that it said was read.
    fn ended(&mut self, now: BootInstant) -> News {
        // Reaps it, now that its handle says that it has ended; one that
        // somebody traces is reaped when that one lets go of it.
        while let GuardState::Stopped | GuardState::Continued = self.guard.state() {}
        if matches!(self.state, State::Dismissed) {
            self.state = State::Gone;
            return News::Nothing;
        }
        if !self.sweeps {
            self.state = State::Gone;
            return News::Event(GuardEvent::Gone);
        }
        self.state = State::Sweeping {
            sweep: Box::new(Sweep::new(&[])),
            again_at: now,
            patience_ends: now + SWEEP_AGAIN,
        };
        News::Event(GuardEvent::Gone)
    }

    /// Whether what is left of the tree is being killed by the keeper: then
    /// all reaping is its own.
    pub fn is_sweeping(&self) -> bool {
        matches!(self.state, State::Sweeping { .. })
    }

    /// Reaps, and kills on when that shows that there is more.
    fn sweep(&mut self, now: BootInstant, hooks: &[i32]) -> News {
        let State::Sweeping {
            sweep,
            again_at,
            patience_ends,
        } = &mut self.state
        else {
            return News::Nothing;
        };
        sweep.leave_alone(&[hooks, &strangers::noted()].concat());
        let mut unkillable = Vec::new();
        if now >= *patience_ends {
            *patience_ends = now + SWEEP_AGAIN;
            unkillable = sweep.unkillable();
            sweep.start_over();
        }
        *again_at = match sweep.step() {
            Round::Again => now,
            Round::Wait => *patience_ends,
            Round::Empty => {
                self.state = State::Gone;
                return News::Event(GuardEvent::Swept);
            }
        };
        if unkillable.is_empty() {
            News::Nothing
        } else {
            News::Unkillable(unkillable.join(", "))
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
