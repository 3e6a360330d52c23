//! Orderly stops: who gets which signal, how long they have, what cuts it short.

use std::time::{Duration, Instant};

use crate::leasewrap;
use crate::support::leasewrap::holder;
use crate::support::run::run;
use crate::support::wait::{SOON, maybe, until_true};
use crate::support::witness::Log;
use crate::support::{proc, sys};

/// A shell that says when it is ready, and then loops.
fn looping(traps: &str) -> String {
    format!("{traps}; echo ready; while :; do sleep 0.02; done")
}

#[test]
fn the_workers_exit_code_after_a_stop_is_passed_on() {
    for (signal, code) in [(libc::SIGTERM, 7), (libc::SIGINT, 8), (libc::SIGQUIT, 9)] {
        let traps = "trap 'exit 7' TERM; trap 'exit 8' INT; trap 'exit 9' QUIT";
        let leasewrap = leasewrap()
            .option("--stop-to", "worker")
            .sh(&looping(traps))
            .spawn();
        leasewrap.wait_out("ready");
        leasewrap.signal(signal);
        let ended = leasewrap.end().code(code);
        assert!(ended.says(&["released"]), "{:?}", ended.log);
    }
}

#[test]
fn a_worker_that_ends_by_the_signal_gives_128_plus_it() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
        let leasewrap = leasewrap().worker(&["sleep", "1000"]).spawn();
        leasewrap.worker();
        leasewrap.signal(signal);
        leasewrap.end().code(128 + signal);
    }
}

#[test]
fn another_stop_signal() {
    let traps = "trap 'exit 6' USR1; trap '' TERM";
    let leasewrap = leasewrap()
        .option("--stop-signal", "USR1")
        .sh(&looping(traps))
        .spawn();
    leasewrap.wait_out("ready");
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(6);
}

#[test]
fn the_tree_gets_the_signal_and_each_process_once() {
    let log = Log::new();
    let words = log.worker(&["report", "children=3", "daemon"]).join(" ");
    let script = format!("{words}; true");
    let leasewrap = leasewrap()
        .option("--stop-timeout", "5s")
        .sh(&script)
        .spawn();
    let token = log.wait_newer(0, SOON);
    log.wait_processes(token, 5, SOON);
    leasewrap.signal(libc::SIGTERM);
    let ended = leasewrap.end().code(143);
    assert_eq!(ended.out.matches("signal 15\n").count(), 5, "{ended:?}");
}

#[test]
fn the_worker_alone_gets_it_when_asked_for() {
    let log = Log::new();
    let words = log.worker(&["report"]).join(" ");
    let script = format!("trap 'echo shell; kill -KILL $!; exit 4' TERM; {words} & wait");
    let leasewrap = leasewrap()
        .option("--stop-to", "worker")
        .sh(&script)
        .spawn();
    log.wait_newer(0, SOON);
    leasewrap.signal(libc::SIGTERM);
    let ended = leasewrap.end().code(4);
    assert_eq!(ended.out, "shell\n");
}

#[test]
fn what_a_stopping_worker_starts_gets_no_signal() {
    let traps = "trap 'sleep 0.4 && echo cleaned up; exit 3' TERM";
    let leasewrap = leasewrap().sh(&looping(traps)).spawn();
    leasewrap.wait_out("ready");
    leasewrap.signal(libc::SIGTERM);
    let ended = leasewrap.end().code(3);
    assert!(ended.out.ends_with("cleaned up\n"), "{ended:?}");
}

#[test]
fn the_stop_timeout_ends_the_patience() {
    let leasewrap = leasewrap()
        .option("--stop-timeout", "300ms")
        .sh(&looping("trap '' TERM"))
        .spawn();
    leasewrap.wait_out("ready");
    let start = Instant::now();
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(137);
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn everybody_has_until_the_stop_timeout_also_after_the_worker() {
    let script = "(trap 'sleep 0.6; echo late; exit' TERM; echo ready; while :; do sleep 0.02; done) & sleep 1000";
    let leasewrap = leasewrap().sh(script).spawn();
    leasewrap.wait_out("ready");
    leasewrap.signal(libc::SIGTERM);
    let ended = leasewrap.end().code(143);
    assert!(ended.out.contains("late"), "{ended:?}");
}

#[test]
fn twice_at_once_is_once() {
    // Whichever of them comes first; another one would change the end.
    let traps = "trap 'trap \"exit 6\" TERM INT; sleep 0.3; exit 5' TERM INT";
    let leasewrap = leasewrap()
        .option("--stop-timeout", "60s")
        .sh(&looping(traps))
        .spawn();
    leasewrap.wait_out("ready");
    // As `timeout` and `killall` do.
    leasewrap.signal(libc::SIGTERM);
    leasewrap.signal(libc::SIGTERM);
    leasewrap.signal(libc::SIGINT);
    leasewrap.end().code(5);
}

#[test]
fn below_timeout_a_clean_up_is_not_cut_short() {
    // It sends TERM to its child and then to its whole group.
    let traps = "trap 'sleep 0.3; echo cleaned up; exit 5' TERM";
    let below = ["timeout", "--preserve-status", "60"];
    let leasewrap = leasewrap()
        .below(&below)
        .option("--stop-timeout", "60s")
        .sh(&looping(traps))
        .spawn();
    leasewrap.wait_out("ready");
    // On one of its own it does the same as when its time is over.
    leasewrap.signal(libc::SIGTERM);
    let ended = leasewrap.end().code(5);
    assert!(ended.out.contains("cleaned up"), "{ended:?}");
}

#[test]
fn a_second_signal_later_cuts_the_wait_short() {
    for second in [libc::SIGTERM, libc::SIGINT] {
        let leasewrap = leasewrap()
            .option("--stop-timeout", "60s")
            .sh(&looping("trap '' TERM INT"))
            .spawn();
        leasewrap.wait_out("ready");
        leasewrap.signal(libc::SIGTERM);
        leasewrap.wait_event("stopping");
        // Half a second is the contract's; this is no waiting for luck.
        std::thread::sleep(Duration::from_millis(600));
        leasewrap.signal(second);
        leasewrap.end().code(137);
    }
}

#[test]
fn a_stopped_worker_sees_the_stop_signal() {
    let leasewrap = leasewrap().sh(&looping("trap 'exit 11' TERM")).spawn();
    leasewrap.wait_out("ready");
    let worker = leasewrap.worker();
    sys::kill(worker, libc::SIGSTOP);
    until_true("it is stopped", SOON, || proc::state(worker) == Some('T'));
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(11);
}

#[test]
fn a_worker_stopped_by_somebody_stays_stopped_and_the_lease_held() {
    let log = Log::new();
    let leasewrap = leasewrap().ttl("8s").worker(&log.worker(&[])).spawn();
    let token = log.wait_newer(0, SOON);
    let worker = leasewrap.worker();
    sys::kill(worker, libc::SIGSTOP);
    until_true("it is stopped", SOON, || proc::state(worker) == Some('T'));
    let woken = maybe(Duration::from_secs(9), || {
        (proc::state(worker) != Some('T')).then_some(())
    });
    assert!(
        woken.is_none(),
        "SIGSTOP is not job control: nobody wakes it"
    );
    leasewrap.signal(libc::SIGCONT);
    until_true("CONT is passed on", SOON, || {
        proc::state(worker) != Some('T')
    });
    assert_eq!(log.spans().last().unwrap().0, token);
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(143);
}

#[test]
fn the_lease_is_renewed_while_it_stops() {
    let name = crate::support::leasewrap::lease_name("stopping");
    let url = crate::support::server::shared().url();
    let log = Log::new();
    let holder = crate::support::leasewrap::holder(&url, &name)
        .ttl("6s")
        .option("--stop-timeout", "12s");
    let holder = holder.worker(&log.worker(&["ignore=15"])).spawn();
    let token = log.wait_newer(0, SOON);
    let standby = crate::support::leasewrap::holder(&url, &name)
        .ttl("6s")
        .worker(&log.worker(&[]))
        .spawn();
    standby.wait_event("waiting");
    holder.signal(libc::SIGTERM);
    holder.end_within(SOON * 2).code(137);
    log.wait_newer(token, SOON);
    let seen = log.hand_overs();
    assert!(seen.iter().all(|seen| seen.overlap_ms <= 0.0), "{seen:?}");
    let (_, first, last) = log.spans()[0];
    assert!(
        last.at_ns - first.at_ns > 9_000_000_000,
        "it had its stop timeout, and more than a ttl"
    );
}

#[test]
fn within_another_leasewrap_the_worker_gets_it_once() {
    let log = Log::new();
    let file = run().file("inner.db");
    let inner = holder(&format!("sqlite:{}", file.display()), "inner")
        .option("--stop-timeout", "5s")
        .worker(&log.worker(&["report"]));
    let outer = leasewrap()
        .option("--stop-timeout", "1m")
        .worker(&inner.words())
        .spawn();
    log.wait_newer(0, SOON);
    outer.signal(libc::SIGTERM);
    let ended = outer.end();
    assert_eq!(ended.out.matches("signal 15").count(), 1, "{ended:?}");
}
