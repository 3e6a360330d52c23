//! The hook that says in a pod's label whether it leads, by a real leasewrap
//! and against an API server that takes down what it is asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::read;
use super::support::leasewrap::{holder, lease_name};
use super::support::run::run;
use super::support::server::shared;

/// The script in the manifest's `ConfigMap`, as a file, and a service account.
fn route() -> (PathBuf, PathBuf) {
    let manifest = read("kubernetes/leader-service.yaml");
    let (_, script) = manifest.split_once("  route: |\n").unwrap();
    let lines = script.lines().map_while(|line| line.strip_prefix("    "));
    let script: String = lines.map(|line| format!("{line}\n")).collect();
    let dir = run().directory("route");
    for (name, text) in [
        ("token", "secret"),
        ("namespace", "mail"),
        ("ca.crt", ""),
        ("route", &script),
    ] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let hook = dir.join("route");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    (hook, dir)
}

/// An API server: its address, and the first line, the token and the body of
/// every request.
fn api() -> (String, Receiver<(String, String)>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|count| count > 2) {}
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "));
            let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            reader
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            if tell
                .send((head, String::from_utf8_lossy(&body).into_owned()))
                .is_err()
            {
                return;
            }
        }
    });
    (address, told)
}

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn the_pod_is_labelled_while_it_leads() {
    let (hook, account) = route();
    let (address, told) = api();
    let clear = Command::new(&hook)
        .arg("clear")
        .env("API", &address)
        .env("SERVICE_ACCOUNT", &account)
        .env("HOSTNAME", "mailer-0")
        .output()
        .unwrap();
    assert!(
        clear.status.success(),
        "{clear:?} (is Debian's package `curl` there?)"
    );
    let label =
        |value: &str| format!("{{\"metadata\":{{\"labels\":{{\"leasewrap/leads\":{value}}}}}}}");
    let (head, body) = told.recv_timeout(LIMIT).unwrap();
    assert!(
        head.starts_with("PATCH /api/v1/namespaces/mail/pods/mailer-0 HTTP"),
        "{head}"
    );
    assert!(head.contains("Bearer secret"), "{head}");
    assert!(head.contains("application/merge-patch+json"), "{head}");
    assert_eq!(body, label("null"));
    // Whoever sees another one lead does not: a label that could not be taken
    // away at the start.
    let seen = Command::new(&hook)
        .env("LEASEWRAP_EVENT", "holder-changed")
        .env("API", &address)
        .env("SERVICE_ACCOUNT", &account)
        .env("HOSTNAME", "mailer-0")
        .output()
        .unwrap();
    assert!(seen.status.success(), "{seen:?}");
    assert_eq!(told.recv_timeout(LIMIT).unwrap().1, label("null"));

    let leader = holder(&shared().url(), &lease_name("route"))
        .option("--on-event", &hook.display().to_string())
        .option("--hook-timeout", "20s")
        .env("API", &address)
        .env("SERVICE_ACCOUNT", &account.display().to_string())
        .env("HOSTNAME", "mailer-0")
        .worker(&["sleep", "1000"])
        .spawn();
    assert_eq!(told.recv_timeout(LIMIT).unwrap().1, label("\"true\""));
    leader.signal(libc::SIGTERM);
    assert_eq!(told.recv_timeout(LIMIT).unwrap().1, label("null"));
    leader.end().code(143);
}
