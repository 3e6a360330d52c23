//! The worker's descendants: all of them are found, reaped, ended.

use std::time::{Duration, Instant};

use crate::leasewrap;
use crate::support::leasewrap::namespaced;
use crate::support::run::run;
use crate::support::user::{by_nobody, is_root, nobody_below_a_hiding_proc};
use crate::support::wait::{SOON, until, until_true};
use crate::support::witness::{Log, ms_between};
use crate::support::{proc, sys};

#[test]
fn nothing_is_left_at_any_end() {
    type End = fn(&crate::support::leasewrap::Leasewrap);
    let ends: [(&str, End, &[i32]); 5] = [
        (
            "the worker is killed",
            |leasewrap| _ = sys::kill(leasewrap.worker(), libc::SIGKILL),
            &[137],
        ),
        ("TERM", |leasewrap| leasewrap.signal(libc::SIGTERM), &[137]),
        (
            "the keeper is killed",
            |leasewrap| leasewrap.signal(libc::SIGKILL),
            &[137],
        ),
        (
            "the guard is killed",
            |leasewrap| _ = sys::kill(leasewrap.guard(), libc::SIGKILL),
            &[125],
        ),
        (
            "the keeper aborts",
            |leasewrap| leasewrap.signal(libc::SIGABRT),
            &[134],
        ),
    ];
    for (what, end, codes) in ends {
        let log = Log::new();
        let worker = log.worker(&["children=2", "daemon", "chains=2", "ignore=15"]);
        let leasewrap = leasewrap()
            .option("--stop-timeout", "500ms")
            .worker(&worker)
            .spawn();
        let token = log.wait_newer(0, SOON);
        log.wait_processes(token, 12, SOON);
        end(&leasewrap);
        assert!(
            log.wait_silence(SOON).is_some(),
            "{what}: somebody still stamps"
        );
        until_true(&format!("{what}: nobody of it is alive"), SOON, || {
            leasewrap.alive().is_empty()
        });
        let ended = leasewrap.end();
        assert!(codes.contains(&ended.code), "{what}: {ended:?}");
    }
}

#[test]
fn what_the_worker_leaves_behind_gets_the_stop_signal_first() {
    let script = "(trap 'echo bye; exit' TERM; echo ready; : >$0; while :; do sleep 0.02; done) & \
                  until [ -e $0 ]; do sleep 0.02; done; exit 6";
    let ready = run().file("ready").display().to_string();
    let ended = leasewrap().worker(&["sh", "-c", script, &ready]);
    let ended = ended.run().code(6);
    assert_eq!(ended.out, "ready\nbye\n");
    assert!(
        ended
            .log
            .iter()
            .any(|line| line.contains("left") && line.contains("sh")),
        "named: {:?}",
        ended.log
    );
}

#[test]
fn what_is_left_behind_and_ignores_it_is_killed_after_the_stop_timeout() {
    let log = Log::new();
    let worker = log.worker(&["daemon", "ignore=15", "exit-after=100", "exit-code=2"]);
    let leasewrap = leasewrap()
        .option("--stop-timeout", "300ms")
        .worker(&worker);
    leasewrap.run().code(2);
    let last = log.wait_silence(SOON).expect("nobody stamps any more");
    let stamps = log.stamps();
    let ended = stamps.iter().rev().find(|stamp| stamp.generation == 0);
    let lived_on = ms_between(ended.expect("the worker's").at_ns, last);
    assert!(
        lived_on < 4_800.0,
        "not the five seconds of longer timeouts: {lived_on}"
    );
}

#[test]
fn what_is_left_behind_has_five_seconds_at_most() {
    let log = Log::new();
    let worker = log.worker(&["daemon", "ignore=15", "exit-after=50"]);
    let start = Instant::now();
    let leasewrap = leasewrap().option("--stop-timeout", "60s").worker(&worker);
    leasewrap.run().code(0);
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(4_500) && took < Duration::from_secs(18),
        "{took:?}"
    );
    assert!(log.wait_silence(SOON).is_some());
}

#[test]
fn orphans_that_end_are_reaped_while_the_worker_runs() {
    let script =
        "i=0; while [ $i -lt 30 ]; do (true & ) ; i=$((i+1)); done; echo ready; exec sleep 1000";
    let leasewrap = leasewrap().sh(script).spawn();
    leasewrap.wait_out("ready");
    let (keeper, guard) = (leasewrap.pid(), leasewrap.guard());
    until_true("the worker alone is left", SOON, || {
        let mut below = [proc::children(keeper), proc::children(guard)].concat();
        below.retain(|pid| proc::comm(*pid).as_deref() != Some("lw-init"));
        below.retain(|pid| *pid != guard);
        below.len() == 1 && proc::state(below[0]) != Some('Z')
    });
}

#[test]
fn a_daemon_is_adopted_by_the_guard() {
    if namespaced() {
        // It is by its init.
        return;
    }
    let log = Log::new();
    let leasewrap = leasewrap().worker(&log.worker(&["daemon"])).spawn();
    let token = log.wait_newer(0, SOON);
    log.wait_processes(token, 2, SOON);
    let guard = leasewrap.guard();
    let daemon = *log
        .processes(token)
        .iter()
        .find(|pid| **pid != leasewrap.worker())
        .unwrap();
    until_true("the guard is its parent", SOON, || {
        proc::parent(daemon) == Some(guard)
    });
}

#[test]
fn a_fork_bomb_of_chains_is_ended() {
    let log = Log::new();
    let leasewrap = leasewrap()
        .ttl("20s")
        .worker(&log.worker(&["chains=6", "children=20", "ignore=15"]))
        .spawn();
    let token = log.wait_newer(0, SOON);
    log.wait_processes(token, 60, SOON);
    let start = Instant::now();
    leasewrap.signal(libc::SIGKILL);
    assert!(
        log.wait_silence(Duration::from_secs(40)).is_some(),
        "chains still fork"
    );
    until_true("nobody of it is alive", SOON, || {
        leasewrap.alive().is_empty()
    });
    eprintln!(
        "six chains and twenty children ended within {:?}",
        start.elapsed()
    );
}

#[test]
fn the_guards_name_group_and_arguments_say_nothing_of_the_worker() {
    let leasewrap = leasewrap().worker(&["sleep", "1000"]).spawn();
    let worker = leasewrap.worker();
    let guard = leasewrap.guard();
    let line = std::fs::read(format!("/proc/{guard}/cmdline")).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&line).trim_end_matches('\0'),
        "lw-guard"
    );
    assert_eq!(proc::comm(guard).as_deref(), Some("lw-guard"));
    let group = |pid| {
        nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid)))
            .unwrap()
            .as_raw()
    };
    until_true("the guard is in a group of its own", SOON, || {
        group(guard) == guard
    });
    assert_eq!(
        group(worker),
        worker,
        "without a terminal the worker has its own, too"
    );
    assert_ne!(group(worker), group(leasewrap.pid()));
}

#[test]
fn what_cannot_be_looked_into_is_ended_all_the_same() {
    use std::os::unix::fs::PermissionsExt;
    if !is_root() {
        // Somebody else has to hide /proc.
        return;
    }
    // A program that may be executed and not read cannot be dumped, and is not
    // shown to its own user where /proc hides others' processes.
    let shell = run().file("shell");
    std::fs::copy("/bin/sh", &shell).unwrap();
    std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o711)).unwrap();
    let shell = shell.to_str().unwrap();
    let below = nobody_below_a_hiding_proc();
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let leasewrap = by_nobody(leasewrap())
            .below(&below)
            .option("--stop-timeout", "300ms")
            .worker(&[shell, "-c", "sleep 1000 & echo up; wait"])
            .spawn();
        leasewrap.wait_out("up");
        let alive = leasewrap.alive().len();
        assert!(alive >= 4, "keeper, guard, shell and sleep: {alive}");
        leasewrap.signal(signal);
        until_true("nobody is left", SOON, || leasewrap.alive().is_empty());
    }
}

#[test]
fn a_guard_without_a_descriptor_to_spare_ends_the_tree() {
    let log = Log::new();
    let leasewrap = leasewrap()
        .worker(&log.worker(&["children=2", "daemon", "ignore=15"]))
        .spawn();
    let token = log.wait_newer(0, SOON);
    log.wait_processes(token, 3, SOON);
    let guard = leasewrap.guard().to_string();
    let limited = std::process::Command::new("prlimit")
        .args(["--pid", &guard, "--nofile=4"])
        .status()
        .unwrap();
    assert!(limited.success());
    leasewrap.signal(libc::SIGKILL);
    until_true("nobody is left", SOON, || leasewrap.alive().is_empty());
}

#[test]
fn a_proc_of_another_namespace_is_refused() {
    if !is_root() {
        return;
    }
    let ended = leasewrap()
        .below(&["unshare", "--pid", "--fork"])
        .sh("echo ran")
        .run()
        .code(125);
    assert!(ended.says(&["/proc is not mounted or shows"]), "{ended:?}");
    assert_eq!(ended.out, "");
}

#[test]
fn a_worker_that_somebody_traces_is_named() {
    let leasewrap = leasewrap()
        .option("--stop-timeout", "300ms")
        .sh("echo up; exec sleep 1000")
        .spawn();
    leasewrap.wait_out("up");
    let worker = leasewrap.worker();
    until_true("the shell has become what it runs", SOON, || {
        proc::comm(worker).as_deref() == Some("sleep")
    });
    let (let_go, told) = std::sync::mpsc::channel::<()>();
    let (is_traced, traced) = std::sync::mpsc::channel();
    // Whoever is traced belongs to the thread that has begun it.
    let tracer = std::thread::spawn(move || {
        // SAFETY: numbers; nothing of this process is read or written.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, worker, 0, 0) };
        is_traced.send(seized == 0).unwrap();
        let _over = told.recv();
    });
    assert!(traced.recv().unwrap(), "it can be traced");
    leasewrap.signal(libc::SIGTERM);
    let line = until("it is told of", Duration::from_secs(20), || {
        let lines = leasewrap.log();
        lines.into_iter().find(|line| line.contains("traces it"))
    });
    assert!(line.contains(&format!("{worker} sleep")), "{line}");
    drop(let_go);
    tracer.join().unwrap();
    until_true("nobody is left", SOON, || leasewrap.alive().is_empty());
}
