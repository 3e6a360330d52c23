//! What the kit needs of the kernel; its only file with `unsafe`.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::programs;

/// Runs before `main`: a test binary that is executed under the name of one
/// of the kit's programs is that program, single-threaded, and nothing else.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = before_main;

extern "C" fn before_main(argc: c_int, argv: *const *const c_char, _env: *const *const c_char) {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: glibc passes main's own arguments to the functions of
    // .init_array; argv holds `argc` C strings that live as long as the process.
    let args: Vec<String> = (0..count)
        .map(|i| {
            unsafe { CStr::from_ptr(*argv.add(i)) }
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let Some((name, args)) = args.split_first() else {
        return;
    };
    let name = name.rsplit('/').next().unwrap_or(name);
    if let Some(code) = programs::run(name, args) {
        // SAFETY: ends the process at once; nothing is left to clean up.
        unsafe { libc::_exit(code) }
    }
}

/// A process that is traced: killed, it stays a zombie until it is let go.
pub struct Traced(c_int);

impl Traced {
    /// Traces it; `None` where that is not allowed.
    pub fn seize(pid: c_int) -> Option<Self> {
        // SAFETY: numbers.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) };
        (seized == 0).then_some(Self(pid))
    }

    /// Waits for its end, and lets it go.
    pub fn let_go(self) {
        let mut status = 0;
        loop {
            // SAFETY: a number, and a place for the answer. Whatever stops it
            // before is passed over.
            let waited = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
            assert_eq!(waited, self.0, "it ends");
            if libc::WIFSIGNALED(status) || libc::WIFEXITED(status) {
                return;
            }
        }
    }
}

/// How a process is started, beyond what `Command` offers.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// In which session.
    pub session: Session,
    /// Signals that it ignores; all others are at their default.
    pub ignored: Vec<c_int>,
    /// Signals that it blocks.
    pub blocked: Vec<c_int>,
    /// Descriptors (of the parent) that it gets under these numbers, left open over exec.
    pub descriptors: Vec<(c_int, c_int)>,
    /// Descriptors that it starts without.
    pub closed: Vec<c_int>,
}

/// In which session a process starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Session {
    /// The test's own: with the developer's terminal, or without one.
    Inherited,
    /// One of its own, without a terminal: the same everywhere.
    #[default]
    Own,
    /// One of its own, with its stdin as the controlling terminal.
    OwnWithTerminal,
}

/// Makes `command` start like this.
pub fn prepare(command: &mut Command, start: Start) {
    // SAFETY: between fork and exec only async-signal-safe calls are made, on
    // data that was allocated before.
    unsafe {
        command.pre_exec(move || {
            if start.session != Session::Inherited && libc::setsid() < 0 {
                return Err(std::io::Error::last_os_error());
            }
            if start.session == Session::OwnWithTerminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            for signal in 1..=64 {
                libc::signal(signal, libc::SIG_DFL);
            }
            for &signal in &start.ignored {
                libc::signal(signal, libc::SIG_IGN);
            }
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for &signal in &start.blocked {
                libc::sigaddset(&mut set, signal);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
            // Whatever the test runner itself was started with stays out of the test.
            libc::syscall(
                libc::SYS_close_range,
                3,
                c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
            for &(from, to) in &start.descriptors {
                let done = if from == to {
                    libc::fcntl(to, libc::F_SETFD, 0)
                } else {
                    libc::dup2(from, to)
                };
                if done < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for &fd in &start.closed {
                libc::close(fd);
            }
            Ok(())
        });
    }
}

/// Forks; only for the kit's programs, which have one thread.
pub fn fork() -> i32 {
    // SAFETY: the kit's programs are single-threaded, so the child may go on as its parent.
    unsafe { libc::fork() }
}

/// Ends without any clean-up, as a forked child must.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Ignores `signal`.
pub fn ignore(signal: c_int) {
    // SAFETY: SIG_IGN is no function of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Whether a program can catch `signal` and go on: not KILL and STOP, not
/// the C library's own 32 and 33, not those that say that it has a fault.
pub fn catchable(signal: c_int) -> bool {
    const FAULTS: [c_int; 7] = [
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGSYS,
    ];
    (1..=64).contains(&signal)
        && ![libc::SIGKILL, libc::SIGSTOP, 32, 33].contains(&signal)
        && !FAULTS.contains(&signal)
}

/// Has every catchable signal write `signal N` and a line's end to descriptor `fd`.
pub fn report(fd: c_int) {
    static FD: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);
    extern "C" fn handler(signal: c_int) {
        let mut line = *b"signal 00\n";
        line[7] += u8::try_from(signal / 10).unwrap_or(0);
        line[8] += u8::try_from(signal % 10).unwrap_or(0);
        let fd = FD.load(std::sync::atomic::Ordering::Relaxed);
        // SAFETY: write(2) is async-signal-safe; the buffer is as long as said.
        unsafe { libc::write(fd, line.as_ptr().cast(), line.len()) };
    }
    FD.store(fd, std::sync::atomic::Ordering::Relaxed);
    let action = libc::sigaction {
        sa_sigaction: handler as *const () as usize,
        sa_flags: libc::SA_RESTART,
        // SAFETY: an all-zero signal set is the empty one.
        sa_mask: unsafe { std::mem::zeroed() },
        sa_restorer: None,
    };
    for signal in (1..=64).filter(|signal| catchable(*signal)) {
        // SAFETY: the handler does nothing that is not async-signal-safe.
        unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    }
}

/// Ends the calling thread alone, without unwinding.
pub fn end_thread() -> ! {
    // SAFETY: the kit's programs have nothing on this thread that others use
    // or that must be dropped.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("a thread that has ended goes on")
}

/// `CLOCK_BOOTTIME`, in nanoseconds.
pub fn boot_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Sends `signal`; whether there was somebody to get it.
pub fn kill(pid: i32, signal: c_int) -> bool {
    assert!(
        !(-1..=0).contains(&pid),
        "kill({pid}) would reach beyond the test"
    );
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, signal) == 0 }
}

/// Traces a process and holds it, as a debugger does, until this thread ends;
/// whether it could.
pub fn hold(pid: i32) -> bool {
    // SAFETY: numbers; nothing of this process is read or written.
    unsafe {
        libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) == 0
            && libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) == 0
            && libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) == pid
    }
}

/// Sets the size of the terminal `fd`.
pub fn resize(fd: c_int, rows: u16, columns: u16) -> bool {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one `winsize`, which outlives the call.
    unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &size) == 0 }
}
