//! The worker of the self-test: every two milliseconds it says that it lives,
//! with the token that it lives under and the boot clock's time. It is this
//! program itself, started under leasewrap as `leasewrap selftest-witness`;
//! nobody else has a use for it, so no help names it.
//!
//! It writes to its standard output, a memory file that all witnesses of one
//! fault share, and ends when its standard input ends: when whoever holds the
//! other end of that pipe is gone, nothing of the self-test lives on.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::judge::Stamp;
use crate::exit;
use crate::sys::clock;
use crate::sys::signals::{self, Disposition};

/// The first word of its command line.
pub const NAME: &str = "selftest-witness";

/// Has a descendant that has left for a session of its own stamp as well.
pub const DAEMON: &str = "daemon";

/// Ignores TERM.
pub const STUBBORN: &str = "stubborn";

/// What a witness starts on its way to a daemon.
const LEAVE: &str = "leave";

/// Between two stamps, in milliseconds.
const PERIOD: u8 = 2;

/// The witness's words, where that is what is asked for.
pub fn asked(arguments: &[OsString]) -> Option<&[OsString]> {
    match arguments {
        [_, first, rest @ ..] if first == NAME => Some(rest),
        _ => None,
    }
}

/// Stamps until its standard input ends; the result is the exit code.
pub fn run(words: &[OsString]) -> u8 {
    let has = |word: &str| words.iter().any(|seen| seen == word);
    if has(STUBBORN) {
        // It comes down to what is started from here.
        signals::set_disposition(libc::SIGTERM, Disposition::Ignored);
    }
    if has(LEAVE) {
        return leave();
    }
    if has(DAEMON) && start(LEAVE).and_then(|mut child| child.wait()).is_err() {
        return exit::FAILED;
    }
    stamp()
}

/// The second step of a daemon: a session of its own, and a child that is
/// nobody's once this process has ended.
fn leave() -> u8 {
    let started = nix::unistd::setsid()
        .map_err(io::Error::from)
        .and_then(|_| start(""));
    match started {
        Ok(_) => 0,
        Err(_) => exit::FAILED,
    }
}

fn start(word: &str) -> io::Result<std::process::Child> {
    Command::new("/proc/self/exe")
        .arg0("leasewrap")
        .args([NAME, word])
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .spawn()
}

fn stamp() -> u8 {
    let token = std::env::var("LEASEWRAP_TOKEN").ok();
    let Some(token) = token.and_then(|token| token.parse().ok()) else {
        return exit::USAGE;
    };
    let pid = std::process::id();
    let (stdin, stdout) = (io::stdin(), io::stdout());
    loop {
        let stamp = Stamp {
            at: clock::now(),
            token,
            pid,
        };
        if nix::unistd::write(&stdout, &stamp.encode()).is_err() {
            return exit::FAILED;
        }
        // The end of a pipe is told whether it is asked for or not.
        let mut lifeline = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
        if poll(&mut lifeline, PollTimeout::from(PERIOD)).is_ok_and(|ready| ready > 0) {
            return 0;
        }
    }
}
