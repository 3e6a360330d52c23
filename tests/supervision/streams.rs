//! Standard streams and descriptors: the worker has all of the caller's, and
//! leasewrap is in nobody's way.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::leasewrap;
use crate::support::run::run;
use crate::support::sys::Start;
use crate::support::wait::{SOON, maybe, until_true};

fn pipe() -> (std::fs::File, OwnedFd) {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (read.into(), write)
}

/// Whether a read end sees the end of file before long.
fn ends(mut read: std::fs::File) -> bool {
    let reader = std::thread::spawn(move || read.read_to_end(&mut Vec::new()).is_ok());
    maybe(SOON, || reader.is_finished().then_some(())).is_some()
}

#[test]
fn stdout_is_the_workers_alone() {
    let ended = leasewrap()
        .switch("-v")
        .sh("printf 'a\\0b\\n'; printf x")
        .run()
        .code(0);
    assert_eq!(ended.out, "a\0b\nx");
}

#[test]
fn stderr_is_the_workers_too() {
    let ended = leasewrap().sh("echo to stderr >&2").run().code(0);
    assert!(
        ended.log.iter().any(|line| line == "to stderr"),
        "{:?}",
        ended.log
    );
}

#[test]
fn stdin_is_the_workers() {
    let path = run().file("input");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    let ended = leasewrap()
        .stdin(std::fs::File::open(path).unwrap())
        .worker(&["cat"])
        .run()
        .code(0);
    assert_eq!(ended.out, "one\ntwo\n");
}

#[test]
fn a_pipe_closes_when_the_worker_closes_it() {
    let (read, write) = pipe();
    let leasewrap = leasewrap()
        .stdout(write)
        .sh("exec >&-; exec sleep 1000")
        .spawn();
    leasewrap.worker();
    assert!(ends(read), "somebody else still holds stdout");
}

#[test]
fn a_pipe_into_the_worker_breaks_when_the_worker_closes_it() {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let leasewrap = leasewrap()
        .stdin(read)
        .sh("exec 0<&-; echo closed; exec sleep 1000")
        .spawn();
    leasewrap.wait_out("closed");
    let mut write = std::fs::File::from(write);
    until_true("writing fails", SOON, || write.write(b"x").is_err());
}

#[test]
fn exactly_the_callers_descriptors() {
    let (read, write) = pipe();
    let builder = leasewrap().start(|start| start.descriptors = vec![(write.as_raw_fd(), 7)]);
    let leasewrap = builder
        .sh("ls /proc/$$/fd; exec 7>&-; echo closed; exec sleep 1000")
        .spawn();
    leasewrap.wait_out("closed");
    drop(write);
    assert_eq!(
        leasewrap.out(),
        "0\n1\n2\n7\nclosed\n",
        "none leaks, none is withheld"
    );
    assert!(ends(read), "keeper and guard hold it no longer");
}

#[test]
fn an_inherited_descriptor_may_have_any_number() {
    // Where leasewrap would put its own: 3, 4, 5 and on.
    let (read, write) = pipe();
    let numbers = [3, 4, 5, 6, 8, 9, 10, 11, 12, 20, 200];
    let builder = leasewrap().start(|start| {
        start.descriptors = numbers
            .iter()
            .map(|number| (write.as_raw_fd(), *number))
            .collect()
    });
    let script = numbers
        .map(|number| format!("bash -c 'echo -n {number}. >&{number}'"))
        .join("; ");
    builder.sh(&script).run().code(0);
    drop(write);
    let mut seen = String::new();
    let mut read = read;
    read.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, numbers.map(|number| format!("{number}.")).concat());
}

#[test]
fn process_substitution() {
    let words = leasewrap().worker(&["cat"]).words();
    let line = words
        .iter()
        .map(|word| format!("'{word}'"))
        .collect::<Vec<_>>()
        .join(" ");
    let output = std::process::Command::new("bash")
        .args(["-c", &format!("{line} <(echo one) <(echo two)")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
}

#[test]
fn socket_activation() {
    let (_read, write) = pipe();
    let words = leasewrap()
        .sh("echo $LISTEN_PID $$ $LISTEN_FDS; ls /proc/$$/fd")
        .words();
    let line = words
        .iter()
        .map(|word| format!("\"{}\"", word.replace('$', "\\$")))
        .collect::<Vec<_>>()
        .join(" ");
    let mut command = std::process::Command::new("sh");
    command.args([
        "-c",
        &format!("export LISTEN_PID=$$ LISTEN_FDS=1; exec {line}"),
    ]);
    let start = Start {
        descriptors: vec![(write.as_raw_fd(), 3)],
        ..Default::default()
    };
    crate::support::sys::prepare(&mut command, start);
    let output = command.output().unwrap();
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words[0], words[1], "LISTEN_PID is the worker's: {seen}");
    assert_eq!(&words[2..], ["1", "0", "1", "2", "3"], "{seen}");
}

#[test]
fn closed_standard_streams_stay_closed() {
    for closed in [vec![0], vec![2], vec![0, 2], vec![0, 1, 2]] {
        let out = run().file("out");
        let script = format!("ls /proc/$$/fd > {}; exit 5", out.display());
        let start = Start {
            closed: closed.clone(),
            ..Start::default()
        };
        let mut bare = std::process::Command::new("sh");
        bare.args(["-c", &script]);
        crate::support::sys::prepare(&mut bare, start.clone());
        assert_eq!(bare.status().unwrap().code(), Some(5));
        let expected = std::fs::read_to_string(&out).unwrap();
        let builder = leasewrap().start(|of_leasewrap| *of_leasewrap = start);
        builder.sh(&script).run().code(5);
        assert_eq!(
            std::fs::read_to_string(&out).unwrap(),
            expected,
            "closed: {closed:?}"
        );
    }
}

#[test]
fn a_stderr_that_nobody_reads_delays_nothing() {
    let (_read, write) = pipe();
    // Full to the last byte.
    let raw = write.as_raw_fd();
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    let mut file = std::fs::File::from(write.try_clone().unwrap());
    while file.write(&[b'x'; 4096]).is_ok() {}
    while file.write(b"x").is_ok() {}
    nix::fcntl::fcntl(
        &write,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()),
    )
    .unwrap();
    assert!(raw > 2);
    let start = Instant::now();
    let builder = leasewrap().ttl("8s").switch("-vv").stderr(write);
    builder
        .sh("sleep 9; exit 6")
        .spawn()
        .end_within(SOON * 2)
        .code(6);
    assert!(start.elapsed() >= Duration::from_secs(9));
}

#[test]
fn a_broken_stderr_ends_nothing() {
    let (read, write) = pipe();
    drop(read);
    leasewrap()
        .switch("-vv")
        .stderr(write)
        .sh("sleep 0.3; exit 6")
        .run()
        .code(6);
}

#[test]
fn flags_of_a_shared_stderr_stay_as_they_were() {
    // O_NONBLOCK belongs to the open file: the worker, and the caller, would get it too.
    let (_read, write) = pipe();
    let kept = write.try_clone().unwrap();
    leasewrap()
        .switch("-vv")
        .stderr(write)
        .sh("sleep 0.2; exit 0")
        .run()
        .code(0);
    let flags = nix::fcntl::fcntl(&kept, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    assert_eq!(flags & libc::O_NONBLOCK, 0);
}
