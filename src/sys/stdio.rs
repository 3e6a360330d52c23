//! A last line on stderr that never blocks.

use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes one line to stderr if it can be taken at once; says whether it was.
/// A terminal that is stopped (Ctrl-S) and a full pipe are not writable for
/// `poll(2)`, and what is, takes at least `PIPE_BUF` bytes.
pub fn say(line: &str) -> bool {
    let mut text = line.as_bytes().to_vec();
    text.truncate(4095);
    text.push(b'\n');
    // SAFETY: 2 is always open (see `inherited`), and only borrowed here.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let mut wanted = [PollFd::new(stderr, PollFlags::POLLOUT)];
    let ready = poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    let writable = wanted[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLOUT));
    ready && writable && nix::unistd::write(stderr, &text).is_ok()
}
