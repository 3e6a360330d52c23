//! The door of `serve`: whoever connects to its socket is looked at here, and
//! only who speaks the guard's protocol, in this version and on this boot
//! clock, is let in. A stranger can neither hold up the loop nor stand in the
//! way of a guard: it has a second to say what it wants, is the first to go
//! where too many say nothing, and is logged once a second at most.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::frames::{Frames, Heard};
use crate::lease::time::BootInstant;
use crate::sys::listening::{File, Listening};
use crate::sys::socket::Channel;
use crate::sys::{Result, clock, readiness};
use crate::wire::attach::{FromAttach, Peer, ToAttach, version_of};
use crate::wire::{Hello, Malformed, VERSION};

/// So long a stranger may take to say what it is.
const GREETING_LIMIT: Duration = Duration::from_secs(1);

/// So many may be at it at once; then the one that came first has to go. (A
/// guard needs a fraction of a millisecond.)
const GREETINGS: usize = 16;

/// How often the socket's file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After an accept that failed for want of something (descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// Somebody who may be the guard.
pub struct Guest {
    pub(super) channel: Channel,
    pub(super) frames: Frames,
    pub(super) peer: Peer,
    /// Of the peer's process, where it is the first one of a PID namespace:
    /// readable when that has ended, and all of the namespace with it.
    pub(super) end: Option<AsyncFd<OwnedFd>>,
}

/// Why somebody was not let in.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Silent,
    NotOurs,
    Version(u16),
    TimeNamespace(u64),
    Left,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => write!(f, "said nothing for {} s", GREETING_LIMIT.as_secs()),
            Self::NotOurs => f.write_str("does not speak the guard's protocol"),
            Self::Version(theirs) => write!(
                f,
                "speaks version {theirs} of the guard's protocol and this leasewrap {VERSION}; run the same leasewrap on both sides"
            ),
            Self::TimeNamespace(theirs) => write!(
                f,
                "is in another time namespace ({theirs}, this is {}), so that deadlines would not mean the same",
                clock::time_namespace()
            ),
            Self::Left => f.write_str("went away again"),
        }
    }
}

/// What [`Door::keep`] needs.
pub struct Door {
    listening: Option<Listening>,
    ready: Option<AsyncFd<OwnedFd>>,
    path: std::path::PathBuf,
    mode: Option<u32>,
    guests: mpsc::Sender<Guest>,
    greetings: JoinSet<std::result::Result<(), (Option<Peer>, Refused)>>,
    oldest: VecDeque<AbortHandle>,
    /// When a stranger may be logged again, and how many were not.
    quiet_until: BootInstant,
    unlogged: u32,
    /// What is wrong with the file was logged.
    told: bool,
}

impl Door {
    /// Of a socket that listens, and was given this mode; whoever may come in
    /// goes to `guests`.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn new(
        listening: Listening,
        mode: Option<u32>,
        guests: mpsc::Sender<Guest>,
    ) -> Result<Self> {
        Ok(Self {
            ready: Some(readiness::watch(listening.as_fd(), Interest::READABLE)?),
            path: listening.path().to_owned(),
            mode,
            listening: Some(listening),
            guests,
            greetings: JoinSet::new(),
            oldest: VecDeque::new(),
            quiet_until: clock::now(),
            unlogged: 0,
            told: false,
        })
    }

    /// Stands at the door until the runtime ends.
    pub async fn keep(mut self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = readable(self.ready.as_ref()) => self.let_in().await,
                Some(greeted) = self.greetings.join_next() => {
                    if let Ok(Err((peer, refused))) = greeted {
                        self.refused(peer, &refused);
                    }
                }
                _ = looks.tick() => self.look(),
            }
        }
    }

    /// Lets one in. What readiness was seen is given up only by an accept
    /// that finds nobody, so that nobody who comes in between is overlooked.
    async fn let_in(&mut self) {
        let (Some(listening), Some(ready)) = (&self.listening, &self.ready) else {
            return;
        };
        let Ok(mut ready) = ready.readable().await else {
            return;
        };
        match listening.accept() {
            Ok(Some(channel)) => {
                self.oldest.retain(|greeting| !greeting.is_finished());
                if self.oldest.len() >= GREETINGS
                    && let Some(first) = self.oldest.pop_front()
                {
                    first.abort();
                }
                let guests = self.guests.clone();
                let greeting = self.greetings.spawn(greet(channel, guests));
                self.oldest.push_back(greeting);
            }
            Ok(None) => ready.clear_ready(),
            Err(error) => {
                tracing::warn!(
                    event = "accept-failed",
                    socket = %self.path.display(),
                    "cannot let a guard in: {error}; tried again"
                );
                sleep(PAUSE).await;
            }
        }
    }

    fn refused(&mut self, peer: Option<Peer>, refused: &Refused) {
        let now = clock::now();
        if now < self.quiet_until {
            self.unlogged = self.unlogged.saturating_add(1);
            return;
        }
        self.quiet_until = now + Duration::from_secs(1);
        let more = std::mem::take(&mut self.unlogged);
        let who = peer.map_or_else(|| "somebody".to_owned(), |peer| peer.to_string());
        tracing::warn!(
            event = "stranger",
            pid = peer.map(|peer| peer.pid),
            uid = peer.map(|peer| peer.uid),
            gid = peer.map(|peer| peer.gid),
            more,
            "refused {who} on {}: it {refused}",
            self.path.display()
        );
    }

    /// A socket whose file was deleted is made anew: who is attached stays
    /// so, and the next one must find it.
    fn look(&mut self) {
        match self.listening.as_ref().map(Listening::file) {
            Some(File::Ours) => {
                self.told = false;
                return;
            }
            Some(File::Changed { uid, mode }) => {
                if !self.told {
                    tracing::warn!(
                        event = "socket-changed",
                        uid,
                        mode = format!("{mode:o}"),
                        "somebody has given {} another owner or mode (user {uid}, mode {mode:o}): others may reach it now",
                        self.path.display()
                    );
                    self.told = true;
                }
                return;
            }
            Some(File::Gone) | None => {}
        }
        match Listening::bind(&self.path, self.mode) {
            Ok(new) => match readiness::watch(new.as_fd(), Interest::READABLE) {
                Ok(ready) => {
                    tracing::warn!(
                        event = "socket-made-anew",
                        "{} was deleted, and is made anew",
                        self.path.display()
                    );
                    (self.listening, self.ready, self.told) = (Some(new), Some(ready), false);
                }
                Err(error) => self.not_made(&error),
            },
            Err(error) => self.not_made(&error),
        }
    }

    fn not_made(&mut self, error: &dyn fmt::Display) {
        if !self.told {
            tracing::error!(
                event = "socket-gone",
                "{} was deleted; cannot {error}; tried again",
                self.path.display()
            );
            self.told = true;
        }
    }
}

async fn readable(ready: Option<&AsyncFd<OwnedFd>>) {
    if let Some(ready) = ready
        && let Ok(ready) = ready.readable().await
    {
        // What was seen is looked at by an accept.
        drop(ready);
        return;
    }
    std::future::pending().await
}

/// Looks at one that has connected.
async fn greet(
    channel: Channel,
    guests: mpsc::Sender<Guest>,
) -> std::result::Result<(), (Option<Peer>, Refused)> {
    let peer = channel.peer();
    let greeted = timeout(GREETING_LIMIT, greeting(channel, peer, guests));
    greeted
        .await
        .unwrap_or(Err(Refused::Silent))
        .map_err(|refused| (peer, refused))
}

/// A first frame.
enum First {
    Hello(Hello),
    Version(u16),
}

fn first(frame: &[u8]) -> std::result::Result<First, Malformed> {
    match (version_of(frame), FromAttach::decode(frame)) {
        (Some(VERSION), Ok(FromAttach::Hello(hello))) => Ok(First::Hello(hello)),
        (Some(version), _) if version != VERSION => Ok(First::Version(version)),
        (Some(_) | None, _) => Err(Malformed),
    }
}

async fn greeting(
    channel: Channel,
    peer: Option<Peer>,
    guests: mpsc::Sender<Guest>,
) -> std::result::Result<(), Refused> {
    let ours = Hello {
        version: VERSION,
        time_namespace: clock::time_namespace(),
    };
    let mut frames = Frames::new(&channel).map_err(|_| Refused::Left)?;
    let theirs = heard(&channel, &mut frames, first).await?;
    // Also to one that is refused: it says why on its own side.
    frames.send(&channel, ToAttach::Hello(ours.clone()).encode());
    match theirs {
        First::Version(version) => return Err(Refused::Version(version)),
        First::Hello(hello) if hello.time_namespace != ours.time_namespace => {
            return Err(Refused::TimeNamespace(hello.time_namespace));
        }
        First::Hello(_) => {}
    }
    let FromAttach::Attach { first_process } =
        heard(&channel, &mut frames, FromAttach::decode).await?
    else {
        return Err(Refused::NotOurs);
    };
    let end = first_process
        .then(|| channel.peer_handle())
        .flatten()
        .and_then(|handle| readiness::watch(handle.as_fd(), Interest::READABLE).ok());
    let peer = peer.ok_or(Refused::NotOurs)?;
    let guest = Guest {
        channel,
        frames,
        peer,
        end,
    };
    guests.send(guest).await.map_err(|_| Refused::Left)
}

async fn heard<T>(
    channel: &Channel,
    frames: &mut Frames,
    decode: super::frames::Decode<T>,
) -> std::result::Result<T, Refused> {
    loop {
        match frames.next(channel, decode).await {
            Heard::Frame(frame) => return Ok(frame),
            Heard::Malformed => return Err(Refused::NotOurs),
            Heard::Nothing => {}
            Heard::Closed => return Err(Refused::Left),
        }
    }
}
