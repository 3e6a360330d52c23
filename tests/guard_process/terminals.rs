//! With a controlling terminal.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use leasewrap::sys::terminal::group;
use nix::pty::openpty;

use crate::support::{Place, calm, eventually, helper_command, is_alive};

/// Runs a command as the leader of a session with a terminal.
fn with_terminal(mut command: Command) -> (OwnedFd, Child) {
    let ends = openpty(None, None).unwrap();
    command.stdin(ends.slave.try_clone().unwrap());
    // SAFETY: two system calls.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn().unwrap();
    (ends.master, child)
}

#[test]
fn with_a_terminal_the_worker_stays_in_the_callers_group() {
    let _calm = calm();
    let place = Place::new();
    let pids = place.path("pids");
    let keeper = helper_command("keeper", &[&pids, "60000", "sleep", "60"]);
    let (_terminal, mut keeper) = with_terminal(keeper);
    let pids: Vec<i32> = place
        .lines("pids", 3)
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(group(pids[0]), Some(pids[0]));
    assert_eq!(group(pids[2]), Some(pids[0]), "the worker");
    assert_eq!(group(pids[1]), Some(pids[1]), "the guard");
    // `kill -9 %1`: the guard is not hit, and takes care of the rest.
    // SAFETY: a system call.
    unsafe { libc::kill(-pids[0], libc::SIGKILL) };
    keeper.wait().unwrap();
    eventually("guard and worker are gone", || {
        pids[1..].iter().all(|pid| !is_alive(*pid)).then_some(())
    });
}

#[test]
fn a_shell_above_is_found() {
    let place = Place::new();
    let report = place.path("report");
    let (_terminal, mut leader) = with_terminal(helper_command("takes_over", &[&report]));
    assert!(leader.wait().unwrap().success());
    assert_eq!(
        place.read("report"),
        "leader false true\njob true true\nbelow true true\n"
    );
}
