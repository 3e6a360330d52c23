//! A keeper of frames alone, and helper programs: this test binary executed
//! anew.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use leasewrap::lease::ids::{HolderId, LeaseName, Slot, Token};
use leasewrap::lease::time::BootInstant;
use leasewrap::sys::guard_process::{self, GuardProcess};
use leasewrap::sys::memfd::ReleaseFile;
use leasewrap::sys::socket::Received;
use leasewrap::sys::tree::{descends_from, stat};
use leasewrap::sys::{clock, inherited, worker};
use leasewrap::wire::{
    FromGuard, Hello, MAX_FRAME, PgOptions, Start, StopReason, StopTo, ToGuard, VERSION, WorkerEnd,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use uuid::Uuid;

use crate::kit::run::run;

/// Nothing in these tests takes this long unless it is broken.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Who forks by the hundred has the host to itself: beside it no other test
/// could expect anything to happen in time.
static HOST: RwLock<()> = RwLock::new(());

/// Held by everything that expects something to happen in time. A test must
/// not hold two: one that waits for a storm would have the other wait too.
pub type Calm = RwLockReadGuard<'static, ()>;

pub fn calm() -> Calm {
    HOST.read().unwrap_or_else(PoisonError::into_inner)
}

pub fn storm() -> RwLockWriteGuard<'static, ()> {
    HOST.write().unwrap_or_else(PoisonError::into_inner)
}

pub struct Keeper {
    pub guard: GuardProcess,
    _release: ReleaseFile,
    _calm: Option<Calm>,
}

impl Keeper {
    /// A guard that has been greeted.
    pub fn new(command: &[&str]) -> Self {
        let keeper = Self::without_hello(command);
        keeper.hello();
        keeper
    }

    pub fn without_hello(command: &[&str]) -> Self {
        Self {
            _calm: Some(calm()),
            ..Self::in_a_storm(command)
        }
    }

    pub fn in_a_storm(command: &[&str]) -> Self {
        // The same suite must pass in both.
        let pid_namespace = std::env::var_os("LEASEWRAP_TESTS_PID_NAMESPACE").is_some();
        Self::of_setup(command, pid_namespace)
    }

    /// One whose worker has a PID namespace; greeted.
    pub fn namespaced(command: &[&str]) -> Self {
        let keeper = Self {
            _calm: Some(calm()),
            ..Self::of_setup(command, true)
        };
        keeper.hello();
        keeper
    }

    pub fn of_setup(command: &[&str], pid_namespace: bool) -> Self {
        let path = leasewrap::sys::executable::find(
            OsStr::new(command[0]),
            std::env::var_os("PATH").as_deref(),
        )
        .unwrap_or_else(|_| PathBuf::from(command[0]));
        let mut setup = worker::setup(path.as_os_str(), command);
        setup.pid_namespace = pid_namespace;
        let release = ReleaseFile::create().unwrap();
        let program = CString::new(env!("CARGO_BIN_EXE_leasewrap")).unwrap();
        let mut guard = guard_process::spawn(&program, inherited::get(), &setup, &release).unwrap();
        // A refusal is seen when the worker is to be started.
        drop(guard.take_probe());
        Self {
            guard,
            _release: release,
            _calm: None,
        }
    }

    pub fn hello(&self) {
        let hello = Hello {
            version: VERSION,
            time_namespace: clock::time_namespace(),
        };
        self.send(&ToGuard::Hello(hello.clone()));
        assert_eq!(self.next(), FromGuard::Hello(hello));
    }

    pub fn send(&self, frame: &ToGuard) {
        self.guard.channel().send(&frame.encode());
    }

    /// Starts the worker with a deadline that far away; its pid.
    pub fn start(&self, deadline: Duration) -> i32 {
        self.send(&ToGuard::Start(start(deadline)));
        self.started()
    }

    /// The same with a grace that leaves time for all that is to be seen in it.
    pub fn start_with_grace(&self, deadline: Duration, grace: Duration) -> i32 {
        let mut begin = start(deadline);
        begin.grace = grace;
        self.send(&ToGuard::Start(begin));
        self.started()
    }

    pub fn started(&self) -> i32 {
        match self.next() {
            FromGuard::Started { pid } => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    /// The next frame; an end is an error.
    pub fn next(&self) -> FromGuard {
        self.next_within(LIMIT).expect("a frame in time")
    }

    pub fn next_within(&self, limit: Duration) -> Option<FromGuard> {
        let until = Instant::now() + limit;
        let mut buffer = [0; MAX_FRAME];
        loop {
            match self.guard.channel().receive(&mut buffer) {
                Received::Frame(frame) => return Some(FromGuard::decode(frame).unwrap()),
                Received::Nothing => {}
                other => panic!("the guard is gone: {other:?}"),
            }
            let left = until.checked_duration_since(Instant::now())?;
            let mut wanted = [PollFd::new(self.guard.channel().as_fd(), PollFlags::POLLIN)];
            poll(&mut wanted, PollTimeout::try_from(left).unwrap()).unwrap();
        }
    }

    /// The next frame, where it has come and the guard may be gone.
    pub fn said(&self) -> Option<FromGuard> {
        match self.guard.channel().receive(&mut [0; MAX_FRAME]) {
            Received::Frame(frame) => FromGuard::decode(frame).ok(),
            _ => None,
        }
    }

    /// Skips frames until `wanted` takes one.
    pub fn until<T>(&self, wanted: impl Fn(&FromGuard) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next()) {
                return found;
            }
        }
    }

    /// Names a deadline that is far off. Once its tree is gone, a guard gives
    /// a keeper whose deadline has passed half a second to say something; then
    /// it would wake and kill this process.
    pub fn name_a_far_deadline(&self) {
        let deadline = clock::now() + Duration::from_secs(60);
        self.send(&ToGuard::Deadline { seq: 99, deadline });
    }

    /// Waits until it tells the tree to end for this reason.
    pub fn until_stopping(&self, reason: StopReason) {
        self.until(|frame| (*frame == FromGuard::Stopping(reason)).then_some(()));
    }

    pub fn until_empty(&self) -> u32 {
        let killed = self.until(|frame| match frame {
            FromGuard::Empty { killed } => Some(*killed),
            _ => None,
        });
        self.send(&ToGuard::Ping { seq: 0 });
        killed
    }

    pub fn until_ended(&self) -> WorkerEnd {
        self.until(|frame| match frame {
            FromGuard::WorkerEnded(end) => Some(*end),
            _ => None,
        })
    }

    /// Says goodbye to a guard without a tree, and sees it end.
    pub fn dismiss(self) {
        self.send(&ToGuard::Dismiss);
        assert!(self.guard_ends(LIMIT), "dismissed");
    }

    pub fn guard_ends(&self, limit: Duration) -> bool {
        let mut wanted = [PollFd::new(self.guard.handle(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::try_from(limit).unwrap()).unwrap() == 1
    }

    /// Ends this keeper as its death would: the channel closes. What remains
    /// shows whether the guard's process ends.
    pub fn vanish(self) -> impl FnOnce() {
        let handle = self.guard.handle().try_clone_to_owned().unwrap();
        drop(self);
        move || {
            let mut wanted = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
            let ended = poll(&mut wanted, PollTimeout::try_from(LIMIT).unwrap()).unwrap();
            assert_eq!(ended, 1, "the guard has ended");
        }
    }
}

pub fn start(deadline: Duration) -> Start {
    Start {
        name: LeaseName::new("guard test").unwrap(),
        slot: Slot(3),
        holder: HolderId(Uuid::nil()),
        token: Token(42),
        ttl: Duration::from_secs(20),
        pgoptions: PgOptions::Leave,
        deadline: clock::now() + deadline,
        grace: Duration::from_millis(300),
        stop_signal: libc::SIGTERM,
        stop_to: StopTo::Tree,
        stop_timeout: Duration::from_secs(20),
        variables: Vec::new(),
    }
}

pub fn stop(signal: i32, limit: Duration) -> ToGuard {
    ToGuard::Stop {
        signal,
        kill_by: clock::now() + limit,
    }
}

pub fn at(instant: BootInstant, since: BootInstant) -> Duration {
    instant.saturating_since(since)
}

/// A command that runs the helper `name` (see `helpers.rs`) of this binary.
pub fn helper(name: &str, arguments: &[&str]) -> Vec<String> {
    let this = std::env::current_exe().unwrap();
    let mut command = vec![
        "env".to_owned(),
        format!("LW_TEST_HELPER={name}"),
        format!("LW_TEST_ARGUMENTS={}", arguments.join(" ")),
        this.to_str().unwrap().to_owned(),
    ];
    command.extend(["--exact", "helpers::helper", "--ignored", "--nocapture"].map(str::to_owned));
    command
}

pub fn helper_command(name: &str, arguments: &[&str]) -> Command {
    let command = helper(name, arguments);
    let mut spawned = Command::new(&command[0]);
    spawned.args(&command[1..]);
    spawned
}

pub fn texts(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// A directory for one test, and files in it that programs write.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir_in(run().dir()).unwrap())
    }

    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until `name` holds that many lines.
    pub fn lines(&self, name: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines in {name}"), || {
            let text = self.read(name);
            // Only whole ones.
            let whole = text.matches('\n').count();
            (whole >= count).then(|| text.lines().take(whole).map(str::to_owned).collect())
        })
    }

    pub fn number(&self, name: &str) -> i32 {
        self.lines(name, 1)[0].trim().parse().unwrap()
    }

    pub fn script(&self, name: &str, text: &str, mode: u32) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

/// Looks again and again until there is something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        // Read before: the last look is then after the end, however long we
        // were kept from looking.
        let over = Instant::now() >= end;
        if let Some(found) = look() {
            return found;
        }
        assert!(!over, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn is_alive(pid: i32) -> bool {
    stat::read(pid).is_some_and(|found| found.state != b'Z' && found.state != b'X')
}

pub fn state(pid: i32) -> Option<u8> {
    stat::read(pid).map(|found| found.state)
}

/// The process that its own PID namespace, where it has one, knows by `pid`:
/// found below `guard`.
pub fn outside(pid: i32, guard: i32) -> i32 {
    let known_as = |found: i32| {
        let status = fs::read_to_string(format!("/proc/{found}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("NSpid:"))?;
        line.split_whitespace().last()?.parse::<i32>().ok()
    };
    eventually(&format!("{pid} below {guard}"), || {
        stat::all()
            .map(|found| found.pid)
            .filter(|found| known_as(*found) == Some(pid))
            .find(|found| descends_from(*found, guard) == Some(true))
    })
}

/// Every process whose environment or arguments hold `mark`.
pub fn marked(mark: &str) -> Vec<i32> {
    stat::all()
        .map(|found| found.pid)
        .filter(|pid| is_alive(*pid))
        .filter(|pid| {
            ["environ", "cmdline"].iter().any(|file| {
                let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join(file));
                let bytes = bytes.unwrap_or_default();
                bytes
                    .windows(mark.len())
                    .any(|window| window == mark.as_bytes())
            })
        })
        .collect()
}
