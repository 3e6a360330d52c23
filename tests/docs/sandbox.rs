//! Where a reader's commands run: a directory with what they name, a database
//! in place of `db`, and somebody who holds the lease that is asked about.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::support::installation::tool;
use super::support::leasewrap::{Leasewrap, binary, holder};
use super::support::run::{MARK, run};
use super::support::server::{Options, Server};
use super::support::sys;
use super::support::wait::{SOON, maybe, until_true};

/// What a command of the pages may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Operators' commands that are about a holder.
const OPERATORS: [&str; 5] = ["status", "history", "step-down", "break", "pause"];

pub struct Sandbox {
    server: Server,
    dir: PathBuf,
    holders: BTreeMap<String, Leasewrap>,
}

impl Sandbox {
    pub fn new() -> Self {
        let server = Server::with(Options {
            fsync: true,
            ..Options::default()
        });
        // As people have it: the program's role owns its database, and no more.
        for role in ["app", "runner"] {
            server.psql(&format!("create role {role} login"));
        }
        server.psql("create database app owner app");
        let dir = run().directory("docs");
        fs::create_dir(dir.join("bin")).unwrap();
        symlink(binary(), dir.join("bin/leasewrap")).unwrap();
        let files = [
            ("mailer", "#!/bin/sh\ntest -n \"$LEASEWRAP_TOKEN\"\n"),
            ("nightly", "#!/bin/sh\nexit 0\n"),
            (
                "migration-42.sql",
                "create table migrated (at timestamptz);\n",
            ),
        ];
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let sandbox = Self {
            server,
            dir,
            holders: BTreeMap::new(),
        };
        fs::write(sandbox.dir.join("url"), sandbox.url("app")).unwrap();
        sandbox
    }

    fn url(&self, user: &str) -> String {
        self.server.url_of(user, "app")
    }

    /// A command as it is run here: other URLs and paths, nothing else.
    fn here(&self, command: &str) -> String {
        let mut here = String::new();
        let mut rest = command;
        while let Some((before, after)) = rest.split_once("postgres://") {
            let end = after.find([' ', '\'', '"']).unwrap_or(after.len());
            let user = after.split('@').next().unwrap_or_default();
            here += before;
            here += &self.url(user);
            rest = &after[end..];
        }
        here += rest;
        here.replace("/etc/leasewrap.url", "url")
            .replace("cargo run --release -- ", "leasewrap ")
    }

    /// The next night: nothing is left of what the line before has run in a
    /// file, and what `--hold-at-least` still keeps taken there is over.
    fn a_night_later(&self, file: &str) {
        for ending in ["", "-shm", "-wal"] {
            let _ = fs::remove_file(self.dir.join(format!("{file}{ending}")));
        }
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn run(&mut self, place: &str, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let value = |option: &str| {
            let at = words.iter().position(|word| *word == option)?;
            words.get(at + 1).map(|name| (*name).to_owned())
        };
        if words[0] == "leasewrap" {
            let name = value("--name").unwrap_or_else(|| "default".to_owned());
            if OPERATORS.contains(&words[1]) {
                self.hold(&name);
            } else if words.contains(&"--") {
                self.give_back(&name);
            }
        }
        if let Some(file) =
            value("--db").and_then(|url| Some(url.strip_prefix("sqlite:")?.to_owned()))
        {
            self.a_night_later(&file);
        }
        let here = self.here(command);
        let mut shell = Command::new("sh");
        shell.args(["-c", &here]);
        let said = self.finish(place, &here, shell);
        if command.starts_with("! ") {
            assert!(said.contains("under the lease"), "{place}: {said}");
        }
    }

    /// Runs SQL under the lease `mailer`, with its token as `:'token'`.
    #[track_caller]
    pub fn sql(&mut self, place: &str, sql: &str) {
        self.give_back("mailer");
        let file = self.dir.join("block.sql");
        fs::write(&file, sql).unwrap();
        let url = self.url("app");
        let psql = format!("psql -v ON_ERROR_STOP=1 -v token=$LEASEWRAP_TOKEN -f block.sql {url}");
        let mut command = Command::new("leasewrap");
        command.args(["--db", &url, "--name", "mailer", "--", "sh", "-c", &psql]);
        self.finish(place, sql, command);
    }

    /// What it said.
    #[track_caller]
    fn finish(&self, place: &str, what: &str, mut command: Command) -> String {
        let own = self.dir.join("bin");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let tools = tool("psql")
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default();
        let path =
            std::env::join_paths([own, tools].into_iter().chain(std::env::split_paths(&path)));
        // Variables of the developer's own must not configure the test's.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("LEASEWRAP_") || name.starts_with("PG") {
                command.env_remove(name);
            }
        }
        let log = self.dir.join("log");
        let out = fs::File::create(&log).unwrap();
        command
            .current_dir(&self.dir)
            .env("PATH", path.unwrap())
            .env(MARK, run().dir())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        let mut child = command.spawn().unwrap();
        let ended = maybe(LIMIT, || child.try_wait().unwrap());
        if ended.is_none() {
            sys::kill(i32::try_from(child.id()).unwrap(), libc::SIGTERM);
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        assert!(
            ended.is_some_and(|status| status.success()),
            "{place}: {what}\n{ended:?}\n{said}"
        );
        said
    }

    /// Has somebody hold this lease, until it is given back.
    fn hold(&mut self, name: &str) {
        if self.holders.contains_key(name) {
            return;
        }
        let url = self.url("app");
        let holder = holder(&url, name)
            .switch("--rejoin")
            .worker(&["sleep", "1000"])
            .spawn();
        until_true("the lease is held", SOON, || {
            holder
                .log()
                .iter()
                .any(|line| line.contains("\"acquired\""))
        });
        self.holders.insert(name.to_owned(), holder);
    }

    fn give_back(&mut self, name: &str) {
        if let Some(holder) = self.holders.remove(name) {
            holder.signal(libc::SIGTERM);
            holder.end();
        }
    }
}
