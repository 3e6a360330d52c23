//! One run of one test binary: a directory for all that it writes, a mark in
//! the environment of all that it starts, and a sweeper that sees to both
//! when the run ends, also when it is killed.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sys::{self, Start};
use super::{proc, programs};

/// In the environment of everything that a run starts; its value is the run's directory.
pub const MARK: &str = "LWTESTS_RUN";
/// In the environment of what belongs to one part of a test.
pub const PART: &str = "LWTESTS_PART";

/// A run.
pub struct Run {
    dir: PathBuf,
    /// The end of file of its stdin tells it that the run is over; it outlives us.
    _sweeper: Child,
}

/// The run of this test process.
pub fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(Run::begin)
}

/// Where all runs of this user live: short, since paths of Unix sockets have
/// 107 bytes, and open to the user `postgres`.
pub fn base() -> PathBuf {
    let base = std::env::temp_dir().join(format!("lwtests-{}", nix::unistd::getuid()));
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&base);
    if let Err(error) = made {
        panic!("cannot create {}: {error}", base.display());
    }
    base
}

/// A number that this process has not used yet.
pub fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Run {
    fn begin() -> Self {
        let dir = base().join(format!(
            "{}-{:x}",
            std::process::id(),
            sys::boot_ns() & 0xff_ffff
        ));
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&dir)
            .expect("create the run's directory");
        let bin = dir.join("bin");
        fs::create_dir(&bin).expect("create bin");
        let own = std::env::current_exe().expect("the path of the test binary");
        for program in programs::NAMES {
            symlink(&own, bin.join(program)).expect("link a program");
        }
        let mut command = Command::new(bin.join("sweeper"));
        command
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        sys::prepare(&mut command, Start::default());
        let sweeper = command.spawn().expect("start the sweeper");
        Self {
            dir,
            _sweeper: sweeper,
        }
    }

    /// The path of one of the kit's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// A new directory, open to everybody.
    pub fn directory(&self, what: &str) -> PathBuf {
        let dir = self.dir.join(format!("{what}{}", number()));
        fs::create_dir(&dir).expect("create a directory of the run");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).expect("open the directory");
        dir
    }

    /// A path for a new file.
    pub fn file(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{what}{}", number()))
    }

    /// The run's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The program `sweeper DIR`: waits for the end of the run, then kills and
/// deletes what is left of it.
pub fn sweep(args: &[String]) -> i32 {
    let [dir] = args else { return 2 };
    // The run writes nothing: reading ends when its last process has ended.
    let mut nothing = String::new();
    let _over = std::io::Read::read_to_string(&mut std::io::stdin(), &mut nothing);
    proc::kill_all(|| proc::marked(&format!("{MARK}={dir}")));
    unmount_below(dir);
    i32::from(fs::remove_dir_all(dir).is_err())
}

/// File systems that a test has mounted in its directory would keep it.
fn unmount_below(dir: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(dir)) {
        let _result = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}
