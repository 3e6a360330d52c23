//! How a worker's end reaches whoever has started `attach`, and the next one.

use crate::pod::{LONG, Pod, listens};
use crate::support::leasewrap::{Builder, events};
use crate::support::manager::Manager;
use crate::support::proc;
use crate::support::wait::{SOON, until_true};

#[test]
fn a_worker_ends_by_itself_and_the_next_attach_gets_the_lease_at_once() {
    let pod = Pod::new("sidecar-worker-ends", LONG);
    let serve = pod.serve().spawn();
    let ended = pod.attach().sh("exit 7").run().code(7);
    assert!(ended.last_line().contains("exit code 7"), "{ended:?}");
    let last = &events(&ended.log, "ended")[0];
    assert_eq!(last["name"], pod.scene.name.as_str(), "{last}");
    assert!(
        last["waited_ms"].is_u64() && last["held_ms"].is_u64(),
        "{last}"
    );
    serve.wait_event("released");
    pod.attach().sh("kill -9 $$").run().code(137);
    let worker = ["exit-after=300", "exit-code=3", "daemon"];
    pod.witness(&worker).run().code(3);
    let (attach, token) = pod.scene.start(pod.witness(&[]), &[]);
    let before = pod.scene.log.spans()[0].0;
    let seen = pod.scene.handed_over(before, SOON);
    assert_eq!(seen.new, token);
    attach.signal(libc::SIGTERM);
    attach.end().code(143);
    serve.signal(libc::SIGTERM);
    let ended = serve.end().code(143);
    assert!(
        ended.last_line().contains("SIGTERM came after"),
        "{ended:?}"
    );
    assert!(!pod.socket().exists(), "it leaves no socket behind");
}

#[test]
fn serve_tells_the_service_manager_of_its_own_end_alone() {
    let pod = Pod::new("sidecar-notify", LONG);
    let mut manager = Manager::new();
    let socket = manager.path().display().to_string();
    let serve = pod.serve().env("NOTIFY_SOCKET", &socket).spawn();
    for _ in 0..2 {
        pod.attach().sh("true").run().code(0);
    }
    let attach = pod.attach().worker(&["sleep", "1000"]).spawn();
    attach.worker();
    attach.signal(libc::SIGTERM);
    attach.end().code(143);
    serve.wait_events("released", 3);
    until_true("it stands by again", SOON, || {
        manager
            .said()
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("STATUS="))
            .is_some_and(|status| status.starts_with("standby"))
    });
    assert!(!manager.said().contains("STOPPING=1"), "{}", manager.said());
    let attach = pod.attach().worker(&["sleep", "1000"]).spawn();
    attach.worker();
    serve.signal(libc::SIGTERM);
    serve.end().code(143);
    assert!(manager.said().contains("STOPPING=1"), "{}", manager.said());
}

#[test]
fn what_cannot_be_run_is_found_before_serve_is_looked_for() {
    let pod = Pod::new("sidecar-not-found", LONG);
    let ended = pod.attach().worker(&["/no/such/program"]).run().code(127);
    assert!(
        ended.says(&[
            "\"outcome\":\"not-started\"",
            "cannot execute /no/such/program: No such file"
        ]),
        "{ended:?}"
    );
    let ended = pod.attach().worker(&["/etc/passwd"]).run().code(126);
    assert!(ended.last_line().contains("cannot execute"), "{ended:?}");
    let serve = pod.serve().spawn();
    let script = crate::support::leasewrap::file_with("#!/no/such/interpreter\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let ended = pod
        .attach()
        .worker(&[script.display().to_string()])
        .run()
        .code(127);
    assert!(
        ended.last_line().contains("cannot execute"),
        "{}",
        ended.last_line()
    );
    serve.wait_event("released");
}

#[test]
fn the_worker_gets_the_environment_of_its_term_and_nothing_of_ours() {
    let pod = Pod::new("sidecar-environment", LONG);
    let _serve = pod.serve().switch("--pgoptions").spawn();
    let ended = pod
        .attach()
        .env("LEASEWRAP_SOCKET", "/elsewhere")
        .env("LEASEWRAP_DB", "postgres://nobody@nowhere/none")
        .env("NOTIFY_SOCKET", "/of/the/manager")
        .env("OWN", "stays")
        .sh("env | sort")
        .run()
        .code(0);
    let has = |line: &str| ended.out.lines().any(|seen| seen.starts_with(line));
    let name = &pod.scene.name;
    for line in [
        &format!("LEASEWRAP_LEASE={name}"),
        "LEASEWRAP_SLOT=0",
        "LEASEWRAP_TTL_MS=20000",
        "LEASEWRAP_HOLDER=",
        "LEASEWRAP_TOKEN=",
        &format!("PGOPTIONS=-c leasewrap.name={name} -c leasewrap.slot=0"),
        "OWN=stays",
    ] {
        assert!(has(line), "no {line} in\n{}", ended.out);
    }
    for gone in [
        "LEASEWRAP_SOCKET",
        "LEASEWRAP_DB",
        "NOTIFY_SOCKET",
        "LW_GUARD",
    ] {
        assert!(!has(gone), "{gone} in\n{}", ended.out);
    }
}

#[test]
fn each_waits_for_the_other() {
    let pod = Pod::new("sidecar-order", LONG);
    let attach = pod.attach().sh("echo ran").spawn();
    let waits = attach.wait_event("waiting");
    let words = waits["message"].as_str().unwrap().to_owned();
    assert!(words.contains("No such file"), "{words}");
    let serve = pod.serve().spawn();
    assert_eq!(attach.end().code(0).out, "ran\n");
    serve.wait_events("released", 1);
    let other = pod
        .scene
        .leasewrap(&crate::support::server::shared().url(), &[])
        .switch("--no-wait")
        .sh("exit 5")
        .run();
    assert_eq!(other.code, 5, "{other:?}");
}

#[test]
fn standing_by_both_end_by_a_signal() {
    let pod = Pod::new("sidecar-standing-by", LONG);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let attach = pod.attach().sh("exit 1").spawn();
        attach.wait_event("waiting");
        attach.signal(signal);
        attach.end().code(128 + signal);
    }
    let rival = pod
        .scene
        .hold(&crate::support::server::shared().url(), &[])
        .0;
    for signal in [libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP] {
        let serve = pod.serve().spawn();
        listens(pod.socket());
        let attach = pod.attach().sh("exit 1").spawn();
        attach.wait_event("attached");
        attach.signal(signal);
        attach.end().code(128 + signal);
        serve.wait_event("detached");
        serve.signal(signal);
        serve.end().code(128 + signal);
    }
    drop(rival);
}

#[test]
fn attach_gives_up_after_wait() {
    let pod = Pod::new("sidecar-wait", LONG);
    let waits = |code| {
        let attach = pod.attach().option("--wait", "10s");
        let attach = attach.option("--conflict-exit-code", code).sh("exit 1");
        attach.run()
    };
    waits("121").code(121);
    let (_holder, _) = pod.scene.hold(&crate::support::server::shared().url(), &[]);
    let serve = pod.serve().spawn();
    listens(pod.socket());
    let ended = waits("0").code(0);
    assert!(ended.last_line().contains("not acquired"), "{ended:?}");
    // And it did not take the lease down with it.
    serve.wait_event("detached");
    assert!(proc::alive(serve.pid()));
}

#[test]
fn no_wait_makes_one_attempt() {
    let pod = Pod::new("sidecar-no-wait", LONG);
    let variable = || pod.attach().env("LEASEWRAP_WAIT", "0s");
    let alone = variable().sh("exit 1").run().code(121);
    assert!(alone.says(&["waiting", "No such file"]), "{alone:?}");
    let serve = pod.serve().spawn();
    listens(pod.socket());
    // The first look at the database may take its time.
    pod.attach().sh("exit 3").run().code(3);
    // A busy serve may not have answered by the time that one attempt has.
    let one_of = |attach: &dyn Fn() -> Builder, code: i32| {
        let mut all = (0..5).map(|_| attach().sh(&format!("exit {code}")).run());
        let ended = all.find(|ended| ended.code != 121);
        ended.expect("one that was answered").code(code);
    };
    one_of(&variable, 4);
    one_of(&|| pod.attach().switch("--no-wait"), 5);
    serve.wait_events("released", 3);
    let (_holder, _) = pod.scene.hold(&crate::support::server::shared().url(), &[]);
    let ended = variable().sh("exit 1").run().code(121);
    assert!(ended.last_line().contains("not acquired"), "{ended:?}");
    assert!(proc::alive(serve.pid()));
}

#[test]
fn nothing_is_left_of_attach() {
    let pod = Pod::new("sidecar-nothing-left", LONG);
    let _serve = pod.serve().spawn();
    let attach = pod.witness(&["children=2", "daemon"]).spawn();
    attach.wait_event("started");
    let below = proc::descendants(attach.pid());
    assert!(below.len() >= 2, "{below:?}");
    attach.signal(libc::SIGTERM);
    attach.end().code(143);
    until_true("guard and tree have ended", SOON, || {
        below.iter().all(|pid| !proc::alive(*pid))
    });
}

/// The status line of a page.
fn page(port: u16, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.lines().next()?.to_owned())
}

#[test]
fn the_pages_of_serve_say_who_leads() {
    let pod = Pod::new("sidecar-pages", LONG);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let _serve = pod.serve().option("--listen", &port.to_string()).spawn();
    let says = |path: &str, code: &str| {
        until_true(&format!("{path} says {code}"), SOON, || {
            page(port, path).is_some_and(|line| line.contains(code))
        });
    };
    says("/livez", "200");
    says("/leader", "503");
    let attach = pod.attach().sh("sleep 100").spawn();
    attach.wait_event("started");
    says("/leader", "200");
    says("/readyz", "200");
    attach.signal(libc::SIGTERM);
    attach.end().code(143);
    says("/leader", "503");
}

#[test]
fn the_workers_streams_and_descriptors_are_the_callers() {
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    let pod = Pod::new("sidecar-streams", LONG);
    let serve = pod.serve().spawn();
    let input = crate::support::leasewrap::file_with("what stdin says\n");
    let extra = crate::support::leasewrap::file_with("what 7 says\n");
    let extra = std::fs::File::open(extra).unwrap();
    let fd = extra.as_raw_fd();
    let ended = pod
        .attach()
        .stdin(std::fs::File::open(input).unwrap())
        .start(move |start| start.descriptors.push((fd, 7)))
        .sh("cat; cat <&7; ls /proc/self/fd | tr '\\n' ' '")
        .run()
        .code(0);
    // 3 is the directory that ls reads.
    assert_eq!(ended.out, "what stdin says\nwhat 7 says\n0 1 2 3 7 ");
    serve.wait_event("released");

    // A pipe closes when the worker closes it.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let attach = pod
        .attach()
        .stdout(writer)
        .sh("exec >/dev/null; exec sleep 100")
        .spawn();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    attach.wait_event("started");
    attach.signal(libc::SIGTERM);
    attach.end().code(143);
}

#[test]
fn a_standard_error_that_nobody_reads_delays_nothing() {
    let pod = Pod::new("sidecar-stderr", LONG);
    let (reader, writer) = std::io::pipe().unwrap();
    let full = writer.try_clone().unwrap();
    nix::fcntl::fcntl(
        &full,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )
    .unwrap();
    while nix::unistd::write(&full, &[b'x'; 4096]).is_ok() {}
    let serve = pod.serve().stderr(writer.try_clone().unwrap()).spawn();
    let attach = pod.attach().stderr(writer).sh("exit 6");
    attach.run().code(6);
    serve.signal(libc::SIGTERM);
    serve.end().code(143);
    drop(reader);
}
