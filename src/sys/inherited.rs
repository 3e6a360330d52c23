//! What the caller gave this process: recorded first of all, handed to the
//! worker unchanged.
//!
//! Limits, priorities, umask and directory are not recorded: leasewrap
//! changes none of them, so they come down by themselves.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::stat::Mode;

use super::signals::{self, Disposition, SignalSet};

static INHERITED: OnceLock<Inherited> = OnceLock::new();

/// The caller's signals and descriptors.
#[derive(Debug)]
pub struct Inherited {
    mask: SignalSet,
    ignored: SignalSet,
    /// All from 3 up.
    others: Vec<RawFd>,
    /// Set once the caller's descriptors were closed here: their numbers may
    /// mean others from then on.
    gone: AtomicBool,
}

/// Records it, once; later calls change nothing.
pub fn capture() {
    get();
}

/// What was recorded.
pub fn get() -> &'static Inherited {
    INHERITED.get_or_init(|| {
        fill_standard_descriptors();
        Inherited {
            mask: signals::mask(),
            ignored: signals::ignored(),
            others: descriptors_from_3(),
            gone: AtomicBool::new(false),
        }
    })
}

impl Inherited {
    /// The signal mask.
    pub fn mask(&self) -> SignalSet {
        self.mask
    }

    /// Which signals were ignored: HUP under `nohup`, INT and QUIT in a
    /// script's background job. They stay so.
    pub fn ignored(&self) -> SignalSet {
        self.ignored
    }

    /// Puts dispositions and mask back as they were; the mask last, so that
    /// nothing is delivered to a handler on the way. For a child that is
    /// about to execute. Async-signal-safe.
    pub fn restore_signals(&self) {
        signals::set_mask(SignalSet::ALL);
        self.restore_dispositions();
        signals::set_mask(self.mask);
    }

    pub(super) fn restore_dispositions(&self) {
        for signal in signals::all() {
            let disposition = if self.ignored.contains(signal) {
                Disposition::Ignored
            } else {
                Disposition::Default
            };
            signals::set_disposition(signal, disposition);
        }
    }

    /// From now on the caller's descriptors from 3 up are not handed to what
    /// this process executes (hooks, say). For the keeper, once its guard has
    /// its own copies.
    pub fn withhold(&self) {
        self.set_close_on_exec(true);
    }

    /// They are handed down again. Async-signal-safe.
    pub fn hand_down(&self) {
        self.set_close_on_exec(false);
    }

    fn set_close_on_exec(&self, on: bool) {
        let flags = if on { libc::FD_CLOEXEC } else { 0 };
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        for fd in &self.others {
            // SAFETY: two numbers; EBADF for one that was closed since.
            unsafe { libc::fcntl(*fd, libc::F_SETFD, flags) };
        }
    }

    /// Closes everything that the caller gave but its stderr, so that pipes
    /// close when the worker closes them: 0 and 1 become /dev/null, all
    /// others but `ours` (what a keeper has handed to its guard) are gone.
    pub fn let_go(&self, ours: &[RawFd]) {
        if self.gone.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Ok(null) = open_null() {
            for fd in [0, 1] {
                // SAFETY: both are open; dup3 closes the old `fd` in one step,
                // and nothing here owns 0 or 1.
                unsafe { libc::dup3(null.as_raw_fd(), fd, libc::O_CLOEXEC) };
            }
        }
        for fd in self.others.iter().filter(|fd| !ours.contains(fd)) {
            // SAFETY: the caller's, owned by nothing in this process, and
            // closed only once.
            unsafe { libc::close(*fd) };
        }
    }
}

fn open_null() -> nix::Result<std::os::fd::OwnedFd> {
    nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens /dev/null on each of 0, 1 and 2 that is closed, so that no descriptor
/// of ours takes its number; close-on-exec, so that it is closed again in
/// whatever is executed.
fn fill_standard_descriptors() {
    for fd in 0..3 {
        // SAFETY: only asks whether it is open.
        let open = unsafe { BorrowedFd::borrow_raw(fd) };
        if fcntl(open, FcntlArg::F_GETFD).is_err() {
            // The lowest free number is this one, in this order.
            if let Ok(null) = open_null() {
                std::mem::forget(null);
            }
        }
    }
}

/// Every open descriptor from 3 up that an exec would hand down.
fn descriptors_from_3() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let mut found: Vec<RawFd> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2 && is_handed_down(*fd))
        .collect();
    found.sort_unstable();
    found
}

fn is_handed_down(fd: RawFd) -> bool {
    // SAFETY: only asks for its flags; the directory that was read is closed
    // by now and answers EBADF.
    let open = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(open, FcntlArg::F_GETFD)
        .is_ok_and(|flags| !FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC))
}
