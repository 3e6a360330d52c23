//! Starting the worker: fork, wait for the go, execute.

use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::child::{Forked, Image, Prepared, end_child, fork};
use super::environment::WorkerEnvironment;
use super::inherited::Inherited;
use super::memfd::Setup;
use super::namespace::{self, Namespace, Refusal};
use super::signals::{self, SignalSet};
use super::{Result, SysError, clock, terminal};
use crate::exit;
use crate::lease::time::BootInstant;
use crate::wire::{NotStarted, Start};

/// A child that waits for the go, or has got it.
#[derive(Debug)]
pub struct Worker {
    /// Its process id; a child of this process, so it stays its own until it
    /// is reaped.
    pub pid: i32,
    /// What it lives in, with `--pid-namespace`.
    pub namespace: Option<Namespace>,
    go: Option<OwnedFd>,
    report: Option<OwnedFd>,
}

/// What the child says of its execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Nothing yet.
    Pending,
    /// The worker runs.
    Executed,
    /// It does not, and the child ends.
    NotExecuted(NotStarted),
}

/// What a child says that executes nothing: a reason, and its number.
type Word = [u8; 8];

/// It was not let go in time.
const LATE: i32 = 1;
/// `execve(2)` failed with the errno that follows.
const EXEC: i32 = 2;
/// Its `/proc` was refused: from here on the step, with the errno that follows.
const NO_MOUNTS: i32 = 16;

/// Forks a child that will be the worker, with the caller's signals and
/// descriptors (`descriptors` and 0 to 2, nothing else). It executes nothing
/// before [`Worker::go`], and ends by itself when this process ends before.
///
/// With a controlling terminal it stays in this process's group, without one
/// it gets a group of its own. `ours` are the descriptors that this process
/// itself was given: not even for a moment can anybody look into them.
///
/// # Errors
/// No process, no descriptors, no namespace, an argument with a NUL.
pub fn fork_worker(
    setup: &Setup,
    start: &Start,
    inherited: &Inherited,
    ours: &[RawFd],
) -> Result<Worker> {
    let (mut image, mut by_shell) = images(setup, start)?;
    let prepared = image.prepare();
    let prepared_by_shell = by_shell.prepare();
    let own_group = !terminal::has_controlling_terminal();
    let (go_reader, go) = pipe()?;
    let (report, report_writer) = pipe()?;
    let guard = std::process::id().cast_signed();
    let (forked, namespace) = fork_child(setup, ours)?;
    let pid = match forked {
        Forked::Parent { child } => child,
        Forked::Child => {
            // The parent's end must not keep the pipe open in here: its end
            // of file is how this child learns that the guard is gone.
            drop(go);
            let child = Child {
                guard,
                pid_namespace: setup.pid_namespace,
                own_group,
                go: go_reader.as_fd(),
                report: report_writer.as_fd(),
                inherited,
            };
            child.run(&prepared, &prepared_by_shell);
        }
    };
    if own_group {
        // By both, as shells do: whoever comes first. EACCES once it has
        // executed, which it does not before the go.
        let child = nix::unistd::Pid::from_raw(pid);
        let _ = nix::unistd::setpgid(child, child);
    }
    Ok(Worker {
        pid,
        namespace,
        go: Some(go),
        report: Some(report),
    })
}

fn fork_child(setup: &Setup, ours: &[RawFd]) -> Result<(Forked, Option<Namespace>)> {
    const WHAT: &str = "fork the worker";
    if !setup.pid_namespace {
        return fork()
            .map(|forked| (forked, None))
            .map_err(SysError::on(WHAT));
    }
    Ok(match namespace::fork(ours).map_err(SysError::on(WHAT))? {
        namespace::Forked::Parent { child, namespace } => {
            (Forked::Parent { child }, Some(namespace))
        }
        namespace::Forked::Child => (Forked::Child, None),
    })
}

/// The worker itself, and `/bin/sh` with it as a script: for a file without
/// `#!` that the kernel does not know (ENOEXEC), as `execvp(3)` does.
fn images(setup: &Setup, start: &Start) -> Result<(Image, Image)> {
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|error| SysError {
            what: "read the worker's command",
            source: error.into(),
        })
    };
    let path = text(&setup.path)?;
    let arguments = setup
        .arguments
        .iter()
        .map(|argument| text(argument))
        .collect::<Result<Vec<_>>>()?;
    let environment = WorkerEnvironment::new(start);
    let mut script = vec![c"sh".to_owned(), path.clone()];
    script.extend(arguments.iter().skip(1).cloned());
    let image = |path, arguments| {
        let image = Image::new(path, arguments, environment.variables.clone());
        environment
            .own_pids
            .iter()
            .fold(image, |image, name| image.with_own_pid(name))
    };
    let direct = image(path, arguments);
    Ok((direct, image(c"/bin/sh".to_owned(), script)))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("create a pipe"))
}

impl Worker {
    /// Lets the child execute the worker, unless `deadline` is reached: it
    /// looks itself, right before.
    pub fn go(&mut self, deadline: BootInstant) {
        if let Some(go) = self.go.take() {
            // Eight bytes into an empty pipe; a child that is gone shows in
            // its report and its end (and SIGPIPE is ignored).
            let _ = nix::unistd::write(&go, &deadline.as_nanos().to_le_bytes());
        }
    }

    /// Becomes readable when there is a report; `None` once it was read.
    pub fn report_fd(&self) -> Option<BorrowedFd<'_>> {
        self.report.as_ref().map(AsFd::as_fd)
    }

    /// Reads the report: to be called when its descriptor is readable, or the
    /// child has ended.
    pub fn report(&mut self) -> Report {
        let Some(fd) = self.report.take() else {
            return Report::Pending;
        };
        let mut word = Word::default();
        // The exec has closed the other end, or the child wrote and ends: it
        // does not block once it is readable.
        match std::fs::File::from(fd).read_exact(&mut word) {
            Err(_) => Report::Executed,
            Ok(()) => Report::NotExecuted(not_started(word)),
        }
    }
}

fn word(reason: i32, number: i32) -> Word {
    let mut word = Word::default();
    word[..4].copy_from_slice(&reason.to_le_bytes());
    word[4..].copy_from_slice(&number.to_le_bytes());
    word
}

fn not_started([a, b, c, d, e, f, g, h]: Word) -> NotStarted {
    let errno = i32::from_le_bytes([e, f, g, h]);
    match i32::from_le_bytes([a, b, c, d]) {
        LATE => NotStarted::Late,
        EXEC => NotStarted::Exec { errno },
        step => {
            let refusal = Refusal::numbered(step - NO_MOUNTS, errno);
            let message = refusal.map_or_else(String::new, |refusal| refusal.to_string());
            NotStarted::Failed { message }
        }
    }
}

/// What the child needs between fork and exec.
struct Child<'a> {
    guard: i32,
    pid_namespace: bool,
    own_group: bool,
    go: BorrowedFd<'a>,
    report: BorrowedFd<'a>,
    inherited: &'a Inherited,
}

impl Child<'_> {
    fn run(&self, image: &Prepared<'_>, by_shell: &Prepared<'_>) -> ! {
        // SAFETY: numbers; see prctl(2). The guard has one thread, so it is
        // the guard's end that counts, not that of a thread of it.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // It may have ended before. Compared with its pid and not with 1: a
        // child of PID 1 sees 1 in good health. (In a namespace of its own the
        // child sees 0, whoever it is; there it is the init that knows, and
        // that takes this child with it.)
        // SAFETY: no arguments.
        if !self.pid_namespace && unsafe { libc::getppid() } != self.guard {
            end_child(exit::FAILED.into());
        }
        if self.own_group {
            // SAFETY: numbers.
            unsafe { libc::setpgid(0, 0) };
        }
        // All signals are blocked since the fork: what comes now waits and is
        // delivered to the worker (pending signals survive execve(2)).
        self.inherited.restore_dispositions();
        if self.pid_namespace
            && let Err(refusal) = namespace::enter_mounts()
        {
            let (step, errno) = refusal.numbers();
            self.report_and_end(NO_MOUNTS + step, errno);
        }
        let Some(deadline) = self.wait_for_go() else {
            end_child(exit::FAILED.into());
        };
        if clock::now() >= deadline {
            self.report_and_end(LATE, 0);
        }
        signals::set_mask(self.inherited.mask());
        let mut errno = image.execute();
        if errno == Errno::ENOEXEC {
            errno = by_shell.execute();
        }
        self.report_and_end(EXEC, errno as i32);
    }

    /// `None`: the guard has closed its end, or ended.
    fn wait_for_go(&self) -> Option<BootInstant> {
        let mut bytes = [0; 8];
        loop {
            match nix::unistd::read(self.go, &mut bytes) {
                Ok(8) => return Some(BootInstant::from_nanos(u64::from_le_bytes(bytes))),
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }

    fn report_and_end(&self, reason: i32, number: i32) -> ! {
        signals::set_mask(SignalSet::ALL);
        let _ = nix::unistd::write(self.report, &word(reason, number));
        let code = if reason == EXEC && number == Errno::ENOENT as i32 {
            exit::NOT_FOUND
        } else {
            exit::CANNOT_EXECUTE
        };
        end_child(code.into());
    }
}

/// The command as it goes into a [`Setup`].
pub fn setup(path: &OsStr, arguments: &[impl AsRef<OsStr>]) -> Setup {
    Setup {
        path: path.as_bytes().to_vec(),
        arguments: arguments
            .iter()
            .map(|argument| argument.as_ref().as_bytes().to_vec())
            .collect(),
        pid_namespace: false,
        json_log: false,
    }
}
