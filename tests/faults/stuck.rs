//! A process of the tree that is stuck in the kernel (state D): no signal
//! ends it, so the lease is kept until it is gone.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use crate::scene::Scene;
use crate::support::leasewrap::Leasewrap;
use crate::support::proc;
use crate::support::run::run;
use crate::support::server::shared;
use crate::support::sys;
use crate::support::wait::{SOON, until, until_true};
use crate::support::witness::ms_between;

const SHORT: Duration = Duration::from_secs(8);

/// A small file system that is frozen (fsfreeze(8)): whoever writes to it
/// waits in the kernel until it is thawed, and cannot be killed.
struct Frozen {
    file: String,
    shell: Child,
    stdin: Option<ChildStdin>,
}

impl Frozen {
    /// `None` where that is not allowed, or its programs are not there.
    fn new() -> Option<Self> {
        let dir = run().directory("frozen");
        // It thaws when its standard input is closed: also when the test dies.
        let script = "cd \"$0\" && mkdir fs && truncate -s 4M image && \
            mkfs.ext4 -q -F -O ^has_journal image && mount -o loop image fs && \
            { fsfreeze --freeze fs && echo frozen; read end; fsfreeze --unfreeze fs; umount -l fs; }";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a shell");
        let mut answer = String::new();
        let stdout = shell.stdout.take().expect("its output");
        BufReader::new(stdout)
            .read_line(&mut answer)
            .expect("read its answer");
        let stdin = shell.stdin.take();
        let frozen = Self {
            file: dir.join("fs/file").display().to_string(),
            shell,
            stdin,
        };
        if answer.trim() == "frozen" {
            return Some(frozen);
        }
        let _result = std::io::stderr()
            .write_all(b"left out: no file system can be mounted and frozen here\n");
        None
    }

    fn thaw(&mut self) {
        self.stdin = None;
        let _ended = self.shell.wait();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
    }
}

/// A holder one of whose processes is stuck.
fn stuck(scene: &Scene, frozen: &Frozen) -> (Leasewrap, i64) {
    let words = ["sh", "-c", "echo > \"$0\" & exec \"$@\"", &frozen.file];
    let witness = scene.log.worker(&["ignore=15"]);
    let witness = witness.iter().map(String::as_str);
    let words: Vec<&str> = words.into_iter().chain(witness).collect();
    let leasewrap = scene
        .leasewrap(&shared().url(), &[])
        .option("--stop-timeout", "300ms")
        .worker(&words);
    let (holder, token) = scene.start(leasewrap, &[]);
    until_true("a process is stuck in the kernel", SOON, || {
        let tree = proc::descendants(holder.worker());
        tree.iter().any(|pid| proc::state(*pid) == Some('D'))
    });
    (holder, token)
}

/// For two ttls nobody else starts, and the lease is renewed; then the
/// process can end, and the standby starts at once.
fn kept_until_it_ends(
    scene: &Scene,
    [holder, standby]: [&Leasewrap; 2],
    token: i64,
    mut frozen: Frozen,
) {
    let said = holder.wait_event("unkillable");
    let said = said["process"].as_str().unwrap_or_default();
    assert!(said.contains("uninterruptible sleep"), "{said}");
    let from = sys::boot_ns();
    let row = "released_at is null and expires_at > clock_timestamp(), revision";
    let before = scene.row(shared(), row);
    until_true("that is two ttls ago", scene.ttl(2.0) + SOON, || {
        let spans = scene.log.spans();
        assert!(
            spans.iter().all(|(seen, _, _)| *seen == token),
            "another worker started beside a process of the old one"
        );
        ms_between(from, sys::boot_ns()) > scene.ttl(2.0).as_secs_f64() * 1e3
    });
    let after = scene.row(shared(), row);
    let revision = |row: &str| -> i64 {
        let live = row.strip_prefix("t|");
        let live = live.unwrap_or_else(|| panic!("it was not kept: {row}"));
        live.parse().expect("a revision")
    };
    assert!(revision(&after) > revision(&before), "it was not renewed");
    let thawed = sys::boot_ns();
    frozen.thaw();
    scene.given_back(standby, token);
    let new = scene.log.spans().into_iter().find(|span| span.0 > token);
    let begun = new.expect("the new worker").1.at_ns;
    let after_ms = ms_between(thawed, begun);
    scene.say(&format!(
        "overlap_ms={:.1} (with the stuck process)",
        -after_ms
    ));
    assert!(after_ms > 0.0, "two workers lived");
}

/// What `strike` does to a holder with a stuck process passes its lease on
/// only when that one has ended; it then exits with `code`.
fn keeps_the_lease(fault: &str, code: i32, strike: impl FnOnce(&Scene, &Leasewrap, i64)) {
    let Some(frozen) = Frozen::new() else { return };
    let scene = Scene::new(fault, SHORT);
    let (holder, token) = stuck(&scene, &frozen);
    let standby = scene.stand_by(&shared().url());
    strike(&scene, &holder, token);
    kept_until_it_ends(&scene, [&holder, &standby], token, frozen);
    holder.end().code(code);
}

#[test]
fn a_stuck_process_keeps_the_lease_through_a_stop() {
    keeps_the_lease("stuck-stop", 137, |_, holder, _| {
        holder.signal(libc::SIGTERM);
    });
}

#[test]
fn a_stuck_process_keeps_the_lease_when_the_guard_is_killed() {
    keeps_the_lease("stuck-guard-sigkill", 125, |_, holder, _| {
        sys::kill(holder.guard(), libc::SIGKILL);
    });
}

#[test]
fn a_stuck_process_keeps_the_lease_after_the_workers_own_end() {
    keeps_the_lease("stuck-left-behind", 137, |scene, _, token| {
        let worker = until("the worker", SOON, || {
            scene.log.processes(token).first().copied()
        });
        sys::kill(worker, libc::SIGKILL);
    });
}
