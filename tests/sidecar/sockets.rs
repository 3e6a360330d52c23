//! The socket's file: who may have it, and what is wrong with it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::pod::{LONG, Pod, listens, subcommand};
use crate::support::run::run;
use crate::support::server::shared;
use crate::support::user::{by_nobody, is_root};

#[test]
fn its_mode_is_what_was_asked_for_whatever_the_umask() {
    let pod = Pod::new("sidecar-mode", LONG);
    let directory = pod.socket().parent().unwrap();
    for (open, asked, mode) in [
        (0o777, None, 0o666),
        (0o755, None, 0o600),
        (0o1777, None, 0o600),
        (0o777, Some("0600"), 0o600),
        (0o755, Some("666"), 0o666),
    ] {
        std::fs::set_permissions(directory, PermissionsExt::from_mode(open)).unwrap();
        let serve = match asked {
            Some(asked) => pod.serve().option("--socket-mode", asked),
            None => pod.serve(),
        };
        let serve = serve.below(&["sh", "-c", "umask 077; exec \"$@\"", "sh"]);
        let serve = serve.spawn();
        listens(pod.socket());
        serve.wait_event("waiting");
        let found = std::fs::metadata(pod.socket()).unwrap();
        assert_eq!(found.mode() & 0o777, mode);
        serve.signal(libc::SIGTERM);
        serve.end().code(143);
    }
    let said = pod.serve().option("--socket-mode", "0040").run().code(2);
    assert!(said.says(&["--socket-mode", "0040", "0660"]), "{said:?}");
}

#[test]
fn a_dead_one_is_replaced_and_nothing_else() {
    let pod = Pod::new("sidecar-stale", LONG);
    drop(UnixListener::bind(pod.socket()).unwrap());
    let serve = pod.serve().spawn();
    pod.attach().sh("exit 4").run().code(4);
    let said = pod.serve().run().code(125);
    assert!(
        said.says(&["another process listens there", "\"outcome\":\"failed\""]),
        "{said:?}"
    );
    pod.attach().sh("exit 5").run().code(5);
    serve.signal(libc::SIGTERM);
    serve.end().code(143);
    std::fs::write(pod.socket(), "precious").unwrap();
    let said = pod.serve().run().code(125);
    assert!(said.says(&["no socket"]), "{said:?}");
    assert_eq!(std::fs::read(pod.socket()).unwrap(), b"precious");
}

#[test]
fn what_cannot_be_a_socket_is_one_clear_line() {
    let pod = Pod::new("sidecar-bad-socket", LONG);
    let serve = |path: &Path| subcommand("serve", path).option("--db", &shared().url());
    let attach = |path: &Path| subcommand("attach", path).sh("exit 1");
    let long = run().dir().join("x".repeat(110));
    for leasewrap in [serve(&long), attach(&long)] {
        let said = leasewrap.run().code(2);
        assert!(said.says(&["107"]) && said.log.len() == 1, "{said:?}");
    }
    let said = serve(&pod.socket().join("under/s")).run().code(125);
    assert!(
        said.says(&["cannot listen on", "No such file"]) && said.log.len() == 1,
        "{said:?}"
    );
    let full = Path::new("/proc/s");
    let said = serve(full).run().code(125);
    assert!(said.says(&["cannot listen on /proc/s"]), "{said:?}");
    let none = crate::support::leasewrap::leasewrap().text();
    let said = none.switch("attach").sh("exit 1").run().code(2);
    assert!(said.says(&["--socket", "LEASEWRAP_SOCKET"]), "{said:?}");
    let said = pod.attach().run().code(2);
    assert!(said.says(&["no command", "--"]), "{said:?}");
}

#[test]
fn what_serve_has_no_use_for_is_refused() {
    let pod = Pod::new("sidecar-refused", LONG);
    for option in ["--rejoin", "--no-wait"] {
        let said = pod.serve().switch(option).run().code(2);
        assert!(said.says(&[option]), "{said:?}");
    }
    let said = pod.serve().option("--worker-watchdog", "3s").run().code(2);
    assert!(said.says(&["--worker-watchdog"]), "{said:?}");
    let said = pod
        .attach()
        .option("--db", "sqlite:/x")
        .sh("x")
        .run()
        .code(2);
    assert!(said.says(&["--db"]), "{said:?}");
}

#[test]
fn a_full_directory_is_one_clear_line() {
    if !is_root() {
        println!("skipped: only root can mount a directory that is full");
        return;
    }
    let pod = Pod::new("sidecar-full", LONG);
    let directory = pod.socket().parent().unwrap().display().to_string();
    let script = format!(
        "mount -t tmpfs -o nr_inodes=2 none '{directory}' && touch '{directory}/x' && exec \"$@\""
    );
    let below = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let said = pod.serve().below(&below).run().code(125);
    assert!(
        said.says(&["cannot listen on", "No space left"]) && said.log.len() == 1,
        "{said:?}"
    );
}

#[test]
fn attach_says_what_keeps_it_from_serve() {
    let pod = Pod::new("sidecar-no-way", LONG);
    std::fs::write(pod.socket(), "").unwrap();
    let attach = pod.attach().option("--wait", "8s").sh("exit 1");
    let ended = attach.run().code(121);
    assert!(ended.says(&["waiting for serve", "refused"]), "{ended:?}");
    if is_root() {
        std::fs::remove_file(pod.socket()).unwrap();
        let _serve = pod.serve().option("--socket-mode", "0600").spawn();
        listens(pod.socket());
        let attach = pod.attach().option("--wait", "8s").sh("exit 1");
        let ended = by_nobody(attach).run().code(121);
        assert!(ended.says(&["Permission denied"]), "{ended:?}");
        let mode = PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(pod.socket(), mode).unwrap();
        let attach = pod.attach().sh("exit 6");
        by_nobody(attach).run().code(6);
    }
}
