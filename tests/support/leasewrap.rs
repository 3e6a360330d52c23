//! A leasewrap under test: started, watched, and cleaned up with all that it
//! has started.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use std::os::unix::process::ExitStatusExt;

use super::proc;
use super::run::{MARK, PART, number, run};
use super::sys::{self, Start};
use super::wait::{SOON, maybe, until};

/// The binary under test: Cargo's, or `$LEASEWRAP_TESTS_BINARY` (a release
/// build, say).
pub fn binary() -> PathBuf {
    let other = std::env::var_os("LEASEWRAP_TESTS_BINARY").map(PathBuf::from);
    other.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_leasewrap")))
}

/// Whether every worker is given a PID namespace, so that a whole suite shows
/// that it changes nothing. (Its pids mean nothing out here then.)
pub fn namespaced() -> bool {
    std::env::var_os("LEASEWRAP_TESTS_PID_NAMESPACE").is_some()
}

/// A leasewrap that is about to be started.
#[derive(Debug)]
pub struct Builder {
    options: Vec<String>,
    worker: Vec<String>,
    environment: Vec<(String, Option<String>)>,
    start: Start,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    /// A command that gets leasewrap's command line as its last arguments.
    below: Vec<String>,
    json: bool,
    part: String,
    program: PathBuf,
}

/// A leasewrap with no option but the log's format.
pub fn leasewrap() -> Builder {
    Builder {
        options: Vec::new(),
        worker: Vec::new(),
        environment: Vec::new(),
        start: Start::default(),
        stdin: None,
        stdout: None,
        stderr: None,
        below: Vec::new(),
        json: true,
        part: format!("{}.{}", std::process::id(), number()),
        program: binary(),
    }
}

/// A leasewrap of a lease.
pub fn holder(url: &str, name: &str) -> Builder {
    leasewrap().option("--db", url).option("--name", name)
}

/// A lease name that no other test uses.
pub fn lease_name(what: &str) -> String {
    format!("{what}-{}-{}", std::process::id(), number())
}

impl Builder {
    /// `NAME VALUE`.
    pub fn option(self, name: &str, value: &str) -> Self {
        self.switch(name).switch(value)
    }

    /// An argument in front of `--`.
    pub fn switch(mut self, argument: &str) -> Self {
        self.options.push(argument.to_owned());
        self
    }

    /// `--ttl`.
    pub fn ttl(self, ttl: &str) -> Self {
        self.option("--ttl", ttl)
    }

    /// The log as text, in place of JSON.
    pub fn text(mut self) -> Self {
        self.json = false;
        self
    }

    /// What comes after `--`.
    pub fn worker<S: AsRef<str>>(mut self, command: &[S]) -> Self {
        self.worker = command
            .iter()
            .map(|argument| argument.as_ref().to_owned())
            .collect();
        self
    }

    /// `sh -c SCRIPT` as the worker.
    pub fn sh(self, script: &str) -> Self {
        self.worker(&["sh", "-c", script])
    }

    /// A variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment
            .push((name.to_owned(), Some(value.to_owned())));
        self
    }

    /// How its process is started.
    pub fn start(mut self, change: impl FnOnce(&mut Start)) -> Self {
        change(&mut self.start);
        self
    }

    /// Its stdin; nothing by default.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Its stdout; captured by default.
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Its stderr; captured by default.
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Runs it through `command` (`unshare …`, `nohup`), which gets leasewrap's
    /// command line as its last arguments.
    pub fn below<S: AsRef<str>>(mut self, command: &[S]) -> Self {
        self.below = command
            .iter()
            .map(|argument| argument.as_ref().to_owned())
            .collect();
        self
    }

    /// A copy of the binary in place of itself.
    pub fn program(mut self, copy: &Path) -> Self {
        self.program = copy.to_owned();
        self
    }

    /// The words of the whole command line.
    pub fn words(&self) -> Vec<String> {
        let mut words = self.below.clone();
        words.push(self.program.display().to_string());
        if self.json {
            words.extend(["--log-format".to_owned(), "json".to_owned()]);
        }
        words.extend(self.options.clone());
        if !self.worker.is_empty() {
            words.push("--".to_owned());
            words.extend(self.worker.clone());
        }
        words
    }

    /// The environment that the kit gives, for a leasewrap that a shell starts.
    pub fn marks(&self) -> [(&'static str, String); 2] {
        [
            (MARK, run().dir().display().to_string()),
            (PART, self.part.clone()),
        ]
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(mut self) -> Leasewrap {
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.marks());
        // Variables of the developer's own must not configure the test's.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("LEASEWRAP_") || name.starts_with("PG") {
                command.env_remove(name);
            }
        }
        if namespaced() {
            command.env("LEASEWRAP_PID_NAMESPACE", "true");
        }
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(self.stdin.take().unwrap_or_else(Stdio::null));
        command.stdout(self.stdout.take().unwrap_or_else(Stdio::piped));
        command.stderr(self.stderr.take().unwrap_or_else(Stdio::piped));
        sys::prepare(&mut command, self.start.clone());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let out = Arc::<Mutex<Vec<u8>>>::default();
        let log = Arc::<Mutex<Vec<String>>>::default();
        let out_ended = child.stdout.take().map(|mut stdout| {
            let out = Arc::clone(&out);
            std::thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                    locked(&out).extend_from_slice(&buffer[..count]);
                }
            })
        });
        let log_ended = child.stderr.take().map(|stderr| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                    locked(&log).push(String::from_utf8_lossy(&line).into_owned());
                }
            })
        });
        Leasewrap {
            child,
            status: None,
            out,
            log,
            readers: [out_ended, log_ended],
            part: self.part,
            words,
        }
    }

    /// Starts it and waits for its end.
    #[track_caller]
    pub fn run(self) -> Ended {
        self.spawn().end()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A leasewrap that was started. Dropping it kills it and everything below.
pub struct Leasewrap {
    child: Child,
    status: Option<ExitStatus>,
    out: Arc<Mutex<Vec<u8>>>,
    log: Arc<Mutex<Vec<String>>>,
    readers: [Option<std::thread::JoinHandle<()>>; 2],
    part: String,
    words: Vec<String>,
}

/// How a leasewrap ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// As a shell reports it: 128+N for a signal.
    pub code: i32,
    /// What was written to stdout.
    pub out: String,
    /// The lines on stderr.
    pub log: Vec<String>,
}

impl Ended {
    /// The last line on stderr.
    pub fn last_line(&self) -> &str {
        self.log.last().map_or("", String::as_str)
    }

    /// Whether a line on stderr has all these words.
    pub fn says(&self, words: &[&str]) -> bool {
        self.log
            .iter()
            .any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            code,
            "exit code; stderr was:\n{}",
            self.log.join("\n")
        );
        self
    }
}

impl Leasewrap {
    /// The pid of what was started: the keeper.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    /// The pid of the guard, once there is one.
    #[track_caller]
    pub fn guard(&self) -> i32 {
        until("there is a guard", SOON, || guard_of(self.pid()))
    }

    /// The pid of the init of the worker's PID namespace, once there is one.
    #[track_caller]
    pub fn init(&self) -> i32 {
        let guard = self.guard();
        until("there is an init", SOON, || {
            proc::children(guard)
                .into_iter()
                .find(|pid| proc::comm(*pid).as_deref() == Some("lw-init"))
        })
    }

    /// The pid of the worker, once there is one.
    #[track_caller]
    pub fn worker(&self) -> i32 {
        let guard = self.guard();
        until("there is a worker", SOON, || {
            // Before its exec the worker still bears the guard's name.
            proc::children(guard)
                .into_iter()
                .find(|pid| proc::comm(*pid).is_some_and(|comm| !comm.starts_with("lw-")))
        })
    }

    /// Sends a signal to the keeper.
    pub fn signal(&self, signal: i32) {
        sys::kill(self.pid(), signal);
    }

    /// Ends keeper and guard as if at the same instant, so that neither can
    /// give the lease back: what others see of a lost host.
    pub fn lose(&self) {
        let guard = self.guard();
        self.signal(libc::SIGSTOP);
        sys::kill(guard, libc::SIGKILL);
        self.signal(libc::SIGKILL);
    }

    /// Everything that bears its mark and lives, itself included.
    pub fn alive(&self) -> Vec<i32> {
        let mut all = proc::marked(&format!("{PART}={}", self.part));
        all.retain(|pid| proc::alive(*pid));
        all
    }

    /// Waits until the keeper itself has ended, whatever it has left.
    pub fn wait_dead(&self) {
        until("the keeper has ended", SOON, || {
            (!proc::alive(self.pid())).then_some(())
        });
    }

    /// The lines on stderr so far.
    pub fn log(&self) -> Vec<String> {
        locked(&self.log).clone()
    }

    /// What it, and its worker, have written to stdout so far.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&locked(&self.out)).into_owned()
    }

    /// Waits for `text` on stdout.
    #[track_caller]
    pub fn wait_out(&self, text: &str) {
        let found = maybe(SOON, || self.out().contains(text).then_some(()));
        assert!(
            found.is_some(),
            "no {text:?} on stdout:\n{}\nstderr:\n{}",
            self.out(),
            self.log().join("\n")
        );
    }

    /// Waits for the `count`-th line of the log with this event; the line.
    #[track_caller]
    pub fn wait_events(&self, event: &str, count: usize) -> serde_json::Value {
        let found = maybe(SOON, || {
            events(&self.log(), event).into_iter().nth(count - 1)
        });
        found.unwrap_or_else(|| panic!("no event {event} ({count}) in:\n{}", self.log().join("\n")))
    }

    /// Waits for the first line of the log with this event; the line.
    #[track_caller]
    pub fn wait_event(&self, event: &str) -> serde_json::Value {
        self.wait_events(event, 1)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(self) -> Ended {
        self.end_within(SOON)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end_within(mut self, limit: Duration) -> Ended {
        let Some(code) = maybe(limit, || self.ended()) else {
            panic!(
                "{:?} has not ended within {limit:?}:\n{}",
                self.words,
                self.log().join("\n")
            );
        };
        self.wait_read();
        Ended {
            code,
            out: self.out(),
            log: self.log(),
        }
    }

    /// Waits until all that it has said before its end is read. Whoever else
    /// holds a stream (a descendant that is left) must not hold us up.
    pub fn wait_read(&self) {
        let began = Instant::now();
        maybe(SOON, || {
            let mut readers = self.readers.iter().flatten();
            let is_read = readers.all(|reader| reader.is_finished());
            let long = began.elapsed() > Duration::from_secs(2);
            (is_read || long && !self.alive().is_empty()).then_some(())
        });
    }

    /// The exit code, when it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("wait for leasewrap");
        }
        let status = self.status?;
        Some(
            status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        )
    }
}

impl Drop for Leasewrap {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {:?} ---\n{}", self.words, self.log().join("\n"));
        }
        // Once it has ended, its pid may be somebody else's.
        let ended = self.ended().is_some();
        if !ended {
            let below = proc::descendants(self.pid());
            sys::kill(self.pid(), libc::SIGKILL);
            below
                .into_iter()
                .for_each(|pid| _ = sys::kill(pid, libc::SIGKILL));
        }
        let entry = format!("{PART}={}", self.part);
        proc::kill_all(|| proc::marked(&entry));
        if !ended {
            let _status = self.child.wait();
        }
    }
}

/// The guard of a keeper.
pub fn guard_of(keeper: i32) -> Option<i32> {
    proc::children(keeper)
        .into_iter()
        .find(|pid| proc::comm(*pid).as_deref() == Some("lw-guard"))
}

/// The lines of a JSON log with this event.
pub fn events(log: &[String], event: &str) -> Vec<serde_json::Value> {
    let lines = log
        .iter()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines
        .filter(|line| line.get("event").and_then(|seen| seen.as_str()) == Some(event))
        .collect()
}

/// A file with this text, readable by everybody.
pub fn file_with(text: &str) -> PathBuf {
    let path = run().file("file");
    std::fs::write(&path, text).expect("write a file");
    path
}
