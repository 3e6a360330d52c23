//! The installed PostgreSQL: its programs, the user it runs as, an empty
//! data directory to copy.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::run::{MARK, base, run};
use super::sys::{self, Start};

/// The user `postgres`, when we are root: PostgreSQL refuses to run as root.
fn owner() -> Option<&'static nix::unistd::User> {
    static OWNER: OnceLock<Option<nix::unistd::User>> = OnceLock::new();
    let owner = OWNER.get_or_init(|| {
        if !nix::unistd::geteuid().is_root() {
            return None;
        }
        let user = nix::unistd::User::from_name("postgres").expect("read the user database");
        Some(user.expect("a user postgres: install Debian's package `postgresql`"))
    });
    owner.as_ref()
}

/// `program` as a user that PostgreSQL accepts, in a session of its own.
pub fn as_owner(program: &Path) -> Command {
    let mut command = match owner() {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={}", user.uid))
                .arg(format!("--regid={}", user.gid));
            command.arg("--clear-groups").arg(program);
            command
        }
    };
    command.env(MARK, run().dir()).current_dir("/");
    sys::prepare(&mut command, Start::default());
    command
}

/// Runs a command that must succeed.
#[track_caller]
pub fn checked(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A program of PostgreSQL: from `$LEASEWRAP_TESTS_PG_BIN`, Debian's newest
/// version, or the path.
pub fn tool(name: &str) -> PathBuf {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    let bin = BIN.get_or_init(|| {
        let given = std::env::var_os("LEASEWRAP_TESTS_PG_BIN").map(PathBuf::from);
        let debian = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten();
        let mut debian: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
        debian.sort_by_key(|bin| {
            let version = bin
                .parent()
                .and_then(Path::file_name)
                .and_then(|name| name.to_str());
            std::cmp::Reverse(version.and_then(|version| version.parse::<u32>().ok()))
        });
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let found = given
            .into_iter()
            .chain(debian)
            .chain(path)
            .find(|bin| bin.join("initdb").exists());
        found.expect("PostgreSQL's initdb: install Debian's package `postgresql`")
    });
    bin.join(name)
}

/// The path of a program on the path, if it is there.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// The library that fakes the wall clock.
pub fn faketime() -> PathBuf {
    let places = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut places = places.map(|dir| dir.path().join("faketime/libfaketime.so.1"));
    places
        .find(|path| path.exists())
        .expect("libfaketime: install Debian's package `libfaketime`")
}

/// A data directory to copy, made once per version of PostgreSQL and user.
pub fn template() -> PathBuf {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(make_template).clone()
}

fn make_template() -> PathBuf {
    let version = Command::new(tool("postgres"))
        .arg("--version")
        .output()
        .expect("run postgres");
    let version = String::from_utf8_lossy(&version.stdout)
        .trim()
        .replace([' ', '(', ')', '/'], "_");
    let finished = base().join(format!("template-1-{version}"));
    let uid = owner()
        .map_or_else(nix::unistd::geteuid, |user| user.uid)
        .as_raw();
    if fs::metadata(finished.join("data")).is_ok_and(|data| data.uid() == uid) {
        return finished;
    }
    let making = run().directory("template");
    let mut initdb = as_owner(&tool("initdb"));
    initdb.args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    checked(
        initdb
            .args(["--wal-segsize=1", "-D"])
            .arg(making.join("data")),
    );
    // Another process may have been quicker; its template is as good.
    let _result = fs::rename(&making, &finished);
    finished
}
