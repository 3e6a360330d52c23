//! One end of a channel of frames in the loop: what is sent waits until the
//! other end reads, and what is heard comes one frame at a time.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::sys::socket::{Buffer, Channel, Received, Sent};
use crate::sys::{Result, readiness};
use crate::wire::{MAX_FRAME, Malformed};

/// What the channel gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<T> {
    /// A frame.
    Frame(T),
    /// What is no frame.
    Malformed,
    /// Nothing at present.
    Nothing,
    /// There is no other end, and all that it said was read.
    Closed,
}

/// Reads a frame.
pub type Decode<T> = fn(&[u8]) -> std::result::Result<T, Malformed>;

/// The frames of one channel, which somebody else may own.
pub struct Frames {
    ready: AsyncFd<OwnedFd>,
    outbox: VecDeque<Vec<u8>>,
    /// There is no other end: the channel is not looked at any more, since
    /// tokio reports an end of file for ever.
    closed: bool,
    buffer: Box<Buffer>,
}

impl Frames {
    /// Of this channel.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn new(channel: &Channel) -> Result<Self> {
        let both = Interest::READABLE | Interest::WRITABLE;
        Ok(Self {
            ready: readiness::watch(channel.as_fd(), both)?,
            outbox: VecDeque::new(),
            closed: false,
            buffer: Box::new([0; MAX_FRAME]),
        })
    }

    /// Whether the other end has taken all that was sent.
    pub fn are_sent(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Whether [`Heard::Closed`] was heard.
    pub fn are_over(&self) -> bool {
        self.closed
    }

    /// Sends a frame, now or as soon as the other end reads again.
    pub fn send(&mut self, channel: &Channel, frame: Vec<u8>) {
        self.outbox.push_back(frame);
        self.flush(channel);
    }

    /// The next thing that is heard; never again anything after
    /// [`Heard::Closed`]. Cancel safe.
    pub async fn next<T>(&mut self, channel: &Channel, decode: Decode<T>) -> Heard<T> {
        if self.closed {
            return std::future::pending().await;
        }
        let interest = if self.outbox.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        // The reactor is gone only together with the loop.
        let Ok(mut ready) = self.ready.ready(interest).await else {
            return Heard::Nothing;
        };
        if ready.ready().is_writable() {
            ready.clear_ready_matching(Ready::WRITABLE);
        }
        let heard = receive(channel, &mut self.buffer, decode);
        if let Heard::Nothing = heard {
            ready.clear_ready_matching(Ready::READABLE);
        }
        drop(ready);
        self.flush(channel);
        self.closed = matches!(heard, Heard::Closed);
        heard
    }

    /// What there is to hear, without waiting.
    pub fn receive<T>(&mut self, channel: &Channel, decode: Decode<T>) -> Heard<T> {
        receive(channel, &mut self.buffer, decode)
    }

    fn flush(&mut self, channel: &Channel) {
        while let Some(frame) = self.outbox.front() {
            match channel.send(frame) {
                Sent::Done => {
                    self.outbox.pop_front();
                }
                Sent::Full => return,
                // Its end says the rest.
                Sent::Closed => self.outbox.clear(),
            }
        }
    }
}

fn receive<T>(channel: &Channel, buffer: &mut Buffer, decode: Decode<T>) -> Heard<T> {
    match channel.receive(buffer) {
        Received::Frame(bytes) => decode(bytes).map_or(Heard::Malformed, Heard::Frame),
        Received::TooLong => Heard::Malformed,
        Received::Nothing => Heard::Nothing,
        Received::Closed => Heard::Closed,
    }
}
