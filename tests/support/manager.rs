//! A service manager that is told how its services are (`sd_notify(3)`).

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::run::run;

/// Its socket, and what has come there.
pub struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
    said: String,
}

impl Manager {
    /// One that reads when it is asked.
    pub fn new() -> Self {
        let path = run().file("manager");
        let socket = UnixDatagram::bind(&path).expect("bind a socket");
        socket.set_nonblocking(true).expect("not blocking");
        Self {
            path,
            socket,
            said: String::new(),
        }
    }

    /// For `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything so far, a line for each state.
    pub fn said(&mut self) -> &str {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.said += &String::from_utf8_lossy(&buffer[..length]);
            self.said.push('\n');
        }
        &self.said
    }
}
