//! A terminal: a pseudo-terminal with a program on it, typed at and read like
//! by a person.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::proc;
use super::run::{MARK, PART, number, run};
use super::sys::{self, Session, Start};
use super::wait::{SOON, maybe};

/// A terminal. Dropping it hangs up, and kills what is left.
pub struct Terminal {
    child: Child,
    master: Option<File>,
    /// The reading thread must let go of the terminal too.
    hung_up: Arc<AtomicBool>,
    seen: Arc<Mutex<String>>,
    part: String,
}

impl Terminal {
    /// Starts `command` as the session leader of a new terminal.
    pub fn start(mut command: Command) -> Self {
        let (master, slave) = pseudo_terminal().expect("open a pseudo-terminal");
        // The kernel sends the signal of a Ctrl-C first and then throws away what
        // is on its way to the screen (`isig` in drivers/tty/n_tty.c): on a busy
        // host also what its receiver has said meanwhile.
        let mut settings = tcgetattr(&slave).expect("ask the terminal");
        settings.local_flags |= LocalFlags::NOFLSH;
        tcsetattr(&slave, SetArg::TCSANOW, &settings).expect("set the terminal");
        let part = format!("{}.{}", std::process::id(), number());
        command
            .env(MARK, run().dir())
            .env(PART, &part)
            .env("TERM", "dumb")
            .env("PS1", "lw$ ");
        command.stdin(slave.try_clone().expect("share the terminal"));
        command.stdout(slave.try_clone().expect("share the terminal"));
        command.stderr(slave);
        sys::prepare(
            &mut command,
            Start {
                session: Session::OwnWithTerminal,
                ..Start::default()
            },
        );
        let child = command.spawn().expect("start a program on a terminal");
        // The command still holds the slave: the end would never be seen.
        drop(command);
        let reader = master.try_clone().expect("share the terminal");
        let seen = Arc::<Mutex<String>>::default();
        let hung_up = Arc::<AtomicBool>::default();
        let of_thread = (Arc::clone(&seen), Arc::clone(&hung_up));
        std::thread::spawn(move || read(reader, &of_thread.0, &of_thread.1));
        Self {
            child,
            master: Some(master),
            hung_up,
            seen,
            part,
        }
    }

    /// An interactive bash.
    pub fn bash() -> Self {
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile", "--noediting", "-i"]);
        let terminal = Self::start(command);
        terminal.wait("lw$ ");
        terminal
    }

    /// Types text.
    pub fn type_text(&self, text: &str) {
        let mut master = self.master.as_ref().expect("not hung up");
        master.write_all(text.as_bytes()).expect("type");
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.type_text(&format!("{text}\n"));
    }

    /// Everything on the screen so far.
    pub fn screen(&self) -> String {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for text on the screen.
    #[track_caller]
    pub fn wait(&self, text: &str) {
        self.wait_count(text, 1);
    }

    /// Waits until text is on the screen this often.
    #[track_caller]
    pub fn wait_count(&self, text: &str, count: usize) {
        let found = maybe(SOON, || {
            (self.screen().matches(text).count() >= count).then_some(())
        });
        assert!(
            found.is_some(),
            "no {text:?} ({count}) on the screen:\n{}",
            self.screen()
        );
    }

    /// Runs a line in bash and waits until it is done; what it printed.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        let end = number();
        let before = self.screen().len();
        self.line(&format!("{line}; echo en\"\"d{end}:$?"));
        self.wait(&format!("end{end}:"));
        self.screen()[before..].to_owned()
    }

    /// The pid of the session leader.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// The group in the foreground.
    pub fn foreground(&self) -> i32 {
        let master = self.master.as_ref().expect("not hung up");
        nix::unistd::tcgetpgrp(master).map_or(0, nix::unistd::Pid::as_raw)
    }

    /// Gives the window another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let master = self.master.as_ref().expect("not hung up");
        assert!(
            sys::resize(master.as_raw_fd(), rows, columns),
            "resize the terminal"
        );
    }

    /// Hangs up.
    pub fn hang_up(&mut self) {
        self.hung_up.store(true, Ordering::Relaxed);
        self.master = None;
    }

    /// What bears the terminal's mark and this name, and lives.
    pub fn named(&self, name: &str) -> Vec<i32> {
        let mut all = proc::marked(&format!("{PART}={}", self.part));
        all.retain(|pid| proc::alive(*pid) && proc::comm(*pid).as_deref() == Some(name));
        all
    }

    /// The exit code of the session leader, once it has ended.
    #[track_caller]
    pub fn end(mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = maybe(SOON, || {
            self.child.try_wait().expect("wait for the session leader")
        });
        let Some(status) = status else {
            panic!("still there; the screen:\n{}", self.screen())
        };
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

/// Both ends of a new one, close-on-exec from birth: whatever another test
/// starts at this moment would keep it from hanging up.
fn pseudo_terminal() -> std::io::Result<(File, File)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = posix_openpt(flags | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = File::options()
        .read(true)
        .write(true)
        .custom_flags(flags.bits())
        .open(ptsname_r(&master)?)?;
    Ok((File::from(OwnedFd::from(master)), slave))
}

/// Reads what is written to the terminal until its other end is closed, or
/// this one is to be.
fn read(mut reader: File, seen: &Mutex<String>, hung_up: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !hung_up.load(Ordering::Relaxed) {
        let mut waited = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waited, PollTimeout::from(20_u8)) == Ok(0) {
            continue;
        }
        let Ok(count @ 1..) = reader.read(&mut buffer) else {
            return;
        };
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push_str(&text);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.hung_up.store(true, Ordering::Relaxed);
        if std::thread::panicking() {
            eprintln!("--- the screen ---\n{}", self.screen());
        }
        // Once it has ended, its pid may be somebody else's.
        if self.child.try_wait().ok().flatten().is_none() {
            let below = proc::descendants(self.pid());
            let _result = self.child.kill();
            let _status = self.child.wait();
            below
                .into_iter()
                .for_each(|pid| _ = sys::kill(pid, libc::SIGKILL));
        }
        let entry = format!("{PART}={}", self.part);
        proc::kill_all(|| proc::marked(&entry));
    }
}
