//! The channel between keeper and guard: frames over a `SOCK_SEQPACKET`
//! socket (`unix(7)`), never blocking.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, recv, send, socketpair, sockopt,
};

use super::{Result, SysError};
use crate::wire::MAX_FRAME;
use crate::wire::attach::Peer;

/// `asm-generic/socket.h`, as on every architecture that leasewrap runs on.
const SO_PEERPIDFD: libc::c_int = 77;

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The other end has it in its queue.
    Done,
    /// The queue is full: the other end reads nothing. Send it again when the
    /// descriptor is writable.
    Full,
    /// There is no other end.
    Closed,
}

/// What was there to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'b> {
    /// One message.
    Frame(&'b [u8]),
    /// One that is longer than any frame.
    TooLong,
    /// Nothing at present.
    Nothing,
    /// There is no other end, and all that it said was read.
    Closed,
}

/// Room for one frame.
pub type Buffer = [u8; MAX_FRAME];

impl Channel {
    /// Two ends; both non-blocking and close-on-exec.
    ///
    /// # Errors
    /// `socketpair(2)`.
    pub fn pair() -> Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
            .map_err(SysError::on("create a pair of sockets"))?;
        Ok((Self { socket: one }, Self { socket: other }))
    }

    /// An end that was inherited or accepted.
    pub fn from_socket(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Sent {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match send(self.socket.as_raw_fd(), frame, flags) {
                Ok(_) => return Sent::Done,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => return Sent::Full,
                // EPIPE, ECONNRESET; nothing else would get better either.
                Err(_) => return Sent::Closed,
            }
        }
    }

    /// Receives one frame.
    pub fn receive<'b>(&self, buffer: &'b mut Buffer) -> Received<'b> {
        // With MSG_TRUNC the length is the message's own, not the buffer's.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let mut was_reset = false;
        loop {
            match recv(self.socket.as_raw_fd(), buffer, flags) {
                // An empty message looks like the end, and is no frame either.
                Ok(0) => return Received::Closed,
                Ok(length) => {
                    return buffer
                        .get(..length)
                        .map_or(Received::TooLong, Received::Frame);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Received::Nothing,
                // The other end went without reading all that it was sent:
                // said once, and before what it has itself said last.
                Err(Errno::ECONNRESET) if !was_reset => was_reset = true,
                Err(_) => return Received::Closed,
            }
        }
    }

    /// Who is at the other end, as of its connect (or its listen).
    pub fn peer(&self) -> Option<Peer> {
        let peer = getsockopt(&self.socket, sockopt::PeerCredentials).ok()?;
        Some(Peer {
            pid: peer.pid(),
            uid: peer.uid(),
            gid: peer.gid(),
        })
    }

    /// A handle of the process at the other end, even where it has no number
    /// in our PID namespace (`SO_PEERPIDFD`, Linux 6.5 and later).
    pub fn peer_handle(&self) -> Option<OwnedFd> {
        let mut handle: RawFd = -1;
        let mut length = libc::socklen_t::try_from(std::mem::size_of::<RawFd>()).ok()?;
        // SAFETY: both places outlive the call, and are as long as said.
        let got = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PEERPIDFD,
                (&raw mut handle).cast(),
                &raw mut length,
            )
        };
        if got != 0 || handle < 0 {
            return None;
        }
        // SAFETY: the kernel has just made it, for us alone (close-on-exec).
        Some(unsafe { OwnedFd::from_raw_fd(handle) })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_bounds_and_the_end_comes_last() {
        let (one, other) = Channel::pair().unwrap();
        let mut buffer = [0; MAX_FRAME];
        assert_eq!(other.receive(&mut buffer), Received::Nothing);
        assert_eq!(one.send(b"a"), Sent::Done);
        assert_eq!(one.send(b"bc"), Sent::Done);
        assert_eq!(other.send(b"never read"), Sent::Done);
        drop(one);
        assert_eq!(other.receive(&mut buffer), Received::Frame(b"a"));
        assert_eq!(other.receive(&mut buffer), Received::Frame(b"bc"));
        assert_eq!(other.receive(&mut buffer), Received::Closed);
        assert_eq!(other.send(b"d"), Sent::Closed);
    }

    #[test]
    fn a_frame_that_is_too_long_is_seen() {
        let (one, other) = Channel::pair().unwrap();
        let mut buffer = [0; MAX_FRAME];
        assert_eq!(one.send(&[1; MAX_FRAME]), Sent::Done);
        assert_eq!(one.send(&[1; MAX_FRAME + 1]), Sent::Done);
        assert_eq!(other.receive(&mut buffer), Received::Frame(&[1; MAX_FRAME]));
        assert_eq!(other.receive(&mut buffer), Received::TooLong);
    }

    #[test]
    fn an_end_that_reads_nothing_blocks_nobody() {
        let (one, _other) = Channel::pair().unwrap();
        let sent = (0..100_000).find(|_| one.send(b"x") == Sent::Full);
        assert!(sent.is_some());
    }
}
