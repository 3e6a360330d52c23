//! SIGKILL, SIGSTOP and crash of leasewrap's own processes.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::scene::Scene;
use crate::support::proxy::Proxy;
use crate::support::server::shared;
use crate::support::user::{NOBODY, is_root};
use crate::support::wait::{SOON, until, until_true};
use crate::support::witness::ms_between;
use crate::support::{proc, sys};

/// For faults after which nobody has to wait for it.
const LONG: Duration = Duration::from_secs(20);
/// For faults that end at the deadline.
const SHORT: Duration = Duration::from_secs(3);
/// A worker that does what it can to live on.
const STUBBORN: [&str; 4] = ["children=2", "daemon", "ignore=15", "ignore=1"];

#[test]
fn keeper_sigkill() {
    let scene = Scene::new("keeper-sigkill", LONG);
    let (holder, token) = scene.hold(&shared().url(), &STUBBORN);
    let standby = scene.stand_by(&shared().url());
    holder.signal(libc::SIGKILL);
    scene.given_back(&standby, token);
    assert_eq!(holder.end().code, 137);
}

#[test]
fn keeper_crashes_by_every_fault_signal() {
    // Rust's own handlers for SEGV and BUS would swallow the first one.
    let all = [
        libc::SIGABRT,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
        libc::SIGSYS,
    ];
    for signal in all {
        let scene = Scene::new(&format!("keeper-crash-{signal}"), LONG);
        let (holder, token) = scene.hold(&shared().url(), &["children=1"]);
        let standby = scene.stand_by(&shared().url());
        holder.signal(signal);
        scene.given_back(&standby, token);
        assert_eq!(holder.end().code, 128 + signal);
    }
}

#[test]
fn keeper_sigstop() {
    // So early a deadline that the row has long to go when the guard releases
    // in the keeper's place.
    let scene = Scene::new("keeper-sigstop", Duration::from_secs(10));
    let leasewrap = scene
        .leasewrap(&shared().url(), &STUBBORN)
        .option("--renew-every", "1s")
        .option("--margin", "5s");
    let (holder, token) = scene.start(leasewrap, &STUBBORN);
    let standby = scene.stand_by(&shared().url());
    holder.signal(libc::SIGSTOP);
    scene.given_back(&standby, token);
    let ended = holder.end();
    assert!(
        [122, 137].contains(&ended.code),
        "whoever started it sees an end: {ended:?}"
    );
}

#[test]
fn guard_sigkill() {
    let scene = Scene::new("guard-sigkill", LONG);
    let (holder, token) = scene.hold(&shared().url(), &STUBBORN);
    let standby = scene.stand_by(&shared().url());
    sys::kill(holder.guard(), libc::SIGKILL);
    scene.given_back(&standby, token);
    holder.end().code(125);
}

#[test]
fn guard_sigkill_and_something_stays_past_the_deadline() {
    let scene = Scene::new("guard-sigkill-stays", SHORT);
    let proxy = Proxy::to(shared().port());
    let (mut holder, _) = scene.hold(&proxy.url("postgres"), &["children=1"]);
    let child = until("a child", SOON, || {
        proc::children(holder.worker()).first().copied()
    });
    let Some(traced) = sys::Traced::seize(child) else {
        return; // Not allowed here.
    };
    sys::kill(holder.guard(), libc::SIGKILL);
    proxy.cut();
    // The keeper's own timer fires a second after the deadline, unless the
    // killing has begun: then it is needed for longer.
    let from = sys::boot_ns();
    let long = scene.ttl(1.0) + Duration::from_secs(2);
    until_true("that is long past", long + SOON, || {
        let waited = ms_between(from, sys::boot_ns());
        waited > long.as_secs_f64() * 1e3 || holder.ended().is_some()
    });
    assert_eq!(holder.ended(), None, "it waits for what is left");
    traced.let_go();
    holder.end().code(125);
}

#[test]
fn guard_crashes() {
    for signal in [libc::SIGSEGV, libc::SIGABRT] {
        let scene = Scene::new(&format!("guard-crash-{signal}"), LONG);
        let (holder, token) = scene.hold(&shared().url(), &["children=1", "daemon"]);
        let standby = scene.stand_by(&shared().url());
        sys::kill(holder.guard(), signal);
        scene.given_back(&standby, token);
        holder.end().code(125);
    }
}

#[test]
fn guard_sigstop_once_is_undone() {
    let scene = Scene::new("guard-sigstop-once", Duration::from_secs(8));
    let (holder, token) = scene.hold(&shared().url(), &["children=1"]);
    let guard = holder.guard();
    sys::kill(guard, libc::SIGSTOP);
    until_true("the guard is woken", SOON, || {
        proc::state(guard) != Some('T')
    });
    scene.goes_on(token, scene.ttl(1.5), "a stopped guard");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn guard_sigstop_again_and_again() {
    let scene = Scene::new("guard-sigstop", SHORT);
    let proxy = Proxy::to(shared().port());
    let (mut holder, token) = scene.hold(&proxy.url("postgres"), &STUBBORN);
    let _standby = scene.stand_by(&shared().url());
    let guard = holder.guard();
    // Whenever it is woken, it is stopped again; and no renewal comes through.
    proxy.cut();
    let ended = until("the keeper gives the guard up", SOON, || {
        if proc::comm(guard).as_deref() == Some("lw-guard") && proc::state(guard) != Some('T') {
            sys::kill(guard, libc::SIGSTOP);
        }
        holder.ended()
    });
    assert!(
        [122, 125].contains(&ended),
        "ended with {ended}: {:?}",
        holder.log()
    );
    scene.handed_over(token, SOON);
}

#[test]
fn both_sigkill() {
    let scene = Scene::new("both-sigkill", SHORT);
    let (holder, token) = scene.hold(&shared().url(), &[]);
    let _standby = scene.stand_by(&shared().url());
    let worker = holder.worker();
    holder.lose();
    until_true("the worker dies by its parent-death signal", SOON, || {
        !proc::alive(worker)
    });
    scene.handed_over(token, SOON);
}

#[test]
fn both_sigstop() {
    let scene = Scene::new("both-sigstop", SHORT);
    let (holder, token) = scene.hold(&shared().url(), &["ignore=15"]);
    let _standby = scene.stand_by(&shared().url());
    let guard = holder.guard();
    // The guard first: a keeper that sees it stopped would wake it.
    holder.signal(libc::SIGSTOP);
    sys::kill(guard, libc::SIGSTOP);
    scene.handed_over(token, SOON);
    let ended = holder.end();
    assert!(
        [122, 137].contains(&ended.code),
        "whoever started it sees an end: {ended:?}"
    );
    until_true("the guard's own timer has ended it", SOON, || {
        !proc::alive(guard)
    });
}

#[test]
fn a_worker_that_daemonizes_and_ignores_term_and_flees() {
    let scene = Scene::new("worker-flees", LONG);
    let stubborn = ["children=3", "daemon", "chains=4", "ignore=15"];
    let (holder, token) = scene.hold(&shared().url(), &stubborn);
    let standby = scene.stand_by(&shared().url());
    holder.signal(libc::SIGKILL);
    scene.given_back(&standby, token);
}

#[test]
fn an_orderly_stop_of_a_worker_that_ignores_it() {
    let scene = Scene::new("term-ignored", LONG);
    let leasewrap = scene
        .leasewrap(&shared().url(), &STUBBORN)
        .option("--stop-timeout", "500ms");
    let (holder, token) = scene.start(leasewrap, &STUBBORN);
    let standby = scene.stand_by(&shared().url());
    holder.signal(libc::SIGTERM);
    scene.given_back(&standby, token);
    holder.end().code(137);
}

#[test]
fn a_worker_that_leaves_a_daemon_behind() {
    let scene = Scene::new("daemon-left", LONG);
    let worker = [
        "daemon",
        "children=1",
        "ignore=15",
        "exit-after=400",
        "exit-code=3",
    ];
    let leasewrap = scene
        .leasewrap(&shared().url(), &worker)
        .option("--stop-timeout", "400ms");
    let (holder, token) = scene.start(leasewrap, &worker);
    // The lease may be free before it has looked.
    let standby = scene.leasewrap(&shared().url(), &[]).spawn();
    scene.given_back(&standby, token);
    holder.end().code(3);
}

#[test]
fn a_worker_whose_first_thread_has_ended() {
    let scene = Scene::new("leader-gone", LONG);
    let (holder, token) = scene.hold(&shared().url(), &["leader-gone", "ignore=15"]);
    let standby = scene.stand_by(&shared().url());
    holder.signal(libc::SIGKILL);
    scene.given_back(&standby, token);
}

#[test]
fn guard_sigkill_and_the_worker_is_somebody_elses() {
    if !is_root() {
        // Only root can start a worker that has changed its user; such a one
        // has lost its parent-death signal.
        return;
    }
    let scene = Scene::new("guard-sigkill-other-user", LONG);
    std::fs::set_permissions(scene.log.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let mut words = NOBODY.to_vec();
    let worker = scene.log.worker(&STUBBORN);
    words.extend(worker.iter().map(String::as_str));
    let leasewrap = scene.leasewrap(&shared().url(), &[]).worker(&words);
    let (holder, token) = scene.start(leasewrap, &STUBBORN);
    let standby = scene.stand_by(&shared().url());
    sys::kill(holder.guard(), libc::SIGKILL);
    scene.given_back(&standby, token);
    holder.end().code(125);
}
