//! `--rejoin`: after a loss, a failed precheck or a step-down, stand by again
//! with a new guard and a new holder.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;

use crate::support::leasewrap::{Leasewrap, events, holder, lease_name};
use crate::support::proxy::Proxy;
use crate::support::server::shared;
use crate::support::wait::{SOON, until, until_true};
use crate::support::witness::Log;
use crate::support::{proc, run::run};
use crate::{Notes, leasewrap, patient, row, terminate, wait_up};

/// The holder, the token and the guard of the `count`-th term.
#[track_caller]
fn term(leasewrap: &Leasewrap, count: usize) -> (String, i64, i32) {
    let acquired = leasewrap.wait_events("acquired", count);
    let holder = acquired["holder"].as_str().expect("a holder").to_owned();
    let token = acquired["token"].as_i64().expect("a token");
    leasewrap.wait_out(&holder);
    (holder, token, leasewrap.guard())
}

#[test]
fn each_term_is_a_new_one_and_the_caller_s_descriptors_serve_them_all() {
    let name = lease_name("rejoin");
    let unfit = Notes::new();
    let passed = run().file("passed");
    std::fs::write(&passed, "first\nsecond\nthird\nfourth\n").expect("write a file");
    let passed = std::fs::File::open(passed).expect("open a file");
    let (stdin, mut input) = std::io::pipe().expect("a pipe");
    let script = format!(
        "read line; read word <&7; echo $LEASEWRAP_HOLDER $line $word; {}",
        patient(9)
    );
    let leasewrap = holder(&shared().url(), &name)
        .switch("--rejoin")
        .ttl("20s")
        .option("--renew-every", "400ms")
        .option("--precheck", &format!("test ! -e {}", unfit.word()))
        .stdin(stdin)
        .start(|start| start.descriptors.push((passed.as_raw_fd(), 7)))
        .sh(&script)
        .spawn();
    let mut say = |text: &str| input.write_all(text.as_bytes()).expect("write to a pipe");

    say("one\n");
    let first = term(&leasewrap, 1);
    shared().psql(&format!(
        "update leasewrap.lease set closed_token = token where name = '{name}'"
    ));
    assert_eq!(leasewrap.wait_event("lost")["reason"], "closed");

    say("two\n");
    let second = term(&leasewrap, 2);
    shared().psql(&format!(
        "update leasewrap.lease set request_token = token, request_kind = 'step-down', \
         requested_at = clock_timestamp() where name = '{name}'"
    ));
    assert_eq!(leasewrap.wait_event("stopping")["reason"], "step-down");

    say("three\n");
    let third = term(&leasewrap, 3);
    unfit.write("");
    assert_eq!(leasewrap.wait_events("stopping", 2)["reason"], "precheck");
    leasewrap.wait_event("waiting");
    unfit.remove();

    say("four\n");
    let fourth = term(&leasewrap, 4);
    let terms = [first, second, third, fourth];
    for pair in terms.windows(2) {
        let (old, new) = (&pair[0], &pair[1]);
        assert_ne!(old.0, new.0, "a new holder");
        assert!(old.1 < new.1, "a larger token");
        assert_ne!(old.2, new.2, "a new guard");
        assert!(!proc::alive(old.2));
    }
    let lines = ["one first", "two second", "three third", "four fourth"];
    for (term, line) in terms.iter().zip(lines) {
        let line = format!("{} {line}\n", term.0);
        assert!(leasewrap.out().contains(&line), "{}", leasewrap.out());
    }
    // A precheck comes and goes.
    until_true("no zombies", SOON, || {
        proc::children(leasewrap.pid()) == [terms[3].2]
    });
    wait_up(&leasewrap, 4);
    terminate(leasewrap, 9);
    assert_eq!(row(&name, "released_at is not null"), "t");
}

#[test]
fn after_a_cut_line_it_works_again() {
    let proxy = Proxy::to(shared().port());
    let log = Log::new();
    let leasewrap = holder(&proxy.url("postgres"), &lease_name("line"))
        .switch("--rejoin")
        .ttl("1s")
        .worker(&log.worker(&["daemon"]))
        .spawn();
    let first = log.wait_newer(0, SOON);
    proxy.cut();
    leasewrap.wait_event("lost");
    proxy.mend();
    log.wait_newer(first, SOON);
    assert!(log.hand_overs().iter().all(|seen| seen.overlap_ms <= 0.0));
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(128 + libc::SIGTERM);
}

#[test]
fn one_that_stood_still_goes_on_with_its_next_term() {
    // On a busy host its own timer may end it before the guard has woken it.
    for _ in 0..5 {
        let mut leasewrap = leasewrap()
            .switch("--rejoin")
            .ttl("2s")
            .sh(&patient(9))
            .spawn();
        wait_up(&leasewrap, 1);
        let guard = leasewrap.guard();
        leasewrap.signal(libc::SIGSTOP);
        // The guard releases in its place and wakes it.
        let killed = until("its next worker, or its end", SOON, || {
            let code = leasewrap.ended();
            let up = leasewrap.out().matches("up\n").count() >= 2;
            (code.is_some() || up).then_some(code)
        });
        if let Some(code) = killed {
            assert_eq!(code, 137, "{:?}", leasewrap.log());
            continue;
        }
        crate::wait_gone("the guard of the first term", guard);
        terminate(leasewrap, 9);
        return;
    }
    panic!("it was never woken in time");
}

#[test]
fn a_signal_ends_it_wherever_it_stands() {
    let unfit = Notes::new();
    let leasewrap = leasewrap()
        .switch("--rejoin")
        .ttl("20s")
        .option("--renew-every", "400ms")
        .option("--precheck", &format!("test ! -e {}", unfit.word()))
        .sh(&patient(9))
        .spawn();
    leasewrap.wait_event("acquired");
    unfit.write("");
    leasewrap.wait_event("waiting");
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(128 + libc::SIGTERM);
}

#[test]
fn other_ends_are_ends() {
    let again = |builder: crate::support::leasewrap::Builder| builder.switch("--rejoin");
    again(leasewrap()).sh("exit 6").run().code(6);
    again(leasewrap())
        .option("--worker-watchdog", "300ms")
        .sh(&patient(0))
        .run()
        .code(120);
    let holder = again(leasewrap()).sh(&patient(0)).spawn();
    let worker = holder.worker();
    let guard = until("its guard", SOON, || proc::parent(worker));
    crate::signal(guard, libc::SIGKILL);
    let ended = holder.end().code(125);
    assert_eq!(events(&ended.log, "acquired").len(), 1);
}

#[test]
fn a_pipe_stays_open_for_the_next_worker_and_closes_with_the_last() {
    let name = lease_name("pipe");
    let (output, stdout) = std::io::pipe().expect("a pipe");
    let leasewrap = holder(&shared().url(), &name)
        .switch("--rejoin")
        .stdout(stdout)
        .sh(&patient(0))
        .spawn();
    let mut lines = BufReader::new(output).lines();
    let mut next = || lines.next().map(|line| line.expect("read the pipe"));
    assert_eq!(next().as_deref(), Some("up"));
    shared().psql(&format!(
        "update leasewrap.lease set closed_token = token where name = '{name}'"
    ));
    assert_eq!(next().as_deref(), Some("up"));
    leasewrap.signal(libc::SIGTERM);
    assert_eq!(next(), None);
    leasewrap.end().code(0);
}
