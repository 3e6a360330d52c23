//! What the worker is given, and what the guard shows of itself.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::Duration;

use leasewrap::wire::{FromGuard, NotStarted, PgOptions, ToGuard, WorkerEnd};

use crate::support::{Keeper, Place, calm, eventually, helper_command, is_alive, start};

/// Runs a shell command as the worker, to its end; its exit code.
fn run(script: &str, arguments: &[&str]) -> WorkerEnd {
    let mut command = vec!["sh", "-c", script, "sh"];
    command.extend(arguments);
    let keeper = Keeper::new(&command);
    keeper.start(Duration::from_secs(60));
    let end = keeper.until_ended();
    keeper.until_empty();
    keeper.dismiss();
    end
}

#[test]
fn a_worker_runs_and_its_end_is_reported() {
    assert_eq!(run("exit 7", &[]), WorkerEnd::Exited(7));
    assert_eq!(run("kill -USR1 $$", &[]), WorkerEnd::Signaled(10));
    assert_eq!(run("kill -36 $$", &[]), WorkerEnd::Signaled(36));
}

#[test]
fn a_worker_knows_its_term_and_nothing_of_leasewrap() {
    let place = Place::new();
    run("env >$1", &[&place.path("env")]);
    let text = place.read("env");
    for line in [
        "LEASEWRAP_LEASE=guard test",
        "LEASEWRAP_SLOT=3",
        "LEASEWRAP_HOLDER=00000000-0000-0000-0000-000000000000",
        "LEASEWRAP_TOKEN=42",
        "LEASEWRAP_TTL_MS=20000",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert!(!text.contains("LW_GUARD") && !text.contains("LW_RELEASE"));
}

#[test]
fn pgoptions_reach_the_worker() {
    let place = Place::new();
    let path = place.path("out");
    let keeper = Keeper::new(&["sh", "-c", "echo \"$PGOPTIONS\" >$1", "sh", &path]);
    let mut start = start(Duration::from_secs(60));
    start.pgoptions = PgOptions::Extend;
    keeper.send(&ToGuard::Start(start));
    keeper.until_empty();
    keeper.dismiss();
    assert!(
        place
            .read("out")
            .contains(r"-c leasewrap.name=guard\ test -c leasewrap.slot=3")
    );
}

#[test]
fn a_worker_has_the_callers_descriptors_alone() {
    let place = Place::new();
    let given = fs::File::open("/dev/null").unwrap();
    // SAFETY: two numbers.
    unsafe { libc::fcntl(given.as_raw_fd(), libc::F_SETFD, 0) };
    let mut expected: Vec<i32> = (0..1024)
        // SAFETY: only asks for the flags.
        .filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } == 0)
        .collect();
    assert!(expected.contains(&given.as_raw_fd()));
    run("exec ls /proc/self/fd >$1", &[&place.path("fds")]);
    let mut of_worker: Vec<i32> = place
        .lines("fds", 1)
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    of_worker.sort_unstable();
    // `ls` opens the directory at the lowest free number.
    let listing = (0..).find(|fd| !expected.contains(fd)).unwrap();
    expected.push(listing);
    expected.sort_unstable();
    assert_eq!(of_worker, expected);
}

#[test]
fn a_worker_leads_a_group_of_its_own_without_a_terminal() {
    let place = Place::new();
    let (path, ready) = (place.path("out"), "cat /proc/$$/stat >$1; sleep 60");
    let keeper = Keeper::new(&["sh", "-c", ready, "sh", &path]);
    let worker = keeper.start(Duration::from_secs(60));
    let group = |pid: i32| leasewrap::sys::terminal::group(pid).unwrap();
    if !leasewrap::sys::terminal::has_controlling_terminal() {
        assert_eq!(group(worker), worker);
    }
    assert_eq!(group(keeper.guard.pid()), keeper.guard.pid());
    keeper.send(&ToGuard::Kill);
    keeper.until_empty();
    keeper.dismiss();
}

#[test]
fn the_guard_shows_nothing_of_the_command_and_keeps_nothing_of_the_callers() {
    let keeper = Keeper::new(&["sleep", "60"]);
    let proc = format!("/proc/{}", keeper.guard.pid());
    keeper.start(Duration::from_secs(60));
    assert_eq!(fs::read(format!("{proc}/cmdline")).unwrap(), b"lw-guard\0");
    assert_eq!(
        fs::read_to_string(format!("{proc}/comm")).unwrap(),
        "lw-guard\n"
    );
    // To the same user its descriptors are closed; only root can look.
    match fs::read_dir(format!("{proc}/fd")) {
        Ok(entries) => {
            let given = inherited_files();
            for entry in entries {
                let entry = entry.unwrap();
                let target = fs::read_link(entry.path()).unwrap();
                let is_stderr = entry.file_name() == "2";
                assert!(is_stderr || !given.contains(&target), "{target:?}");
            }
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    // Owned by root, whoever runs it: closed to the same user.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(format!("{proc}/environ")).unwrap().uid(), 0);
    let status = fs::read_to_string(format!("{proc}/status")).unwrap();
    let threads = status.lines().find(|line| line.starts_with("Threads:"));
    assert_eq!(threads, Some("Threads:\t1"));
    keeper.send(&ToGuard::Kill);
    keeper.until_empty();
    keeper.dismiss();
}

/// What this process would hand down, /dev/null aside.
fn inherited_files() -> Vec<std::path::PathBuf> {
    (0..1024)
        // SAFETY: only asks for the flags.
        .filter(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } == 0)
        .filter_map(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).ok())
        .filter(|target| target.to_str() != Some("/dev/null"))
        .collect()
}

#[test]
fn a_worker_has_the_callers_signals() {
    // Not those of the first thread, which blocks all while it starts another.
    let mine = signal_lines("/proc/thread-self/status");
    let place = Place::new();
    run("cat /proc/self/status >$1", &[&place.path("status")]);
    // SigCgt aside: a program's own handlers. This test's Rust runtime has
    // ignored SIGPIPE before anything could be recorded, so it is handed down.
    assert_eq!(signal_lines(&place.path("status")), mine);
}

fn signal_lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines();
    let wanted = |line: &&str| {
        ["SigBlk:", "SigIgn:"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    lines.filter(wanted).map(str::to_owned).collect()
}

#[test]
fn what_cannot_be_executed_is_reported_by_its_errno() {
    let place = Place::new();
    let not_a_file = place.path("missing");
    let no_interpreter = place.script("bad", "#!/no/such/interpreter\n", 0o755);
    let not_executable = place.script("plain", "exit 0\n", 0o644);
    for (path, errno) in [
        (not_a_file.as_str(), libc::ENOENT),
        (no_interpreter.as_str(), libc::ENOENT),
        (not_executable.as_str(), libc::EACCES),
        ("/", libc::EACCES),
    ] {
        let keeper = Keeper::new(&[path]);
        keeper.send(&ToGuard::Start(start(Duration::from_secs(60))));
        let expected = FromGuard::NotStarted(NotStarted::Exec { errno });
        assert_eq!(keeper.next(), expected, "{path}");
        keeper.send(&ToGuard::Ping { seq: 0 });
        keeper.dismiss();
    }
}

#[test]
fn a_script_without_a_first_line_is_run_by_the_shell() {
    let place = Place::new();
    let script = place.script("script", "echo \"$1\" >\"$2\"\n", 0o755);
    let keeper = Keeper::new(&[&script, "a b", &place.path("out")]);
    keeper.start(Duration::from_secs(60));
    assert_eq!(keeper.until_ended(), WorkerEnd::Exited(0));
    keeper.until_empty();
    keeper.dismiss();
    assert_eq!(place.read("out"), "a b\n");
}

#[test]
fn signals_are_passed_on_and_stops_are_reported() {
    let place = Place::new();
    // (HUP is ignored, and cannot be caught, where the tests run under nohup.)
    let script = "trap 'echo usr1 >>$1' USR1; echo ready >>$1; while :; do sleep 0.05; done";
    let keeper = Keeper::new(&["sh", "-c", script, "sh", &place.path("out")]);
    keeper.start(Duration::from_secs(60));
    place.lines("out", 1);
    keeper.send(&ToGuard::Signal(libc::SIGUSR1));
    assert_eq!(place.lines("out", 2)[1], "usr1");
    keeper.send(&ToGuard::Signal(libc::SIGTSTP));
    let signal = libc::SIGTSTP;
    assert_eq!(keeper.next(), FromGuard::WorkerStopped { signal });
    keeper.send(&ToGuard::Signal(libc::SIGCONT));
    assert_eq!(keeper.next(), FromGuard::WorkerContinued);
    keeper.send(&ToGuard::Signal(libc::SIGKILL));
    assert_eq!(keeper.until_ended(), WorkerEnd::Signaled(libc::SIGKILL));
    keeper.until_empty();
    keeper.dismiss();
}

#[test]
fn the_guard_acts_on_no_signal() {
    let keeper = Keeper::new(&["sleep", "60"]);
    let worker = keeper.start(Duration::from_secs(60));
    for signal in 1..=64 {
        let deadly = [
            libc::SIGKILL,
            libc::SIGSTOP,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGSEGV,
            libc::SIGSYS,
        ];
        if !deadly.contains(&signal) {
            leasewrap::sys::process::signal(keeper.guard.pid(), signal).unwrap();
        }
    }
    keeper.send(&ToGuard::Ping { seq: 9 });
    assert_eq!(keeper.next(), FromGuard::Ack { seq: 9 });
    assert!(is_alive(worker));
    keeper.send(&ToGuard::Kill);
    keeper.until_empty();
    keeper.dismiss();
}

#[test]
fn a_pipe_closes_when_the_worker_closes_it() {
    let _calm = calm();
    let place = Place::new();
    let report = place.path("pids");
    // Tildes stand for blanks.
    let script = "exec~sleep~60~>/dev/null";
    let mut keeper = helper_command("keeper", &[&report, "60000", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = keeper.stdout.take().unwrap();
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    // The end was read while all three still live.
    let pids = place.lines("pids", 3);
    let pids: Vec<i32> = pids.iter().map(|line| line.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    eventually("the guard is gone", || (!is_alive(pids[1])).then_some(()));
}
