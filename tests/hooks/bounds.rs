//! What a hook cannot do: outlive its time or its leasewrap, take what is the
//! worker's, fill the log, or be mistaken for the worker.

use std::os::fd::AsRawFd;

use crate::support::leasewrap::{events, guard_of};
use crate::support::pty::Terminal;
use crate::support::wait::{SOON, until, until_true};
use crate::support::{proc, run::run, sys};
use crate::{Notes, leasewrap, noted_pid, patient, signal, terminate, wait_gone, wait_up};

/// A hook that hangs at the first event, with a daemon, whatever it is told.
fn hanging(notes: &Notes) -> String {
    format!(
        "trap '' TERM INT HUP; setsid sh -c 'echo daemon $$ >> {0}; exec sleep 1000' & \
         echo hung $$ >> {0}; echo hanging; while :; do sleep 1000; done",
        notes.word()
    )
}

fn pids(notes: &Notes) -> [i32; 2] {
    [noted_pid(notes, "hung"), noted_pid(notes, "daemon")]
}

#[test]
fn it_is_killed_in_time_with_all_it_started() {
    let notes = Notes::new();
    let holder = leasewrap()
        .option("--on-event", &hanging(&notes))
        .env("LEASEWRAP_HOOK_TIMEOUT", "10s")
        .sh(&patient(0))
        .spawn();
    let pids = pids(&notes);
    let failed = holder.wait_event("hook-failed").to_string();
    assert!(failed.contains("not done within 10s"), "{failed}");
    assert!(failed.contains("hanging"), "its own words: {failed}");
    for pid in pids {
        wait_gone("the hook", pid);
    }
    until_true("its guard is gone", SOON, || {
        proc::children(holder.pid()).len() == 1
    });
    terminate(holder, 0);
}

#[test]
fn what_it_leaves_behind_is_killed() {
    let notes = Notes::new();
    let command = format!(
        "test $LEASEWRAP_EVENT = acquired || exit 0; \
         setsid sh -c 'trap \"\" TERM; echo daemon $$ >> {0}; exec sleep 1000' & \
         until grep -qs daemon {0}; do sleep 0.01; done",
        notes.word()
    );
    let holder = leasewrap()
        .option("--on-event", &command)
        .sh(&patient(0))
        .spawn();
    wait_gone("the daemon", noted_pid(&notes, "daemon"));
    holder.wait_event("hook-left-behind");
    assert!(events(&holder.log(), "hook-failed").is_empty());
    terminate(holder, 0);
}

#[test]
fn it_dies_with_the_keeper() {
    let notes = Notes::new();
    let holder = leasewrap()
        .option("--on-event", &hanging(&notes))
        .option("--hook-timeout", "10m")
        .sh(&patient(0))
        .spawn();
    let pids = pids(&notes);
    holder.signal(libc::SIGKILL);
    for pid in pids {
        wait_gone("the hook", pid);
    }
    until_true("nothing is left of it", SOON, || holder.alive().is_empty());
}

#[test]
fn it_is_killed_in_time_while_the_keeper_stands_still() {
    let notes = Notes::new();
    let holder = leasewrap()
        .option("--on-event", &hanging(&notes))
        .option("--hook-timeout", "10s")
        .ttl("5m")
        .sh(&patient(6))
        .spawn();
    let guard = holder.guard();
    let pids = pids(&notes);
    holder.signal(libc::SIGSTOP);
    for pid in pids {
        wait_gone("the hook", pid);
    }
    // Its guard ends without the keeper, and leaves it alone: a keeper that
    // was stopped for a moment still holds the lease.
    until_true("its guard has ended", SOON, || {
        let children = proc::children(holder.pid());
        children
            .into_iter()
            .all(|pid| pid == guard || proc::state(pid) == Some('Z'))
    });
    assert_eq!(proc::state(holder.pid()), Some('T'), "it is still stopped");
    assert!(proc::alive(guard));
    holder.signal(libc::SIGCONT);
    holder.wait_event("hook-failed");
    terminate(holder, 6);
}

#[test]
fn endless_talk_is_cut() {
    let holder = leasewrap()
        .option(
            "--on-event",
            "test $LEASEWRAP_EVENT = acquired || exit 0; yes the same again",
        )
        .option("--hook-timeout", "3s")
        .ttl("20s")
        .option("--renew-every", "400ms")
        .switch("-v")
        .sh(&patient(0))
        .spawn();
    let failed = holder.wait_event("hook-failed").to_string();
    assert!(failed.contains("the same again"), "{failed}");
    // The loop goes on.
    holder.wait_events("renewed", 2);
    let lines = events(&holder.log(), "hook-output").len();
    assert!(lines <= 101, "{lines} lines");
    terminate(holder, 0);
}

#[test]
fn it_has_nothing_that_is_the_workers() {
    let notes = Notes::new();
    let passed = std::fs::File::create(run().file("passed")).expect("a file");
    let holder = leasewrap()
        .option(
            "--on-event",
            &format!(
                "{{ ls -l /proc/self/fd | sed -n 's/.* \\([0-9]*\\) -> .*/fd \\1/p'; \
                 env | grep -e ^LISTEN -e ^NOTIFY -e ^WATCHDOG -e LEASEWRAP_DB; echo end; }} >> {}",
                notes.word()
            ),
        )
        .env("LEASEWRAP_DB_FILE", "")
        .below(&["sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"])
        .env("NOTIFY_SOCKET", "/no/such/manager")
        .start(|start| start.descriptors.push((passed.as_raw_fd(), 7)))
        .switch("--rejoin")
        .sh(&format!("echo LISTEN_PID=$LISTEN_PID $$; {}", patient(0)))
        .spawn();
    notes.wait("end");
    // 3 is the listing itself.
    assert_eq!(notes.lines(), ["fd 0", "fd 1", "fd 2", "fd 3", "end"]);
    let pid = holder.worker();
    holder.wait_out(&format!("LISTEN_PID={pid} {pid}"));
    assert!(
        std::fs::exists(format!("/proc/{pid}/fd/7")).is_ok_and(|exists| exists),
        "the worker has what was passed"
    );
    terminate(holder, 0);
}

#[test]
fn what_is_typed_reaches_no_hook() {
    let notes = Notes::new();
    let terminal = Terminal::bash();
    let builder = leasewrap()
        .option(
            "--on-event",
            &format!(
                "echo begin $LEASEWRAP_EVENT >> {0}; (: < /dev/tty) 2>/dev/null && echo tty >> {0}; \
                 until test -e {0}.typed; do sleep 0.01; done; echo end $LEASEWRAP_EVENT >> {0}",
                notes.word()
            ),
        )
        .option("--hook-timeout", "10m")
        .sh("trap 'exit 5' INT; echo rea\"\"dy; while :; do sleep 0.02; done");
    let quoted = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    let words: Vec<String> = builder.words().iter().map(quoted).collect();
    terminal.line(&format!("{}; echo co\"\"de:$?", words.join(" ")));
    terminal.wait("ready");
    notes.wait("begin acquired");
    terminal.type_text("\x03");
    terminal.wait("released");
    std::fs::write(format!("{}.typed", notes.path().display()), "").expect("write a file");
    terminal.wait("code:5");
    assert_eq!(
        notes.lines(),
        [
            "begin acquired",
            "end acquired",
            "begin released",
            "end released"
        ]
    );
}

#[test]
fn the_end_of_the_workers_guard_does_not_touch_it() {
    let notes = Notes::new();
    let holder = leasewrap()
        .option(
            "--on-event",
            &format!(
                "echo begin $LEASEWRAP_EVENT >> {0}; until test -e {0}.go; do sleep 0.01; done; \
                 echo end $LEASEWRAP_EVENT >> {0}",
                notes.word()
            ),
        )
        .option("--hook-timeout", "10m")
        .sh(&format!(
            "setsid sleep 1000 & echo daemon $! >> {}; {}",
            notes.word(),
            patient(0)
        ))
        .spawn();
    notes.wait("begin acquired");
    let daemon = noted_pid(&notes, "daemon");
    let worker = holder.worker();
    signal(proc::parent(worker).expect("its guard"), libc::SIGKILL);
    for pid in [worker, daemon] {
        wait_gone("the worker's tree", pid);
    }
    // The tree is empty as far as the lease goes, hook or no hook.
    holder.wait_event("released");
    std::fs::write(format!("{}.go", notes.path().display()), "").expect("write a file");
    holder.end().code(125);
    let lines = notes.lines();
    assert!(lines.contains(&"end acquired".to_owned()), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("end released"));
}

#[test]
fn the_end_of_its_own_guard_ends_it_alone() {
    let notes = Notes::new();
    let holder = leasewrap()
        .option(
            "--on-event",
            &format!("echo hung $$ >> {}; exec sleep 1000", notes.word()),
        )
        .option("--hook-timeout", "10m")
        .sh(&patient(8))
        .spawn();
    let hook = noted_pid(&notes, "hung");
    let guard = proc::parent(hook).expect("its guard");
    assert_ne!(Some(guard), guard_of(holder.pid()));
    signal(guard, libc::SIGKILL);
    wait_gone("the hook", hook);
    let failed = holder.wait_event("hook-failed").to_string();
    assert!(failed.contains("guard process died"), "{failed}");
    assert!(proc::alive(holder.worker()), "the worker goes on");
    wait_up(&holder, 1);
    holder.signal(libc::SIGTERM);
    let next = until("the next hook", SOON, || {
        let lines = notes.lines();
        lines.get(1)?.split(' ').nth(1)?.parse().ok()
    });
    sys::kill(next, libc::SIGKILL);
    holder.end().code(8);
}
