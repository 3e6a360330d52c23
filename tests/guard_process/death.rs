//! Deadlines, lost keepers, broken frames.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use leasewrap::sys::clock;
use leasewrap::sys::process;
use leasewrap::wire::{FromGuard, NotStarted, StopReason, ToGuard, WorkerEnd};

use crate::support::{
    Keeper, LIMIT, Place, at, calm, eventually, helper_command, is_alive, outside, start, state,
};

/// What a busy host may take longer than it has to.
const SLACK: Duration = Duration::from_secs(10);

#[test]
fn a_deadline_that_is_not_extended_stops_and_then_kills() {
    let place = Place::new();
    let script = "trap 'echo term >>$1' TERM; echo ready >>$1; while :; do sleep 0.02; done";
    let keeper = Keeper::new(&["sh", "-c", script, "sh", &place.path("out")]);
    let begun = clock::now();
    let (deadline, grace) = (Duration::from_secs(6), Duration::from_secs(3));
    keeper.start_with_grace(deadline, grace);
    let near = FromGuard::Stopping(StopReason::DeadlineNear);
    assert_eq!(keeper.next(), near);
    let stopped = at(clock::now(), begun);
    assert!(stopped >= deadline - grace, "{stopped:?}");
    keeper.name_a_far_deadline();
    keeper.until_stopping(StopReason::DeadlineReached);
    assert_eq!(keeper.until_ended(), WorkerEnd::Signaled(libc::SIGKILL));
    keeper.until_empty();
    let killed = at(clock::now(), begun);
    assert!(killed >= deadline, "{killed:?}");
    assert!(killed < deadline + SLACK, "{killed:?}");
    keeper.dismiss();
    assert_eq!(place.read("out"), "ready\nterm\n");
}

#[test]
fn a_deadline_that_is_extended_lets_the_worker_live() {
    let keeper = Keeper::new(&["sleep", "60"]);
    let ahead = Duration::from_secs(5);
    keeper.start(ahead);
    let begun = clock::now();
    let mut seq = 0;
    while at(clock::now(), begun) <= ahead {
        let deadline = clock::now() + ahead;
        keeper.send(&ToGuard::Deadline { seq, deadline });
        assert_eq!(keeper.next(), FromGuard::Ack { seq });
        assert_eq!(keeper.next_within(Duration::from_millis(500)), None);
        seq += 1;
    }
    keeper.send(&ToGuard::Kill);
    assert_eq!(keeper.until_ended(), WorkerEnd::Signaled(libc::SIGKILL));
    keeper.until_empty();
    keeper.dismiss();
}

#[test]
fn an_extension_after_the_stop_changes_nothing() {
    let script = "trap '' TERM; while :; do sleep 0.02; done";
    let keeper = Keeper::new(&["sh", "-c", script]);
    keeper.start_with_grace(Duration::from_secs(9), Duration::from_secs(6));
    let near = FromGuard::Stopping(StopReason::DeadlineNear);
    assert_eq!(keeper.next(), near);
    let deadline = clock::now() + Duration::from_secs(60);
    keeper.send(&ToGuard::Deadline { seq: 1, deadline });
    assert_eq!(keeper.next(), FromGuard::Ack { seq: 1 });
    let reached = FromGuard::Stopping(StopReason::DeadlineReached);
    assert_eq!(keeper.next(), reached);
    keeper.until_empty();
    keeper.dismiss();
}

#[test]
fn a_start_after_the_deadline_is_refused() {
    let place = Place::new();
    let keeper = Keeper::new(&["touch", &place.path("ran")]);
    let mut late = start(Duration::ZERO);
    late.grace = Duration::ZERO;
    keeper.send(&ToGuard::Start(late));
    keeper.name_a_far_deadline();
    let refused = FromGuard::NotStarted(NotStarted::Late);
    assert_eq!(keeper.next(), refused);
    keeper.send(&ToGuard::Ping { seq: 0 });
    keeper.dismiss();
    assert!(!std::path::Path::new(&place.path("ran")).exists());
}

#[test]
fn a_keeper_that_vanishes_takes_the_tree_with_it() {
    let place = Place::new();
    let script = "trap '' TERM; setsid sleep 61 & echo $! >>$1; wait";
    let keeper = Keeper::new(&["sh", "-c", script, "sh", &place.path("pid")]);
    let worker = keeper.start(Duration::from_secs(60));
    let daemon = outside(place.number("pid"), keeper.guard.pid());
    let guard_ends = keeper.vanish();
    guard_ends();
    assert!(!is_alive(worker) && !is_alive(daemon));
}

#[test]
fn frames_that_make_no_sense_kill() {
    for frame in [
        vec![],
        vec![0xff],
        vec![0xff; 9000],
        ToGuard::Start(start(LIMIT)).encode(),
        ToGuard::Dismiss.encode(),
    ] {
        let keeper = Keeper::new(&["sleep", "60"]);
        let worker = keeper.start(Duration::from_secs(60));
        keeper.guard.channel().send(&frame);
        assert!(keeper.guard_ends(LIMIT));
        assert!(!is_alive(worker));
    }
}

#[test]
fn a_keeper_that_vanishes_before_the_start_leaves_no_guard() {
    Keeper::new(&["true"]).vanish()();
    Keeper::without_hello(&["true"]).vanish()();
}

#[test]
fn a_keeper_killed_at_any_moment_leaves_nothing() {
    let _calm = calm();
    for deadline in ["none", "60000"] {
        let place = Place::new();
        let pids = place.path("pids");
        let mut keeper = helper_command("keeper", &[&pids, deadline, "sleep", "60"])
            .spawn()
            .unwrap();
        let pids: Vec<i32> = place
            .lines("pids", 3)
            .iter()
            .map(|line| line.parse().unwrap())
            .collect();
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        eventually("guard and worker are gone", || {
            pids[1..].iter().all(|pid| !is_alive(*pid)).then_some(())
        });
    }
}

#[test]
fn a_stopped_keeper_is_woken_and_killed_after_the_deadline() {
    let _calm = calm();
    let place = Place::new();
    let pids = place.path("pids");
    let mut keeper = helper_command("keeper", &[&pids, "3000", "sleep", "60"])
        .spawn()
        .unwrap();
    let pids: Vec<i32> = place
        .lines("pids", 3)
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    process::signal(pids[0], libc::SIGSTOP).unwrap();
    let stopped = clock::now();
    eventually("the worker is dead", || (!is_alive(pids[2])).then_some(()));
    let killed = at(clock::now(), stopped);
    assert!(killed < Duration::from_secs(3) + SLACK, "{killed:?}");
    let end = eventually("the keeper is dead", || keeper.try_wait().unwrap());
    assert_eq!(
        end.signal(),
        Some(libc::SIGKILL),
        "it did not end by itself"
    );
    let seen = at(clock::now(), stopped);
    assert!(seen < Duration::from_secs(5) + SLACK, "{seen:?}");
    eventually("the guard is gone", || (!is_alive(pids[1])).then_some(()));
}

#[test]
fn a_stopped_guard_wakes_itself_when_it_is_due() {
    let keeper = Keeper::new(&["sh", "-c", "trap '' TERM; sleep 60"]);
    let begun = clock::now();
    let (deadline, grace) = (Duration::from_secs(6), Duration::from_secs(3));
    let worker = keeper.start_with_grace(deadline, grace);
    process::signal(keeper.guard.pid(), libc::SIGSTOP).unwrap();
    eventually("it stands still", || {
        (state(keeper.guard.pid()) == Some(b'T')).then_some(())
    });
    let near = FromGuard::Stopping(StopReason::DeadlineNear);
    assert_eq!(keeper.next(), near);
    keeper.name_a_far_deadline();
    process::signal(keeper.guard.pid(), libc::SIGSTOP).unwrap();
    keeper.until_stopping(StopReason::DeadlineReached);
    keeper.until_empty();
    assert!(!is_alive(worker));
    assert!(at(clock::now(), begun) < deadline + SLACK);
    keeper.dismiss();
}

#[test]
fn a_guard_that_is_stopped_again_and_again_keeps_no_worker_alive() {
    let keeper = Keeper::new(&["sleep", "60"]);
    let begun = clock::now();
    let deadline = Duration::from_secs(3);
    let worker = keeper.start(deadline);
    let near = Some(FromGuard::Stopping(StopReason::DeadlineNear));
    while is_alive(worker) && at(clock::now(), begun) < LIMIT {
        let _ = process::signal(keeper.guard.pid(), libc::SIGSTOP);
        if keeper.said() == near {
            keeper.name_a_far_deadline();
        }
    }
    let died = at(clock::now(), begun);
    // By the guard in the moments that it runs, or by its own SIGKILL, which
    // comes a twentieth of the ttl after the deadline (0.75 s at the most).
    assert!(died < deadline + SLACK, "{died:?}");
    keeper.guard.kill();
    assert!(keeper.guard_ends(LIMIT));
}

#[test]
fn timers_act_on_a_stopped_process() {
    let _calm = calm();
    let killed = helper_command("self_kill", &[]).status().unwrap();
    assert_eq!(killed.signal(), Some(libc::SIGKILL));
    let woken = helper_command("self_wake", &[]).status().unwrap();
    assert_eq!(woken.code(), Some(3));
}

#[test]
fn a_killed_guard_takes_its_worker_with_it() {
    let keeper = Keeper::new(&["sleep", "60"]);
    let worker = keeper.start(Duration::from_secs(60));
    keeper.guard.kill();
    assert!(keeper.guard_ends(LIMIT));
    eventually("the worker is dead", || (!is_alive(worker)).then_some(()));
}

#[test]
fn what_a_killed_guard_leaves_is_killed_by_the_keeper() {
    let _calm = calm();
    let place = Place::new();
    let (pids, daemon) = (place.path("pids"), place.path("daemon"));
    // Tildes stand for blanks.
    let script = "(setsid~sh~-c~'trap~\"\"~TERM~HUP;echo~$$>$0;exec~sleep~60'~$0~&);sleep~60";
    let mut keeper = helper_command(
        "sweeping_keeper",
        &[&pids, "60000", "sh", "-c", script, &daemon],
    );
    let mut keeper = keeper.spawn().unwrap();
    let daemon = place.number("daemon");
    let guard: i32 = place.lines("pids", 3)[1].parse().unwrap();
    let daemon = outside(daemon, guard);
    process::signal(guard, libc::SIGKILL).unwrap();
    let killed: u32 = place.lines("pids", 4)[3].parse().unwrap();
    assert!(killed >= 1);
    assert!(!is_alive(daemon));
    assert!(keeper.wait().unwrap().success());
}

#[test]
fn a_silent_keeper_is_replaced_after_the_end() {
    let keeper = Keeper::new(&["true"]);
    keeper.start(Duration::from_secs(60));
    // Skips to Empty without answering; this process does stand, and the
    // releaser sees to it no longer than a second: so it must be gone before.
    keeper.until(|frame| matches!(frame, FromGuard::Empty { .. }).then_some(()));
    let mut answered = 0;
    while answered < 5 {
        keeper.send(&ToGuard::Ping { seq: answered });
        assert_eq!(keeper.next(), FromGuard::Ack { seq: answered });
        assert_eq!(keeper.next_within(Duration::from_millis(400)), None);
        answered += 1;
    }
    keeper.dismiss();
}

#[test]
#[ignore = "a measurement"]
fn measure_latencies() {
    let mut rows = Vec::new();
    for _ in 0..50 {
        let t0 = std::time::Instant::now();
        let keeper = Keeper::without_hello(&["sleep", "60"]);
        let forked = t0.elapsed();
        keeper.hello();
        let greeted = t0.elapsed();
        let t1 = std::time::Instant::now();
        keeper.start(Duration::from_secs(60));
        let started = t1.elapsed();
        std::thread::sleep(Duration::from_millis(20));
        let t2 = std::time::Instant::now();
        keeper.send(&ToGuard::Kill);
        keeper.until_empty();
        let empty = t2.elapsed();
        let t3 = std::time::Instant::now();
        keeper.dismiss();
        rows.push([forked, greeted, started, empty, t3.elapsed()]);
    }
    for (column, name) in [
        "fork",
        "greeted",
        "started",
        "kill to empty",
        "dismiss to end",
    ]
    .iter()
    .enumerate()
    {
        let mut values: Vec<_> = rows.iter().map(|row| row[column]).collect();
        values.sort();
        println!(
            "{name}: median {:?}, {:?} to {:?}",
            values[25], values[2], values[47]
        );
    }
}
