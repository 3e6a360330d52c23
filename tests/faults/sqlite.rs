//! A SQLite file whose parts are not what all see: under a second name,
//! removed, or replaced while somebody has it open.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::scene::Scene;
use crate::support::leasewrap::{Builder, Leasewrap, leasewrap};
use crate::support::run::run;
use crate::support::user::is_root;
use crate::support::wait::{SOON, until_true};

/// So long that waiting it out would be seen in the gap.
const LONG: Duration = Duration::from_secs(20);
/// Far below the ttl, far above what a loaded machine needs.
const QUICK: f64 = 10_000.0;

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn database() -> PathBuf {
    run().directory("sqlite-faults").join("leases.db")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

/// Somebody who comes by another name ends with 123 and is told what would be
/// right; the holder works on, and the lease is handed over as ever.
fn refused(fault: &str, second: impl FnOnce(Builder) -> Builder, path: &Path, says: &[&str]) {
    let scene = Scene::new(fault, LONG);
    let (holder, token) = scene.hold(&url(path), &[]);
    let ended = second(scene.leasewrap(&url(path), &[])).spawn().end();
    assert!(ended.says(says), "{:?}", ended.last_line());
    ended.code(123);
    let _standby = scene.stand_by(&url(path));
    holder.signal(libc::SIGTERM);
    let seen = scene.handed_over(token, SOON);
    assert!(seen.gap_ms() < QUICK, "{seen:?}");
}

#[test]
fn sqlite_under_a_hard_link() {
    let scene = Scene::new("sqlite-hard-link", LONG);
    let path = database();
    let (holder, token) = scene.hold(&url(&path), &[]);
    let standby = scene.stand_by(&url(&path));
    let second = run().directory("sqlite-link").join("other.db");
    fs::hard_link(&path, &second).expect("link");
    // By either name: who is at work under which cannot be told.
    for name in [&second, &path] {
        let ended = scene.leasewrap(&url(name), &[]).spawn().end();
        assert!(
            ended.says(&["2 names", "hard links"]),
            "{:?}",
            ended.last_line()
        );
        ended.code(123);
    }
    // Those who were there first are not disturbed.
    scene.goes_on(token, Duration::from_secs(1), "a second name");
    holder.signal(libc::SIGTERM);
    let seen = scene.handed_over(token, SOON);
    assert!(seen.gap_ms() < QUICK, "{seen:?}");
    drop(standby);
}

#[test]
fn sqlite_mounted_as_a_file() {
    let path = database();
    let mounted = run().directory("sqlite-mount").join("leases.db");
    fs::write(&mounted, "").expect("a place for it");
    let unshare = if is_root() {
        &["unshare", "--mount"][..]
    } else {
        &["unshare", "--user", "--map-root-user", "--mount"]
    };
    let may = Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("left out: no mount namespace can be made here");
        return;
    }
    // As a container has it: the holder's file below the same path.
    let (from, to) = (path.display(), mounted.display());
    let mount =
        format!("mount --bind {from} {to} && mount --bind {to} {from} && exec \"$0\" \"$@\"");
    let below: Vec<&str> = unshare
        .iter()
        .copied()
        .chain(["sh", "-c", &mount])
        .collect();
    let second = |builder: Builder| builder.below(&below);
    let says = ["single file", "mount its directory"];
    refused("sqlite-file-mount", second, &path, &says);
}

#[test]
fn sqlite_by_a_symbolic_link_is_the_same_lease() {
    // No poll comes in time.
    let scene = Scene::new("sqlite-symbolic-link", LONG * 10);
    let path = database();
    let link = run().directory("sqlite-symlink").join("link.db");
    // Before there is a file, too.
    std::os::unix::fs::symlink(&path, &link).expect("link");
    let (holder, token) = scene.hold(&url(&link), &[]);
    let _standby = scene.stand_by(&url(&path));
    holder.signal(libc::SIGTERM);
    let seen = scene.handed_over(token, SOON);
    assert!(seen.gap_ms() < QUICK, "it was not woken: {seen:?}");
    assert!(path.exists() && !beside(&link, "-wake").exists());
}

/// Removes what SQLite has beside the file under a holder and a standby: the
/// holder works on, whoever comes stands by, and the lease is handed over.
fn removed(fault: &str, suffixes: &[&str]) {
    let scene = Scene::new(fault, LONG);
    let path = database();
    let url = url(&path);
    let (holder, token) = scene.hold(&url, &[]);
    let first = scene.stand_by(&url);
    // The lease is in the file itself soon after it was taken.
    until_true("it is merged", SOON, || {
        let copy = run().directory("sqlite-copy").join("copy.db");
        fs::copy(&path, &copy).expect("copy");
        let status = leasewrap().text().switch("status");
        let status = status.option("--db", &self::url(&copy));
        status.run().out.contains(&scene.name)
    });
    for suffix in suffixes {
        fs::remove_file(beside(&path, suffix)).expect("remove");
    }
    let second = scene.stand_by(&url);
    scene.goes_on(token, Duration::from_secs(2), "files that are gone");
    until_true("they are made anew", SOON, || {
        ["-wal", "-shm"]
            .iter()
            .all(|suffix| beside(&path, suffix).exists())
    });
    holder.signal(libc::SIGTERM);
    let seen = scene.handed_over(token, SOON);
    assert!(seen.gap_ms() < QUICK, "{seen:?}");
    drop((first, second));
}

#[test]
fn sqlite_wal_and_shm_removed() {
    removed("sqlite-wal-shm-removed", &["-wal", "-shm"]);
}

#[test]
fn sqlite_wal_removed() {
    removed("sqlite-wal-removed", &["-wal"]);
}

#[test]
fn sqlite_shm_removed() {
    removed("sqlite-shm-removed", &["-shm"]);
}

/// Puts a FIFO in the place of the file that wakes others.
fn silence(path: &Path) {
    let fifo = beside(path, "-fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()), "make a FIFO");
    fs::rename(&fifo, beside(path, "-wake")).expect("put it there");
}

fn ends(leasewrap: Leasewrap, code: i32) {
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(code);
}

#[test]
fn sqlite_bell_replaced_by_a_fifo() {
    let ttl = Duration::from_secs(8);
    let scene = Scene::new("sqlite-fifo", ttl);
    let path = database();
    let (holder, token) = scene.hold(&url(&path), &[]);
    let standby = scene.stand_by(&url(&path));
    let idle = scene.stand_by(&url(&path));
    silence(&path);
    idle.wait_event("listen-unavailable");
    scene.goes_on(token, ttl * 3 / 2, "a FIFO in the place of the bell");
    ends(idle, 128 + libc::SIGTERM);
    holder.signal(libc::SIGTERM);
    let seen = scene.handed_over(token, SOON);
    assert!(seen.gap_ms() < QUICK, "{seen:?}");
    drop(standby);
}
