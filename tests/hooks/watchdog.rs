//! `--worker-watchdog`: a worker that hangs does not hold for ever.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::leasewrap::{Leasewrap, events, holder, lease_name};
use crate::support::manager::Manager;
use crate::support::run::run;
use crate::support::server::shared;
use crate::support::user::{NOBODY, by_nobody, is_root, nobody_below_a_hiding_proc};
use crate::support::wait::{SOON, until_true};
use crate::{Notes, leasewrap, patient, row, signal};

/// The program that speaks as `sd_notify(3)` does, for a shell.
fn notify() -> String {
    format!("'{}'", run().program("notify").display())
}

/// The socket that the worker has shown first of all.
#[track_caller]
fn socket_of(holder: &Leasewrap) -> PathBuf {
    holder.wait_out("notify\n");
    let out = holder.out();
    out.lines().next().map(PathBuf::from).expect("a path")
}

#[test]
fn a_silent_worker_gets_an_orderly_stop() {
    let name = lease_name("silent");
    let ended = holder(&shared().url(), &name)
        .env("LEASEWRAP_WORKER_WATCHDOG", "4s")
        .sh("trap 'echo bye; exit 3' TERM; while :; do sleep 0.02; done")
        .run()
        .code(120);
    assert_eq!(ended.out, "bye\n");
    assert_eq!(events(&ended.log, "stopping")[0]["reason"], "watchdog");
    assert!(ended.last_line().contains("watchdog"), "{:?}", ended.log);
    assert_eq!(row(&name, "released_at is not null"), "t");
}

#[test]
fn a_worker_that_speaks_goes_on() {
    let script = format!(
        "echo $WATCHDOG_USEC $WATCHDOG_PID $$ $NOTIFY_SOCKET; {0} READY=1; \
         for turn in 1 2 3 4 5 6 7 8; do {0} \"WATCHDOG=1\nSTATUS=turn $turn\" || exit 9; sleep 0.8; done; \
         exit 4",
        notify()
    );
    let ended = leasewrap()
        .option("--worker-watchdog", "5s")
        .env("NOTIFY_SOCKET", "/of/nobody")
        .switch("-v")
        .sh(&script)
        .run()
        .code(4);
    let words: Vec<&str> = ended.out.split_whitespace().collect();
    assert_eq!(words[0], "5000000");
    assert_eq!(words[1], words[2], "its own pid");
    assert!(words[3].starts_with('/') && words[3] != "/of/nobody");
    assert!(!Path::new(words[3]).exists(), "the socket is removed");
    assert!(!Path::new(words[3]).parent().is_some_and(Path::exists));
    assert!(ended.says(&["worker-ready"]));
    assert!(ended.says(&["worker-status", "turn 8"]));
}

#[test]
fn a_trigger_counts_at_once() {
    let ended = leasewrap()
        .option("--worker-watchdog", "10m")
        .sh(&format!("{} WATCHDOG=trigger; {}", notify(), patient(0)))
        .run()
        .code(120);
    assert!(ended.says(&["worker-trigger"]));
}

#[test]
fn what_others_say_does_not_count() {
    let holder = leasewrap()
        .option("--worker-watchdog", "5s")
        .switch("-v")
        .sh(&format!("echo $NOTIFY_SOCKET; {}", patient(0)))
        .spawn();
    let path = socket_of(&holder);
    let other = UnixDatagram::unbound().expect("a socket");
    other
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("a limit");
    until_true("it is stopped all the same", SOON, || {
        // Gone when leasewrap is.
        let _result = other.send_to(b"WATCHDOG=1\nSTATUS=foreign", &path);
        std::thread::sleep(Duration::from_millis(20));
        !events(&holder.log(), "stopping").is_empty()
    });
    let ended = holder.end().code(120);
    assert!(ended.says(&["foreign-message"]));
    assert!(!ended.says(&["worker-status"]));
}

/// A worker that says `say_so(TEXT)` to its service manager by itself, where
/// there is a program that everybody may execute and that can.
fn speaker(script: &str) -> Option<[String; 3]> {
    let program = "/usr/bin/perl";
    if !Path::new(program).exists() {
        return None;
    }
    let script = format!(
        "use Socket; socket(my $s, PF_UNIX, SOCK_DGRAM, 0); \
         my $to = sockaddr_un($ENV{{NOTIFY_SOCKET}}); \
         sub say_so {{ send($s, $_[0], 0, $to) or die $! }}; {script}"
    );
    Some([program.to_owned(), "-e".to_owned(), script])
}

/// The guard between them is out of sight there.
#[test]
fn a_worker_is_known_below_a_proc_that_hides_processes() {
    // Somebody else has to hide /proc.
    let Some(speaker) = speaker("say_so('READY=1'); sleep 1000").filter(|_| is_root()) else {
        return;
    };
    let speaker: Vec<&str> = speaker.iter().map(String::as_str).collect();
    let holder = by_nobody(leasewrap())
        .below(&nobody_below_a_hiding_proc())
        .option("--worker-watchdog", "10m")
        .switch("-v")
        .worker(&speaker)
        .spawn();
    holder.wait_event("worker-ready");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn a_worker_of_another_user_speaks_too() {
    if !is_root() {
        return;
    }
    let Some(speaker) = speaker(
        "for (1..8) { say_so('WATCHDOG=1'); select(undef, undef, undef, 0.8) } \
         print getppid() > 0 ? \"$<\\n\" : ''",
    ) else {
        return;
    };
    let speaker: Vec<&str> = speaker.iter().map(String::as_str).collect();
    let ended = leasewrap()
        .option("--worker-watchdog", "5s")
        .worker(&[&NOBODY[..], &speaker].concat())
        .run()
        .code(0);
    assert_eq!(ended.out, "65534\n");
}

#[test]
fn the_socket_goes_when_the_keeper_was_killed() {
    let holder = leasewrap()
        .option("--worker-watchdog", "10m")
        .sh(&format!("echo $NOTIFY_SOCKET; {}", patient(0)))
        .spawn();
    let path = socket_of(&holder);
    assert!(path.exists());
    signal(holder.pid(), libc::SIGKILL);
    let directory = path.parent().expect("a directory");
    until_true("the socket is removed", SOON, || !directory.exists());
}

#[test]
fn its_status_is_shown_on() {
    let mut manager = Manager::new();
    let go = Notes::new();
    let holder = leasewrap()
        .option("--worker-watchdog", "10m")
        .env("NOTIFY_SOCKET", &manager.path().display().to_string())
        .sh(&format!(
            "{} 'STATUS=half way'; until test -e {}; do sleep 0.02; done",
            notify(),
            go.word()
        ))
        .spawn();
    until_true("the manager is told", SOON, || {
        manager.said().contains("the worker: half way")
    });
    go.write("");
    holder.end().code(0);
}
