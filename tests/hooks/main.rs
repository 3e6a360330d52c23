//! Hooks, the worker's watchdog and `--rejoin` (contract, sections 5 to 7),
//! on real processes and a real server.

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod events;
mod pass_notify;
mod precheck;
mod rejoin;
mod watchdog;

use std::path::{Path, PathBuf};

use support::leasewrap::{Builder, Leasewrap, holder, lease_name};
use support::run::run;
use support::server::shared;
use support::wait::{SOON, maybe, until_true};
use support::{proc, sys};

/// A leasewrap of a lease of its own on the shared server.
fn leasewrap() -> Builder {
    holder(&shared().url(), &lease_name("hooks"))
}

/// A file that hooks and workers write to, and tests wait for.
struct Notes(PathBuf);

impl Notes {
    fn new() -> Self {
        Self(run().file("notes"))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    /// For a shell.
    fn word(&self) -> String {
        format!("'{}'", self.0.display())
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("write a file");
    }

    fn remove(&self) {
        std::fs::remove_file(&self.0).expect("remove a file");
    }

    /// Waits for a line that begins like this; the line.
    #[track_caller]
    fn wait(&self, beginning: &str) -> String {
        let found = maybe(SOON, || {
            let lines = self.lines();
            lines.into_iter().find(|line| line.starts_with(beginning))
        });
        found.unwrap_or_else(|| panic!("no line {beginning:?} in:\n{}", self.text()))
    }
}

/// The pid that a shell has noted behind this word.
#[track_caller]
fn noted_pid(notes: &Notes, word: &str) -> i32 {
    let line = notes.wait(&format!("{word} "));
    let pid = line.split_whitespace().nth(1).map(str::parse);
    pid.and_then(Result::ok).expect("a pid")
}

/// Waits until a process is gone.
#[track_caller]
fn wait_gone(what: &str, pid: i32) {
    until_true(&format!("{what} ({pid}) is gone"), SOON, || {
        !proc::alive(pid)
    });
}

/// One value of a lease's row.
fn row(name: &str, column: &str) -> String {
    shared().psql(&format!(
        "select {column} from leasewrap.lease where name = '{name}'"
    ))
}

/// Ends a leasewrap whose worker is a patient one.
#[track_caller]
fn terminate(leasewrap: Leasewrap, code: i32) {
    wait_up(&leasewrap, 1);
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(code);
}

/// A worker that says that it is up, and does nothing until it is told to
/// stop; then it ends with `code`.
fn patient(code: i32) -> String {
    format!("trap 'exit {code}' TERM; echo up; while :; do sleep 0.02; done")
}

/// Waits until this many patient workers have been up.
#[track_caller]
fn wait_up(leasewrap: &Leasewrap, count: usize) {
    until_true("the worker is up", SOON, || {
        leasewrap.out().matches("up\n").count() >= count
    });
}

/// Sends a signal to one process.
fn signal(pid: i32, signal: i32) {
    assert!(sys::kill(pid, signal), "{pid} is there");
}
