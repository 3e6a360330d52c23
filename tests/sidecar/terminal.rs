//! A terminal and its shell see `attach` as they see leasewrap.

use crate::pod::{LONG, Pod};
use crate::support::leasewrap::Builder;
use crate::support::proc;
use crate::support::pty::Terminal;
use crate::support::wait::{SOON, until_true};

fn line(builder: &Builder) -> String {
    let quoted = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    let words: Vec<_> = builder.words().iter().map(quoted).collect();
    words.join(" ")
}

fn stopped(pid: i32) -> bool {
    proc::state(pid) == Some('T')
}

/// The grandparent of the worker: whose environment cannot be read by all.
fn attach_of(pod: &Pod, token: i64) -> i32 {
    let worker = pod.scene.log.processes(token)[0];
    let attach = proc::parent(worker).and_then(proc::parent);
    attach.expect("the worker has a guard, which has a parent")
}

#[test]
fn what_is_typed_is_the_workers_and_attach_follows_it() {
    let pod = Pod::new("sidecar-terminal", LONG);
    let serve = pod.serve().spawn();
    let terminal = Terminal::bash();
    terminal.line(&line(&pod.witness(&["report"])));
    let token = pod.scene.log.wait_newer(0, SOON);
    // Until attach knows of it, it takes what is typed as leasewrap does.
    terminal.wait("the worker runs");
    terminal.type_text("\x03");
    terminal.wait("signal 02");
    assert!(!terminal.screen().contains("stopping"));
    let attach = attach_of(&pod, token);
    crate::support::sys::kill(attach, libc::SIGKILL);
    // The guard goes on until then, and the terminal takes all with it.
    serve.wait_event("released");
    drop(terminal);

    let terminal = Terminal::bash();
    terminal.line(&line(&pod.witness(&[])));
    let token = pod.scene.log.wait_newer(token, SOON);
    let attach = attach_of(&pod, token);
    let worker = pod.scene.log.processes(token)[0];
    terminal.wait("the worker runs");
    terminal.type_text("\x1a");
    terminal.wait("Stopped");
    assert!(stopped(worker) && stopped(attach), "both have stopped");
    let seen = pod.scene.log.stamps().len();
    terminal.line("fg");
    until_true("the worker works again", SOON, || {
        pod.scene.log.stamps().len() > seen + 5
    });
    terminal.type_text("\x03");
    until_true("attach has ended with its worker", SOON, || {
        !proc::alive(attach)
    });
}
