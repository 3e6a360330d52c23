//! What becomes of the worker when something becomes of `serve`.

use crate::pod::{LONG, Pod, SHORT, STUBBORN};
use crate::support::wait::{SOON, until_true};
use crate::support::{proc, sys};

#[test]
fn serve_sigkill() {
    let pod = Pod::new("sidecar-serve-sigkill", SHORT);
    let holding = pod.hold(&STUBBORN);
    let _rival = pod.rival();
    let killed_at = sys::boot_ns();
    holding.serve.signal(libc::SIGKILL);
    let ended = holding.attach.end().code(122);
    assert!(ended.says(&["serve is gone"]), "{ended:?}");
    let silent = pod.scene.log.wait_silence(SOON).unwrap_or(u64::MAX);
    let outlived = crate::support::witness::ms_between(killed_at, silent);
    pod.scene.say(&format!("outlived_serve_ms={outlived:.1}"));
    pod.scene.handed_over(holding.token, SOON);
}

#[test]
fn serve_sigstop() {
    let pod = Pod::new("sidecar-serve-sigstop", SHORT);
    let holding = pod.hold(&STUBBORN);
    let _rival = pod.rival();
    holding.serve.signal(libc::SIGSTOP);
    pod.scene.handed_over(holding.token, SOON);
    let ended = holding.attach.end().code(122);
    assert!(ended.last_line().contains("lease lost"), "{ended:?}");
    // Its own timer has ended it: whoever started it sees an end.
    holding.serve.end().code(137);
}

#[test]
fn serve_restarted_by_its_kubelet() {
    let pod = Pod::new("sidecar-serve-restarted", SHORT);
    let holding = pod.hold(&["children=1", "daemon"]);
    holding.serve.signal(libc::SIGKILL);
    let serve = pod.serve().spawn();
    holding.attach.end().code(122);
    let attach = pod.witness(&[]).spawn();
    attach.wait_event("attached");
    serve.wait_event("attached");
    pod.scene.handed_over(holding.token, SOON);
    drop(attach);
    drop(serve);
}

#[test]
fn serve_goes_while_attach_stands_by() {
    let pod = Pod::new("sidecar-serve-goes", LONG);
    let (rival, old) = pod.scene.hold(&crate::support::server::shared().url(), &[]);
    let serve = pod.serve().spawn();
    let attach = pod.witness(&[]).spawn();
    attach.wait_event("attached");
    for turn in 2..4 {
        serve.signal(libc::SIGKILL);
        attach.wait_event("waiting");
        let again = pod.serve().spawn();
        attach.wait_events("attached", turn);
        again.signal(libc::SIGKILL);
        again.end().code(137);
    }
    let again = pod.serve().spawn();
    attach.wait_events("attached", 4);
    rival.signal(libc::SIGTERM);
    rival.end().code(143);
    pod.scene.handed_over(old, SOON);
    drop(again);
}

#[test]
fn the_socket_is_deleted() {
    let pod = Pod::new("sidecar-socket-deleted", LONG);
    let holding = pod.hold(&[]);
    std::fs::remove_file(pod.socket()).unwrap();
    holding.serve.wait_event("socket-made-anew");
    pod.scene.goes_on(holding.token, SHORT, "a deleted socket");
    holding.attach.signal(libc::SIGTERM);
    holding.attach.end().code(143);
    // The next one finds it.
    let (attach, _) = pod.scene.start(pod.witness(&[]), &[]);
    pod.scene.handed_over(holding.token, SOON);
    drop(attach);
}

#[test]
fn a_directory_that_is_gone_harms_nobody_who_is_attached() {
    let pod = Pod::new("sidecar-directory-gone", LONG);
    let holding = pod.hold(&[]);
    let directory = pod.socket().parent().unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    holding.serve.wait_event("socket-gone");
    pod.scene
        .goes_on(holding.token, SHORT, "a deleted directory");
    std::fs::create_dir(directory).unwrap();
    holding.serve.wait_event("socket-made-anew");
    holding.serve.signal(libc::SIGTERM);
    holding.attach.end().code(143);
    holding.serve.end().code(143);
}

#[test]
fn a_second_attach_waits_and_disturbs_nobody() {
    let pod = Pod::new("sidecar-second-attach", LONG);
    let holding = pod.hold(&[]);
    let second = pod.witness(&[]).spawn();
    let waits = second.wait_event("waiting");
    let words = waits["message"].as_str().unwrap();
    let pid = holding.attach.pid();
    assert!(
        words.contains("another one is attached") && words.contains(&format!("pid {pid}")),
        "{words}"
    );
    pod.scene.goes_on(holding.token, SHORT, "a second attach");
    assert_eq!(pod.scene.log.spans().len(), 1);
    holding.attach.signal(libc::SIGTERM);
    holding.attach.end().code(143);
    pod.scene.handed_over(holding.token, SOON);
    second.signal(libc::SIGTERM);
    second.end().code(143);
    until_true("serve stands by", SOON, || proc::alive(holding.serve.pid()));
}
