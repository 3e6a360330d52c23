//! Whole trees: stopped in order, killed for certain.

use std::time::{Duration, Instant};

use leasewrap::wire::{FromGuard, StopTo, ToGuard, WorkerEnd};

use crate::support::{
    Keeper, Place, calm, eventually, helper, helper_command, is_alive, marked, outside, start,
    state, stop, storm, texts,
};

const FAR: Duration = Duration::from_secs(60);

#[test]
fn a_daemon_is_killed_with_the_tree() {
    let place = Place::new();
    // Twice forked, its own session, TERM ignored.
    let script = "(setsid sh -c 'trap \"\" TERM HUP; echo $$ >>$0; exec sleep 61' $1 &) ; sleep 60";
    let keeper = Keeper::new(&["sh", "-c", script, "sh", &place.path("pid")]);
    keeper.start(FAR);
    let daemon = outside(place.number("pid"), keeper.guard.pid());
    keeper.send(&ToGuard::Kill);
    assert!(keeper.until_empty() >= 2);
    assert!(!is_alive(daemon));
    keeper.dismiss();
}

#[test]
fn what_is_left_behind_is_named_stopped_and_killed() {
    // Less than the 5 s that it gets at most. A busy host may be late, now and then.
    let mut turns = (0..3).map(|_| killed_what_is_left_behind());
    let in_time = |took: Duration| took < Duration::from_millis(4_500);
    assert!(turns.any(in_time), "the stop timeout is shorter");
}

/// How long what it leaves behind lives on, with a `--stop-timeout` of 2 s.
fn killed_what_is_left_behind() -> Duration {
    let place = Place::new();
    let script = "(trap 'echo term >>$1; exit' TERM; echo ready >>$1; while :; do sleep 0.02; done) & \
                  sh -c 'trap \"\" TERM; echo ready >>$0; sleep 60; :' $1 & \
                  while [ $(wc -l <$1) -lt 2 ]; do sleep 0.02; done; exit 5";
    let keeper = Keeper::new(&["sh", "-c", script, "sh", &place.path("out")]);
    let mut begin = start(FAR);
    begin.stop_timeout = Duration::from_secs(2);
    std::fs::write(place.path("out"), "").unwrap();
    let begun = Instant::now();
    keeper.send(&ToGuard::Start(begin));
    let worker = keeper.started();
    assert_eq!(keeper.next(), FromGuard::WorkerEnded(WorkerEnd::Exited(5)));
    let ended = Instant::now();
    let FromGuard::LeftBehind { processes } = keeper.next() else {
        panic!("nothing was left behind");
    };
    assert!(processes.len() >= 2, "{processes:?}");
    assert!(
        processes.iter().all(|named| named.contains(' ')),
        "{processes:?}"
    );
    assert!(keeper.until_empty() >= 1);
    // The guard counts from when it saw the end, which is earlier than when
    // we read of it.
    let (all, took) = (begun.elapsed(), ended.elapsed());
    assert!(all >= Duration::from_secs(2), "{all:?}");
    assert!(place.read("out").contains("term"));
    assert!(!is_alive(worker));
    keeper.dismiss();
    took
}

#[test]
fn a_stop_reaches_each_process_once() {
    let place = Place::new();
    // Three levels; each appends a line for every TERM that it gets, starts a
    // clean-up command that must get none, and ends a while later.
    let script = r#"
        level=$1 out=$2
        trap 'echo "term $level" >>$out; sh -c "trap \"echo cleanup got it >>$out\" TERM; sleep 0.3; echo cleaned >>$out"; exit 0' TERM
        if [ $level -lt 3 ]; then sh "$0" $((level + 1)) $out & fi
        echo "ready $level" >>$out
        while :; do sleep 0.02; done
    "#;
    let script = place.script("script", script, 0o755);
    let out = place.path("out");
    let keeper = Keeper::new(&["sh", &script, "1", &out]);
    keeper.start(FAR);
    place.lines("out", 3);
    keeper.send(&stop(libc::SIGTERM, Duration::from_secs(10)));
    keeper.send(&stop(libc::SIGTERM, Duration::from_secs(10)));
    assert_eq!(keeper.until_empty(), 0, "nobody had to be killed");
    keeper.dismiss();
    let text = place.read("out");
    for level in 1..=3 {
        let term = format!("term {level}\n");
        assert_eq!(text.matches(&term).count(), 1, "{text}");
    }
    assert_eq!(text.matches("cleaned").count(), 3, "{text}");
    assert!(!text.contains("cleanup got it"), "{text}");
}

#[test]
fn a_stop_reaches_a_program_behind_a_shell_and_kills_in_the_end() {
    let keeper = Keeper::new(&["sh", "-c", "sleep 60; echo not reached"]);
    keeper.start(FAR);
    keeper.send(&stop(libc::SIGTERM, FAR));
    let begun = Instant::now();
    assert_eq!(keeper.until_ended(), WorkerEnd::Signaled(libc::SIGTERM));
    keeper.until_empty();
    assert!(begun.elapsed() < Duration::from_secs(30));
    keeper.dismiss();

    let place = Place::new();
    let script = "trap '' TERM; echo ready >$1; sleep 60";
    let keeper = Keeper::new(&["sh", "-c", script, "sh", &place.path("out")]);
    keeper.start(FAR);
    place.lines("out", 1);
    keeper.send(&stop(libc::SIGTERM, Duration::from_millis(300)));
    assert_eq!(keeper.until_ended(), WorkerEnd::Signaled(libc::SIGKILL));
    keeper.until_empty();
    keeper.dismiss();
}

#[test]
fn with_stop_to_worker_the_rest_gets_it_afterwards() {
    let place = Place::new();
    let script = "trap 'sleep 0.1; echo worker >>$1; exit 4' TERM; \
                  sh -c 'trap \"echo child >>$0; exit\" TERM; echo ready >>$0; while :; do sleep 0.02; done' $1 & \
                  while :; do sleep 0.02; done";
    let keeper = Keeper::new(&["sh", "-c", script, "sh", &place.path("out")]);
    let mut begin = start(FAR);
    begin.stop_to = StopTo::Worker;
    keeper.send(&ToGuard::Start(begin));
    keeper.started();
    place.lines("out", 1);
    keeper.send(&stop(libc::SIGTERM, Duration::from_secs(10)));
    assert_eq!(keeper.next(), FromGuard::WorkerEnded(WorkerEnd::Exited(4)));
    assert!(matches!(keeper.next(), FromGuard::LeftBehind { .. }));
    keeper.until_empty();
    keeper.dismiss();
    assert_eq!(place.read("out"), "ready\nworker\nchild\n");
}

#[test]
fn a_stopped_worker_sees_its_stop_signal_and_is_killed() {
    let soon = Duration::from_millis(300);
    for (trap, by, limit) in [
        ("", libc::SIGTERM, FAR),
        ("trap '' TERM; ", libc::SIGKILL, soon),
    ] {
        let place = Place::new();
        let script = format!("{trap}echo ready >$1; while :; do sleep 0.02; done");
        let keeper = Keeper::new(&["sh", "-c", &script, "sh", &place.path("out")]);
        let worker = keeper.start(FAR);
        place.lines("out", 1);
        keeper.send(&ToGuard::Signal(libc::SIGSTOP));
        eventually("it stands still", || {
            (state(worker) == Some(b'T')).then_some(())
        });
        keeper.send(&stop(libc::SIGTERM, limit));
        assert_eq!(keeper.until_ended(), WorkerEnd::Signaled(by));
        keeper.until_empty();
        keeper.dismiss();
    }
}

#[test]
fn threads_behind_an_ended_leader_are_killed() {
    let place = Place::new();
    let path = place.path("out");
    let command = helper("leader_exits", &[&path]);
    let keeper = Keeper::new(&texts(&command));
    let worker = keeper.start(FAR);
    eventually("the leader has ended", || {
        (state(worker) == Some(b'Z')).then_some(())
    });
    let before = place.lines("out", 5).len();
    place.lines("out", before + 5);
    keeper.send(&ToGuard::Kill);
    keeper.until_empty();
    let at_end = place.read("out").len();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(place.read("out").len(), at_end, "nobody writes any more");
    keeper.dismiss();
}

#[test]
fn a_tree_is_found_without_the_children_files() {
    let _calm = calm();
    let swept = helper_command("scanning", &[]).status().unwrap();
    assert!(swept.success());
}

/// Ends what the helper does, with this frame; how long it took.
fn ended(name: &str, count: &str, grows_to: usize, frame: impl Fn() -> ToGuard) -> Duration {
    let _storm = storm();
    let mark = format!("LW_TEST_MARK={name}-{count}-{}", std::process::id());
    let place = Place::new();
    let mut command = helper(name, &[count, &place.path("report")]);
    command.insert(1, mark.clone());
    let keeper = Keeper::in_a_storm(&texts(&command));
    keeper.hello();
    keeper.start(FAR);
    place.lines("report", 1);
    eventually("it has grown", || {
        (marked(&mark).len() >= grows_to).then_some(())
    });
    let begun = Instant::now();
    keeper.send(&frame());
    let killed = keeper.until_empty();
    let took = begun.elapsed();
    println!("{count} {name}: {killed} killed in {took:?}");
    keeper.dismiss();
    assert!(marked(&mark).is_empty());
    took
}

#[test]
fn a_fork_bomb_is_killed() {
    let took = ended("forkers", "50", 51, || ToGuard::Kill);
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_fork_bomb_that_ignores_its_stop_signal_is_killed_all_the_same() {
    let limit = Duration::from_millis(500);
    let took = ended("forkers", "30", 31, || stop(libc::SIGTERM, limit));
    assert!(took > limit, "{took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn chains_of_forks_are_killed() {
    for count in ["1", "4"] {
        let took = ended("chains", count, 1, || ToGuard::Kill);
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
}

#[test]
#[ignore = "takes the whole host for some seconds: a measurement"]
fn measure() {
    let wanted = std::env::var("LW_MEASURE").unwrap_or_default();
    let mut words = wanted.split_whitespace();
    let (name, count) = (words.next().unwrap(), words.next().unwrap());
    let grows_to = words.next().unwrap().parse().unwrap();
    ended(name, count, grows_to, || ToGuard::Kill);
}
