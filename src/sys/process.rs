//! Single processes: attributes of one's own, handles of others, waiting.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::prctl;

use super::{Result, SysError};

/// Orphaned descendants become children of this process instead of init's.
///
/// # Errors
/// `prctl(2)`, `PR_SET_CHILD_SUBREAPER`.
pub fn become_subreaper() -> Result<()> {
    prctl::set_child_subreaper(true).map_err(SysError::on("become a child subreaper"))
}

/// What a run opens that has none of the options which take more.
const DESCRIPTORS: usize = 20;

/// Refuses to begin where a later step would get no descriptor, or fail
/// without words: tokio panics where it gets no socket for signals.
///
/// # Errors
/// `open(2)`, EMFILE most likely.
pub fn has_descriptors() -> Result<()> {
    let room: io::Result<Vec<File>> = (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect();
    let what = "open as many files as a run may need; allow more (ulimit -n)";
    room.map(drop).map_err(SysError::on(what))
}

/// Neither dumped nor attached to, and /proc/self/{environ,mem,fd} closed to
/// the same user. An exec resets it.
///
/// # Errors
/// `prctl(2)`, `PR_SET_DUMPABLE`.
pub fn become_undumpable() -> Result<()> {
    prctl::set_dumpable(false).map_err(SysError::on("become undumpable"))
}

/// Hands memory that was freed back to the kernel: to be called where much was
/// used that will never be needed again (`malloc_trim(3)`, which only glibc has).
pub fn release_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a number; it touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The name that `ps` and `killall` see.
pub fn set_name(name: &CStr) {
    // Only a string that cannot be read fails.
    let _ = prctl::set_name(name);
}

/// Whether this process leads its session: a hang-up of the terminal reaches
/// it alone.
pub fn leads_session() -> bool {
    nix::unistd::getsid(None) == Ok(nix::unistd::getpid())
}

/// The effective user of this process.
pub fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The effective user of another one; root's for one that cannot be dumped.
pub fn user_of(pid: i32) -> Option<u32> {
    let metadata = std::fs::metadata(format!("/proc/{pid}")).ok()?;
    Some(std::os::unix::fs::MetadataExt::uid(&metadata))
}

/// Who traces a process, a debugger say (`TracerPid` of `proc_pid_status(5)`).
pub(super) fn tracer(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|tracer| *tracer != 0)
}

/// A process group of one's own; with a controlling terminal a session, too.
///
/// There the worker stays in the caller's group, with a parent elsewhere. Were
/// that in the same session, an orphaned group (of a script that leads its
/// session, as under `docker run -it`) would not count as one while the worker
/// lives: Ctrl-Z would stop it, with nobody there to wake it, and the worker's
/// end would hang it up (`will_become_orphaned_pgrp` in kernel/exit.c).
pub fn leave_process_group() {
    if super::terminal::has_controlling_terminal() && nix::unistd::setsid().is_ok() {
        return;
    }
    // Only a session leader is refused, which leads its own group already.
    let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
}

/// A handle of the process `pid` that can never mean another one
/// (`pidfd_open(2)`); close-on-exec.
///
/// # Errors
/// ESRCH when there is none; ENOSYS before Linux 5.3.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked below.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    // SAFETY: the kernel has just made it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal through a handle (`pidfd_send_signal(2)`); 0 only asks
/// whether it could be.
///
/// # Errors
/// ESRCH when it has ended and was reaped, EPERM when it is another user's.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo means that of kill(2); the rest are numbers.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(sent)?;
    Ok(())
}

/// While it lives, this process runs before all ordinary ones, as far as it is
/// allowed to (root, `CAP_SYS_NICE`): among hundreds of processes that fork in
/// a loop a killer with an equal share of the processors gets hardly any.
#[derive(Debug)]
pub struct Haste {
    /// Policy and niceness to go back to; `None` where nothing was changed.
    before: Option<(libc::c_int, libc::c_int)>,
}

impl Haste {
    /// Makes haste.
    pub fn make() -> Self {
        // SAFETY: numbers, and a struct that outlives the call; whatever is
        // refused changes nothing.
        unsafe {
            let policy = libc::sched_getscheduler(0);
            let ordinary = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE];
            if !ordinary.contains(&(policy & !libc::SCHED_RESET_ON_FORK)) {
                return Self { before: None };
            }
            let nice = libc::getpriority(libc::PRIO_PROCESS, 0);
            let first = libc::sched_param { sched_priority: 1 };
            let hasty = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
            if libc::sched_setscheduler(0, hasty, &raw const first) != 0 {
                libc::setpriority(libc::PRIO_PROCESS, 0, -20);
            }
            Self {
                before: Some((policy, nice)),
            }
        }
    }
}

impl Drop for Haste {
    fn drop(&mut self) {
        let Some((policy, nice)) = self.before else {
            return;
        };
        // SAFETY: as above.
        unsafe {
            let ordinary = libc::sched_param { sched_priority: 0 };
            libc::sched_setscheduler(0, policy, &raw const ordinary);
            libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        }
    }
}

/// Lets others run first.
pub(super) fn yield_now() {
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
}

/// `kill(2)` for one process. Only for a child that was not reaped, or
/// oneself: any other pid may have come to mean somebody else.
///
/// # Errors
/// ESRCH, EPERM.
pub fn signal(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        // Zero and below are groups.
        return Err(Errno::ESRCH.into());
    }
    // SAFETY: two numbers.
    Errno::result(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// What has become of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has ended with this code, and was reaped.
    Exited(u8),
    /// This signal has ended it, and it was reaped.
    Killed(i32),
    /// This signal has stopped it.
    Stopped(i32),
    /// It runs on.
    Continued,
}

/// An answer of `waitid(2)` with WNOHANG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// Something has become of a child.
    Changed {
        /// Which one.
        pid: i32,
        /// What.
        change: Change,
    },
    /// There are children, and nothing new of them.
    Nothing,
    /// ECHILD: there is no child (by this handle). With [`wait_any`] this,
    /// and nothing else, means that the tree is empty.
    NoChild,
}

/// Any child, of any kind (`__WALL`): reaps it when it has ended.
pub fn wait_any() -> Waited {
    wait(libc::P_ALL, 0)
}

/// One child by its pid.
pub fn wait_pid(pid: i32) -> Waited {
    wait(libc::P_PID, pid.cast_unsigned())
}

/// One child by its handle.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>) -> Waited {
    wait(libc::P_PIDFD, pidfd.as_raw_fd().cast_unsigned())
}

/// Reaps any child that has ended: how it has.
pub fn reap_any() -> Option<(i32, Change)> {
    reap_by(libc::P_ALL, 0)
}

/// Reaps one child if it has ended: how it has.
pub fn reap(pid: i32) -> Option<Change> {
    reap_by(libc::P_PID, pid.cast_unsigned()).map(|(_, change)| change)
}

/// Whether there is any child, ended or not.
pub fn has_child() -> bool {
    let peek = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG | libc::__WALL;
    wait_with(libc::P_ALL, 0, peek) != Waited::NoChild
}

fn reap_by(kind: libc::idtype_t, id: u32) -> Option<(i32, Change)> {
    let ended = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    match wait_with(kind, id, ended) {
        Waited::Changed { pid, change } => Some((pid, change)),
        Waited::Nothing | Waited::NoChild => None,
    }
}

fn wait(kind: libc::idtype_t, id: u32) -> Waited {
    let all = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG | libc::__WALL;
    wait_with(kind, id, all)
}

fn wait_with(kind: libc::idtype_t, id: u32, options: i32) -> Waited {
    loop {
        // SAFETY: all zeroes is a siginfo_t.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        // SAFETY: `info` outlives the call.
        let waited = unsafe { libc::waitid(kind, id, &raw mut info, options) };
        match Errno::result(waited) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            // ECHILD; the others cannot be with these arguments.
            Err(_) => return Waited::NoChild,
        }
        // SAFETY: waitid fills these two in, or leaves the zeroes.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Waited::Nothing;
        }
        let change = match info.si_code {
            libc::CLD_EXITED => Change::Exited(status.to_le_bytes()[0]),
            libc::CLD_KILLED | libc::CLD_DUMPED => Change::Killed(status),
            libc::CLD_CONTINUED => Change::Continued,
            // CLD_STOPPED, and CLD_TRAPPED of a traced one.
            _ => Change::Stopped(status),
        };
        return Waited::Changed { pid, change };
    }
}

/// Reaps those children of this process that have ended, but for those that
/// somebody else waits for. For a keeper (as PID 1 above all) that has hooks
/// of its own beside the orphans that it adopts.
pub fn reap_orphans(not: &[i32]) {
    let mut children = Vec::new();
    super::tree::children_of_self(&mut children);
    for pid in children {
        if !not.contains(&pid) {
            // Stops and the like of a stranger are news to nobody.
            let _ = wait_pid(pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haste_ends_where_it_began() {
        // SAFETY: numbers.
        let now = || unsafe {
            (
                libc::sched_getscheduler(0),
                libc::getpriority(libc::PRIO_PROCESS, 0),
            )
        };
        let before = now();
        let outer = Haste::make();
        let within = now();
        drop(Haste::make());
        assert_eq!(now(), within);
        drop(outer);
        assert_eq!(now(), before);
    }
}
