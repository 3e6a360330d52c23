//! Frames to a keeper that may not be reading: nothing here ever blocks.

use std::collections::VecDeque;

use crate::sys::socket::{Channel, Sent};
use crate::wire::FromGuard;

/// The most news that wait; beyond it they are dropped, decisions are not (a
/// guard has no more than a handful of those in its life).
const NEWS: usize = 64;

/// Frames that did not fit into the socket's queue yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Vec<u8>>,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends a frame, or keeps it until it can be sent.
    pub(super) fn send(&mut self, channel: &Channel, frame: &FromGuard) {
        self.flush(channel);
        if self.waiting.len() < NEWS || is_decision(frame) {
            self.waiting.push_back(frame.encode());
            self.flush(channel);
        }
    }

    /// Sends what can be sent by now.
    pub(super) fn flush(&mut self, channel: &Channel) {
        while let Some(frame) = self.waiting.front() {
            match channel.send(frame) {
                Sent::Done => self.waiting.pop_front(),
                Sent::Full => return,
                // That the keeper is gone is read from the channel.
                Sent::Closed => return self.waiting.clear(),
            };
        }
    }
}

/// Whether the keeper decides by it, rather than being told.
fn is_decision(frame: &FromGuard) -> bool {
    match frame {
        FromGuard::Hello(_)
        | FromGuard::Started { .. }
        | FromGuard::NotStarted(_)
        | FromGuard::WorkerEnded(_)
        | FromGuard::Stopping(_)
        | FromGuard::Empty { .. } => true,
        FromGuard::Ack { .. }
        | FromGuard::WorkerStopped { .. }
        | FromGuard::WorkerContinued
        | FromGuard::LeftBehind { .. }
        | FromGuard::Unkillable { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::Received;
    use crate::wire::MAX_FRAME;

    #[test]
    fn decisions_outlast_a_keeper_that_does_not_read() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut outbox = Outbox::default();
        for seq in 0..100_000 {
            outbox.send(&ours, &FromGuard::Ack { seq });
        }
        let empty = FromGuard::Empty { killed: 7 };
        outbox.send(&ours, &empty);
        assert_eq!(outbox.waiting.len(), NEWS + 1);
        let mut buffer = [0; MAX_FRAME];
        let mut last = None;
        loop {
            match theirs.receive(&mut buffer) {
                Received::Frame(frame) => last = FromGuard::decode(frame).ok(),
                Received::Nothing if outbox.is_empty() => break,
                Received::Nothing => outbox.flush(&ours),
                Received::TooLong | Received::Closed => panic!("not expected"),
            }
        }
        assert_eq!(last, Some(empty));
    }
}
