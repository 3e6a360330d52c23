//! leasewrap as PID 1 of a PID namespace, as in a container.

use std::time::Duration;

use crate::support::leasewrap::{Builder, Leasewrap, holder, lease_name, namespaced};
use crate::support::server::shared;
use crate::support::user::is_root;
use crate::support::wait::{SOON, until, until_true};
use crate::support::witness::Log;
use crate::support::{proc, sys};

/// Runs it as PID 1, by root or in a user namespace.
fn as_pid_1(builder: Builder) -> Builder {
    let mut below = vec!["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !is_root() {
        below.extend(["--user", "--map-root-user"]);
    }
    builder.below(&below)
}

/// The pid of leasewrap, seen from outside.
fn inner(outer: &Leasewrap) -> i32 {
    until("unshare has forked", SOON, || {
        proc::children(outer.pid())
            .into_iter()
            .find(|pid| proc::comm(*pid).as_deref() == Some("leasewrap"))
    })
}

#[test]
fn it_is_pid_1_and_hands_on_the_code() {
    let builder = as_pid_1(holder(&shared().url(), &lease_name("pid1")));
    let ended = builder
        .sh("cat /proc/1/comm; ps -e -o comm= | sort | tr '\\n' ' '; exit 9")
        .run()
        .code(9);
    if !namespaced() {
        assert!(ended.out.starts_with("leasewrap\n"), "{ended:?}");
        assert!(ended.out.contains("lw-guard"), "{ended:?}");
    }
    assert!(ended.says(&["released"]), "{:?}", ended.log);
}

#[test]
fn it_forwards_signals_and_stops_in_order() {
    let log = Log::new();
    let builder = as_pid_1(holder(&shared().url(), &lease_name("pid1")));
    let leasewrap = builder
        .option("--stop-timeout", "5s")
        .worker(&log.worker(&["report", "daemon"]))
        .spawn();
    log.wait_newer(0, SOON);
    let pid1 = inner(&leasewrap);
    for signal in [libc::SIGUSR1, libc::SIGHUP, libc::SIGRTMIN()] {
        sys::kill(pid1, signal);
        leasewrap.wait_out(&format!("signal {signal:02}\n"));
    }
    sys::kill(pid1, libc::SIGTERM);
    let ended = leasewrap.end().code(137);
    assert!(
        ended.out.contains("signal 15\n") && ended.says(&["released"]),
        "{ended:?}"
    );
}

#[test]
fn it_reaps_every_zombie() {
    let script =
        "i=0; while [ $i -lt 40 ]; do (true & ) ; i=$((i+1)); done; echo ready; exec sleep 1000";
    let leasewrap = as_pid_1(holder(&shared().url(), &lease_name("pid1")))
        .sh(script)
        .spawn();
    leasewrap.wait_out("ready");
    let pid1 = inner(&leasewrap);
    until_true("no zombie stays", SOON, || {
        proc::descendants(pid1)
            .into_iter()
            .all(|pid| proc::state(pid) != Some('Z'))
    });
}

#[test]
fn its_guard_killed_takes_the_tree_along() {
    let log = Log::new();
    let name = lease_name("pid1");
    let builder = as_pid_1(holder(&shared().url(), &name)).ttl("30s");
    let leasewrap = builder
        .worker(&log.worker(&["daemon", "children=1", "ignore=15"]))
        .spawn();
    let token = log.wait_newer(0, SOON);
    log.wait_processes(token, 3, SOON);
    let pid1 = inner(&leasewrap);
    let standby = holder(&shared().url(), &name)
        .ttl("30s")
        .worker(&log.worker(&[]))
        .spawn();
    standby.wait_event("waiting");
    let guard = until("the guard", SOON, || {
        crate::support::leasewrap::guard_of(pid1)
    });
    sys::kill(guard, libc::SIGKILL);
    leasewrap.end().code(125);
    log.wait_newer(token, SOON);
    assert!(log.hand_overs().iter().all(|seen| seen.overlap_ms <= 0.0));
}

#[test]
fn killed_it_takes_the_namespace_along_and_the_lease_runs_out() {
    let log = Log::new();
    let name = lease_name("pid1");
    let builder = as_pid_1(holder(&shared().url(), &name)).ttl("2s");
    let leasewrap = builder
        .worker(&log.worker(&["daemon", "chains=2", "ignore=15"]))
        .spawn();
    let token = log.wait_newer(0, SOON);
    let pid1 = inner(&leasewrap);
    let standby = holder(&shared().url(), &name)
        .ttl("2s")
        .worker(&log.worker(&[]))
        .spawn();
    standby.wait_event("waiting");
    sys::kill(pid1, libc::SIGKILL);
    log.wait_newer(token, SOON);
    assert!(log.hand_overs().iter().all(|seen| seen.overlap_ms <= 0.0));
}

#[test]
fn stopped_it_loses_its_worker_at_the_deadline() {
    let log = Log::new();
    let name = lease_name("pid1");
    let builder = as_pid_1(holder(&shared().url(), &name))
        .ttl("10s")
        .option("--renew-every", "1s")
        .option("--margin", "5s");
    let leasewrap = builder
        .worker(&log.worker(&["daemon", "ignore=15"]))
        .spawn();
    let token = log.wait_newer(0, SOON);
    let pid1 = inner(&leasewrap);
    let standby = holder(&shared().url(), &name)
        .ttl("10s")
        .worker(&log.worker(&[]))
        .spawn();
    standby.wait_event("waiting");
    sys::kill(pid1, libc::SIGSTOP);
    let new = log.wait_newer(token, SOON);
    log.wait_processes(new, 1, Duration::from_secs(5));
    assert!(log.hand_overs().iter().all(|seen| seen.overlap_ms <= 0.0));
}
