//! Throwaway PostgreSQL servers: own data directory, own port, own socket.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::installation::{as_owner, checked, faketime, template, tool};
use super::run::{MARK, number, run};
use super::session::Session;
use super::wait::{SOON, maybe, until};
use super::{proc, sys};

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Settings, over those of the kit.
    pub settings: Vec<(String, String)>,
    /// In place of `pg_hba.conf` (default: everybody from this host, no password).
    pub hba: Option<String>,
    /// With a wall clock that [`Server::step_clock`] can step.
    pub faketime: bool,
    /// Makes commits durable; off by default, for speed.
    pub fsync: bool,
}

impl Options {
    /// With this setting.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT: sessions are ended, a checkpoint is written.
    Fast,
    /// SIGQUIT: as a crash, with recovery at the next start.
    Immediate,
    /// SIGKILL to the postmaster.
    Kill,
}

/// A running (or stopped) server. Dropping it kills it and deletes its data.
pub struct Server {
    dir: PathBuf,
    port: u16,
    options: Options,
    postmaster: Mutex<Option<Child>>,
}

/// The server of tests that only need a lease name, or a database, of their own.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(Server::start)
}

impl Server {
    /// Starts a server with the kit's defaults.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// Starts a server.
    pub fn with(options: Options) -> Self {
        let template = template();
        let dir = run().directory("pg");
        checked(
            Command::new("cp")
                .arg("-a")
                .arg(template.join("data"))
                .arg(dir.join("data")),
        );
        Self::of_directory(dir, options)
    }

    /// A streaming standby of this server, caught up.
    pub fn replica(&self, options: Options) -> Self {
        let dir = run().directory("pg");
        let mut backup = as_owner(&tool("pg_basebackup"));
        backup.args(["-X", "stream", "-c", "fast", "-R", "-U", "postgres", "-h"]);
        backup.arg(&self.dir).args(["-p", &self.port.to_string()]);
        checked(backup.arg("-D").arg(dir.join("data")));
        Self::of_directory(dir, options)
    }

    fn of_directory(dir: PathBuf, options: Options) -> Self {
        if let Some(hba) = &options.hba {
            fs::write(dir.join("data/pg_hba.conf"), hba).expect("write pg_hba.conf");
        }
        if options.faketime {
            fs::write(dir.join("clock"), "+0").expect("write the clock's offset");
        }
        let mut server = Self {
            dir,
            port: 0,
            options,
            postmaster: Mutex::new(None),
        };
        for _ in 0..20 {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("PostgreSQL does not start:\n{}", server.log());
    }

    /// Starts the postmaster; false when it ended instead of accepting connections.
    fn launch(&self) -> bool {
        let _stale = fs::remove_file(self.dir.join("data/postmaster.pid"));
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.join("log"));
        let log = log.expect("open the server's log");
        // libfaketime must see one user alone: it is loaded after the change of user.
        let mut command = as_owner(Path::new("env"));
        if self.options.faketime {
            command.arg(format!("LD_PRELOAD={}", faketime().display()));
        }
        command
            .arg(tool("postgres"))
            .arg("-D")
            .arg(self.dir.join("data"))
            .stdin(Stdio::null());
        command
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        if self.options.faketime {
            command.env("FAKETIME_TIMESTAMP_FILE", self.dir.join("clock"));
            command
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_RESET", "1");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let mut child = command.spawn().expect("start postgres");
        let ready = until(
            "PostgreSQL is ready or has ended",
            Duration::from_secs(60),
            || {
                let ended = child.try_wait().expect("wait for postgres").is_some();
                let pid_file =
                    fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap_or_default();
                let status = pid_file.lines().nth(7).unwrap_or_default().trim();
                if ended {
                    Some(false)
                } else {
                    matches!(status, "ready" | "standby").then_some(true)
                }
            },
        );
        if ready {
            *self.postmaster.lock().expect("no test panics inside") = Some(child);
        }
        ready
    }

    fn settings(&self) -> Vec<(String, String)> {
        let dir = self.dir.display().to_string();
        let durable = if self.options.fsync { "on" } else { "off" };
        let own = [
            ("port", self.port.to_string()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", dir),
            ("fsync", durable.to_owned()),
            ("full_page_writes", durable.to_owned()),
            ("shared_buffers", "16MB".to_owned()),
            ("max_connections", "300".to_owned()),
            ("dynamic_shared_memory_type", "mmap".to_owned()),
            ("jit", "off".to_owned()),
            ("log_line_prefix", "%m [%p] %a ".to_owned()),
            // The default from PostgreSQL 14 on.
            ("password_encryption", "scram-sha-256".to_owned()),
        ];
        let own = own
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        own.chain(self.options.settings.clone()).collect()
    }

    /// Stops the server and waits for its end.
    pub fn stop(&self, how: Stop) {
        let Some(mut child) = self
            .postmaster
            .lock()
            .expect("no test panics inside")
            .take()
        else {
            return;
        };
        let signal = match how {
            Stop::Fast => libc::SIGINT,
            Stop::Immediate => libc::SIGQUIT,
            Stop::Kill => libc::SIGKILL,
        };
        let pid = pid_of(&child);
        let below = proc::descendants(pid);
        sys::kill(pid, signal);
        let mut ended = || child.try_wait().expect("wait for postgres");
        let killed = maybe(SOON, &mut ended).is_none();
        if killed {
            // On a host in distress it may be stuck; what it has written is safe.
            sys::kill(pid, libc::SIGKILL);
            until("PostgreSQL has stopped", SOON, &mut ended);
        }
        if killed || how == Stop::Kill {
            // Orphaned backends end by themselves, when they notice; a test wants them gone now.
            below
                .into_iter()
                .for_each(|pid| _ = sys::kill(pid, libc::SIGKILL));
        }
    }

    /// Starts it again, on the same port.
    pub fn start_again(&self) {
        if maybe(SOON, || self.launch().then_some(())).is_none() {
            panic!("PostgreSQL does not start again:\n{}", self.log());
        }
    }

    /// Stops and starts it.
    pub fn restart(&self, how: Stop) {
        self.stop(how);
        self.start_again();
    }

    /// SIGSTOP to the whole server: it accepts connections and says nothing.
    pub fn freeze(&self) {
        let postmaster = self.pid();
        let mut stopped = Vec::new();
        loop {
            let all = std::iter::once(postmaster).chain(proc::descendants(postmaster));
            let fresh: Vec<i32> = all.filter(|pid| !stopped.contains(pid)).collect();
            if fresh.is_empty() {
                return;
            }
            fresh
                .iter()
                .for_each(|pid| _ = sys::kill(*pid, libc::SIGSTOP));
            stopped.extend(fresh);
        }
    }

    /// SIGCONT to the whole server.
    pub fn thaw(&self) {
        let postmaster = self.pid();
        proc::descendants(postmaster)
            .into_iter()
            .for_each(|pid| _ = sys::kill(pid, libc::SIGCONT));
        sys::kill(postmaster, libc::SIGCONT);
    }

    /// Sets the server's wall clock to this many seconds off the real one.
    pub fn step_clock(&self, seconds: i64) {
        assert!(self.options.faketime, "this server has the real clock");
        let next = self.dir.join("clock.next");
        fs::write(&next, format!("{seconds:+}")).expect("write the clock's offset");
        fs::set_permissions(&next, fs::Permissions::from_mode(0o644))
            .expect("open the clock's offset");
        fs::rename(&next, self.dir.join("clock")).expect("step the clock");
    }

    /// Makes a standby the primary, and waits until it is.
    pub fn promote(&self) {
        self.psql("select pg_promote(true, 60)");
    }

    /// The pid of the postmaster.
    pub fn pid(&self) -> i32 {
        let child = self.postmaster.lock().expect("no test panics inside");
        pid_of(child.as_ref().expect("the server runs"))
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its Unix socket, its log and its data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The URL of the superuser on the database `postgres`, over TCP.
    pub fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    /// The URL of `user` (or `user:password`) on `database`, over TCP.
    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates an empty database with a name of its own.
    pub fn database(&self) -> String {
        let name = format!("db{}_{}", std::process::id(), number());
        self.psql(&format!("create database {name}"));
        name
    }

    /// Runs SQL as the superuser; the answer's rows, fields parted by `|`.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        match self.try_psql("postgres", sql) {
            Ok(rows) => rows,
            Err(message) => panic!("psql: {message}\nin: {sql}"),
        }
    }

    /// Runs SQL as the superuser in `database`; Err is psql's message.
    pub fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = self
            .psql_command(database)
            .args(["-c", sql])
            .output()
            .expect("run psql");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// A session that stays open, to hold locks and transactions.
    pub fn session(&self, database: &str) -> Session {
        Session::start(self.psql_command(database))
    }

    fn psql_command(&self, database: &str) -> Command {
        let mut command = Command::new(tool("psql"));
        command.args([
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
            "-h",
        ]);
        command.arg(&self.dir).args(["-p", &self.port.to_string()]);
        command
            .env(
                "PGOPTIONS",
                "-c client_min_messages=warning -c statement_timeout=60s",
            )
            .env("PGCONNECT_TIMEOUT", "20");
        command.env(MARK, run().dir());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(3000);
            eprintln!(
                "--- end of the server's log ---\n{}",
                log.get(tail..).unwrap_or(&log)
            );
        }
        let child = self.postmaster.lock().map(|mut child| child.take());
        if let Ok(Some(mut child)) = child {
            let pid = pid_of(&child);
            let mut all = proc::descendants(pid);
            all.push(pid);
            // An immediate stop first: it gives back the shared memory.
            sys::kill(pid, libc::SIGQUIT);
            all.iter()
                .for_each(|pid| _ = sys::kill(*pid, libc::SIGCONT));
            maybe(Duration::from_secs(5), || child.try_wait().ok().flatten());
            all.into_iter()
                .for_each(|pid| _ = sys::kill(pid, libc::SIGKILL));
            let _status = child.wait();
        }
        let _result = fs::remove_dir_all(&self.dir);
    }
}

fn pid_of(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid fits")
}

/// A port nobody listens on, outside the range from which the kernel gives
/// outgoing connections theirs: so that it is still free at a restart. None is
/// given twice: who has it may not listen yet, or not for a moment.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let mut random = [0; 2];
        let mut source = fs::File::open("/dev/urandom").expect("open /dev/urandom");
        std::io::Read::read_exact(&mut source, &mut random).expect("read /dev/urandom");
        let port = 10_000 + u16::from_le_bytes(random) % 20_000;
        let fresh = GIVEN.lock().expect("no test panics inside").insert(port);
        if fresh && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
