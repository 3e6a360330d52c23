//! `--precheck`: fit to hold, or not.

use std::time::{Duration, Instant};

use crate::support::leasewrap::{events, holder, lease_name};
use crate::support::server::shared;
use crate::support::user::is_root;
use crate::support::wait::{SOON, until, until_true};
use crate::support::{proc, sys};
use crate::{Notes, leasewrap, noted_pid, patient, row, terminate, wait_gone};

#[test]
fn without_a_pass_there_is_no_attempt() {
    for (command, words) in [
        ("echo too hot >&2; exit 3", "exit code 3: too hot"),
        ("echo last words; kill -9 $$", "SIGKILL: last words"),
        ("no-such-command-anywhere", "exit code 127: sh: "),
    ] {
        let name = lease_name("unfit");
        let ended = holder(&shared().url(), &name)
            .option("--precheck", command)
            .switch("--no-wait")
            .sh("echo never")
            .run()
            .code(121);
        assert_eq!(ended.out, "");
        assert!(ended.says(&["precheck-failed", words]), "{:?}", ended.log);
        assert!(ended.last_line().contains("precheck"), "{:?}", ended.log);
        assert_eq!(row(&name, "count(*)"), "0", "the row was never taken");
    }
}

#[test]
fn one_that_hangs_does_not_outlast_the_wait() {
    let notes = Notes::new();
    let command = format!("echo hung $$ >> {}; exec sleep 1000", notes.word());
    // `--no-wait` lets one attempt finish, and with it its precheck.
    for (wait, timeout) in [("5s", "10m"), ("0s", "300ms")] {
        let ended = leasewrap()
            .option("--wait", wait)
            .option("--hook-timeout", timeout)
            .option("--precheck", &command)
            .sh("echo never")
            .run()
            .code(121);
        assert!(ended.last_line().contains("precheck"), "{:?}", ended.log);
    }
    for line in notes.lines() {
        let pid = line.split(' ').nth(1).and_then(|pid| pid.parse().ok());
        wait_gone("the precheck", pid.expect("a pid"));
    }
}

#[test]
fn a_standby_tries_as_soon_as_it_passes() {
    let fit = Notes::new();
    let standby = leasewrap()
        .env("LEASEWRAP_PRECHECK", &format!("test -e {}", fit.word()))
        .ttl("20s")
        .option("--renew-every", "400ms")
        .sh(&patient(4))
        .spawn();
    assert_eq!(standby.wait_event("waiting")["reason"], "precheck");
    // It is asked again at every poll, and told once.
    standby.wait_events("waiting", 3);
    assert_eq!(events(&standby.log(), "precheck-failed").len(), 1);
    assert!(events(&standby.log(), "acquired").is_empty());
    fit.write("");
    standby.wait_event("precheck-passed");
    standby.wait_event("acquired");
    terminate(standby, 4);
}

#[test]
fn one_that_fails_in_a_term_ends_it_in_order() {
    let (unfit, notes) = (Notes::new(), Notes::new());
    let name = lease_name("unfit-later");
    let script = format!(
        "trap 'echo bye; exit 7' TERM; echo up >> {}; while :; do sleep 0.02; done",
        notes.word()
    );
    let holder = holder(&shared().url(), &name)
        .option(
            "--precheck",
            &format!("test ! -e {} || {{ echo worn out; exit 9; }}", unfit.word()),
        )
        .ttl("20s")
        .option("--renew-every", "400ms")
        .sh(&script)
        .spawn();
    notes.wait("up");
    unfit.write("");
    let ended = holder.end().code(120);
    assert_eq!(ended.out, "bye\n", "an orderly stop");
    assert!(ended.says(&["precheck-failed", "exit code 9: worn out"]));
    assert_eq!(row(&name, "released_at is not null"), "t");
}

#[test]
fn one_that_hangs_delays_no_renewal_and_is_killed_with_all_it_started() {
    let (hang, notes) = (Notes::new(), Notes::new());
    let command = format!(
        "test ! -e {hang} || {{ trap '' TERM HUP; \
         setsid sh -c 'echo daemon $$ >> {notes}; exec sleep 1000' & \
         echo hung $$ >> {notes}; sleep 1000; }}",
        hang = hang.word(),
        notes = notes.word()
    );
    let holder = leasewrap()
        .option("--precheck", &command)
        .option("--hook-timeout", "10s")
        .ttl("20s")
        .option("--renew-every", "400ms")
        .switch("-v")
        .sh(&patient(0))
        .spawn();
    holder.wait_event("renewed");
    hang.write("");
    let pids = [noted_pid(&notes, "hung"), noted_pid(&notes, "daemon")];
    let before = events(&holder.log(), "renewed").len();
    holder.wait_events("renewed", before + 3);
    assert!(pids.into_iter().all(proc::alive), "it hangs all the time");
    let ended = holder.end().code(120);
    assert!(ended.says(&["precheck-failed", "not done within 10s"]));
    for pid in pids {
        wait_gone("the precheck", pid);
    }
}

#[test]
fn it_is_told_of_the_lease_and_of_the_term_that_is_held() {
    let notes = Notes::new();
    let name = lease_name("told");
    let command = format!(
        "echo \"lease=$LEASEWRAP_LEASE token=${{LEASEWRAP_TOKEN-none}} \
         slot=${{LEASEWRAP_SLOT-none}} db=${{LEASEWRAP_DB-none}} \
         event=${{LEASEWRAP_EVENT-none}} input=$(wc -c)\" >> {}",
        notes.word()
    );
    let holder = holder(&shared().url(), &name)
        .option("--precheck", &command)
        .env("LEASEWRAP_DB", "postgres://hidden")
        .env("LEASEWRAP_EVENT", "of a leasewrap outside")
        .ttl("20s")
        .option("--renew-every", "400ms")
        .sh(&patient(0))
        .spawn();
    let token = holder.wait_event("acquired")["token"].to_string();
    let rest = "db=none event=none input=0";
    assert_eq!(
        notes.lines()[0],
        format!("lease={name} token=none slot=none {rest}")
    );
    let held = format!("lease={name} token={token} slot=0 {rest}");
    assert_eq!(notes.wait(&format!("lease={name} token={token}")), held);
    terminate(holder, 0);
}

#[test]
fn prechecks_leave_no_zombies() {
    let notes = Notes::new();
    let command = format!("echo checked >> {}", notes.word());
    let holder = leasewrap()
        .option("--precheck", &command)
        .ttl("20s")
        .option("--renew-every", "200ms")
        .sh(&patient(0))
        .spawn();
    until_true("many were run", SOON, || notes.lines().len() >= 6);
    until_true("all of them are reaped", SOON, || {
        let children = proc::children(holder.pid());
        children.len() == 1 && proc::state(children[0]) != Some('Z')
    });
    terminate(holder, 0);
}

#[test]
fn a_guard_that_stands_still_is_given_time_and_said_to_leave_something() {
    if !is_root() {
        // Who may not look into it cannot hold it.
        return;
    }
    let notes = Notes::new();
    let command = format!("echo hangs $PPID >> {}; sleep 1000 & wait", notes.word());
    let leasewrap = leasewrap()
        .option("--precheck", &command)
        .sh("echo never")
        .spawn();
    let guard = noted_pid(&notes, "hangs");
    let (let_go, told) = std::sync::mpsc::channel::<()>();
    let (is_held, held) = std::sync::mpsc::channel();
    // Whoever is traced belongs to the thread that has begun it.
    let tracer = std::thread::spawn(move || {
        is_held.send(sys::hold(guard)).unwrap();
        let _over = told.recv();
    });
    assert!(held.recv().unwrap(), "it stands still");
    let begun = Instant::now();
    leasewrap.signal(libc::SIGTERM);
    let line = until("it is given up", SOON, || {
        let lines = leasewrap.log();
        lines.into_iter().find(|line| line.contains("guard-killed"))
    });
    assert!(begun.elapsed() >= Duration::from_secs(2), "{line}");
    assert!(line.contains("may live on"), "{line}");
    drop(let_go);
    tracer.join().unwrap();
    leasewrap.end().code(143);
}
