//! Every process of leasewrap killed at the same instant, with
//! `--pid-namespace`: the kernel ends the whole tree.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::scene::Scene;
use crate::support::leasewrap::Leasewrap;
use crate::support::server::shared;
use crate::support::user::{NOBODY, is_root};
use crate::support::wait::{SOON, until_true};
use crate::support::witness::{HandOver, ms_between};
use crate::support::{proc, sys};

const SHORT: Duration = Duration::from_secs(3);
/// A worker that does what it can to live on.
const STUBBORN: [&str; 4] = ["children=3", "daemon", "ignore=15", "ignore=1"];
/// And one that flees from pid to pid.
const FLEEING: [&str; 4] = ["children=3", "daemon", "chains=8", "ignore=15"];

/// A holder whose keeper and guard `kill` kills; nothing of the tree may be
/// alive soon after whoever started leasewrap has seen its end, and the
/// standby takes over at the ttl.
fn killed(
    fault: &str,
    worker: &[&str],
    words: &[&str],
    kill: impl FnOnce(&Leasewrap, i32),
) -> HandOver {
    let scene = Scene::new(fault, SHORT);
    fs::set_permissions(scene.log.path(), fs::Permissions::from_mode(0o666)).unwrap();
    let mut leasewrap = scene
        .leasewrap(&shared().url(), worker)
        .switch("--pid-namespace");
    if !words.is_empty() {
        let witness = scene.log.worker(worker);
        let all: Vec<&str> = words
            .iter()
            .copied()
            .chain(witness.iter().map(String::as_str))
            .collect();
        leasewrap = leasewrap.worker(&all);
    }
    let (mut holder, token) = scene.start(leasewrap, worker);
    let _standby = scene.stand_by(&shared().url());
    let guard = holder.guard();
    kill(&holder, guard);
    until_true("whoever started it sees its end", SOON, || {
        holder.ended().is_some()
    });
    let seen = sys::boot_ns();
    until_true("nothing of the tree is alive", SOON, || {
        holder.alive().is_empty()
    });
    // How long the last of them went on working after that.
    let spans = scene.log.spans();
    let last = spans.iter().find(|(old, _, _)| *old == token);
    let lived = last.map_or(0.0, |(_, _, last)| ms_between(seen, last.at_ns));
    scene.say(&format!(
        "worked_on_ms={:.1} gone_ms={:.1}",
        lived.max(0.0),
        ms_between(seen, sys::boot_ns())
    ));
    scene.handed_over(token, SOON)
}

/// Nobody was left to give the lease back.
fn ran_out(hand_over: HandOver) {
    assert!(
        hand_over.gap_ms() > 1_000.0,
        "the standby has watched the lease run out: {hand_over:?}"
    );
}

/// Both stand still, and then are killed: neither sees the other's end.
fn at_once(holder: &Leasewrap, guard: i32) {
    // The guard first: a keeper that sees it stopped would wake it.
    sys::kill(holder.pid(), libc::SIGSTOP);
    sys::kill(guard, libc::SIGSTOP);
    sys::kill(guard, libc::SIGKILL);
    sys::kill(holder.pid(), libc::SIGKILL);
}

#[test]
fn both_sigkill_with_daemons() {
    ran_out(killed("both-sigkill-daemons", &STUBBORN, &[], at_once));
}

#[test]
fn both_sigkill_with_a_fork_bomb() {
    ran_out(killed("both-sigkill-fork-bomb", &FLEEING, &[], at_once));
}

#[test]
fn both_sigkill_by_one_command() {
    // One of the two may have time to act before its turn comes, and release.
    let _hand_over = killed("both-sigkill-kill", &STUBBORN, &[], |holder, guard| {
        let pids = [holder.pid().to_string(), guard.to_string()];
        // That fails where the second has ended with the first.
        let _status = std::process::Command::new("kill")
            .arg("-9")
            .args(&pids)
            .status()
            .expect("run kill");
        until_true("both are dead", SOON, || {
            !proc::alive(holder.pid()) && !proc::alive(guard)
        });
    });
}

#[test]
fn both_sigkill_with_a_worker_of_another_user() {
    if !is_root() {
        return;
    }
    ran_out(killed(
        "both-sigkill-other-user",
        &STUBBORN,
        &NOBODY,
        at_once,
    ));
}

/// A cgroup of one test's own, where there may be one.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let root = roots
            .iter()
            .find(|root| Path::new(root).join("cgroup.controllers").exists())?;
        let path = Path::new(root).join(format!("lwtest-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let new = Self(path);
        new.0.join("cgroup.kill").exists().then_some(new)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).expect("write to the cgroup");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _result = fs::remove_dir(&self.0);
    }
}

#[test]
fn both_in_a_frozen_cgroup_that_is_killed() {
    let Some(cgroup) = Cgroup::new() else {
        return;
    };
    let hand_over = killed("both-cgroup-kill", &FLEEING, &[], |holder, guard| {
        for pid in [holder.pid(), guard] {
            cgroup.write("cgroup.procs", &pid.to_string());
        }
        cgroup.write("cgroup.freeze", "1");
        until_true("both are frozen", SOON, || {
            let events = fs::read_to_string(cgroup.0.join("cgroup.events"));
            events.is_ok_and(|text| text.contains("frozen 1"))
        });
        cgroup.write("cgroup.kill", "1");
    });
    ran_out(hand_over);
}

#[test]
fn both_sigstop_with_daemons() {
    let scene = Scene::new("both-sigstop-daemons", SHORT);
    let leasewrap = scene
        .leasewrap(&shared().url(), &STUBBORN)
        .switch("--pid-namespace");
    let (holder, token) = scene.start(leasewrap, &STUBBORN);
    let _standby = scene.stand_by(&shared().url());
    let guard = holder.guard();
    sys::kill(holder.pid(), libc::SIGSTOP);
    // Again and again, so that its own timer finds it so; or that of the
    // releaser, should it have got through to that. Only in the moment of its
    // exec has it none (timer_create(2)), and is let go on.
    until_true("its own timer has ended it", SOON, || {
        match (proc::state(guard), proc::comm(guard).as_deref()) {
            (None | Some('Z' | 'X'), _) => return true,
            (Some('T'), Some("exe")) => {
                sys::kill(guard, libc::SIGCONT);
            }
            (Some('T'), _) | (_, Some("exe")) => {}
            (Some(_), _) => {
                sys::kill(guard, libc::SIGSTOP);
            }
        }
        false
    });
    scene.handed_over(token, SOON);
    let ended = holder.end();
    assert!([122, 137].contains(&ended.code), "{ended:?}");
}
