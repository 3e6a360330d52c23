//! What becomes of the lease when something becomes of `attach`, or of its
//! guard.

use crate::pod::{KEPT, LONG, Pod, SHORT, STUBBORN};
use crate::support::strangers::{left_alone, told};
use crate::support::wait::{SOON, until_true};
use crate::support::{proc, sys};

#[test]
fn attach_sigkill() {
    let pod = Pod::new("sidecar-attach-sigkill", LONG);
    let holding = pod.hold(&STUBBORN);
    let rival = pod.rival();
    holding.attach.signal(libc::SIGKILL);
    pod.scene.given_back(&rival, holding.token);
    let last = holding.attach.wait_event("ended");
    assert_eq!(last["outcome"], "keeper-died", "{last}");
    assert_eq!(last["name"], pod.scene.name.as_str(), "{last}");
    holding.attach.end().code(137);
}

#[test]
fn its_guard_sigkill() {
    let pod = Pod::new("sidecar-guard-sigkill", LONG);
    let holding = pod.hold(&STUBBORN);
    let rival = pod.rival();
    sys::kill(holding.attach.guard(), libc::SIGKILL);
    pod.scene.given_back(&rival, holding.token);
    let ended = holding.attach.end().code(125);
    assert!(
        ended.last_line().contains("guard process died"),
        "{ended:?}"
    );
}

/// An orphan of its caller's that has come without a word since is left alone
/// then, even where it could not be killed.
#[test]
fn its_guard_sigkill_beside_an_orphan_of_the_caller() {
    let pod = Pod::new("sidecar-guard-sigkill-orphan", KEPT);
    let _serve = pod.serve().spawn();
    let script = "sh -c '(sleep 1000 & echo orphan $! >&2; exec sleep 1000) & \
                  echo parent $! >&2; exec sleep 1000' & exec \"$@\"";
    let attach = pod.witness(&[]).switch("-v");
    let attach = attach.below(&["sh", "-c", script, "sh"]);
    let (attach, _) = pod.scene.start(attach, &[]);
    let [orphan] = told(&attach, "orphan");
    let [parent] = told(&attach, "parent");
    sys::kill(parent, libc::SIGKILL);
    left_alone(&attach, orphan);
    sys::kill(attach.guard(), libc::SIGKILL);
    attach.wait_dead();
    assert!(proc::alive(orphan));
    sys::kill(orphan, libc::SIGKILL);
    attach.end().code(125);
}

#[test]
fn attach_sigstop() {
    let pod = Pod::new("sidecar-attach-sigstop", KEPT);
    let holding = pod.hold(&STUBBORN);
    let rival = pod.rival();
    holding.attach.signal(libc::SIGSTOP);
    holding.serve.wait_event("guard-stands-still");
    // The guard tells serve: nobody has to watch the row.
    pod.scene.given_back(&rival, holding.token);
    let ended = holding.attach.end();
    assert!([122, 137].contains(&ended.code), "{ended:?}");
}

#[test]
fn attach_sigstop_for_a_moment() {
    let pod = Pod::new("sidecar-attach-sigstop-once", KEPT);
    let holding = pod.hold(&[]);
    holding.attach.signal(libc::SIGSTOP);
    holding.serve.wait_event("guard-stands-still");
    holding.attach.signal(libc::SIGCONT);
    holding.serve.wait_event("guard-answers");
    pod.scene
        .goes_on(holding.token, KEPT * 3 / 2, "a short stop of attach");
    holding.attach.signal(libc::SIGTERM);
    holding.attach.end().code(143);
}

#[test]
fn for_one_that_stands_still_no_lease_is_taken() {
    let pod = Pod::new("sidecar-attach-sigstop-idle", LONG);
    let (rival, old) = pod.scene.hold(&crate::support::server::shared().url(), &[]);
    let serve = pod.serve().spawn();
    let attach = pod.witness(&[]).spawn();
    attach.wait_event("attached");
    attach.signal(libc::SIGSTOP);
    serve.wait_event("guard-stands-still");
    rival.signal(libc::SIGTERM);
    rival.end().code(143);
    let next = pod.rival_with(&[]);
    let token = pod.scene.log.wait_newer(old, SOON);
    next.signal(libc::SIGTERM);
    next.end().code(143);
    attach.signal(libc::SIGCONT);
    serve.wait_event("guard-answers");
    pod.scene.handed_over(token, SOON);
}

#[test]
fn its_guard_sigstop_once_is_undone() {
    let pod = Pod::new("sidecar-guard-sigstop", KEPT);
    let holding = pod.hold(&["children=1"]);
    let guard = holding.attach.guard();
    sys::kill(guard, libc::SIGSTOP);
    until_true("the guard is woken", SOON, || {
        proc::state(guard) != Some('T')
    });
    pod.scene
        .goes_on(holding.token, KEPT * 3 / 2, "a stopped guard");
    holding.attach.signal(libc::SIGTERM);
    holding.attach.end().code(143);
}

#[test]
fn attach_and_its_guard_sigstop() {
    let pod = Pod::new("sidecar-both-sigstop", SHORT);
    let holding = pod.hold(&["ignore=15"]);
    let _rival = pod.rival();
    let guard = holding.attach.guard();
    holding.attach.signal(libc::SIGSTOP);
    sys::kill(guard, libc::SIGSTOP);
    pod.scene.handed_over(holding.token, SOON);
    let ended = holding.attach.end();
    assert!([122, 137].contains(&ended.code), "{ended:?}");
}

#[test]
fn attach_and_its_guard_sigkill() {
    let pod = Pod::new("sidecar-both-sigkill", SHORT);
    let holding = pod.hold(&[]);
    let rival = pod.rival();
    holding.attach.lose();
    holding.serve.wait_event("detached");
    // Without the guard's word the lease runs out.
    pod.scene.handed_over(holding.token, SOON);
    let acquired = rival.wait_event("acquired");
    assert_ne!(acquired["basis"], "released", "{acquired}");
    holding.serve.wait_event("release-failed");
    assert!(proc::alive(holding.serve.pid()));
}

#[test]
fn attach_and_its_guard_sigkill_with_a_pid_namespace() {
    let pod = Pod::new("sidecar-both-sigkill-namespace", SHORT);
    let _serve = pod.serve().spawn();
    let attach = pod.witness(&STUBBORN).switch("--pid-namespace");
    let (attach, token) = pod.scene.start(attach, &STUBBORN);
    let _rival = pod.rival();
    attach.lose();
    pod.scene.handed_over(token, SOON);
}

#[test]
fn attach_sigkill_before_there_is_a_worker() {
    let pod = Pod::new("sidecar-attach-idle", LONG);
    let (rival, old) = pod.scene.hold(&crate::support::server::shared().url(), &[]);
    let serve = pod.serve().spawn();
    let attach = pod.witness(&[]).spawn();
    attach.wait_event("attached");
    attach.signal(libc::SIGKILL);
    serve.wait_event("detached");
    let second = pod.witness(&[]).spawn();
    second.wait_event("attached");
    rival.signal(libc::SIGTERM);
    rival.end().code(143);
    pod.scene.given_back(&serve, old);
}
