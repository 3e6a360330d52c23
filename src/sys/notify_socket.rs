//! A socket for `sd_notify(3)`, as a service manager has one: the worker's
//! messages to leasewrap.
//!
//! It lies in a directory of its own and not in the abstract namespace: not
//! every program that speaks this protocol knows that one, and a worker in a
//! network namespace of its own does not reach it. Everybody may write to it,
//! since the worker may run as another user; who has written is told by the
//! kernel (`SCM_CREDENTIALS`, `unix(7)`).

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials,
    bind, recvmsg, setsockopt, socket, sockopt,
};
use uuid::Uuid;

use super::{Result, SysError};

const WHAT: &str = "create a socket for the worker's messages";

/// As service managers have it (`PIPE_BUF`); longer messages are nobody's.
const LONGEST: usize = 4096;

/// The most descriptors that can come with one message (`SCM_MAX_FD`).
const DESCRIPTORS: usize = 253;

/// The socket. Dropping it removes it.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
    address: Address,
}

#[derive(Debug)]
enum Address {
    Path(PathBuf),
    /// Where no directory can be written to.
    Abstract(String),
}

/// A message, and who has sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Lines of `NAME=value`.
    pub text: Vec<u8>,
    /// The sender; 0 where this process cannot see it.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

impl NotifySocket {
    /// Binds it, in the service manager's directory for this service, in
    /// `/run` or in the directory for temporary files.
    ///
    /// # Errors
    /// `socket(2)`, `bind(2)`.
    pub fn bind() -> Result<Self> {
        let name = format!("leasewrap-{}", Uuid::new_v4().simple());
        let given = std::env::var_os("RUNTIME_DIRECTORY");
        // More than one are parted by colons (systemd.exec(5)).
        let given = given.as_ref().and_then(|all| {
            let first = all.as_bytes().split(|byte| *byte == b':').next()?;
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(first)))
        });
        let places = given
            .filter(|directory| directory.is_absolute())
            .into_iter()
            .chain([PathBuf::from("/run"), std::env::temp_dir()]);
        for place in places {
            if let Ok(bound) = Self::bind_below(&place.join(&name)) {
                return Ok(bound);
            }
        }
        let socket = new_socket().map_err(SysError::on(WHAT))?;
        UnixAddr::new_abstract(name.as_bytes())
            .and_then(|address| bind(socket.as_raw_fd(), &address))
            .map_err(SysError::on(WHAT))?;
        Ok(Self {
            socket,
            address: Address::Abstract(name),
        })
    }

    fn bind_below(directory: &Path) -> io::Result<Self> {
        let socket = new_socket()?;
        DirBuilder::new().mode(0o711).create(directory)?;
        // From here on, dropping it removes the directory.
        let bound = Self {
            socket,
            address: Address::Path(directory.join("notify")),
        };
        let path = &directory.join("notify");
        // Whatever the umask: others may pass through, and write.
        fs::set_permissions(directory, Permissions::from_mode(0o711))?;
        bind(bound.socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        Ok(bound)
    }

    /// For `NOTIFY_SOCKET`.
    pub fn address(&self) -> String {
        match &self.address {
            Address::Path(path) => path.display().to_string(),
            Address::Abstract(name) => format!("@{name}"),
        }
    }

    /// What has to be removed if nobody drops it.
    pub fn path(&self) -> Option<&Path> {
        match &self.address {
            Address::Path(path) => Some(path),
            Address::Abstract(_) => None,
        }
    }

    /// The next message, if there is one.
    pub fn receive(&self) -> Option<Message> {
        loop {
            match self.try_receive() {
                Ok(Some(message)) => return Some(message),
                // Too long, or without a sender: nobody's.
                Ok(None) | Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn try_receive(&self) -> nix::Result<Option<Message>> {
        let mut text = vec![0; LONGEST];
        let mut parts = [IoSliceMut::new(&mut text)];
        let mut room = nix::cmsg_space!(UnixCredentials, [RawFd; DESCRIPTORS]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let fd = self.socket.as_raw_fd();
        let received = recvmsg::<()>(fd, &mut parts, Some(&mut room), flags)?;
        let mut sender = None;
        for part in received.cmsgs()? {
            match part {
                ControlMessageOwned::ScmCredentials(credentials) => {
                    sender = Some((credentials.pid(), credentials.uid()));
                }
                ControlMessageOwned::ScmRights(descriptors) => {
                    for fd in descriptors {
                        // SAFETY: the kernel has just opened it for us alone.
                        // Closing it is what a sender of BARRIER=1 waits for.
                        drop(unsafe { OwnedFd::from_raw_fd(fd) });
                    }
                }
                _ => {}
            }
        }
        let cut = received.flags.contains(MsgFlags::MSG_TRUNC);
        let length = received.bytes;
        text.truncate(length);
        Ok(sender
            .filter(|_| !cut)
            .map(|(pid, uid)| Message { text, pid, uid }))
    }
}

fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    setsockopt(&socket, sockopt::PassCred, &true)?;
    Ok(socket)
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        if let Address::Path(path) = &self.address {
            remove(path);
        }
    }
}

/// Removes a socket and its directory, for one that has no owner any more.
pub fn remove(path: &Path) {
    // Whoever was here before has done it.
    let _ = fs::remove_file(path);
    if let Some(directory) = path.parent() {
        let _ = fs::remove_dir(directory);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_message_comes_with_its_sender_and_the_socket_goes() {
        let bound = NotifySocket::bind().unwrap();
        let path = PathBuf::from(bound.address());
        assert!(path.is_absolute());
        let worker = UnixDatagram::unbound().unwrap();
        worker.send_to(b"READY=1\nSTATUS=x", &path).unwrap();
        worker.send_to(&[b'x'; LONGEST + 1], &path).unwrap();
        worker.send_to(b"WATCHDOG=1", &path).unwrap();
        let first = bound.receive().unwrap();
        assert_eq!(first.text, b"READY=1\nSTATUS=x");
        assert_eq!(first.pid, std::process::id().cast_signed());
        assert_eq!(first.uid, nix::unistd::getuid().as_raw());
        assert_eq!(bound.receive().unwrap().text, b"WATCHDOG=1");
        assert_eq!(bound.receive(), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o666);
        assert_eq!(mode(path.parent().unwrap()), 0o711);
        drop(bound);
        assert!(!path.parent().unwrap().exists());
    }
}
