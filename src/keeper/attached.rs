//! The guard of `serve`: one that has attached over its socket, from another
//! container. It can be told everything that a guard is told, but neither
//! woken nor killed, and of one that is gone nothing can be said, unless its
//! container has provably ended with it.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::yield_now;

use super::door::{Door, Guest};
use super::frames::Heard;
use super::link::READ_AHEAD;
use super::news::News;
use super::pulse::{Pulse, Remedy};
use crate::lease::keeper::event::{GuardEvent, Outcome};
use crate::lease::time::BootInstant;
use crate::sys::listening::Listening;
use crate::sys::{Result, clock};
use crate::wire::attach::{FromAttach, Peer, TermEnd, ToAttach, shortened};
use crate::wire::{FromGuard, ToGuard};

/// How often a guard that has nothing to do yet is asked whether it is there:
/// for one that stands still no lease must be taken.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// One that runs answers within milliseconds, on a busy host (or held back by
/// its container's share of it) within hundreds of them.
const PATIENCE: Duration = Duration::from_secs(1);

/// So many may wait for the loop to look at them.
const GUESTS: usize = 4;

/// The place of the guard, and who has it.
pub struct Attached {
    guests: mpsc::Receiver<Guest>,
    seat: Seat,
    /// Something was heard: others get a look before it is listened again,
    /// however much there is to hear.
    yields: bool,
    /// Read before its turn, and not told yet.
    ahead: VecDeque<News>,
}

enum Seat {
    /// Free.
    Vacant,
    /// Somebody has it.
    Taken(Box<Sitting>),
    /// Its guard was the first process of a container that is ending: when
    /// that process has ended, nothing of the tree is left.
    Ending(Peer, AsyncFd<OwnedFd>),
    /// Gone in a term that is not over: it is given to nobody else before.
    Left(Peer),
}

struct Sitting {
    guest: Guest,
    /// It was told to start a worker.
    started: bool,
    /// It has said that nothing is left of its tree.
    empty: bool,
    pulse: Pulse,
    /// When it is asked for a sign of life, until it is told to start.
    ask_at: BootInstant,
    /// It stands still, which was logged.
    still: bool,
    /// The machine is to hear (again) that it is there.
    announce: bool,
}

impl Attached {
    /// Lets guards in from now on.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn new(listening: Listening, mode: Option<u32>) -> Result<Self> {
        let (let_in, guests) = mpsc::channel(GUESTS);
        let door = Door::new(listening, mode, let_in)?;
        drop(tokio::spawn(door.keep()));
        Ok(Self {
            guests,
            seat: Seat::Vacant,
            yields: false,
            ahead: VecDeque::new(),
        })
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: &ToGuard) {
        if let Seat::Taken(sitting) = &mut self.seat {
            sitting.started |= matches!(frame, ToGuard::Start(_));
            sitting.send(&ToAttach::Guard(frame.clone()));
        }
    }

    /// Sends a new deadline.
    pub fn extend(&mut self, deadline: BootInstant, now: BootInstant) {
        if let Seat::Taken(sitting) = &mut self.seat
            // As with one's own guard: the newest is enough.
            && sitting.guest.frames.are_sent()
        {
            let seq = sitting.pulse.ask(now);
            sitting.send(&ToAttach::Guard(ToGuard::Deadline { seq, deadline }));
        }
    }

    /// Sends a frame, and wants to hear that it arrived.
    pub fn tell(&mut self, frame: &ToGuard, now: BootInstant) {
        self.send(frame);
        if let Seat::Taken(sitting) = &mut self.seat {
            let seq = sitting.pulse.ask(now);
            sitting.send(&ToAttach::Guard(ToGuard::Ping { seq }));
        }
    }

    /// SIGKILL to the tree.
    pub fn kill(&mut self, now: BootInstant) {
        self.tell(&ToGuard::Kill, now);
        if let Seat::Taken(sitting) = &mut self.seat {
            sitting.pulse.told_to_kill(now);
        }
    }

    /// The term is over, or there was none. Who had no part in it stays.
    pub fn dismiss(&mut self, outcome: &Outcome, message: String) {
        match mem::replace(&mut self.seat, Seat::Vacant) {
            Seat::Taken(mut sitting) if sitting.started => {
                self.ahead.clear();
                sitting.send(&ToAttach::Over {
                    end: end_of(outcome),
                    message: shortened(message),
                });
            }
            Seat::Taken(mut sitting) => {
                sitting.announce = true;
                self.seat = Seat::Taken(sitting);
            }
            Seat::Ending(..) | Seat::Left(_) | Seat::Vacant => {}
        }
    }

    /// When [`Self::wake`] is due.
    pub fn next_wakeup(&self) -> Option<BootInstant> {
        match &self.seat {
            Seat::Taken(sitting) => {
                let ask_at = Some(sitting.ask_at).filter(|_| !sitting.started);
                [sitting.pulse.next_wakeup(), ask_at]
                    .into_iter()
                    .flatten()
                    .min()
            }
            Seat::Vacant | Seat::Ending(..) | Seat::Left(_) => None,
        }
    }

    /// Does what has become due.
    pub fn wake(&mut self, now: BootInstant) -> News {
        self.read_ahead();
        match &mut self.seat {
            Seat::Taken(sitting) => sitting.look(now),
            Seat::Vacant | Seat::Ending(..) | Seat::Left(_) => News::Nothing,
        }
    }

    /// What the guard has said by now is told in its turn. It was not silent
    /// where it is this process that has stood still.
    fn read_ahead(&mut self) {
        for _ in self.ahead.len()..READ_AHEAD {
            let Seat::Taken(sitting) = &mut self.seat else {
                return;
            };
            let guest = &mut sitting.guest;
            let news = match guest.frames.receive(&guest.channel, FromAttach::decode) {
                Heard::Nothing => return,
                heard => self.heard(heard),
            };
            self.ahead.extend(Some(news).filter(News::is_any));
        }
    }

    /// The next thing that is heard. Cancel safe.
    pub async fn next(&mut self) -> News {
        if mem::take(&mut self.yields) {
            yield_now().await;
        }
        if let Some(news) = self.ahead.pop_front() {
            self.yields = true;
            return news;
        }
        let seen = match &mut self.seat {
            Seat::Taken(sitting) if sitting.announce => {
                sitting.announce = false;
                return News::Event(GuardEvent::Ready);
            }
            Seat::Taken(sitting) => {
                let guest = &mut sitting.guest;
                tokio::select! {
                    heard = guest.frames.next(&guest.channel, FromAttach::decode) => Seen::Heard(heard),
                    Some(guest) = self.guests.recv() => Seen::Guest(guest),
                }
            }
            Seat::Ending(_, end) => tokio::select! {
                () = ended(end) => Seen::Ended,
                Some(guest) = self.guests.recv() => Seen::Guest(guest),
            },
            Seat::Vacant | Seat::Left(_) => match self.guests.recv().await {
                Some(guest) => Seen::Guest(guest),
                // The door is kept as long as the runtime lives.
                None => return std::future::pending().await,
            },
        };
        self.yields = true;
        match seen {
            Seen::Guest(guest) => self.came(guest),
            Seen::Heard(heard) => self.heard(heard),
            Seen::Ended => self.container_ended(),
        }
    }

    fn heard(&mut self, heard: Heard<FromAttach>) -> News {
        match heard {
            Heard::Frame(frame) => self.hear(frame),
            Heard::Nothing => News::Nothing,
            Heard::Closed => self.left("has gone"),
            Heard::Malformed => self.left("has sent what is no frame"),
        }
    }

    fn came(&mut self, mut guest: Guest) -> News {
        let other = match &self.seat {
            Seat::Vacant => None,
            Seat::Taken(sitting) => Some(sitting.guest.peer),
            Seat::Ending(peer, _) | Seat::Left(peer) => Some(*peer),
        };
        if let Some(other) = other {
            tracing::debug!(
                event = "another-guard",
                "a second guard ({}) has to wait: {other} is attached",
                guest.peer
            );
            let frame = ToAttach::Taken(other).encode();
            guest.frames.send(&guest.channel, frame);
            return News::Nothing;
        }
        let Peer { pid, uid, gid } = guest.peer;
        tracing::info!(
            event = "attached",
            pid,
            uid,
            gid,
            "a guard is attached ({})",
            guest.peer
        );
        let mut sitting = Sitting {
            guest,
            started: false,
            empty: false,
            pulse: Pulse::patient(PATIENCE),
            ask_at: clock::now() + ASK_EVERY,
            still: false,
            announce: false,
        };
        sitting.send(&ToAttach::Attached);
        self.seat = Seat::Taken(Box::new(sitting));
        News::Event(GuardEvent::Ready)
    }

    fn hear(&mut self, frame: FromAttach) -> News {
        let Seat::Taken(sitting) = &mut self.seat else {
            return News::Nothing;
        };
        match frame {
            FromAttach::Hello(_) | FromAttach::Attach { .. } => {
                self.left("has greeted a second time")
            }
            FromAttach::Stopping { signal } => News::StopAsked(signal),
            FromAttach::Guard(FromGuard::Ack { seq }) => sitting.answered(seq),
            // Its own guard's, and none of ours.
            FromAttach::Guard(FromGuard::Hello(_)) => News::Nothing,
            FromAttach::Guard(frame) => {
                let last = matches!(frame, FromGuard::Empty { .. } | FromGuard::NotStarted(_));
                sitting.empty |= last && sitting.started;
                News::of(frame)
            }
        }
    }

    /// The connection is no more.
    fn left(&mut self, how: &str) -> News {
        let Seat::Taken(sitting) = mem::replace(&mut self.seat, Seat::Vacant) else {
            return News::Nothing;
        };
        let peer = sitting.guest.peer;
        if !sitting.started {
            tracing::info!(event = "detached", "the guard ({peer}) {how}");
            return News::Event(GuardEvent::Gone);
        }
        if sitting.empty {
            self.seat = Seat::Left(peer);
            return News::Nothing;
        }
        if let Some(end) = sitting.guest.end {
            tracing::warn!(
                event = "detached",
                "the guard ({peer}) {how}; the lease is renewed until its container has ended"
            );
            self.seat = Seat::Ending(peer, end);
            return News::Nothing;
        }
        tracing::error!(
            event = "detached",
            "the guard ({peer}) {how} without a word of its worker's tree, so the lease has to run out"
        );
        self.seat = Seat::Left(peer);
        News::Event(GuardEvent::Gone)
    }

    /// The first process of a PID namespace is the last one to end: the
    /// kernel kills all others, and waits for them, before (`zap_pid_ns_processes`
    /// in kernel/pid_namespace.c).
    fn container_ended(&mut self) -> News {
        let Seat::Ending(peer, _) = self.seat else {
            return News::Nothing;
        };
        tracing::warn!(
            event = "container-ended",
            "the container of the guard ({peer}) has ended, and its worker's tree with it"
        );
        self.seat = Seat::Left(peer);
        News::Event(GuardEvent::Empty)
    }
}

impl Sitting {
    fn send(&mut self, frame: &ToAttach) {
        let Guest {
            frames, channel, ..
        } = &mut self.guest;
        frames.send(channel, frame.encode());
    }

    fn answered(&mut self, seq: u32) -> News {
        self.pulse.answered(seq);
        // Not by an answer to an older question.
        if self.pulse.next_wakeup().is_none() && mem::take(&mut self.still) {
            tracing::warn!(
                event = "guard-answers",
                "the guard ({}) answers again",
                self.guest.peer
            );
            if !self.started {
                return News::Event(GuardEvent::Ready);
            }
        }
        News::Nothing
    }

    /// It can be neither woken nor killed; that it stands still is said once.
    /// Before it has a worker it is as good as gone until it answers.
    fn look(&mut self, now: BootInstant) -> News {
        if !self.started && now >= self.ask_at {
            self.ask_at = now + ASK_EVERY;
            // A queue that grows is of no use to one that reads nothing.
            if self.guest.frames.are_sent() && !self.still {
                let seq = self.pulse.ask(now);
                self.send(&ToAttach::Guard(ToGuard::Ping { seq }));
            }
        }
        let mut news = News::Nothing;
        while let Some(remedy) = self.pulse.due(now) {
            match remedy {
                Remedy::Wake if self.still => {}
                Remedy::Wake if !self.started => {
                    self.still = true;
                    news = News::Event(GuardEvent::Gone);
                    tracing::warn!(
                        event = "guard-stands-still",
                        "the guard ({}) does not answer (is it stopped?); no lease is taken for it",
                        self.guest.peer
                    );
                }
                Remedy::Wake => {
                    self.still = true;
                    tracing::warn!(
                        event = "guard-stands-still",
                        "the guard ({}) does not answer (is it stopped?); the lease is renewed as long as it stays attached, and its worker is killed at the deadline that it was told last",
                        self.guest.peer
                    );
                }
                Remedy::Kill => tracing::error!(
                    event = "guard-does-not-kill",
                    "the guard ({}) does not answer the order to kill; the lease is kept as long as it may be",
                    self.guest.peer
                ),
            }
        }
        news
    }
}

enum Seen {
    Guest(Guest),
    Heard(Heard<FromAttach>),
    Ended,
}

/// Until the guest's container has ended.
async fn ended(end: &AsyncFd<OwnedFd>) {
    // The reactor is gone only together with the loop.
    if end.readable().await.is_err() {
        std::future::pending().await
    }
}

fn end_of(outcome: &Outcome) -> TermEnd {
    match outcome {
        Outcome::Worker(end) => TermEnd::Worker(*end),
        Outcome::SteppedDown { .. } => TermEnd::SteppedDown,
        Outcome::Lost { .. } => TermEnd::Lost,
        Outcome::NotStarted(why) => TermEnd::NotStarted(why.clone()),
        // The others are not of a term.
        Outcome::GuardDied
        | Outcome::NotAcquired { .. }
        | Outcome::Database(_)
        | Outcome::Signaled(_) => TermEnd::Failed,
    }
}

#[cfg(test)]
mod tests;
