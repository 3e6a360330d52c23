//! Signals that are passed on, dropped, ignored, handed down.

use crate::leasewrap;
use crate::support::leasewrap::{Builder, Leasewrap, holder};
use crate::support::run::run;
use crate::support::server::shared;
use crate::support::wait::{SOON, until_true};
use crate::support::witness::Log;
use crate::support::{proc, sys};

/// A worker that writes `signal N` for each signal it gets; back when it can.
#[track_caller]
fn reporting(builder: Builder, log: &Log, options: &[&str]) -> (Leasewrap, i64) {
    let options: Vec<&str> = ["report"]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    let leasewrap = builder.worker(&log.worker(&options)).spawn();
    let token = log.wait_newer(0, SOON);
    (leasewrap, token)
}

/// How often the worker has reported a signal.
fn reports(leasewrap: &Leasewrap, signal: i32) -> usize {
    leasewrap
        .out()
        .matches(&format!("signal {signal:02}\n"))
        .count()
}

#[test]
fn every_signal_that_can_be_caught_is_passed_on() {
    let log = Log::new();
    let (leasewrap, _) = reporting(leasewrap(), &log, &[]);
    let kept = [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGPIPE,
        libc::SIGCHLD,
    ];
    for signal in (1..=64).filter(|signal| sys::catchable(*signal) && !kept.contains(signal)) {
        // TTIN and TTOU stop only what does not catch them, as this worker does.
        leasewrap.signal(signal);
        leasewrap.wait_out(&format!("signal {signal:02}\n"));
    }
    for signal in [libc::SIGPIPE, libc::SIGCHLD] {
        leasewrap.signal(signal);
        leasewrap.signal(libc::SIGUSR1);
    }
    until_true("the last USR1 has come", SOON, || {
        reports(&leasewrap, libc::SIGUSR1) >= 2
    });
    assert_eq!(reports(&leasewrap, libc::SIGPIPE), 0);
    assert_eq!(reports(&leasewrap, libc::SIGCHLD), 0);
}

#[test]
fn a_signal_to_the_group_reaches_the_worker_once() {
    let log = Log::new();
    let (leasewrap, _) = reporting(leasewrap(), &log, &[]);
    // Its session is its own, without a terminal: so its group is its pid.
    sys::kill(-leasewrap.pid(), libc::SIGUSR1);
    leasewrap.wait_out("signal 10\n");
    leasewrap.signal(libc::SIGUSR2);
    leasewrap.wait_out("signal 12\n");
    assert_eq!(reports(&leasewrap, libc::SIGUSR1), 1);
}

#[test]
fn the_guard_acts_on_no_signal() {
    let log = Log::new();
    let (leasewrap, _) = reporting(leasewrap(), &log, &[]);
    let guard = leasewrap.guard();
    for signal in (1..=64).filter(|signal| sys::catchable(*signal)) {
        sys::kill(guard, signal);
    }
    leasewrap.signal(libc::SIGUSR1);
    leasewrap.wait_out("signal 10\n");
    until_true("the guard runs", SOON, || {
        proc::state(guard).is_some_and(|state| state != 'T')
    });
    assert_eq!(
        leasewrap.out(),
        "signal 10\n",
        "nothing of it reached the worker"
    );
}

#[test]
fn a_standby_ends_by_what_asks_it_to_and_drops_the_rest() {
    let url = shared().url();
    let name = crate::support::leasewrap::lease_name("standby");
    let log = Log::new();
    let holder = crate::support::leasewrap::holder(&url, &name);
    let (_holder, _) = reporting(holder, &log, &[]);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
        let standby = crate::support::leasewrap::holder(&url, &name)
            .sh("true")
            .spawn();
        standby.wait_event("waiting");
        for dropped in [
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGRTMIN(),
            libc::SIGWINCH,
        ] {
            standby.signal(dropped);
        }
        standby.signal(signal);
        standby.end().code(128 + signal);
    }
}

#[test]
fn what_was_ignored_stays_ignored() {
    let log = Log::new();
    let ignored = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT];
    let builder = leasewrap().start(|start| start.ignored = ignored.to_vec());
    let (leasewrap, _) = reporting(builder, &log, &[]);
    ignored.iter().for_each(|signal| leasewrap.signal(*signal));
    leasewrap.signal(libc::SIGUSR1);
    leasewrap.wait_out("signal 10\n");
    assert_eq!(leasewrap.out(), "signal 10\n");
}

#[test]
fn a_standby_under_nohup_survives_the_hang_up() {
    let url = shared().url();
    let name = crate::support::leasewrap::lease_name("nohup");
    let log = Log::new();
    let builder = crate::support::leasewrap::holder(&url, &name);
    let (holder, _) = reporting(builder, &log, &[]);
    let standby = crate::support::leasewrap::holder(&url, &name)
        .below(&["nohup"])
        .sh("echo took over");
    let standby = standby.spawn();
    standby.wait_event("waiting");
    standby.signal(libc::SIGHUP);
    sys::kill(holder.guard(), libc::SIGKILL);
    let ended = standby.end().code(0);
    assert_eq!(ended.out, "took over\n");
}

#[test]
fn mask_and_dispositions_are_handed_down() {
    let seen = |text: &str| {
        let lines = text
            .lines()
            .filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn"));
        lines.collect::<Vec<_>>().join(" ")
    };
    let blocked = [
        libc::SIGUSR2,
        libc::SIGRTMIN(),
        libc::SIGCHLD,
        libc::SIGPIPE,
    ];
    let ignored = [
        libc::SIGUSR1,
        libc::SIGPIPE,
        libc::SIGCHLD,
        libc::SIGHUP,
        libc::SIGTSTP,
    ];
    for (blocked, ignored) in [(vec![], vec![]), (blocked.to_vec(), ignored.to_vec())] {
        let start = sys::Start {
            blocked,
            ignored,
            ..Default::default()
        };
        let mut bare = std::process::Command::new("cat");
        bare.arg("/proc/self/status");
        sys::prepare(&mut bare, start.clone());
        let bare = String::from_utf8(bare.output().unwrap().stdout).unwrap();
        let builder = leasewrap().start(|of_leasewrap| *of_leasewrap = start);
        let ended = builder.worker(&["cat", "/proc/self/status"]).run().code(0);
        assert_eq!(seen(&ended.out), seen(&bare));
    }
}

#[test]
fn limits_and_priorities_are_handed_down() {
    let script = "ulimit -n; ulimit -c; nice; cat /proc/self/oom_score_adj; umask; pwd; cat /proc/self/timerslack_ns";
    let bare = std::process::Command::new("prlimit")
        .args([
            "--nofile=345:678",
            "--core=0:0",
            "nice",
            "-n",
            "7",
            "sh",
            "-c",
            script,
        ])
        .current_dir("/usr")
        .output()
        .unwrap();
    let below = [
        "prlimit",
        "--nofile=345:678",
        "--core=0:0",
        "nice",
        "-n",
        "7",
        "env",
        "-C",
        "/usr",
    ];
    let ended = leasewrap().below(&below).sh(script).run().code(0);
    assert_eq!(ended.out, String::from_utf8_lossy(&bare.stdout));
}

#[test]
fn few_descriptors_are_enough() {
    let ended = leasewrap()
        .below(&["prlimit", "--nofile=24:24"])
        .sh("ulimit -n; exit 3")
        .run()
        .code(3);
    assert_eq!(ended.out, "24\n");
}

#[test]
fn a_limit_that_leasewrap_reaches_is_not_the_workers() {
    // What it writes to the file's log is cut off at 300 KiB, with SIGXFSZ:
    // no renewal works from then on.
    let file = run().file("limited.db");
    let url = format!("sqlite:{}", file.display());
    holder(&url, "limited")
        .ttl("2s")
        .option("--renew-every", "20ms")
        .below(&["bash", "-c", "ulimit -f 300; exec \"$@\"", "bash"])
        .sh("sleep 1000")
        .run()
        .code(122);
}

#[test]
fn a_limit_that_is_too_small_for_leasewrap_is_said() {
    let ended = leasewrap()
        .below(&["bash", "-c", "ulimit -f 64; exec \"$@\"", "bash"])
        .sh("exit 3")
        .run()
        .code(125);
    assert!(ended.last_line().contains("memory file"), "{ended:?}");
}
