//! `--listen`: where the pages are served.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where to listen, as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A host and a port; loopback where only a port is given.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const RIGHT: &str =
            "give PORT, HOST:PORT, [IPV6]:PORT or the absolute path of a Unix socket";
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port = port
            .parse()
            .map_err(|_| format!("names no port; {RIGHT}"))?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        match (bare, host) {
            (Some(host), _) if is_ipv6(host) => Ok(Self::Tcp {
                host: host.to_owned(),
                port,
            }),
            (Some(_), _) => Err(format!("has no IPv6 address in its brackets; {RIGHT}")),
            (None, "") => Ok(Self::Tcp {
                host: Ipv4Addr::LOCALHOST.to_string(),
                port,
            }),
            (None, host) if host.contains(':') => {
                Err(format!("is an IPv6 address without brackets; {RIGHT}"))
            }
            (None, host) => Ok(Self::Tcp {
                host: host.to_owned(),
                port,
            }),
        }
    }
}

/// With or without the interface that it is on (`fe80::1%eth0`).
fn is_ipv6(host: &str) -> bool {
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// Of a host and a port.
    Tcp(TcpListener),
    /// Of a path.
    Unix(UnixListener),
}

impl Listener {
    /// Listens; nothing is answered yet.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp { host, port } => {
                let addresses: Vec<_> = (host.as_str(), *port).to_socket_addrs()?.collect();
                let listener = TcpListener::bind(addresses.as_slice())?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            ListenAddress::Unix(path) => {
                let listener = bind_unix(path)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// Where it listens in the end (port 0 means any).
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
            Self::Unix(_) => None,
        }
    }
}

/// A socket's file outlives a process that was killed; one that nobody
/// listens on any more is replaced, and nothing else is.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // Connecting to a plain file is refused too.
            let dead = std::fs::symlink_metadata(path)?.file_type().is_socket()
                && UnixStream::connect(path)
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if !dead {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_is_on_loopback() {
        let shown = |text: &str| {
            text.parse::<ListenAddress>()
                .map(|address| address.to_string())
        };
        assert_eq!(shown("8080"), Ok("127.0.0.1:8080".to_owned()));
        assert_eq!(shown(":8080"), Ok("127.0.0.1:8080".to_owned()));
        assert_eq!(shown("0.0.0.0:80"), Ok("0.0.0.0:80".to_owned()));
        assert_eq!(shown("[::1]:80"), Ok("[::1]:80".to_owned()));
        assert_eq!(shown("unix:/run/x"), Ok("/run/x".to_owned()));
        assert_eq!(shown("/run/x"), Ok("/run/x".to_owned()));
        assert_eq!(shown("[fe80::1%lo]:1"), Ok("[fe80::1%lo]:1".to_owned()));
        let brackets = ["[]:80", "[ ]:80", "[/run/x]:80", "[[::1]]:80"];
        let wrong = ["", "host", "host:", "::1:80", "1:99999", "run/x"];
        for wrong in wrong.into_iter().chain(brackets) {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let address = ListenAddress::Unix(dir.path().join("s"));
        let first = Listener::bind(&address).expect("free");
        assert!(Listener::bind(&address).is_err());
        drop(first);
        Listener::bind(&address).expect("nobody listens there");
        let file = dir.path().join("f");
        std::fs::write(&file, "precious").expect("written");
        assert!(Listener::bind(&ListenAddress::Unix(file.clone())).is_err());
        assert!(file.exists());
    }
}
