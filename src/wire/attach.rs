//! The frames between `serve` and `attach`: the guard's protocol, and around
//! it what two processes must tell each other that were not started together.
//!
//! `attach` speaks first. What a [`Hello`] looks like never changes in its
//! first bytes, so that each side can name the other's version: see
//! [`version_of`].

use serde::{Deserialize, Serialize};

use super::{FromGuard, Hello, Malformed, NotStarted, ToGuard, WorkerEnd};

/// The longest text in a frame, in bytes: a frame has room for two of them.
pub const LONGEST_TEXT: usize = 2048;

/// From `attach` to `serve`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FromAttach {
    /// First frame.
    Hello(Hello),
    /// Second frame: it wants to be the guard.
    Attach {
        /// It is the first process of a PID namespace: when it has ended,
        /// the kernel has ended everything in there (`pid_namespaces(7)`).
        first_process: bool,
    },
    /// What the guard says.
    Guard(FromGuard),
    /// A process has sent this signal to `attach`, which has begun an orderly
    /// stop.
    Stopping {
        /// Signal number.
        signal: i32,
    },
}

/// From `serve` to `attach`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ToAttach {
    /// The answer to a Hello.
    Hello(Hello),
    /// The answer to [`FromAttach::Attach`]: it is the guard.
    Attached,
    /// The other answer: another one is. To be tried again.
    Taken(Peer),
    /// What the keeper says to its guard.
    Guard(ToGuard),
    /// The last frame: the lease was given back, or runs out.
    Over {
        /// How the term has ended.
        end: TermEnd,
        /// The same for people.
        message: String,
    },
}

/// Who is at the other end, as the kernel says (`SO_PEERCRED`, `unix(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Its process; 0 where it cannot be seen from here.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.pid > 0 {
            write!(f, "pid {}, ", self.pid)?;
        }
        write!(f, "user {}", self.uid)
    }
}

/// How a term has ended, as `attach` must know it for its exit code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TermEnd {
    /// The worker has ended, by itself or when it was told to.
    Worker(WorkerEnd),
    /// The precheck.
    SteppedDown,
    /// The lease was lost.
    Lost,
    /// The worker was not started.
    NotStarted(NotStarted),
    /// The guard has died, or something else that must not be.
    Failed,
}

codec!(FromAttach, ToAttach);

/// The version that a first frame names, whatever else that version says:
/// both sides' first byte is 0 (the variant), the version follows (as
/// postcard writes a number). `None` when it is no Hello.
pub fn version_of(frame: &[u8]) -> Option<u16> {
    let (0, rest) = frame.split_first()? else {
        return None;
    };
    let (version, _) = postcard::take_from_bytes::<u16>(rest).ok()?;
    Some(version)
}

/// A text that fits into a frame.
pub fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_TEXT));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MAX_FRAME, VERSION};

    const HELLO: Hello = Hello {
        version: VERSION,
        time_namespace: u64::MAX,
    };

    #[test]
    fn frames_come_back_as_they_went() {
        for frame in [
            FromAttach::Hello(HELLO),
            FromAttach::Attach {
                first_process: true,
            },
            FromAttach::Guard(FromGuard::Empty { killed: 7 }),
            FromAttach::Stopping { signal: 15 },
        ] {
            assert_eq!(FromAttach::decode(&frame.encode()), Ok(frame));
        }
        assert_eq!(shortened("short".to_owned()), "short");
        let long = format!("x{}", "ü".repeat(MAX_FRAME));
        let message = shortened(long.clone());
        assert!(long.starts_with(&message));
        assert_eq!(message.len(), LONGEST_TEXT - 1, "no half of a letter");
        let over = ToAttach::Over {
            end: TermEnd::Lost,
            message,
        };
        assert!(over.encode().len() <= MAX_FRAME);
        assert_eq!(ToAttach::decode(&over.encode()), Ok(over));
    }

    #[test]
    fn a_peer_is_named_by_its_process_where_that_can_be_seen() {
        for (pid, words) in [
            (7, "pid 7, user 1000"),
            (1, "pid 1, user 1000"),
            (0, "user 1000"),
        ] {
            let (uid, gid) = (1000, 100);
            assert_eq!(Peer { pid, uid, gid }.to_string(), words);
        }
    }

    #[test]
    fn a_version_is_read_whatever_follows() {
        let mut other = FromAttach::Hello(Hello {
            version: 300,
            ..HELLO
        })
        .encode();
        other.extend(b"what that version adds");
        assert!(FromAttach::decode(&other).is_err());
        assert_eq!(version_of(&other), Some(300));
        let ours = ToAttach::Hello(HELLO).encode();
        assert_eq!(version_of(&ours), Some(VERSION));
        for no_hello in [&[][..], &[1, 1], &[0], b"GET / HTTP/1.1"] {
            assert_eq!(version_of(no_hello), None);
        }
    }
}
