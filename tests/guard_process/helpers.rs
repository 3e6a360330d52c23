//! Programs for the tests, run by executing this test binary anew with
//! `LW_TEST_HELPER` set.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use leasewrap::sys::guard_process::GuardState;
use leasewrap::sys::tree::children::Lister;
use leasewrap::sys::tree::{Round, Sweep};
use leasewrap::sys::{clock, inherited, terminal};
use leasewrap::wire::{FromGuard, NotStarted, ToGuard};

use crate::support::{Keeper, eventually, start, texts};

/// Runs the helper that is asked for; nothing without one.
#[test]
#[ignore = "a program for other tests"]
fn helper() {
    let Ok(name) = std::env::var("LW_TEST_HELPER") else {
        return;
    };
    let arguments = std::env::var("LW_TEST_ARGUMENTS").unwrap_or_default();
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    match name.as_str() {
        "chains" => chains(arguments[0].parse().unwrap(), arguments[1]),
        "forkers" => forkers(arguments[0].parse().unwrap(), arguments[1]),
        "sleepers" => sleepers(arguments[0].parse().unwrap(), arguments[1]),
        "leader_exits" => leader_exits(arguments[0]),
        "self_kill" => self_kill(),
        "self_wake" => self_wake(),
        "keeper" => keeper(&arguments),
        "sweeping_keeper" => sweeping_keeper(&arguments),
        "scanning" => scanning(),
        "refused" => refused(arguments[0]),
        "takes_over" => takes_over(arguments[0]),
        other => panic!("no helper {other}"),
    }
    std::process::exit(0);
}

fn fork() -> i32 {
    // SAFETY: the children of these programs only make system calls.
    unsafe { libc::fork() }
}

fn end() -> ! {
    // SAFETY: always is.
    unsafe { libc::_exit(0) }
}

/// Whatever forks for ever ends by itself after so long: a test that fails
/// must not take the host with it.
const LIFE: Duration = Duration::from_secs(10);

fn is_time_up(born: &Instant) -> bool {
    born.elapsed() > LIFE
}

/// So many chains of processes that each fork the next and end; says when
/// they are under way.
fn chains(count: u32, report: &str) {
    let born = Instant::now();
    for _ in 0..count {
        if fork() == 0 {
            while !is_time_up(&born) {
                if fork() != 0 {
                    end();
                }
            }
            end();
        }
    }
    std::fs::write(report, "under way\n").unwrap();
    std::thread::sleep(LIFE);
}

/// So many processes that do nothing.
fn sleepers(count: u32, report: &str) {
    for _ in 0..count {
        if fork() == 0 {
            // SAFETY: a system call.
            unsafe { libc::sleep(20) };
            end();
        }
    }
    std::fs::write(report, "under way\n").unwrap();
    std::thread::sleep(LIFE);
}

/// So many processes that each fork again and again, in a session of their
/// own, ignoring TERM; each has five children that live on, all others end at
/// once. Says when they are under way.
fn forkers(count: u32, report: &str) {
    let born = Instant::now();
    for _ in 0..count {
        if fork() == 0 {
            // SAFETY: system calls.
            unsafe {
                libc::setsid();
                libc::signal(libc::SIGTERM, libc::SIG_IGN);
            }
            let mut living = 0;
            while !is_time_up(&born) {
                match fork() {
                    0 => {
                        // SAFETY: a system call.
                        unsafe { libc::sleep(if living < 5 { 10 } else { 0 }) };
                        end();
                    }
                    -1 => {}
                    _ => living += 1,
                }
                // SAFETY: reaps whoever has ended.
                while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
            }
            end();
        }
    }
    std::fs::write(report, "under way\n").unwrap();
    std::thread::sleep(LIFE);
}

/// Stops itself, with a timer that ends it all the same.
fn self_kill() {
    let mut timer = leasewrap::sys::timer::SelfKill::new().unwrap();
    let soon = clock::now() + Duration::from_millis(200);
    timer.set(Some(soon)).unwrap();
    leasewrap::sys::signals::stop_self(libc::SIGSTOP);
}

/// Stops itself, with a timer that wakes it.
fn self_wake() {
    let mut timer = leasewrap::sys::timer::SelfWake::new().unwrap();
    let soon = clock::now() + Duration::from_millis(200);
    timer.set(Some(soon)).unwrap();
    leasewrap::sys::signals::stop_self(libc::SIGSTOP);
    std::process::exit(if clock::now() >= soon { 3 } else { 4 });
}

/// The group's leader ends; a thread goes on writing to `path`.
fn leader_exits(path: &str) {
    let path = path.to_owned();
    std::thread::spawn(move || {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        loop {
            writeln!(file, "alive").unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    // The tests of this binary run in threads of their own; the leader only
    // waits for them, so it is made to end from here: by a signal whose
    // handler ends the thread that it hits, sent to the leader alone.
    extern "C" fn end_thread(_: libc::c_int) {
        // SAFETY: ends this thread and nothing else.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    // SAFETY: the handler makes one system call.
    unsafe {
        libc::signal(libc::SIGUSR1, end_thread as *const () as libc::sighandler_t);
        let pid = libc::getpid();
        libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1);
    }
    std::thread::sleep(Duration::from_secs(60));
}

/// A keeper in a process of its own: starts a guard with the worker given
/// after the deadline (in ms), writes `keeper guard worker` pids to the file,
/// and then says nothing more.
fn keeper(arguments: &[&str]) {
    let _keeper = begin(arguments);
    std::thread::sleep(Duration::from_secs(60));
}

/// As [`keeper`]; when its guard dies it kills what is left, and then appends
/// how many that were to the report.
fn sweeping_keeper(arguments: &[&str]) {
    let keeper = begin(arguments);
    assert!(keeper.guard_ends(Duration::from_secs(60)));
    while keeper.guard.state() != GuardState::Ended {}
    let mut sweep = Sweep::new(&[]);
    let limit = Instant::now() + Duration::from_secs(10);
    while sweep.step() != Round::Empty {
        assert!(Instant::now() < limit, "the tree is empty in time");
        std::thread::sleep(Duration::from_micros(200));
    }
    let mut report = OpenOptions::new().append(true).open(arguments[0]).unwrap();
    writeln!(report, "{}", sweep.killed()).unwrap();
}

fn begin(arguments: &[&str]) -> Keeper {
    let [report, deadline_ms, command @ ..] = arguments else {
        panic!("too few arguments");
    };
    let command: Vec<String> = command.iter().map(|text| text.replace('~', " ")).collect();
    leasewrap::sys::process::become_subreaper().unwrap();
    let keeper = Keeper::new(&texts(&command));
    let worker = if *deadline_ms == "none" {
        0
    } else {
        keeper.start(Duration::from_millis(deadline_ms.parse().unwrap()))
    };
    inherited::get().let_go(&[]);
    let pids = format!("{}\n{}\n{worker}\n", std::process::id(), keeper.guard.pid());
    std::fs::write(report, pids).unwrap();
    keeper
}

/// Asks for a PID namespace where there can be none.
fn refused(never: &str) {
    let keeper = Keeper::of_setup(&["touch", never], true);
    keeper.hello();
    keeper.send(&ToGuard::Start(start(Duration::from_secs(60))));
    match keeper.next() {
        FromGuard::NotStarted(NotStarted::Failed { message }) => {
            assert!(message.contains("user.max_pid_namespaces"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    keeper.dismiss();
}

/// Kills a tree of its own that has a daemon in it, by scans of /proc.
fn scanning() {
    leasewrap::sys::process::become_subreaper().unwrap();
    let script = "(setsid sh -c 'sleep 60 & sleep 60' &); sleep 60 & sleep 60";
    let child = std::process::Command::new("sh")
        .args(["-c", script])
        .spawn()
        .unwrap();
    let found = || {
        let mut scan = Lister::Scan(Vec::new());
        scan.refresh();
        let mut tree = Vec::new();
        scan.children_of_self(&mut tree);
        let children = tree.len();
        let mut seen = 0;
        while let Some(pid) = tree.get(seen).copied() {
            scan.children(pid, 1, &mut tree);
            seen += 1;
        }
        (children, tree.len())
    };
    // The daemon's parent has ended by then.
    eventually("the daemon is ours", || {
        let (children, all) = found();
        (children == 2 && all >= 4).then_some(())
    });
    let mut sweep = Sweep::by(Lister::Scan(Vec::new()), &[]);
    eventually("nothing is left", || {
        (sweep.step() == Round::Empty).then_some(())
    });
    assert!(sweep.killed() >= 4, "{}", sweep.killed());
    drop(child);
}

/// Of a session's leader, of one in a group of its own below it, and of one
/// below that in the same group: whether a shell takes over from them.
fn takes_over(report: &str) {
    let say = |who: &str| {
        let answer = terminal::shell_takes_over(0);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(report)
            .unwrap();
        writeln!(
            file,
            "{who} {answer} {}",
            terminal::has_controlling_terminal()
        )
        .unwrap();
    };
    let then = |run: &dyn Fn()| {
        let child = fork();
        if child == 0 {
            run();
            end();
        }
        // SAFETY: a system call.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    };
    say("leader");
    then(&|| {
        // SAFETY: a system call.
        unsafe { libc::setpgid(0, 0) };
        say("job");
        then(&|| say("below"));
    });
}
