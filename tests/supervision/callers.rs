//! Processes of whoever has executed leasewrap (`helper & exec leasewrap …`):
//! they are none of the worker's, and left alone whatever is killed.

use crate::leasewrap;
use crate::support::leasewrap::Leasewrap;
use crate::support::strangers::{left_alone, told};
use crate::support::user::{NOBODY, by_nobody, is_root};
use crate::support::wait::{SOON, until_true};
use crate::support::witness::Log;
use crate::support::{proc, sys};

/// A process with a child.
const PAIR: &str = "sh -c 'sleep 1000 & echo pair $$ $! >&2; wait'";

/// The guard dies, and these live on.
#[track_caller]
fn outlive_the_guard(leasewrap: Leasewrap, pids: &[i32]) {
    sys::kill(leasewrap.guard(), libc::SIGKILL);
    leasewrap.wait_dead();
    for pid in pids {
        assert!(proc::alive(*pid), "{pid}");
        sys::kill(*pid, libc::SIGKILL);
    }
    leasewrap.end().code(125);
}

#[test]
fn what_the_caller_had_started_before_is_not_of_the_tree() {
    let log = Log::new();
    let script = format!("sleep 1000 & echo before $! >&2; {PAIR} & exec \"$@\"");
    let leasewrap = leasewrap()
        .below(&["sh", "-c", &script, "sh"])
        .switch("-v")
        .worker(&log.worker(&["daemon", "ignore=15"]))
        .spawn();
    let token = log.wait_newer(0, SOON);
    log.wait_processes(token, 2, SOON);
    let [before] = told(&leasewrap, "before");
    let [parent, orphan] = told(&leasewrap, "pair");
    sys::kill(parent, libc::SIGKILL);
    left_alone(&leasewrap, orphan);
    outlive_the_guard(leasewrap, &[before, orphan]);
    assert!(log.wait_silence(SOON).is_some());
}

/// Neither the guard nor other users' processes can be looked into there.
#[test]
fn it_is_none_below_a_proc_that_hides_processes() {
    if !is_root() {
        // Somebody else has to hide /proc.
        return;
    }
    let nobody = NOBODY.join(" ");
    for user in ["", &nobody] {
        let script = format!(
            "mount -t proc -o hidepid=invisible proc /proc || exit 1; \
             sleep 1000 & echo before $! >&2; {user} {PAIR} & exec {nobody} \"$@\""
        );
        let below = ["unshare", "--mount", "--propagation", "private"];
        let leasewrap = by_nobody(leasewrap())
            .below(&[below.as_slice(), &["sh", "-c", &script, "sh"]].concat())
            .switch("-v")
            .sh("echo up; exec sleep 1000")
            .spawn();
        leasewrap.wait_out("up");
        let [before] = told(&leasewrap, "before");
        let [parent, orphan] = told(&leasewrap, "pair");
        sys::kill(parent, libc::SIGKILL);
        left_alone(&leasewrap, orphan);
        outlive_the_guard(leasewrap, &[before, orphan]);
    }
}

/// No child of leasewrap's has ended then: nothing tells it of the orphan.
#[test]
fn what_comes_without_a_word_is_seen_at_the_next_renewal() {
    let script = "sh -c '(sleep 1000 & echo orphan $! >&2; exec sleep 1000) & \
                  echo parent $! >&2; exec sleep 1000' & exec \"$@\"";
    let leasewrap = leasewrap()
        .below(&["sh", "-c", script, "sh"])
        .switch("-v")
        .ttl("5s")
        .sh("echo up; exec sleep 1000")
        .spawn();
    leasewrap.wait_out("up");
    let [orphan] = told(&leasewrap, "orphan");
    let [parent] = told(&leasewrap, "parent");
    sys::kill(parent, libc::SIGKILL);
    until_true("it has come", SOON, || {
        proc::parent(orphan) == Some(leasewrap.pid())
    });
    left_alone(&leasewrap, orphan);
    outlive_the_guard(leasewrap, &[orphan]);
}
