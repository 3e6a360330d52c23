//! Who asks for an end, and what each half makes of it.

use std::process::Command;

use crate::pod::{LONG, Pod, STUBBORN};
use crate::support::leasewrap::{Leasewrap, binary};
use crate::support::proxy::Proxy;
use crate::support::run::{MARK, run};
use crate::support::server::shared;
use crate::support::wait::{SOON, until, until_true};

fn count(leasewrap: &Leasewrap, line: &str) -> usize {
    leasewrap.out().lines().filter(|seen| *seen == line).count()
}

/// Sends a signal until it cuts a stop short: the first half second does not
/// count.
#[track_caller]
fn hurry(attach: &Leasewrap, signal: i32) {
    until_true("the killing begins", SOON, || {
        attach.signal(signal);
        let kills = |line: &String| line.contains("\"killing\"");
        attach.log().iter().any(kills)
    });
}

#[test]
fn a_stop_signal_to_attach_reaches_each_process_once_and_serve_goes_on() {
    let pod = Pod::new("sidecar-term-to-attach", LONG);
    let holding = pod.hold(&["report", "children=1"]);
    let rival = pod.rival();
    holding.attach.signal(libc::SIGTERM);
    holding.attach.wait_out("signal 15\n");
    let seen = holding.serve.wait_event("stopping");
    assert_eq!(seen["reason"], "signal");
    // The worker reports signals instead of ending: a second one hurries.
    hurry(&holding.attach, libc::SIGINT);
    until_true("worker and child say so", SOON, || {
        count(&holding.attach, "signal 15") == 2
    });
    assert_eq!(count(&holding.attach, "signal 02"), 0);
    let ended = holding.attach.end().code(137);
    assert!(
        ended.last_line().contains("SIGTERM came to attach"),
        "{ended:?}"
    );
    pod.scene.given_back(&rival, holding.token);
    assert!(crate::support::proc::alive(holding.serve.pid()));
}

#[test]
fn int_is_passed_on_as_itself_and_other_signals_too() {
    let pod = Pod::new("sidecar-signals", LONG);
    let holding = pod.hold(&["report"]);
    for signal in [libc::SIGUSR1, libc::SIGHUP, libc::SIGRTMIN()] {
        holding.attach.signal(signal);
        let line = format!("signal {signal:02}\n");
        holding.attach.wait_out(&line);
    }
    holding.attach.signal(libc::SIGINT);
    holding.attach.wait_out("signal 02\n");
    // What is sent to serve is for serve.
    holding.serve.signal(libc::SIGUSR1);
    holding.serve.signal(libc::SIGTERM);
    let ended = holding.attach.end_within(LONG + SOON).code(137);
    assert_eq!(ended.out.matches("signal 10\n").count(), 1, "{}", ended.out);
    holding.serve.end().code(137);
}

#[test]
fn a_stop_signal_to_serve_stops_the_worker_first() {
    let pod = Pod::new("sidecar-term-to-serve", LONG);
    let holding = pod.hold_by(pod.serve().option("--stop-timeout", "500ms"), &STUBBORN);
    let rival = pod.rival();
    holding.serve.signal(libc::SIGTERM);
    pod.scene.given_back(&rival, holding.token);
    holding.attach.end().code(137);
    let ended = holding.serve.end().code(137);
    assert!(ended.says(&["released"]), "{ended:?}");
}

#[test]
fn a_second_signal_to_serve_cuts_the_stop_short() {
    let pod = Pod::new("sidecar-hurry", LONG);
    let mut holding = pod.hold(&["ignore=15"]);
    holding.serve.signal(libc::SIGTERM);
    holding.serve.wait_event("stopping");
    until("it hurries", SOON, || {
        holding.serve.signal(libc::SIGTERM);
        holding.serve.ended()
    });
    holding.attach.end().code(137);
}

#[test]
fn both_get_a_stop_signal_at_once() {
    let pod = Pod::new("sidecar-term-to-both", LONG);
    let holding = pod.hold(&["report"]);
    holding.serve.signal(libc::SIGTERM);
    holding.attach.signal(libc::SIGTERM);
    holding.attach.wait_out("signal 15\n");
    hurry(&holding.attach, libc::SIGTERM);
    let ended = holding.attach.end().code(137);
    assert_eq!(ended.out.matches("signal 15\n").count(), 1, "{}", ended.out);
    let ended = holding.serve.end().code(137);
    assert!(ended.says(&["released"]), "{ended:?}");
}

fn operator(pod: &Pod, words: &[&str]) {
    let status = Command::new(binary())
        .env(MARK, run().dir())
        .args(words)
        .args(["--db", &shared().url(), "--name", &pod.scene.name])
        .output()
        .expect("run an operator's command");
    assert!(status.status.success(), "{words:?}: {status:?}");
}

#[test]
fn a_step_down_ends_attach_as_after_term() {
    let pod = Pod::new("sidecar-step-down", LONG);
    let holding = pod.hold(&[]);
    let _rival = pod.rival();
    operator(&pod, &["step-down"]);
    let ended = holding.attach.end().code(143);
    assert!(ended.last_line().contains("step-down"), "{ended:?}");
    pod.scene.handed_over(holding.token, SOON);
    assert!(crate::support::proc::alive(holding.serve.pid()));
}

#[test]
fn a_break_kills_the_worker() {
    let pod = Pod::new("sidecar-break", LONG);
    let holding = pod.hold(&STUBBORN);
    let rival = pod.rival();
    operator(&pod, &["break", "--yes"]);
    let ended = holding.attach.end().code(122);
    assert!(ended.last_line().contains("lease lost"), "{ended:?}");
    pod.scene.given_back(&rival, holding.token);
}

#[test]
fn a_precheck_that_fails_ends_attach_with_120() {
    let pod = Pod::new("sidecar-precheck", LONG);
    let fit = crate::support::leasewrap::file_with("fit");
    let precheck = format!("test -e '{}'", fit.display());
    let serve = pod
        .serve()
        .option("--precheck", &precheck)
        .option("--renew-every", "200ms");
    let holding = pod.hold_by(serve, &[]);
    std::fs::remove_file(&fit).unwrap();
    let ended = holding.attach.end().code(120);
    assert!(ended.last_line().contains("precheck"), "{ended:?}");
}

#[test]
fn a_database_that_is_cut_off_ends_attach_with_122_and_serve_stands_by_again() {
    let pod = Pod::new("sidecar-cut", crate::pod::SHORT);
    let proxy = Proxy::to(shared().port());
    let holding = pod.hold_by(pod.serve_on(&proxy.url("postgres")), &STUBBORN);
    let _rival = pod.rival();
    proxy.cut();
    pod.scene.handed_over(holding.token, SOON);
    let ended = holding.attach.end().code(122);
    assert!(ended.last_line().contains("lease lost"), "{ended:?}");
    assert!(crate::support::proc::alive(holding.serve.pid()));
}
