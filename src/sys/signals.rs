//! Signals by number, from 1 to 64: `nix` and libc know neither the
//! real-time ones by value nor the two that glibc keeps for itself, and a
//! supervisor has to hand all of them down.

use std::ffi::c_ulong;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Result, SysError};

/// Sent by the kernel itself, in particular typed at the terminal
/// (`sigaction(2)`, `si_code`). What a process sends is zero or below.
pub const SI_KERNEL: i32 = 128;

/// The largest signal number.
pub const LAST: i32 = 64;

/// What ends a process that has gone wrong: never caught, ignored or passed on.
pub const FAULTS: [i32; 7] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
];

/// The two real-time signals that glibc uses itself and does not let be
/// caught through `sigaction(3)` (`nptl(7)`).
const OF_GLIBC: [i32; 2] = [32, 33];

/// A set of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// All of them (the kernel leaves out KILL and STOP by itself).
    pub const ALL: Self = Self(u64::MAX);

    /// Whether `signal` is in it.
    pub fn contains(self, signal: i32) -> bool {
        self.0 & bit(signal) != 0
    }

    /// With `signal` too.
    #[must_use]
    pub fn with(self, signal: i32) -> Self {
        Self(self.0 | bit(signal))
    }
}

fn bit(signal: i32) -> u64 {
    match u32::try_from(signal - 1) {
        Ok(shift) => 1u64.checked_shl(shift).unwrap_or(0),
        Err(_) => 0,
    }
}

/// All signals.
pub fn all() -> impl Iterator<Item = i32> {
    1..=LAST
}

/// What leasewrap catches to act on or pass on: every signal that can be
/// caught, but PIPE and CHLD, which are its own, and the [`FAULTS`].
pub fn caught() -> impl Iterator<Item = i32> {
    all().filter(|signal| {
        !FAULTS.contains(signal)
            && !OF_GLIBC.contains(signal)
            && ![libc::SIGKILL, libc::SIGSTOP, libc::SIGPIPE, libc::SIGCHLD].contains(signal)
    })
}

/// What a signal does when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// `SIG_DFL`.
    Default,
    /// `SIG_IGN`.
    Ignored,
}

/// The kernel's own `struct sigaction` as far as it has to be known here:
/// handler first, everything else zero.
#[repr(C)]
#[derive(Clone, Copy)]
struct KernelAction {
    handler: usize,
    flags: c_ulong,
    restorer: usize,
    mask: u64,
    // Some architectures order or pad the rest differently: room for it.
    room: [u64; 2],
}

impl KernelAction {
    const fn of(handler: usize) -> Self {
        Self {
            handler,
            flags: 0,
            restorer: 0,
            mask: 0,
            room: [0; 2],
        }
    }
}

/// Size of the kernel's `sigset_t` in bytes.
const SET_BYTES: usize = 8;

/// Sets one disposition. KILL and STOP refuse, which is all right.
/// Async-signal-safe.
pub fn set_disposition(signal: i32, disposition: Disposition) {
    let action = KernelAction::of(match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignored => libc::SIG_IGN,
    });
    set_action(signal, &action);
}

fn set_action(signal: i32, action: &KernelAction) {
    // SAFETY: `action` outlives the call and is at least as large as the
    // kernel's struct; with no handler installed none of our code is run.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            ptr::from_ref(action),
            ptr::null_mut::<KernelAction>(),
            SET_BYTES,
        );
    }
}

fn action(signal: i32) -> KernelAction {
    let mut action = KernelAction::of(libc::SIG_DFL);
    // SAFETY: `action` outlives the call and is at least as large as the
    // kernel's struct.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            ptr::null::<KernelAction>(),
            ptr::from_mut(&mut action),
            SET_BYTES,
        );
    }
    action
}

/// Which signals are ignored now.
pub fn ignored() -> SignalSet {
    all()
        .filter(|signal| action(*signal).handler == libc::SIG_IGN)
        .fold(SignalSet::EMPTY, SignalSet::with)
}

/// The calling thread's signal mask.
pub fn mask() -> SignalSet {
    let mut old = 0u64;
    // SAFETY: `old` outlives the call and has the size that is given.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::null::<u64>(),
            ptr::from_mut(&mut old),
            SET_BYTES,
        );
    }
    SignalSet(old)
}

/// Sets the calling thread's signal mask. Async-signal-safe.
pub fn set_mask(set: SignalSet) {
    let set = set.0;
    // SAFETY: `set` outlives the call and has the size that is given.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            ptr::from_ref(&set),
            ptr::null_mut::<u64>(),
            SET_BYTES,
        );
    }
}

/// The guard's dispositions: it acts on nothing that is sent to it, fault
/// signals aside. Ignored rather than blocked, so that nothing queues up, TTOU
/// included, so that a guard in the background may write to its terminal.
pub fn ignore_all_but_faults() {
    for signal in all() {
        // An ignored CHLD would have the kernel reap the tree, and a fault
        // that the caller ignored must end a guard all the same.
        let stays = FAULTS.contains(&signal) || signal == libc::SIGCHLD;
        set_disposition(
            signal,
            if stays {
                Disposition::Default
            } else {
                Disposition::Ignored
            },
        );
    }
}

/// What the caller had blocked would never reach the keeper: a child's end, a
/// request to stop. The worker gets the caller's mask all the same.
pub fn unblock_all() {
    set_mask(SignalSet::EMPTY);
}

/// SIGCHLD as a descriptor (`signalfd(2)`): readable when something has become
/// of a child.
#[derive(Debug)]
pub struct ChildSignals(SignalFd);

impl ChildSignals {
    /// Blocks SIGCHLD, and nothing else, in the calling thread, which must be
    /// the only one.
    ///
    /// # Errors
    /// `signalfd(2)`.
    pub fn new() -> Result<Self> {
        set_mask(SignalSet::EMPTY.with(libc::SIGCHLD));
        let mut child = SigSet::empty();
        child.add(Signal::SIGCHLD);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        SignalFd::with_flags(&child, flags)
            .map(Self)
            .map_err(SysError::on("receive signals"))
    }

    /// Makes it unreadable; to be called before the children are looked at.
    pub fn consume(&self) {
        // One at most is pending. Nothing was lost when there is none.
        let _ = self.0.read_signal();
    }
}

impl AsFd for ChildSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// SIGPIPE and SIGXFSZ ignored, so that a write to a stderr or socket that is
/// gone, or past the limit of a file's size, is an error and not the end.
pub fn ignore_failed_writes() {
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        set_disposition(signal, Disposition::Ignored);
    }
}

/// Stops this process by `signal` (TSTP, TTIN, TTOU or STOP) as if nothing
/// had caught it, so that the shell above sees the right one; returns after
/// SIGCONT.
pub fn stop_self(signal: i32) {
    let before = action(signal);
    set_disposition(signal, Disposition::Default);
    // To this very thread: it has stopped when the call returns, while one to
    // the process may stop another thread first.
    // SAFETY: three numbers.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal);
    }
    set_action(signal, &before);
}

/// `SIGTERM` and the like; `SIGRTMIN+3` for real-time ones.
pub fn name(signal: i32) -> String {
    if let Ok(known) = Signal::try_from(signal) {
        return known.as_str().to_owned();
    }
    match signal - libc::SIGRTMIN() {
        0 => "SIGRTMIN".to_owned(),
        above @ 1.. => format!("SIGRTMIN+{above}"),
        _ => format!("signal {signal}"),
    }
}

/// Reads `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-1`, in any case.
pub fn by_name(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        // Those in between belong to the C library's threads.
        let usual = (1..=31).contains(&number);
        let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number);
        return (usual || real_time).then_some(number);
    }
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |from: i32, offset: &str, sign: i32| {
        let offset = if offset.is_empty() {
            0
        } else {
            offset.get(1..)?.parse::<i32>().ok()?
        };
        let number = offset
            .checked_mul(sign)
            .and_then(|offset| from.checked_add(offset))?;
        (libc::SIGRTMIN()..=libc::SIGRTMAX())
            .contains(&number)
            .then_some(number)
    };
    if let Some(offset) = bare.strip_prefix("RTMIN") {
        return (offset.is_empty() || offset.starts_with('+'))
            .then(|| real_time(libc::SIGRTMIN(), offset, 1))?;
    }
    if let Some(offset) = bare.strip_prefix("RTMAX") {
        return (offset.is_empty() || offset.starts_with('-'))
            .then(|| real_time(libc::SIGRTMAX(), offset, -1))?;
    }
    format!("SIG{bare}")
        .parse::<Signal>()
        .ok()
        .map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_every_usual_form() {
        for (text, number) in [
            ("TERM", Some(15)),
            ("sigterm", Some(15)),
            ("SIGINT", Some(2)),
            ("10", Some(10)),
            ("RTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("SIGRTMAX-1", Some(libc::SIGRTMAX() - 1)),
            ("RTMAX", Some(libc::SIGRTMAX())),
            ("RTMAX+1", None),
            ("65", None),
            ("32", None),
            ("0", None),
            ("NOPE", None),
            ("", None),
        ] {
            assert_eq!(by_name(text), number, "{text}");
        }
        assert_eq!(name(15), "SIGTERM");
        assert_eq!(name(libc::SIGRTMIN() + 3), "SIGRTMIN+3");
    }

    #[test]
    fn a_set_knows_its_signals() {
        let set = SignalSet::EMPTY.with(1).with(64);
        assert!(set.contains(1) && set.contains(64));
        assert!(!set.contains(2) && !set.contains(0) && !set.contains(65));
        assert!(SignalSet::ALL.contains(33));
    }

    #[test]
    fn caught_are_all_but_ones_own_and_faults() {
        let caught: Vec<i32> = caught().collect();
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGTSTP, libc::SIGRTMAX()] {
            assert!(caught.contains(&signal), "{signal}");
        }
        for signal in [
            libc::SIGKILL,
            libc::SIGCHLD,
            libc::SIGPIPE,
            libc::SIGSEGV,
            32,
        ] {
            assert!(!caught.contains(&signal), "{signal}");
        }
    }
}
