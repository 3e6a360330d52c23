//! HTTP of strangers: nothing that comes disturbs the lease, or the pages.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::properties::answers;
use crate::support::leasewrap::{Leasewrap, holder, lease_name};
use crate::support::run::run;
use crate::support::wait::{SOON, until_true};

const RUNS: u32 = 1_500;

fn request() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "GET",
        "POST",
        "HEAD",
        "OPTIONS",
        " ",
        "/",
        "/leader",
        "/livez",
        "/metrics",
        "/..",
        "%00",
        "?",
        " HTTP/1.1",
        " HTTP/1.0",
        " HTTP/9",
        "\r\n",
        "\n",
        "\r",
        "Host: x",
        "Host:",
        "Content-Length: 99999999999999999999",
        "Content-Length: -1",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "ffffffffffffffff",
        "0",
        "Connection: keep-alive",
        "Expect: 100-continue",
        "Upgrade: h2c",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ": ",
        "\u{0}",
    ];
    let words = vec(proptest::sample::select(words.to_vec()), 0..20);
    prop_oneof![
        4 => words.prop_map(|words| words.concat().into_bytes()),
        1 => vec(any::<u8>(), 0..300),
        1 => (1_usize..20_000).prop_map(|length| {
            let mut long = b"GET /".to_vec();
            long.resize(length, b'x');
            long
        }),
    ]
}

fn ask(path: &std::path::Path, request: &[u8], wait: bool) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).expect("connect");
    let limit = Some(Duration::from_secs(5));
    stream.set_read_timeout(limit).expect("set a limit");
    stream.set_write_timeout(limit).expect("set a limit");
    // It may be refused before all of it was sent.
    let _result = stream.write_all(request);
    let mut answer = Vec::new();
    if wait {
        let _result = stream.shutdown(std::net::Shutdown::Write);
        let _result = stream.read_to_end(&mut answer);
    }
    answer
}

struct Page {
    leasewrap: Leasewrap,
    path: std::path::PathBuf,
}

fn page() -> Page {
    let path = run().dir().join("page");
    let db = format!("sqlite:{}", run().dir().join("page.db").display());
    let leasewrap = holder(&db, &lease_name("page"))
        .option("--listen", &path.display().to_string())
        .worker(&["sleep", "3600"])
        .spawn();
    leasewrap.wait_event("acquired");
    Page { leasewrap, path }
}

#[test]
fn requests_are_answered_or_refused() {
    let page = page();
    let mut runner = proptest::test_runner::TestRunner::new(cases(RUNS));
    let tried = runner.run(&(request(), any::<bool>()), |(request, wait)| {
        answers::answer(&ask(&page.path, &request, wait));
        Ok(())
    });
    tried.expect("every connection is taken");
    // Once those who said nothing have been shown the door.
    until_true("the page answers", SOON, || {
        let request = b"GET /leader HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        ask(&page.path, request, true).starts_with(b"HTTP/1.1 200")
    });
    page.leasewrap.signal(libc::SIGTERM);
    let ended = page.leasewrap.end().code(143);
    assert!(!ended.says(&["panicked"]), "{ended:?}");
}
