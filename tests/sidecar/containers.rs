//! As two containers of a pod are: mount, PID and network namespaces of their
//! own, different users, and one directory that both have.

use crate::pod::{KEPT, LONG, Pod, listens, subcommand};
use crate::support::leasewrap::{Builder, Leasewrap};
use crate::support::run::run;
use crate::support::user::is_root;
use crate::support::wait::{SOON, until, until_true};
use crate::support::{proc, sys};

/// Runs it as PID 1 of a container of its own as this user, with nothing of
/// `private`, which is another one for each, and a network without a way out.
fn contained(leasewrap: Builder, user: &str, private: &str) -> Builder {
    let script = format!(
        "mount -t tmpfs -o mode=0777 none '{private}' && exec setpriv --reuid={user} --regid={user} \
         --groups=3000 --no-new-privs --bounding-set=-all \"$@\""
    );
    let words = [
        "unshare",
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        &script,
        "sh",
    ];
    leasewrap.below(&words)
}

/// The process that is PID 1 in there.
fn first(outer: &Leasewrap) -> i32 {
    until("the first process of the container", SOON, || {
        proc::children(outer.pid())
            .into_iter()
            .find(|pid| proc::comm(*pid).as_deref() == Some("leasewrap"))
    })
}

#[test]
fn two_containers_of_a_pod() {
    if !is_root() {
        println!("skipped: two containers of different users need root");
        return;
    }
    let pod = Pod::new("sidecar-containers", LONG);
    let private = run().directory("private").display().to_string();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(pod.scene.log.path(), mode).unwrap();
    // What Kubernetes makes of a volume and fsGroup.
    let shared = pod.socket().parent().unwrap();
    std::os::unix::fs::chown(shared, Some(0), Some(3000)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o2770);
    std::fs::set_permissions(shared, mode).unwrap();
    let serve = subcommand("serve", pod.socket())
        .option("--db", &format!("sqlite:{private}/db"))
        .option("--name", &pod.scene.name)
        .ttl(&format!("{}s", KEPT.as_secs()));
    let serve = contained(serve, "1001", &private).spawn();
    listens(pod.socket());

    // Neither sees what the other has but the socket.
    let look = format!("id -u; ls '{private}' | wc -l; ls /proc | grep -c '^[0-9]*$'; exit 9");
    let ended = contained(pod.attach(), "1002", &private)
        .sh(&look)
        .run()
        .code(9);
    assert!(ended.out.starts_with("1002\n0\n"), "{ended:?}");
    let attached = serve.wait_event("attached");
    assert_eq!(
        (&attached["uid"], &attached["pid"]),
        (&1002.into(), &0.into())
    );

    // An orderly end.
    let (attach, token) = pod.scene.start(
        contained(pod.witness(&["children=1", "daemon"]), "1002", &private),
        &["children=1", "daemon"],
    );
    pod.scene.goes_on(token, KEPT * 3 / 2, "renewals");
    sys::kill(first(&attach), libc::SIGTERM);
    attach.end().code(143);

    // The container is killed: all of it ends, and the lease is given back
    // since the end of its first process proves that.
    let stubborn = ["children=2", "daemon", "ignore=15"];
    let start = |options: &[&str]| {
        let attach = contained(pod.witness(options), "1002", &private);
        pod.scene.start(attach, options)
    };
    let (attach, token) = start(&stubborn);
    sys::kill(first(&attach), libc::SIGKILL);
    attach.end();
    serve.wait_event("container-ended");
    let (attach, _) = start(&[]);
    pod.scene.handed_over(token, SOON);
    let acquired = serve.wait_events("acquired", 4);
    assert_eq!(acquired["basis"], "released", "{acquired}");

    // And serve's is.
    sys::kill(first(&serve), libc::SIGKILL);
    attach.end().code(122);
    until_true("serve is gone", SOON, || !proc::alive(serve.pid()));
}
