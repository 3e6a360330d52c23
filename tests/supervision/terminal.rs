//! Job control on a terminal, under a real bash and as a session leader.

use std::process::Command;
use std::time::Duration;

use crate::leasewrap;
use crate::support::leasewrap::{Builder, guard_of, holder, lease_name};
use crate::support::proxy::Proxy;
use crate::support::pty::Terminal;
use crate::support::server::shared;
use crate::support::wait::{SOON, maybe, until, until_true};
use crate::support::witness::Log;
use crate::support::{proc, sys};

const CTRL_C: &str = "\x03";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// A leasewrap's command line as a shell reads it.
pub fn line(builder: &Builder) -> String {
    let quoted = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    builder
        .words()
        .iter()
        .map(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The keeper of the terminal's only leasewrap, and its guard.
fn processes(terminal: &Terminal) -> (i32, i32) {
    let keeper = until("the keeper", SOON, || {
        terminal.named("leasewrap").first().copied()
    });
    let guard = until("the guard", SOON, || guard_of(keeper));
    (keeper, guard)
}

fn stopped(pid: i32) -> bool {
    proc::state(pid) == Some('T')
}

/// Waits until what has this name has the terminal: bash says that it goes on
/// before that.
#[track_caller]
pub fn wait_foreground(terminal: &Terminal, name: &str) {
    until_true(&format!("{name} has the terminal"), SOON, || {
        let all = terminal.named(name);
        all.iter().any(|pid| terminal.foreground() == group(*pid))
    });
}

fn group(pid: i32) -> i32 {
    nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).map_or(0, nix::unistd::Pid::as_raw)
}

#[test]
fn ctrl_c_is_the_workers_business() {
    let terminal = Terminal::bash();
    let log = Log::new();
    terminal.line(&line(&leasewrap().worker(&log.worker(&["report"]))));
    log.wait_newer(0, SOON);
    terminal.type_text(CTRL_C);
    terminal.wait("signal 02");
    terminal.type_text(CTRL_BACKSLASH);
    terminal.wait("signal 03");
    terminal.type_text(CTRL_C);
    terminal.wait_count("signal 02", 2);
    // The last thing to come: whatever leasewrap had passed on would be here.
    let (keeper, _) = processes(&terminal);
    sys::kill(keeper, libc::SIGUSR1);
    terminal.wait("signal 10");
    assert_eq!(
        terminal.screen().matches("signal 02").count(),
        2,
        "from the kernel alone"
    );
    assert!(!terminal.screen().contains("signal 15") && !terminal.screen().contains("stopping"));
}

#[test]
fn ctrl_c_is_leasewraps_once_the_worker_has_ended() {
    let terminal = Terminal::bash();
    let proxy = Proxy::to(shared().port());
    let leasewrap = holder(&proxy.url("postgres"), &lease_name("typed-release"))
        .ttl("60s")
        .option("--call-timeout", "2s")
        .sh("echo $((40+2)) is up; read line; exit 4");
    terminal.line(&line(&leasewrap));
    terminal.wait("42 is up");
    proxy.cut();
    terminal.line("end");
    terminal.wait("release the lease");
    // Once it has ended, the shell gets them.
    until_true("it ends long before the lease does", SOON, || {
        terminal.type_text(CTRL_C);
        terminal
            .screen()
            .contains("the worker ended with exit code 4")
    });
}

#[test]
fn ctrl_c_ends_a_worker_that_does_not_mind() {
    let terminal = Terminal::bash();
    let log = Log::new();
    terminal.line(&format!(
        "{}; echo code $?",
        line(&leasewrap().worker(&log.worker(&[])))
    ));
    log.wait_newer(0, SOON);
    terminal.type_text(CTRL_C);
    terminal.wait("code 130");
}

#[test]
fn ctrl_z_stops_the_job_and_fg_and_bg_wake_it() {
    let terminal = Terminal::bash();
    let log = Log::new();
    terminal.line(&line(&leasewrap().ttl("20s").worker(&log.worker(&[]))));
    let token = log.wait_newer(0, SOON);
    let (keeper, guard) = processes(&terminal);
    let worker = log.processes(token)[0];
    assert_eq!(
        group(worker),
        group(keeper),
        "the worker is in leasewrap's group"
    );
    for (round, wake) in ["fg", "bg"].into_iter().enumerate() {
        terminal.type_text(CTRL_Z);
        terminal.wait_count("Stopped", round + 1);
        assert!(stopped(worker) && stopped(keeper), "both have stopped");
        assert!(!stopped(guard), "the guard never stops");
        let seen = log.stamps().len();
        terminal.line(wake);
        until_true("the worker works again", SOON, || {
            log.stamps().len() > seen + 5
        });
        until_true("the keeper too", SOON, || !stopped(keeper));
    }
    terminal.line("fg");
    until_true("it is in the foreground", SOON, || {
        terminal.foreground() == group(keeper)
    });
    terminal.type_text(CTRL_C);
    until_true("it has ended", SOON, || {
        !proc::alive(keeper) && !proc::alive(worker)
    });
}

#[test]
fn a_stopped_job_is_dead_by_its_deadline() {
    let terminal = Terminal::bash();
    let log = Log::new();
    let name = lease_name("stopped-job");
    let url = shared().url();
    terminal.line(&line(
        &holder(&url, &name)
            .ttl("10s")
            .option("--renew-every", "1s")
            .option("--margin", "5s")
            .worker(&log.worker(&["daemon"])),
    ));
    let token = log.wait_newer(0, SOON);
    let standby = holder(&url, &name)
        .ttl("10s")
        .worker(&log.worker(&[]))
        .spawn();
    standby.wait_event("waiting");
    terminal.type_text(CTRL_Z);
    terminal.wait("Stopped");
    log.wait_newer(token, SOON);
    assert!(log.hand_overs().iter().all(|seen| seen.overlap_ms <= 0.0));
}

#[test]
fn a_worker_that_ignores_ctrl_z_is_not_left_behind() {
    let terminal = Terminal::bash();
    let log = Log::new();
    let ignoring = format!("ignore={}", libc::SIGTSTP);
    terminal.line(&line(&leasewrap().worker(&log.worker(&[&ignoring]))));
    log.wait_newer(0, SOON);
    let (keeper, _) = processes(&terminal);
    terminal.type_text(CTRL_Z);
    let stops = maybe(Duration::from_millis(500), || stopped(keeper).then_some(()));
    assert!(
        stops.is_none() && !terminal.screen().contains("Stopped"),
        "{}",
        terminal.screen()
    );
    assert_eq!(terminal.foreground(), group(keeper));
    terminal.type_text(CTRL_C);
    until_true("it has ended", SOON, || !proc::alive(keeper));
}

#[test]
fn ctrl_c_during_a_stop_cuts_it_short() {
    let terminal = Terminal::bash();
    let log = Log::new();
    let stubborn = log.worker(&["ignore=2", "ignore=15"]);
    let builder = leasewrap()
        .option("--stop-timeout", "60s")
        .worker(&stubborn);
    terminal.line(&format!("{}; echo code $?", line(&builder)));
    log.wait_newer(0, SOON);
    let (keeper, _) = processes(&terminal);
    sys::kill(keeper, libc::SIGTERM);
    terminal.wait("stopping");
    // Half a second is the contract's; this is no waiting for luck.
    std::thread::sleep(Duration::from_millis(600));
    terminal.type_text(CTRL_C);
    terminal.wait("code 137");
}

#[test]
fn a_new_size_of_the_window_reaches_the_worker_once() {
    let terminal = Terminal::bash();
    let log = Log::new();
    terminal.line(&line(&leasewrap().worker(&log.worker(&["report"]))));
    log.wait_newer(0, SOON);
    terminal.resize(40, 100);
    terminal.wait("signal 28");
    let (keeper, _) = processes(&terminal);
    sys::kill(keeper, libc::SIGUSR1);
    terminal.wait("signal 10");
    assert_eq!(
        terminal.screen().matches("signal 28").count(),
        1,
        "{}",
        terminal.screen()
    );
}

#[test]
fn a_job_in_the_background_is_not_stopped_by_leasewraps_own_log() {
    let terminal = Terminal::bash();
    let log = Log::new();
    terminal.run("stty tostop");
    let builder = leasewrap().ttl("8s").switch("-v").worker(&log.worker(&[]));
    terminal.line(&format!("{} &", line(&builder)));
    let token = log.wait_newer(0, SOON);
    until_true("the worker works on past the ttl", SOON, || {
        log.spans()
            .last()
            .is_some_and(|(_, first, last)| last.at_ns - first.at_ns > 9_000_000_000)
    });
    assert_eq!(
        log.spans().last().map(|(latest, _, _)| *latest),
        Some(token)
    );
    assert!(terminal.named("witness").iter().all(|pid| !stopped(*pid)));
}

#[test]
fn ctrl_z_stops_a_standby() {
    let terminal = Terminal::bash();
    let log = Log::new();
    let name = lease_name("standby");
    let first = holder(&shared().url(), &name)
        .worker(&log.worker(&[]))
        .spawn();
    log.wait_newer(0, SOON);
    terminal.line(&format!(
        "{}; echo code $?",
        line(&holder(&shared().url(), &name).sh("true"))
    ));
    terminal.wait("waiting");
    let (keeper, _) = processes(&terminal);
    terminal.type_text(CTRL_Z);
    terminal.wait("Stopped");
    assert!(stopped(keeper));
    terminal.line("fg");
    until_true("it goes on", SOON, || !stopped(keeper));
    terminal.type_text(CTRL_C);
    terminal.wait("130");
    drop(first);
}

#[test]
fn a_job_in_the_background_that_reads_is_stopped() {
    let terminal = Terminal::bash();
    terminal.line(&format!("{} &", line(&leasewrap().worker(&["cat"]))));
    until_true("cat has stopped", SOON, || {
        terminal
            .named("cat")
            .first()
            .is_some_and(|pid| stopped(*pid))
    });
    let (keeper, _) = processes(&terminal);
    until_true("leasewrap follows", SOON, || stopped(keeper));
    terminal.line("fg");
    until_true("both go on", SOON, || {
        !stopped(keeper) && !terminal.named("cat").iter().any(|pid| stopped(*pid))
    });
    terminal.line("hello");
    terminal.wait_count("hello", 2);
    terminal.type_text("\x04");
    until_true("cat has seen the end", SOON, || {
        terminal.named("cat").is_empty()
    });
}

#[test]
fn a_session_leader_wakes_its_worker() {
    // As under `docker run -it`: no shell above that would take over.
    let log = Log::new();
    let words = leasewrap().worker(&log.worker(&[])).words();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let terminal = Terminal::start(command);
    log.wait_newer(0, SOON);
    for _ in 0..3 {
        let seen = log.stamps().len();
        terminal.type_text(CTRL_Z);
        until_true("the worker works on", SOON, || {
            log.stamps().len() > seen + 20
        });
    }
    assert!(!stopped(terminal.pid()));
    terminal.type_text(CTRL_C);
    assert_eq!(terminal.end(), 130);
}

#[test]
fn a_shell_as_the_worker_of_a_session_leader() {
    let bash = ["bash", "--norc", "--noprofile", "--noediting", "-i"];
    let words = leasewrap().worker(&bash).words();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let terminal = Terminal::start(command);
    terminal.wait("lw$ ");
    terminal.line("sleep 1000");
    until_true("sleep runs", SOON, || !terminal.named("sleep").is_empty());
    terminal.type_text(CTRL_Z);
    terminal.wait("Stopped");
    assert!(terminal.run("jobs").contains("sleep 1000"));
    terminal.line("fg");
    terminal.wait_count("sleep 1000", 4);
    wait_foreground(&terminal, "sleep");
    terminal.type_text(CTRL_C);
    terminal.line("exit 13");
    assert_eq!(terminal.end(), 13);
}

#[test]
fn a_hang_up_ends_all() {
    let mut terminal = Terminal::bash();
    let log = Log::new();
    terminal.line(&line(&leasewrap().worker(&log.worker(&["daemon"]))));
    let token = log.wait_newer(0, SOON);
    log.wait_processes(token, 2, SOON);
    let (keeper, guard) = processes(&terminal);
    terminal.hang_up();
    until_true("nobody is left", SOON, || {
        !proc::alive(keeper) && !proc::alive(guard)
    });
    assert!(log.wait_silence(SOON).is_some());
}

#[test]
fn a_terminal_that_is_held_up_delays_nothing() {
    let terminal = Terminal::bash();
    let log = Log::new();
    let builder = leasewrap().ttl("8s").switch("-vv");
    terminal.line(&line(&builder.worker(&log.worker(&["exit-after=11000"]))));
    let token = log.wait_newer(0, SOON);
    let (keeper, _) = processes(&terminal);
    // Ctrl-S: from now on every write to the terminal blocks.
    terminal.type_text("\x13");
    until_true("the keeper has ended", SOON * 2, || !proc::alive(keeper));
    let (_, first, last) = log.spans()[0];
    let worked = Duration::from_nanos(last.at_ns - first.at_ns);
    assert!(
        worked >= Duration::from_secs(9),
        "lost its lease after {worked:?}"
    );
    assert_eq!(log.spans().last().unwrap().0, token);
    terminal.type_text("\x11");
}

/// A script that leads its session, as under `docker run -it` or `ssh -t`:
/// nobody is there who would wake it.
fn script(text: &str) -> Terminal {
    let mut shell = Command::new("sh");
    shell.args(["-c", text]);
    Terminal::start(shell)
}

#[test]
fn ctrl_z_stops_no_script_that_leads_its_session() {
    let leasewrap = line(&leasewrap().sh("echo $((40+2)) is up; sleep 1; echo done"));
    let terminal = script(&format!("{leasewrap}; echo $((1+2)) goes on; read wait"));
    terminal.wait("42 is up");
    terminal.type_text(CTRL_Z);
    terminal.wait("done");
    terminal.wait("3 goes on");
}

#[test]
fn the_workers_end_hangs_nobody_up() {
    let leasewrap = line(&leasewrap().sh("true"));
    let terminal = script(&format!(
        "trap 'echo hung $((40+2)) up' HUP
         sleep 1000 & kill -STOP $!
         for start in 1 2 3; do {leasewrap}; done
         kill -KILL $!; echo $((1+2)) goes on; read wait"
    ));
    terminal.wait("3 goes on");
    assert!(
        !terminal.screen().contains("hung 42 up"),
        "{}",
        terminal.screen()
    );
}
