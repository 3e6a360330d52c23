//! The processes between guard and worker. All of them are forked without an
//! exec: only system calls are made here, nothing allocates, nothing locks.

use std::os::fd::{OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::statvfs::statvfs;
use nix::unistd::{Pid, getegid, geteuid, setpgid};

use super::{Refusal, Step, Way, move_to};
use crate::sys::child::end_child;
use crate::sys::signals::{self, Disposition, SignalSet};
use crate::sys::{entry, process};

/// The name of the init: it, and nothing else, is seen in there of leasewrap.
const INIT_NAME: &std::ffi::CStr = c"lw-init";

/// What the maker, and below it the two, are told.
pub(super) struct Maker<'a> {
    guard: i32,
    secret: &'a [RawFd],
    user_map: Line,
    group_map: Line,
}

/// A line of a `uid_map`, laid out before the fork.
struct Line {
    text: [u8; 32],
    length: usize,
}

impl Line {
    /// One user, or group, that stays itself.
    fn itself(id: u32) -> Self {
        let line = format!("{id} {id} 1");
        let mut text = [0; 32];
        let length = line.len().min(text.len());
        text[..length].copy_from_slice(&line.as_bytes()[..length]);
        Self { text, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl<'a> Maker<'a> {
    pub(super) fn new(guard: i32, secret: &'a [RawFd]) -> Self {
        Self {
            guard,
            secret,
            user_map: Line::itself(geteuid().as_raw()),
            group_map: Line::itself(getegid().as_raw()),
        }
    }

    /// In the maker. Returns in the worker-to-be alone.
    pub(super) fn make(&self, held: &OwnedFd, tell: &OwnedFd) {
        die_with_parent();
        if nix::unistd::getppid().as_raw() != self.guard {
            end_child(0);
        }
        let say = |record: Record| {
            // Few bytes into a pipe of their own; a guard that is gone needs
            // none of them.
            let _ = nix::unistd::write(tell, &record.encode());
        };
        let refuse = |refusal| {
            say(Record::Refused(refusal));
            end_child(0);
        };
        let way = match self.enter() {
            Ok(way) => way,
            Err(refusal) => return refuse(refusal),
        };
        // For the init: the kernel then reaps orphans by itself (wait(2)). Here,
        // since the worker may be running before the init is. All other signals
        // are ignored as in the guard, so that nothing queues up; the faults
        // end it.
        signals::set_disposition(libc::SIGCHLD, Disposition::Ignored);
        // And its name: the other one gets a new one when it executes.
        process::set_name(INIT_NAME);
        entry::show_as(INIT_NAME);
        let init = match fork_sibling() {
            Ok(0) => run_init(held),
            Ok(pid) => pid,
            Err(errno) => return refuse(Refusal::new(Step::Fork, errno)),
        };
        say(Record::Init { pid: init, way });
        match fork_sibling() {
            Ok(0) => {}
            Ok(pid) => {
                say(Record::Worker { pid });
                // The guard leaves the caller's process group now. Where that
                // is orphaned, as without job control, the end of a process
                // there whose parent is in another one hangs up everybody as
                // soon as anybody is stopped (setpgid(2), `kill_orphaned_pgrp`
                // in kernel/exit.c): so this one does not end there.
                let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
                end_child(0);
            }
            Err(errno) => refuse(Refusal::new(Step::Fork, errno)),
        }
    }

    /// What is forked from here on is in a PID namespace of its own.
    fn enter(&self) -> Result<Way, Refusal> {
        match unshare(CloneFlags::CLONE_NEWPID) {
            Ok(()) => return Ok(Way::Direct),
            // Neither root nor CAP_SYS_ADMIN: in a user namespace everybody
            // has that capability.
            Err(Errno::EPERM) => {}
            Err(errno) => return Err(Refusal::new(Step::Pid, errno)),
        }
        self.enter_user_namespace()?;
        unshare(CloneFlags::CLONE_NEWPID).map_err(Refusal::on(Step::Pid))?;
        Ok(Way::UserNamespace)
    }

    /// The caller's user and group stay themselves, and no other exists.
    fn enter_user_namespace(&self) -> Result<(), Refusal> {
        // The maps of a process that cannot be looked into belong to root. So
        // it can be, for this moment, and without what must not be seen.
        for fd in self.secret {
            // SAFETY: numbers of the guard's, of which this is a copy that
            // uses none of them and never returns to who owns them.
            unsafe { libc::close(*fd) };
        }
        set_dumpable(true);
        unshare(CloneFlags::CLONE_NEWUSER).map_err(Refusal::on(Step::User))?;
        // Without this no group may be mapped (user_namespaces(7)).
        write_to(c"/proc/self/setgroups", b"deny")?;
        write_to(c"/proc/self/uid_map", self.user_map.bytes())?;
        write_to(c"/proc/self/gid_map", self.group_map.bytes())?;
        set_dumpable(false);
        Ok(())
    }
}

fn write_to(path: &std::ffi::CStr, text: &[u8]) -> Result<(), Refusal> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    file.and_then(|file| nix::unistd::write(file, text))
        .map(drop)
        .map_err(Refusal::on(Step::Map))
}

/// A child of this process's parent. Every signal stays blocked in it.
fn fork_sibling() -> Result<i32, Errno> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as fork(2), which is this call with other flags; the child goes
    // on with a copy of the stack, and makes system calls only. The order of
    // flags and stack is that of all architectures but s390 (clone(2)).
    let forked = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    let pid = Errno::result(forked)?;
    i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)
}

/// PID 1 in there. It has nothing of the caller's, so that a pipe closes when
/// the worker closes it.
fn run_init(held: &OwnedFd) -> ! {
    die_with_parent();
    // Of the guard's memory it is a copy; and that of a worker with all
    // capabilities of a user namespace must not look into it either.
    set_dumpable(false);
    // What is typed at the terminal, and `kill -9 %1`, are not for it; and it
    // is nobody whom job control has to count.
    process::leave_process_group();
    // Among hundreds of fork loops it would wait its turn to end them, when
    // its one moment comes. Until then it sleeps.
    let _haste = process::Haste::make();
    if move_to(held, 0).is_err() {
        end_child(1);
    }
    // With the guard's end of the pipe, of which this is a copy.
    close_from(1);
    signals::set_mask(SignalSet::EMPTY);
    let mut byte = [0];
    loop {
        // SAFETY: one byte, which outlives the call, from the pipe that
        // descriptor 0 is now.
        let read = unsafe { libc::read(0, byte.as_mut_ptr().cast(), 1) };
        match Errno::result(read) {
            // The worker has ended and was reaped.
            Ok(1) => break,
            Err(Errno::EINTR) => {}
            // The guard has let go of it, or is gone: the kernel ends all.
            Ok(_) | Err(_) => end_child(0),
        }
    }
    loop {
        // SAFETY: null for what is not asked. With SIGCHLD ignored it returns
        // only when there is no child left, and everybody here is a child, or
        // below one: whose parent ends becomes ours.
        let waited = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) };
        match Errno::result(waited) {
            Err(Errno::EINTR) | Ok(_) => {}
            Err(_) => end_child(0),
        }
    }
}

/// In the worker-to-be: a `/proc` that shows its namespace, and no other
/// change. All other mounts stay what they are, shared ones shared (below a
/// user namespace: as slaves), so that what is mounted out there later is seen
/// in here too. Directory and root stay. Async-signal-safe.
///
/// # Errors
/// [`Refusal`].
pub fn enter_mounts() -> Result<(), Refusal> {
    const PROC: &str = "/proc";
    // As restricted as the one that is there: the kernel insists on it below a
    // user namespace (`mount_too_revealing` in fs/namespace.c). Their bits are
    // the same for statvfs(3) and mount(2).
    let known = MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC
        | MsFlags::MS_NOATIME
        | MsFlags::MS_NODIRATIME;
    let there = statvfs(PROC).map_err(Refusal::on(Step::Proc))?;
    let flags = MsFlags::from_bits_truncate(there.flags().bits()) & known;
    unshare(CloneFlags::CLONE_NEWNS).map_err(Refusal::on(Step::Mounts))?;
    // Or the new one would appear over everybody's.
    mount(
        None::<&str>,
        PROC,
        None::<&str>,
        MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(Refusal::on(Step::Proc))?;
    mount(Some("proc"), PROC, Some("proc"), flags, None::<&str>).map_err(Refusal::on(Step::Proc))
}

fn die_with_parent() {
    // SAFETY: numbers; see prctl(2). The guard has one thread.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

fn set_dumpable(on: bool) {
    // Only a number that is none of its own is refused.
    let _ = nix::sys::prctl::set_dumpable(on);
}

/// Closes every descriptor from `first` up.
fn close_from(first: RawFd) {
    // SAFETY: numbers. Whoever owns one of them is in another process: this
    // one is a copy that never returns to them.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if closed == 0 {
        return;
    }
    // Before Linux 5.9, or where a filter knows no better.
    for fd in first..4096 {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// What the maker tells the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    /// There is an init.
    Init { pid: i32, way: Way },
    /// And a worker-to-be. The last word.
    Worker { pid: i32 },
    /// There is none. The last word.
    Refused(Refusal),
}

impl Record {
    /// Room for one.
    pub(super) const BYTES: [u8; 12] = [0; 12];

    pub(super) fn encode(self) -> [u8; 12] {
        let [what, which, number] = match self {
            Self::Init { pid, way } => [1, way.number(), pid],
            Self::Worker { pid } => [2, 0, pid],
            Self::Refused(refusal) => {
                let (step, errno) = refusal.numbers();
                [3, step, errno]
            }
        };
        let mut bytes = Self::BYTES;
        for (place, number) in bytes.chunks_exact_mut(4).zip([what, which, number]) {
            place.copy_from_slice(&i32::to_le_bytes(number));
        }
        bytes
    }

    pub(super) fn decode(bytes: [u8; 12]) -> Option<Self> {
        let number = |at: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&bytes[at..at + 4]);
            i32::from_le_bytes(four)
        };
        let (which, last) = (number(4), number(8));
        match number(0) {
            1 => Some(Self::Init {
                pid: last,
                way: Way::of(which)?,
            }),
            2 => Some(Self::Worker { pid: last }),
            3 => Refusal::numbered(which, last).map(Self::Refused),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::unistd::pipe;

    use super::*;
    use crate::sys::child::{Forked, fork};
    use crate::sys::namespace::listen;
    use crate::sys::process::Change;

    /// In the guard: whether it finds out about a maker that is killed after
    /// both forks, and before its last word.
    fn is_refused(maker: &Maker<'_>) -> bool {
        let ((held, hold), (told, tell)) = (pipe().unwrap(), pipe().unwrap());
        if let Forked::Parent { .. } = fork().unwrap() {
            drop((held, tell));
            return listen(&mut File::from(told), hold).is_err();
        }
        // Where there can be no namespace it is refused all the more.
        if let Ok(way) = maker.enter()
            && let Ok(init @ 1..) = fork_sibling().inspect(|pid| {
                if *pid == 0 {
                    run_init(&held);
                }
            })
        {
            let _ = nix::unistd::write(&tell, &Record::Init { pid: init, way }.encode());
            if fork_sibling() == Ok(0) {
                drop(tell);
                nix::unistd::pause();
            }
        }
        end_child(0);
    }

    #[test]
    fn a_maker_that_is_killed_before_its_last_word_holds_up_nobody() {
        let maker = Maker::new(0, &[]);
        // The guard has one thread, and no other children.
        let guard = match fork().unwrap() {
            Forked::Parent { child } => child,
            Forked::Child => end_child(i32::from(!is_refused(&maker))),
        };
        let handle = process::pidfd_open(guard).unwrap();
        let mut waited = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(std::time::Duration::from_secs(30)).unwrap();
        let ended = poll(&mut waited, limit);
        process::signal(guard, libc::SIGKILL).unwrap();
        assert_eq!(ended, Ok(1), "in time");
        assert_eq!(process::reap(guard), Some(Change::Exited(0)));
    }
}
