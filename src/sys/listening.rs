//! The socket of `serve`: a file that the other container sees too.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

use super::socket::Channel;

/// So many may wait to be let in.
const BACKLOG: i32 = 32;

/// The most bytes in the path of a socket (`unix(7)`: `sun_path`, and the NUL
/// that ends it).
pub const LONGEST_PATH: usize = 107;

/// Why there is no socket at a path. Reads after "cannot".
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It does not fit.
    #[error(
        "use {path} as a socket: the path has {length} bytes, and a socket's has {LONGEST_PATH} at most; give a shorter one"
    )]
    TooLong {
        /// As it was given.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Somebody answers there.
    #[error("listen on {path}: another process listens there; stop it, or give another path")]
    InUse {
        /// As it was given.
        path: PathBuf,
    },
    /// Something else is there.
    #[error("listen on {path}: there is something that is no socket; give another path")]
    Foreign {
        /// As it was given.
        path: PathBuf,
    },
    /// Anything else: no such directory, no room, no permission.
    #[error("{what} {path}: {source}")]
    Io {
        /// Reads before the path.
        what: &'static str,
        /// As it was given.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
}

/// A socket that listens. Dropping it removes its file.
#[derive(Debug)]
pub struct Listening {
    socket: OwnedFd,
    path: PathBuf,
    mode: u32,
    /// Of the file: device and inode.
    file: (u64, u64),
}

/// How a socket's file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// As it was made.
    Ours,
    /// Its owner or its mode has changed.
    Changed {
        /// Its present user.
        uid: u32,
        /// Its present mode.
        mode: u32,
    },
    /// There is none, or another one.
    Gone,
}

impl Listening {
    /// Listens at `path`. A file that a process has left there that lives no
    /// more is replaced, and nothing else is. Without a `mode` whoever may
    /// write to the directory may connect: they could put a socket of their
    /// own there as well.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path, mode: Option<u32>) -> Result<Self, SocketError> {
        let address = address(path)?;
        let failed = |what| {
            move |source: io::Error| SocketError::Io {
                what,
                path: path.to_owned(),
                source,
            }
        };
        let socket = new_socket().map_err(|errno| failed("create a socket for")(errno.into()))?;
        // The file gets the mode of the unbound socket, less the umask
        // (`unix_bind` in net/unix/af_unix.c): it is never open to more than
        // it is to be open to.
        fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| failed("set the mode of")(errno.into()))?;
        match bind(socket.as_raw_fd(), &address) {
            Err(Errno::EADDRINUSE) => {
                remove_dead(path, &address)?;
                bind(socket.as_raw_fd(), &address)
            }
            bound => bound,
        }
        .map_err(|errno| failed("listen on")(errno.into()))?;
        let (handle, made) = just_made(path).map_err(failed("look at"))?;
        // It leads there as long as the handle is open.
        let file = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
        let mode = match mode {
            Some(mode) => mode,
            None => mode_by_directory(path, &file).map_err(failed("look at the directory of"))?,
        };
        fs::set_permissions(&file, Permissions::from_mode(mode))
            .map_err(failed("set the mode of"))?;
        let backlog = Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN);
        listen(&socket, backlog).map_err(|errno| failed("listen on")(errno.into()))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            mode,
            file: (made.dev(), made.ino()),
        })
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whoever waits to be let in; `None` when nobody does.
    ///
    /// # Errors
    /// No descriptor or no memory left.
    pub fn accept(&self) -> io::Result<Option<Channel>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match accept4(&self.socket, flags) {
            Ok(socket) => Ok(Some(Channel::from_socket(socket))),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// How its file is by now.
    pub fn file(&self) -> File {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.file => {
                let (uid, mode) = (found.uid(), found.mode() & 0o7777);
                if uid == super::process::user() && mode == self.mode {
                    File::Ours
                } else {
                    File::Changed { uid, mode }
                }
            }
            Ok(_) | Err(_) => File::Gone,
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.file() != File::Gone {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Connects to whoever listens at `path`, and says whose the file is.
///
/// # Errors
/// [`SocketError::TooLong`]; the system's, as [`SocketError::Io`]: ENOENT
/// without a file, ECONNREFUSED where nobody listens, EACCES, EAGAIN where
/// too many wait to be let in.
pub fn connect_to(path: &Path) -> Result<(Channel, u32), SocketError> {
    let address = address(path)?;
    let failed = |source: io::Error| SocketError::Io {
        what: "connect to",
        path: path.to_owned(),
        source,
    };
    let socket = new_socket().map_err(|errno| failed(errno.into()))?;
    connect(socket.as_raw_fd(), &address).map_err(|errno| failed(errno.into()))?;
    let owner = fs::symlink_metadata(path).map_err(failed)?.uid();
    Ok((Channel::from_socket(socket), owner))
}

/// Whether `path` can be a socket's.
///
/// # Errors
/// [`SocketError`], of which one that waits would not get better.
pub fn check(path: &Path) -> Result<(), SocketError> {
    address(path).map(|_| ())
}

fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

fn address(path: &Path) -> Result<UnixAddr, SocketError> {
    UnixAddr::new(path).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => SocketError::TooLong {
            path: path.to_owned(),
            length: path.as_os_str().len(),
        },
        other => SocketError::Io {
            what: "use as a socket:",
            path: path.to_owned(),
            source: other.into(),
        },
    })
}

/// The file that was just bound, open as nothing but itself (`O_PATH`). What
/// somebody else who may write to the directory has put in its place since is
/// refused: by a link they would open any file of ours to everybody.
fn just_made(path: &Path) -> io::Result<(fs::File, fs::Metadata)> {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    let found = file.metadata()?;
    if found.file_type().is_socket() && found.uid() == super::process::user() {
        Ok((file, found))
    } else {
        Err(io::Error::other("somebody else has replaced it"))
    }
}

/// The mode of a socket that is for those who may write to its directory,
/// which is given to the directory's group where it is for that. `file` leads
/// to the socket's file whatever stands at `path` by now.
fn mode_by_directory(path: &Path, file: &Path) -> io::Result<u32> {
    const ALL_OF_IT: u32 = 0o3;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let found = fs::metadata(directory)?;
    let mode = found.mode();
    // With the sticky bit only the owner can replace it.
    if mode & libc::S_ISVTX != 0 {
        return Ok(0o600);
    }
    let everybody = if mode & ALL_OF_IT == ALL_OF_IT {
        0o006
    } else {
        0
    };
    let is_for_group = mode >> 3 & ALL_OF_IT == ALL_OF_IT
        && (fs::metadata(file)?.gid() == found.gid()
            || chown(file, None, Some(found.gid())).is_ok());
    let group = if is_for_group { 0o060 } else { 0 };
    Ok(0o600 | group | everybody)
}

/// Removes the socket of a process that lives no more.
fn remove_dead(path: &Path, address: &UnixAddr) -> Result<(), SocketError> {
    let failed = |what| {
        move |source| SocketError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let found = fs::symlink_metadata(path).map_err(failed("look at"))?;
    if !found.file_type().is_socket() {
        return Err(SocketError::Foreign {
            path: path.to_owned(),
        });
    }
    let socket = new_socket().map_err(|errno| failed("create a socket for")(errno.into()))?;
    match connect(socket.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(failed("replace")),
        // It listens, is overrun, or speaks otherwise (EPROTOTYPE).
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
        Err(errno) => Err(failed("find out whether anybody listens on")(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::socket::{Received, Sent};
    use super::*;
    use crate::wire::MAX_FRAME;

    #[test]
    fn a_dead_socket_is_replaced_a_live_one_is_not_and_a_file_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = Listening::bind(&path, Some(0o620)).unwrap();
        assert_eq!(first.file(), File::Ours);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
        let refused = Listening::bind(&path, None).unwrap_err();
        assert!(matches!(refused, SocketError::InUse { .. }), "{refused}");
        fs::remove_file(&path).unwrap();
        assert_eq!(first.file(), File::Gone);
        // As SIGKILL leaves it: a file, and nobody behind it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = Listening::bind(&path, None).unwrap();
        drop(first);
        assert_eq!(second.file(), File::Ours);
        drop(second);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        let refused = Listening::bind(&path, None).unwrap_err();
        assert!(matches!(refused, SocketError::Foreign { .. }), "{refused}");
        assert!(path.exists());
        let long = dir.path().join("x".repeat(120));
        let refused = Listening::bind(&long, None).unwrap_err();
        assert!(matches!(refused, SocketError::TooLong { .. }), "{refused}");
    }

    #[test]
    fn whoever_may_write_to_the_directory_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        for (directory, expected) in [
            (0o700, 0o600),
            (0o755, 0o600),
            (0o770, 0o660),
            (0o777, 0o666),
            (0o1777, 0o600),
            (0o702, 0o600),
        ] {
            fs::set_permissions(dir.path(), Permissions::from_mode(directory)).unwrap();
            let listening = Listening::bind(&path, None).unwrap();
            let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
            assert_eq!(mode, expected, "{directory:o}");
            assert_eq!(listening.file(), File::Ours);
        }
    }

    #[test]
    fn what_somebody_has_put_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (path, secret) = (dir.path().join("s"), dir.path().join("secret"));
        fs::write(&secret, "password").unwrap();
        for replace in [std::os::unix::fs::symlink, fs::hard_link] {
            replace(&secret, &path).unwrap();
            just_made(&path).unwrap_err();
            fs::remove_file(&path).unwrap();
        }
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        just_made(&path).unwrap();
    }

    #[test]
    fn both_know_who_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listening = Listening::bind(&path, None).unwrap();
        assert!(listening.accept().unwrap().is_none());
        let (ours, owner) = connect_to(&path).unwrap();
        let theirs = listening.accept().unwrap().unwrap();
        let me = std::process::id().cast_signed();
        assert_eq!(owner, super::super::process::user());
        for end in [&ours, &theirs] {
            assert_eq!(
                end.peer().map(|peer| (peer.pid, peer.uid)),
                Some((me, owner))
            );
        }
        assert_eq!(ours.send(b"hello"), Sent::Done);
        let mut buffer = [0; MAX_FRAME];
        assert_eq!(theirs.receive(&mut buffer), Received::Frame(b"hello"));
    }
}
