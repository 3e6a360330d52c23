//! A leasewrap of the self-test: this program, executed anew.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Trouble;
use super::witness;
use crate::cli::args::db::{DbOptions, DbSource};
use crate::store::selftest::TestLease;
use crate::sys::memfd::SharedLog;
use crate::sys::tree::children::Lister;
use crate::sys::tree::stat;
use crate::sys::{SysError, process};

/// The most lines of one log that are kept: the newest.
const LINES: usize = 400;

/// How a leasewrap of the self-test reaches the database.
#[derive(Debug, Clone)]
pub struct Database {
    source: Source,
    schema: String,
}

#[derive(Clone)]
enum Source {
    Urls(Vec<String>),
    File(PathBuf),
}

// Not derived: URLs hold passwords.
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Urls(urls) => write!(f, "{} URLs", urls.len()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Database {
    /// As the user has named it.
    pub fn of(options: &DbOptions) -> Self {
        let source = match &options.source {
            DbSource::Urls(urls) => {
                Source::Urls(urls.iter().map(|url| url.reveal().to_owned()).collect())
            }
            DbSource::File(path) => Source::File(path.clone()),
        };
        Self {
            source,
            schema: options.schema.clone(),
        }
    }

    /// The same database by other URLs.
    pub fn by(&self, urls: Vec<String>) -> Self {
        Self {
            source: Source::Urls(urls),
            schema: self.schema.clone(),
        }
    }

    fn name(&self, command: &mut Command) {
        command.env("LEASEWRAP_SCHEMA", &self.schema);
        match &self.source {
            // So it stands in no list of processes.
            Source::Urls(urls) if urls.len() == 1 => {
                command.envs(urls.iter().map(|url| ("LEASEWRAP_DB", url)));
            }
            Source::Urls(urls) => {
                command.args(urls.iter().flat_map(|url| ["--db", url]));
            }
            Source::File(path) => {
                command.env("LEASEWRAP_DB_FILE", path);
            }
        }
    }
}

/// What a contender is started with.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Its database.
    pub database: &'a Database,
    /// Its lease.
    pub lease: &'a TestLease,
    /// Its ttl.
    pub ttl: Duration,
    /// How long it may wait for the lease: should the self-test be killed, then
    /// nothing else ends one that cannot reach its database.
    pub wait: Duration,
    /// Its label.
    pub label: &'a str,
    /// From the stop signal to SIGKILL in an orderly stop.
    pub stop_timeout: Duration,
    /// What its worker stamps.
    pub stamps: &'a SharedLog,
    /// The witness's words.
    pub worker: &'a [&'a str],
}

/// A leasewrap that was started. Dropping it closes its worker's standard
/// input, so that the worker ends, and leasewrap with it.
pub struct Contender {
    child: Child,
    keeper: OwnedFd,
    pid: i32,
    lifeline: Option<ChildStdin>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<Value>>,
    grown: Notify,
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<Value>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(self: Arc<Self>, stderr: ChildStderr) {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            // What is not of the log (a fault of the dynamic loader, say)
            // must be seen as well.
            let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
            let mut all = self.lines();
            if all.len() == LINES {
                all.remove(0);
            }
            all.push(line);
            drop(all);
            self.grown.notify_waiters();
        }
    }
}

impl Contender {
    /// Starts one.
    ///
    /// # Errors
    /// [`Trouble::Sys`].
    pub fn start(start: Start<'_>) -> Result<Self, Trouble> {
        let mut child = command(start)?.spawn().map_err(on("start leasewrap"))?;
        let lifeline = child.stdin.take();
        let log = Arc::<Log>::default();
        if let Some(stderr) = child.stderr.take() {
            drop(tokio::spawn(Arc::clone(&log).follow(stderr)));
        }
        // It was not waited for: its number is its own.
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.unwrap_or_default();
        let keeper = process::pidfd_open(pid).map_err(on("open a handle of leasewrap"))?;
        Ok(Self {
            child,
            keeper,
            pid,
            lifeline,
            log,
        })
    }

    /// Sends a signal to its keeper.
    pub fn signal(&self, signal: i32) -> Result<(), Trouble> {
        process::pidfd_signal(self.keeper.as_fd(), signal).map_err(on("signal leasewrap"))
    }

    /// Has its worker end by itself.
    pub fn let_the_worker_end(&mut self) {
        self.lifeline = None;
    }

    /// A handle of its guard, while there is one.
    pub fn guard(&self) -> Result<Guard, Trouble> {
        let mut lister = Lister::new();
        lister.refresh();
        let mut children = Vec::new();
        lister.children(self.pid, u32::MAX, &mut children);
        for pid in children {
            let is_guard = || {
                stat::read(pid)
                    .is_some_and(|found| found.name == "lw-guard" && found.parent == self.pid)
            };
            // Looked at with the handle in hand, so that it means the guard.
            if let Ok(handle) = process::pidfd_open(pid)
                && is_guard()
            {
                return Ok(Guard { pid, handle });
            }
        }
        Err(self.not_seen("a guard process below leasewrap"))
    }

    /// Waits for a line of its log that is `right`; the line.
    pub async fn event(
        &self,
        what: &str,
        limit: Duration,
        right: impl Fn(&Value) -> bool,
    ) -> Result<Value, Trouble> {
        let seen = async {
            loop {
                let grown = self.log.grown.notified();
                tokio::pin!(grown);
                // Before the look, or a line in between would be missed.
                grown.as_mut().enable();
                if let Some(line) = self.log.lines().iter().find(|line| right(line)) {
                    return line.clone();
                }
                grown.await;
            }
        };
        let seen = timeout(limit, seen).await;
        seen.map_err(|_elapsed| self.not_seen(what))
    }

    /// The first line of its log with this event, if there is one.
    pub fn said(&self, event: &str) -> Option<Value> {
        let lines = self.log.lines();
        lines.iter().find(|line| line["event"] == event).cloned()
    }

    /// Waits for its end; the exit code as a shell reports it.
    pub async fn end(&mut self, limit: Duration) -> Result<u8, Trouble> {
        let Ok(status) = timeout(limit, self.child.wait()).await else {
            return Err(self.not_seen("the end of a leasewrap"));
        };
        let status = status.map_err(on("wait for leasewrap"))?;
        let code = status.code().or(status.signal().map(|signal| 128 + signal));
        Ok(code
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(u8::MAX))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// That something was waited for in vain.
    pub fn not_seen(&self, what: &str) -> Trouble {
        Trouble::NotSeen {
            what: what.to_owned(),
            said: self.last_words(),
        }
    }

    /// The newest line of its log, for people.
    fn last_words(&self) -> String {
        match self.log.lines().last() {
            None => "it has said nothing".to_owned(),
            Some(Value::String(line)) => line.clone(),
            Some(line) => line["message"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// The guard of a contender.
pub struct Guard {
    pid: i32,
    handle: OwnedFd,
}

impl Guard {
    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<(), Trouble> {
        process::pidfd_signal(self.handle.as_fd(), signal).map_err(on("signal the guard"))
    }

    /// Stops it, unless it stands still. (Its number means it as long as the
    /// handle can be signalled.)
    pub fn stop(&self) {
        let still = stat::read(self.pid).is_some_and(|found| found.state == b'T');
        if !still {
            // It may have ended, which is what is waited for.
            drop(self.signal(libc::SIGSTOP));
        }
    }
}

fn on<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Trouble {
    move |error| {
        Trouble::Sys(SysError {
            what,
            source: error.into(),
        })
    }
}

fn command(start: Start<'_>) -> Result<Command, Trouble> {
    // This binary, even if it was replaced since.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("leasewrap");
    let ours = |name: &str| {
        name.starts_with("LEASEWRAP_")
            || ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"].contains(&name)
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
    start.database.name(&mut command);
    let millis = |duration: Duration| format!("{}ms", duration.as_millis());
    command
        .args(["--name", start.lease.name().as_str()])
        .args(["--label", start.label])
        .args(["--ttl", &millis(start.ttl)])
        .args(["--wait", &millis(start.wait)])
        .args(["--stop-timeout", &millis(start.stop_timeout)])
        .args(["--log-format", "json"])
        .args(["--", "/proc/self/exe", witness::NAME])
        .args(start.worker)
        .stdin(Stdio::piped())
        .stdout(start.stamps.writer().map_err(Trouble::Sys)?)
        .stderr(Stdio::piped())
        // What is typed at the terminal is for the self-test alone.
        .process_group(0);
    Ok(command)
}
