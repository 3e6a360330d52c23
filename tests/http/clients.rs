//! Slow, hostile and many clients: the lease is renewed on time beside them,
//! and whoever asks properly is answered.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::support::leasewrap::{events, holder, lease_name};
use crate::support::server::shared;
use crate::support::wait::until;
use crate::{get, listening};

/// Clients that send a byte now and then, and never a whole request.
const SLOW: usize = 150;
/// Clients that ask for everything again and again.
const BUSY: usize = 8;
/// Clients that ask and never read the answer.
const DEAF: usize = 50;

#[test]
fn clients_of_any_kind_disturb_no_renewal() {
    let name = lease_name("crowd");
    let builder = holder(&shared().url(), &name)
        .ttl("60s")
        .option("--renew-every", "2s")
        .worker(&["sleep", "3600"]);
    let (leasewrap, port) = listening(builder);
    leasewrap.wait_event("acquired");
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let connect = move || {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream
            .set_write_timeout(Some(Duration::from_secs(2)))
            .ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        Some(stream)
    };
    let mut threads = Vec::new();
    let ended = Arc::clone(&over);
    threads.push(std::thread::spawn(move || {
        let mut slow: Vec<Option<TcpStream>> = (0..SLOW).map(|_| connect()).collect();
        while !ended.load(Ordering::Relaxed) {
            for stream in &mut slow {
                // Whoever was shown the door knocks again.
                let sent = stream.as_mut().is_some_and(|s| s.write_all(b"G").is_ok());
                if !sent {
                    *stream = connect();
                }
            }
            sleep(Duration::from_millis(50));
        }
    }));
    let ended = Arc::clone(&over);
    threads.push(std::thread::spawn(move || {
        let mut deaf = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            if let Some(mut stream) = connect() {
                let many = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50);
                let _result = stream.write_all(&many);
                deaf.push(stream);
            }
            if deaf.len() > DEAF {
                deaf.clear();
            }
            sleep(Duration::from_millis(5));
        }
    }));
    for number in 0..BUSY {
        let (ended, answered) = (Arc::clone(&over), Arc::clone(&answered));
        threads.push(std::thread::spawn(move || {
            let path = ["/metrics", "/", "/leader", "/livez"][number % 4];
            while !ended.load(Ordering::Relaxed) {
                let request =
                    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                let Some(mut stream) = connect() else {
                    continue;
                };
                let mut answer = String::new();
                let asked = stream.write_all(request.as_bytes());
                let read = asked.and_then(|()| stream.read_to_string(&mut answer));
                if read.is_ok() && answer.starts_with("HTTP/1.1 200") {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    let revision = || -> i64 {
        let ask = format!("select revision from leasewrap.lease where name = '{name}'");
        shared().psql(&ask).parse().expect("a number")
    };
    let before = revision();
    // A question is a process: not all the time.
    until("it is renewed beside them", Duration::from_secs(60), || {
        sleep(Duration::from_millis(200));
        (revision() >= before + 5).then_some(())
    });
    over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a client");
    }
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered > 20, "only {answered} were answered");
    assert!(get(port, "/livez").starts_with("HTTP/1.1 200"));
    let log = leasewrap.log();
    for trouble in ["losing", "lost", "call-failed"] {
        assert!(events(&log, trouble).is_empty(), "{trouble}: {log:?}");
    }
    // A host with so much to do may stand still for a moment, but most of the
    // renewals are on time.
    let late = events(&log, "renewed-late").len();
    assert!(late <= 2, "{log:?}");
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(143);
}
