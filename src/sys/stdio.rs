//! Whether stderr takes something, and a last line on it that never blocks.

use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether stderr takes something now. A terminal that is stopped (Ctrl-S)
/// and a full pipe are not writable for `poll(2)`; what is, takes at least
/// `PIPE_BUF` bytes. A pipe whose reader is gone takes nothing.
pub fn is_ready() -> bool {
    let mut wanted = [PollFd::new(stderr(), PollFlags::POLLOUT)];
    let ready = poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    ready && wanted[0].revents() == Some(PollFlags::POLLOUT)
}

/// Writes one line to stderr if it can be taken at once; says whether it was.
pub fn say(line: &str) -> bool {
    let mut text = line.as_bytes().to_vec();
    text.truncate(4095);
    text.push(b'\n');
    is_ready() && nix::unistd::write(stderr(), &text).is_ok()
}

fn stderr() -> BorrowedFd<'static> {
    // SAFETY: 2 is always open (see `inherited`), and only borrowed here.
    unsafe { BorrowedFd::borrow_raw(2) }
}
