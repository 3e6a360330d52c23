use std::io::{Read, Write};
use std::net::TcpStream;

use tokio::sync::watch;

use super::listen::{ListenAddress, Listener};
use super::metrics::Metrics;
use super::snapshot::Snapshot;
use super::snapshot::tests::{at, holding, standby};
use super::{CONNECTIONS, Site, start};
use crate::lease::time::BootInstant;

fn now() -> BootInstant {
    at(100)
}

/// Serves `snapshot` on a port of its own.
fn site(snapshot: Snapshot) -> (u16, watch::Sender<Snapshot>) {
    let address = ListenAddress::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    let listener = Listener::bind(&address).expect("a free port");
    let port = listener.port().expect("TCP");
    let (sender, snapshot) = watch::channel(snapshot);
    let site = Site {
        snapshot,
        metrics: Metrics::new(),
        dropped_lines: Box::new(|| 3),
        clock: now,
    };
    start(listener, site).expect("a thread");
    (port, sender)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .expect("a limit");
    stream
}

fn ask(port: u16, request: &str) -> (u16, String) {
    let mut stream = connect(port);
    stream
        .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    (status, answer)
}

#[test]
fn a_holder_answers_for_itself() {
    let (port, _sender) = site(holding());
    for path in ["/livez", "/readyz", "/leader", "/metrics", "/", "/state"] {
        assert_eq!(ask(port, &format!("GET {path}")).0, 200, "{path}");
    }
    let (_, answer) = ask(port, "GET /leader");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let state: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(state["leader"], true);
    assert_eq!(state["holder"]["token"], 7);
    assert_eq!(state["holder"]["left_ms"], 20_000);
    assert_eq!(state["holder"]["age_ms"], 50_000);
    assert_eq!(state["holder"]["value"], "10.0.0.1:80");
    assert_eq!(ask(port, "GET /nothing").0, 404);
    assert_eq!(ask(port, "POST /leader").0, 405);
    let (_, answer) = ask(port, "HEAD /");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn a_standby_is_ready_but_leads_nothing() {
    let (port, sender) = site(standby());
    assert_eq!(ask(port, "GET /readyz").0, 200);
    assert_eq!(ask(port, "GET /leader").0, 503);
    sender.send_modify(|snapshot| snapshot.reachable = false);
    assert_eq!(ask(port, "GET /readyz").0, 503);
    assert_eq!(ask(port, "GET /livez").0, 200);
    sender.send_modify(|snapshot| snapshot.next_wakeup = Some(at(90)));
    let (status, answer) = ask(port, "GET /livez");
    assert!(status == 503 && answer.contains("stuck"), "{answer}");
}

#[test]
fn a_probe_gets_through_whatever_others_hold_open() {
    let (port, _sender) = site(holding());
    let mut held = Vec::new();
    for _ in 0..3 * CONNECTIONS {
        let mut stream = connect(port);
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            .expect("sent");
        held.push(stream);
    }
    assert_eq!(ask(port, "GET /livez").0, 200);
    // The first ones had to give way.
    let mut rest = Vec::new();
    assert!(matches!(held[0].read_to_end(&mut rest), Ok(0) | Err(_)));
}

#[test]
fn what_is_no_request_ends_the_connection() {
    let (port, _sender) = site(holding());
    let mut stream = connect(port);
    stream.write_all(&vec![b'x'; 100_000]).expect("sent");
    let mut rest = Vec::new();
    // Closed with or without a word; a reset is fine as well.
    drop(stream.read_to_end(&mut rest));
    assert_eq!(ask(port, "GET /livez").0, 200);
}
