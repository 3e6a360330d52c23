//! What a stranger says to the pages of a holder.
//!
//! words: src/http/respond.rs

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use leasewrap::http::listen::{ListenAddress, Listener};
use leasewrap::http::metrics::Metrics;
use leasewrap::http::snapshot::{HeldTerm, Recent, Snapshot};
use leasewrap::http::{Site, start};
use leasewrap::lease::ids::{HolderId, Label, LeaseName, Slot, Token, Value};
use leasewrap::lease::keeper::Phase;
use leasewrap::lease::time::BootInstant;
use properties::answers;
use tokio::sync::watch;

fn at(seconds: u64) -> BootInstant {
    BootInstant::from_nanos(seconds * 1_000_000_000)
}

fn holding() -> Snapshot {
    Snapshot {
        name: LeaseName::new("job").expect("a name"),
        slots: 1,
        label: Label::new("me/1").expect("a label"),
        value: Value::new("10.0.0.1:80").expect("a value"),
        phase: Phase::Holding,
        since: at(50),
        term: Some(HeldTerm {
            slot: Slot(0),
            holder: HolderId(uuid::Uuid::nil()),
            token: Token(7),
            acquired: at(50),
            deadline: at(120),
        }),
        worker: Some(4),
        worker_status: None,
        other: None,
        reason: None,
        reachable: true,
        failures: 0,
        attempts: 4,
        next_wakeup: Some(at(106)),
        lost: false,
        ending: false,
        recent: Recent::default(),
    }
}

/// Served until the process ends.
static SITE: LazyLock<(PathBuf, watch::Sender<Snapshot>)> = LazyLock::new(|| {
    let name = format!("leasewrap-guided-{}.page", std::process::id());
    let path = std::env::temp_dir().join(name);
    let listener = Listener::bind(&ListenAddress::Unix(path.clone())).expect("bind");
    let (sender, snapshot) = watch::channel(holding());
    let site = Site {
        snapshot,
        metrics: Metrics::new(),
        dropped_lines: Box::new(|| 0),
        clock: || at(100),
    };
    start(listener, site).expect("a thread");
    (path, sender)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut stream = UnixStream::connect(&SITE.0).expect("it is served");
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).expect("set a limit");
    // It may be refused before all of it was sent.
    let _result = stream.write_all(data);
    let _result = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("no end"),
        Ok(_) | Err(_) => answers::answer(&answer),
    }
});
