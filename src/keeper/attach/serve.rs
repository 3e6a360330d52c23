//! `serve`, as `attach` sees it.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use super::super::frames::{Frames, Heard};
use crate::lease::attach::{Event, ServeLoss};
use crate::sys::listening::connect_to;
use crate::sys::socket::Channel;
use crate::wire::attach::{FromAttach, Peer, ToAttach, version_of};
use crate::wire::{Hello, Malformed, VERSION};

/// A connection.
pub(super) struct Serve {
    channel: Channel,
    frames: Frames,
}

impl Serve {
    /// Connects to whoever listens at `socket`, if that is its owner.
    ///
    /// # Errors
    /// Why not: reads after "cannot".
    pub(super) fn reach(socket: &Path) -> Result<Self, String> {
        let (channel, owner) = connect_to(socket).map_err(|error| error.to_string())?;
        match channel.peer() {
            Some(peer) if peer.uid == owner => {}
            Some(peer) => {
                return Err(format!(
                    "trust {}: it belongs to user {owner}, and {peer} listens there",
                    socket.display()
                ));
            }
            None => return Err(format!("find out who listens on {}", socket.display())),
        }
        let frames = Frames::new(&channel).map_err(|error| error.to_string())?;
        Ok(Self { channel, frames })
    }

    /// Who that is.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.channel.peer()
    }

    pub(super) fn send(&mut self, frame: &FromAttach) {
        self.frames.send(&self.channel, frame.encode());
    }

    /// For the guard.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// A frame, or the version of a `serve` that cannot be understood further.
enum Frame {
    Ours(ToAttach),
    Version(u16),
}

fn decode(bytes: &[u8]) -> Result<Frame, Malformed> {
    match (ToAttach::decode(bytes), version_of(bytes)) {
        (_, Some(version)) if version != VERSION => Ok(Frame::Version(version)),
        (Ok(frame), _) => Ok(Frame::Ours(frame)),
        (Err(Malformed), _) => Err(Malformed),
    }
}

/// The next thing that `serve` says. Cancel safe.
pub(super) async fn hear(serve: Option<&mut Serve>, ours: &Hello) -> Option<Event> {
    let Some(serve) = serve else {
        return std::future::pending().await;
    };
    match serve.frames.next(&serve.channel, decode).await {
        Heard::Frame(Frame::Ours(ToAttach::Hello(theirs))) => {
            Some(match ServeLoss::of(&theirs, ours) {
                Some(loss) => Event::ServeLost(loss),
                None => Event::Serve(ToAttach::Hello(theirs)),
            })
        }
        Heard::Frame(Frame::Ours(frame)) => Some(Event::Serve(frame)),
        Heard::Frame(Frame::Version(version)) => {
            Some(Event::ServeLost(ServeLoss::Version(version)))
        }
        Heard::Malformed => Some(Event::ServeLost(ServeLoss::Malformed)),
        Heard::Closed => Some(Event::ServeLost(ServeLoss::Closed)),
        Heard::Nothing => None,
    }
}
