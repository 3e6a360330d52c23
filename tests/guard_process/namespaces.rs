//! A worker in a PID namespace of its own: the same in all that it does, and
//! nothing of it left when the guard is gone.

use std::process::Command;
use std::time::{Duration, Instant};

use leasewrap::sys::process;
use leasewrap::sys::tree::children;
use leasewrap::wire::{FromGuard, NotStarted, ToGuard, WorkerEnd};

use crate::support::{
    Keeper, LIMIT, Place, calm, eventually, helper, helper_command, is_alive, marked, start, stop,
    storm, texts,
};

const FAR: Duration = Duration::from_secs(60);

/// A mark for the environment of one test's processes.
fn mark(name: &str) -> String {
    format!("LW_TEST_MARK={name}-{}", std::process::id())
}

/// Kills the guard; how long it takes until nobody with this mark is left.
fn without_guard(keeper: &Keeper, mark: &str) -> Duration {
    let begun = Instant::now();
    keeper.guard.kill();
    assert!(keeper.guard_ends(LIMIT));
    eventually("nothing of the tree is alive", || {
        marked(mark).is_empty().then_some(())
    });
    let took = begun.elapsed();
    println!("{mark}: gone {took:?} after SIGKILL of the guard");
    took
}

fn inits(guard: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let lister = children::Lister::new();
    lister.children(guard, 1, &mut found);
    found.retain(|pid| {
        // Not the maker, which has the same name as long as it is there.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.starts_with("Name:\tlw-init\n")
            && status
                .lines()
                .any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    });
    found
}

#[test]
fn a_worker_ends_as_it_would_without() {
    for (script, end) in [
        ("exit 0", WorkerEnd::Exited(0)),
        ("exit 7", WorkerEnd::Exited(7)),
        ("exit 255", WorkerEnd::Exited(255)),
        ("kill -TERM $$", WorkerEnd::Signaled(15)),
        ("kill -KILL $$", WorkerEnd::Signaled(9)),
        ("kill -SEGV $$", WorkerEnd::Signaled(11)),
        ("kill -36 $$", WorkerEnd::Signaled(36)),
        // Nobody in there can end, or stop, the init.
        (
            "kill -9 1; kill -STOP 1; kill -SEGV 1; exit 5",
            WorkerEnd::Exited(5),
        ),
    ] {
        let command = ["sh", "-c", script];
        // One after the other: nobody may hold two.
        for begin in [Keeper::new, Keeper::namespaced] {
            let keeper = begin(&command);
            keeper.start(FAR);
            assert_eq!(keeper.next(), FromGuard::WorkerEnded(end), "{script}");
            assert_eq!(keeper.next(), FromGuard::Empty { killed: 0 }, "{script}");
            keeper.send(&ToGuard::Ping { seq: 0 });
            keeper.dismiss();
        }
    }
}

#[test]
fn what_cannot_be_executed_is_reported_as_without() {
    for begin in [Keeper::new, Keeper::namespaced] {
        let keeper = begin(&["/no/such/program"]);
        keeper.send(&ToGuard::Start(start(FAR)));
        let errno = libc::ENOENT;
        assert_eq!(
            keeper.next(),
            FromGuard::NotStarted(NotStarted::Exec { errno })
        );
        keeper.send(&ToGuard::Ping { seq: 0 });
        keeper.dismiss();
    }
}

#[test]
fn its_stops_are_followed() {
    let keeper = Keeper::namespaced(&["sleep", "60"]);
    keeper.start(FAR);
    for signal in [libc::SIGSTOP, libc::SIGTSTP] {
        keeper.send(&ToGuard::Signal(signal));
        assert_eq!(keeper.next(), FromGuard::WorkerStopped { signal });
        keeper.send(&ToGuard::Signal(libc::SIGCONT));
        assert_eq!(keeper.next(), FromGuard::WorkerContinued);
    }
    keeper.send(&stop(libc::SIGTERM, FAR));
    assert_eq!(keeper.until_ended(), WorkerEnd::Signaled(libc::SIGTERM));
    assert_eq!(keeper.until_empty(), 0, "nobody had to be killed");
    keeper.dismiss();
}

#[test]
fn what_it_leaves_behind_is_named_and_the_init_is_not() {
    let place = Place::new();
    let script = "(setsid sh -c 'trap \"\" TERM; echo ready >$0; sleep 61; :' $1 &); \
                  until [ -e $2 ]; do sleep 0.02; done; exit 5";
    let (ready, go) = (place.path("ready"), place.path("go"));
    let keeper = Keeper::namespaced(&["sh", "-c", script, "sh", &ready, &go]);
    let mut begin = start(FAR);
    begin.stop_timeout = Duration::from_millis(300);
    keeper.send(&ToGuard::Start(begin));
    keeper.started();
    let guard = keeper.guard.pid();
    let init = *inits(guard).first().expect("an init");
    place.lines("ready", 1);
    std::fs::write(go, "").unwrap();
    assert_eq!(keeper.next(), FromGuard::WorkerEnded(WorkerEnd::Exited(5)));
    let FromGuard::LeftBehind { processes } = keeper.next() else {
        panic!("nothing was left behind");
    };
    assert!(
        !processes.is_empty() && processes.len() <= 2,
        "{processes:?}"
    );
    assert!(!processes.iter().any(|named| named.contains("lw-init")));
    assert!(keeper.until_empty() >= 1);
    assert!(!is_alive(init), "the init ends with the last of them");
    keeper.dismiss();
}

#[test]
fn a_daemon_that_ends_while_the_worker_runs_leaves_no_zombie() {
    let script = "for i in 1 2 3 4 5; do (setsid true &); done; sleep 60";
    let keeper = Keeper::namespaced(&["sh", "-c", script]);
    keeper.start(FAR);
    let init = *inits(keeper.guard.pid()).first().expect("an init");
    eventually("all are reaped", || {
        let mut found = Vec::new();
        children::Lister::new().children(init, 1, &mut found);
        found.is_empty().then_some(())
    });
    keeper.send(&ToGuard::Kill);
    keeper.until_empty();
    keeper.dismiss();
}

#[test]
fn an_init_that_somebody_kills_takes_the_tree_with_it() {
    let mark = mark("init");
    let keeper = Keeper::namespaced(&["env", &mark, "sh", "-c", "setsid sleep 61 & sleep 61"]);
    keeper.start(FAR);
    let init = *inits(keeper.guard.pid()).first().expect("an init");
    eventually("they run", || (marked(&mark).len() >= 3).then_some(()));
    process::signal(init, libc::SIGKILL).unwrap();
    assert_eq!(keeper.until_ended(), WorkerEnd::Signaled(libc::SIGKILL));
    keeper.until_empty();
    assert!(marked(&mark).is_empty());
    keeper.dismiss();
}

#[test]
fn a_killed_guard_takes_daemons_with_it() {
    let mark = mark("daemons");
    // This process is no subreaper and kills nothing: the kernel alone does.
    let script =
        "(setsid sh -c 'trap \"\" TERM HUP; sleep 61; :' &); (setsid sleep 61 &); sleep 61";
    let keeper = Keeper::namespaced(&["env", &mark, "sh", "-c", script]);
    keeper.start(FAR);
    eventually("they run", || (marked(&mark).len() >= 5).then_some(()));
    without_guard(&keeper, &mark);
}

#[test]
fn a_guard_that_is_killed_while_it_stands_still_takes_the_tree_with_it() {
    let mark = mark("stopped");
    let keeper = Keeper::namespaced(&["env", &mark, "sh", "-c", "setsid sleep 61 & sleep 61"]);
    keeper.start(FAR);
    let guard = keeper.guard.pid();
    let init = *inits(guard).first().expect("an init");
    eventually("they run", || (marked(&mark).len() >= 3).then_some(()));
    for pid in [init, guard] {
        process::signal(pid, libc::SIGSTOP).unwrap();
    }
    without_guard(&keeper, &mark);
}

#[test]
fn a_killed_guard_takes_a_worker_of_another_user_with_it() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let mark = mark("other-user");
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let script = "setsid sleep 61 & sleep 61";
    let command = [&["env", mark.as_str()], &user[..], &["sh", "-c", script]].concat();
    let keeper = Keeper::namespaced(&command);
    keeper.start(FAR);
    eventually("they run", || (marked(&mark).len() >= 3).then_some(()));
    without_guard(&keeper, &mark);
}

/// Fork loops of helpers that end by themselves after ten seconds.
fn storming(name: &str, count: &str, end: impl FnOnce(&Keeper, &str)) {
    storming_in(true, name, count, 1, end);
}

fn storming_in(
    pid_namespace: bool,
    name: &str,
    count: &str,
    grows_to: usize,
    end: impl FnOnce(&Keeper, &str),
) {
    let _storm = storm();
    let mark = mark(&format!("storm-{name}"));
    let place = Place::new();
    let mut command = helper(name, &[count, &place.path("report")]);
    command.insert(1, mark.clone());
    let keeper = Keeper::of_setup(&texts(&command), pid_namespace);
    keeper.hello();
    keeper.start(FAR);
    place.lines("report", 1);
    eventually("it has grown", || {
        (marked(&mark).len() >= grows_to).then_some(())
    });
    end(&keeper, &mark);
}

#[test]
fn a_killed_guard_takes_a_fork_bomb_with_it() {
    for (name, count) in [("forkers", "50"), ("chains", "16")] {
        storming(name, count, |keeper, mark| {
            let took = without_guard(keeper, mark);
            assert!(took < Duration::from_secs(5), "{took:?}");
        });
    }
}

#[test]
fn a_fork_bomb_is_killed_by_the_kernel() {
    for (name, count) in [("forkers", "50"), ("chains", "16")] {
        storming(name, count, |keeper, mark| {
            let begun = Instant::now();
            keeper.send(&ToGuard::Kill);
            let killed = keeper.until_empty();
            let took = begun.elapsed();
            println!("{count} {name}: {killed} and more killed in {took:?}");
            assert!(took < Duration::from_secs(5), "{took:?}");
            assert!(marked(mark).is_empty());
        });
    }
}

#[test]
fn a_namespace_that_is_refused_starts_nothing() {
    let _calm = calm();
    let place = Place::new();
    let helper = helper_command("refused", &[&place.path("never")]);
    // Below it a limit can be set that is nobody else's.
    let script = "echo 0 >/proc/sys/user/max_pid_namespaces && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
    command.arg(helper.get_program()).args(helper.get_args());
    assert!(command.status().unwrap().success());
    assert_eq!(place.read("never"), "");
    assert!(!std::path::Path::new(&place.path("never")).exists());
}

#[test]
#[ignore = "a measurement"]
fn measure_against_without() {
    let mut rows: [[Vec<f64>; 2]; 2] = Default::default();
    for turn in 0..120 {
        let way = turn % 2;
        let command = ["sleep", "60"];
        let keeper = [Keeper::new, Keeper::namespaced][way](&command);
        let begun = Instant::now();
        keeper.start(FAR);
        rows[way][0].push(begun.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(20));
        let begun = Instant::now();
        keeper.send(&ToGuard::Kill);
        keeper.until_empty();
        rows[way][1].push(begun.elapsed().as_secs_f64() * 1e3);
        keeper.dismiss();
    }
    for (way, name) in ["without", "with"].iter().enumerate() {
        for (what, row) in ["go to started", "kill to empty"]
            .iter()
            .zip(&mut rows[way])
        {
            row.sort_by(f64::total_cmp);
            println!(
                "{name} {what}: median {:.2} ms, p90 {:.2} ms",
                row[30], row[54]
            );
        }
    }
}

#[test]
#[ignore = "takes the whole host for some seconds: a measurement"]
fn measure_kills() {
    for (name, count, grows_to) in [("sleepers", "1000", 1001), ("forkers", "200", 300)] {
        for turn in 0..6 {
            let within = turn % 2 == 1;
            storming_in(within, name, count, grows_to, |keeper, _| {
                let begun = Instant::now();
                keeper.send(&ToGuard::Kill);
                let killed = keeper.until_empty();
                let took = begun.elapsed();
                println!("{count} {name}, namespace {within}: {killed} killed in {took:?}");
            });
        }
    }
}
