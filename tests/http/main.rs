//! The pages of `--listen`, by a real leasewrap: in a real headless Chromium,
//! with clients of any kind, and what is counted of stops, kills and losses.

#[path = "../support/mod.rs"]
mod support;

mod clients;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use support::installation::on_path;
use support::leasewrap::{Builder, Leasewrap, holder, lease_name, leasewrap};
use support::run::{MARK, run};
use support::server::{free_port, shared};
use support::wait::{SOON, until, until_true};
use support::witness::Log;

/// A telephone's, in CSS pixels.
const WIDTH: u32 = 390;
const HEIGHT: u32 = 844;

fn listening(builder: Builder) -> (Leasewrap, u16) {
    let port = free_port();
    let leasewrap = builder.option("--listen", &port.to_string()).spawn();
    until_true("it listens", SOON, || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    (leasewrap, port)
}

fn get(port: u16, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return String::new();
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let asked = stream.write_all(request.as_bytes());
    let _result = asked.and_then(|()| stream.read_to_string(&mut answer));
    answer
}

/// What the metrics say on the line that begins so.
fn figure(port: u16, line: &str) -> Option<f64> {
    let text = get(port, "/metrics");
    let value = text.lines().find_map(|seen| seen.strip_prefix(line))?;
    value.trim().parse().ok()
}

/// Chromium, where it is installed.
fn chromium() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.into_iter().find(|name| on_path(name).is_some());
    if found.is_none() {
        eprintln!("skipped: no chromium is installed (Debian package: chromium)");
    }
    found
}

/// Has the page loaded and run for three seconds, by the browser's own clock.
fn browse(chromium: &str, port: u16, what: &[&str]) -> String {
    let profile = run().file("chromium");
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", "90", chromium])
        // As root it has no sandbox; it looks at nothing but this page.
        .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
        .args(["--hide-scrollbars", "--virtual-time-budget=3000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={WIDTH},{HEIGHT}"))
        .args(what)
        .arg(format!("http://127.0.0.1:{port}/"))
        .env(MARK, run().dir())
        .env("HOME", run().dir())
        .stdin(Stdio::null());
    let output = command.output().expect("start chromium");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "chromium failed: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Width and height of a PNG.
fn size_of(png: &Path) -> (u32, u32) {
    let bytes = fs::read(png).expect("a screenshot");
    assert_eq!(&bytes[1..4], b"PNG");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    // Something is drawn: an empty page takes hardly any bytes.
    assert!(bytes.len() > 10_000, "{} bytes", bytes.len());
    (number(16), number(20))
}

#[test]
fn a_browser_shows_the_lease_live() {
    let Some(chromium) = chromium() else { return };
    let log = Log::new();
    let name = lease_name("page");
    let of_lease = || holder(&shared().url(), &name).worker(&log.worker(&[]));
    let label = "<b>one</b>/17";
    let (_holder, at_holder) = listening(
        of_lease()
            .option("--label", label)
            .option("--value", "http://10.0.0.7:8080"),
    );
    let token = log.wait_newer(0, SOON);
    let (standby, at_standby) = listening(of_lease().option("--label", "two"));
    standby.wait_event("waiting");

    let dom = browse(chromium, at_holder, &["--dump-dom"]);
    let shown = "&lt;b&gt;one&lt;/b&gt;/17";
    for text in [
        "<span id=\"role\">holding</span>",
        &format!("This leasewrap ({shown}) holds the lease."),
        &format!("<dd>{token}</dd>"),
        "<dd>http://10.0.0.7:8080</dd>",
        "Until the deadline, if no renewal comes",
        "<rect ",
        "class=\"good\"",
    ] {
        assert!(dom.contains(text), "{text:?} is not in {dom}");
    }
    // It counts down, and what others have written is never markup.
    assert!(!dom.contains("<b>one</b>"), "{dom}");
    assert!(dom.contains("id=\"silent\" role=\"alert\" hidden"), "{dom}");

    let dom = browse(chromium, at_standby, &["--dump-dom"]);
    for text in [
        "<span id=\"role\">standby</span>",
        &format!("{shown} holds the lease."),
        "Until it expires, if it is not renewed",
        "class=\"wait\"",
    ] {
        assert!(dom.contains(text), "{text:?} is not in {dom}");
    }

    let picture = run().file("page").with_extension("png");
    let screenshot = format!("--screenshot={}", picture.display());
    browse(chromium, at_holder, &[&screenshot]);
    assert_eq!(size_of(&picture), (WIDTH, HEIGHT));
    // For whoever wants to look at it.
    if let Some(kept) = std::env::var_os("LEASEWRAP_TESTS_SCREENSHOT") {
        fs::copy(&picture, kept).expect("keep the screenshot");
    }
}

#[test]
fn stops_kills_and_losses_are_counted_with_how_long_they_took() {
    let name = lease_name("counted");
    let log = Log::new();
    let builder = holder(&shared().url(), &name)
        .switch("--rejoin")
        .option("--stop-timeout", "300ms")
        .worker(&log.worker(&["ignore=15"]));
    let (_holder, port) = listening(builder);
    let first = log.wait_newer(0, SOON);
    let steer = |command: &str| {
        let steer = leasewrap().text().switch(command);
        steer
            .option("--db", &shared().url())
            .option("--name", &name)
    };
    // What does not stop in time is killed.
    steer("step-down").run();
    let figure = |line: &str| figure(port, line);
    let place = format!("name=\"{name}\",slot=\"0\"");
    let stops = format!("leasewrap_stops_seconds_count{{{place},cause=\"step-down\"}}");
    let kills = format!("leasewrap_kills_seconds_count{{{place}}}");
    let losses = format!("leasewrap_losses_total{{{place},cause=\"closed\"}}");
    until("the stop is counted", SOON, || {
        figure(&stops).filter(|n| *n == 1.0)
    });
    assert_eq!(figure(&kills), Some(1.0));
    let took = figure(&stops.replace("_count", "_sum")).unwrap();
    assert!((0.3..20.0).contains(&took), "{took}");
    let killing = figure(&kills.replace("_count", "_sum")).unwrap();
    assert!(killing < took - 0.29, "{killing} of {took}");
    assert_eq!(figure(&losses), None);

    let second = log.wait_newer(first, SOON);
    steer("break").switch("--yes").run().code(0);
    until("the loss is counted", SOON, || {
        figure(&losses).filter(|n| *n == 1.0)
    });
    until("the kill is counted", SOON, || {
        figure(&kills).filter(|n| *n == 2.0)
    });
    assert_eq!(figure(&stops), Some(1.0), "a loss is no stop");
    log.wait_newer(second, SOON);
    understood(&get(port, "/metrics"));
}

/// A standby whose acquisitions are refused has waited all the while.
#[test]
fn waiting_counts_from_its_beginning() {
    let name = lease_name("refused");
    leasewrap()
        .option("--db", &shared().url())
        .option("--name", &name)
        .sh("true")
        .run()
        .code(0);
    let mut session = shared().session("postgres");
    session.run(&format!(
        "begin; select from leasewrap.lease where name = '{name}' for update"
    ));
    let builder = holder(&shared().url(), &name).ttl("3s").sh("true");
    let (standby, port) = listening(builder);
    let place = format!("leasewrap_waiting_seconds{{name=\"{name}\",slot=\"0\"}}");
    let what = "it has waited for longer than an attempt lasts";
    until(what, SOON * 2, || {
        figure(port, &place).filter(|waited| *waited > 6.0)
    });
    assert!(standby.log().len() > 1, "it has tried: {:?}", standby.log());
    session.run("rollback");
    standby.end().code(0);
}

/// Prometheus's own reader finds nothing to say against it, where it is there.
fn understood(answer: &str) {
    let (_, metrics) = answer.split_once("\r\n\r\n").expect("a body");
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        eprintln!("skipped: no promtool is installed (Debian package: prometheus)");
        return;
    };
    let input = promtool.stdin.take().expect("it reads");
    std::io::BufWriter::new(input)
        .write_all(metrics.as_bytes())
        .expect("it reads all");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    // It reads the older format, in which a counter's help has its suffix.
    let mut notes = said
        .lines()
        .filter(|line| !line.ends_with("_total no help text"));
    assert_ne!(output.status.code(), Some(1), "{said}\n{metrics}");
    assert_eq!(notes.next(), None, "{said}\n{metrics}");
}
