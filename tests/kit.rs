//! The kit itself: a test that tests with a broken tool proves nothing.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::proxy::{Flow, Proxy};
use support::run::run;
use support::server::{Options, Server, Stop, shared};
use support::sys::boot_ns;
use support::witness::{Log, ms_between};
use support::{proc, pty::Terminal, wait};

#[test]
fn a_server_starts_answers_and_restarts() {
    let server = Server::start();
    assert_eq!(server.psql("select 1 + 1"), "2");
    server.restart(Stop::Immediate);
    server.restart(Stop::Fast);
    server.restart(Stop::Kill);
    assert_eq!(server.psql("select 1 + 1"), "2");
    assert!(server.log().contains("ready to accept"));
    let pid = server.pid();
    drop(server);
    wait::until_true("the postmaster is gone", wait::SOON, || !proc::alive(pid));
}

#[test]
fn databases_of_the_shared_server_are_apart() {
    let (one, two) = (shared().database(), shared().database());
    assert_ne!(one, two);
    shared().try_psql(&one, "create table t ()").unwrap();
    assert!(
        shared()
            .try_psql(&two, "select from t")
            .unwrap_err()
            .contains("does not exist")
    );
}

#[test]
fn a_frozen_server_says_nothing_until_it_thaws() {
    let server = Server::start();
    server.freeze();
    let mut line = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    line.write_all(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]).unwrap(); // SSLRequest
    line.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(line.read(&mut [0]).is_err());
    server.thaw();
    line.set_read_timeout(Some(wait::SOON)).unwrap();
    assert_eq!(line.read(&mut [0]).unwrap(), 1);
}

#[test]
fn the_clock_of_a_server_steps_and_only_the_wall_clock() {
    let server = Server::with(Options {
        faketime: true,
        ..Options::default()
    });
    let offset = "select round(extract(epoch from clock_timestamp()) / 60)";
    let now = || server.psql(offset).parse::<i64>().unwrap();
    let before = now();
    server.step_clock(3600);
    assert!((59..=62).contains(&(now() - before)), "an hour later");
    server.step_clock(-3600);
    assert!((-61..=-58).contains(&(now() - before)), "an hour earlier");
    let start = Instant::now();
    server.psql("select pg_sleep(0.2)");
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "time still passes"
    );
}

#[test]
fn a_replica_follows_and_is_promoted() {
    let primary = Server::start();
    primary.psql("create table t as select 7 as n");
    let replica = primary.replica(Options::default());
    let seen = || replica.try_psql("postgres", "select n from t").ok();
    assert_eq!(wait::until("the row has come", wait::SOON, seen), "7");
    drop(primary);
    replica.promote();
    replica.psql("insert into t values (8)");
}

#[test]
fn the_proxy_cuts_mends_and_resets() {
    let server = Server::start();
    let proxy = Proxy::to(server.port());
    let ask = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]; // SSLRequest, answered by one byte
    let connect = || TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    let mut byte = [0];

    proxy.to_client(Flow::Hold);
    let mut line = connect();
    line.write_all(&ask).unwrap();
    line.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(line.read(&mut byte).is_err(), "held back");
    proxy.mend();
    line.set_read_timeout(Some(wait::SOON)).unwrap();
    assert_eq!(
        line.read(&mut byte).unwrap(),
        1,
        "and delivered when mended"
    );

    proxy.cut();
    let mut hanging = connect();
    hanging.write_all(&ask).unwrap();
    hanging
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(hanging.read(&mut byte).is_err(), "new connections hang");
    proxy.mend();
    hanging.set_read_timeout(Some(wait::SOON)).unwrap();
    assert_eq!(hanging.read(&mut byte).unwrap(), 1);

    proxy.to_client(Flow::Delay(Duration::from_millis(200)));
    let start = Instant::now();
    let mut slow = connect();
    slow.write_all(&ask).unwrap();
    assert_eq!(slow.read(&mut byte).unwrap(), 1);
    assert!(start.elapsed() >= Duration::from_millis(200));

    proxy.reset();
    let error = hanging.read(&mut byte).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(proxy.accepted(), 3);
}

#[test]
fn witnesses_stamp_with_all_their_descendants() {
    let log = Log::new();
    let words = log.worker(&["children=2", "daemon"]);
    let mut command = std::process::Command::new(&words[0]);
    let entry = format!("{}=kit", support::run::PART);
    command
        .args(&words[1..])
        .env("LEASEWRAP_TOKEN", "5")
        .env(support::run::PART, "kit");
    let mut child = command.spawn().unwrap();
    log.wait_processes(5, 4, wait::SOON);
    // The parent of the daemon may still be on its way out.
    wait::until_true("four are left", wait::SOON, || {
        proc::marked(&entry).len() == 4
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let ended = boot_ns();
    wait::until_true("the descendants live on", wait::SOON, || {
        log.stamps().iter().any(|stamp| stamp.at_ns > ended)
    });
    proc::kill_all(|| proc::marked(&entry));
    assert!(log.wait_silence(wait::SOON).is_some());
    assert_eq!(log.spans().len(), 1);
    let generations = [0, 1, 2].map(|n| log.stamps().iter().any(|stamp| stamp.generation == n));
    assert_eq!(generations, [true; 3]);
}

#[test]
fn witnesses_end_with_their_log() {
    let log = Log::new();
    let words = log.worker(&["chains=2"]);
    let mut worker = std::process::Command::new(&words[0])
        .args(&words[1..])
        .spawn()
        .unwrap();
    log.wait_processes(0, 10, wait::SOON);
    drop(log);
    wait::until("the worker has ended", wait::SOON, || {
        worker.try_wait().unwrap()
    });
}

#[test]
fn an_overlap_is_seen() {
    let log = Log::new();
    let worker = |token: &str, options: &[&str]| {
        let words = log.worker(options);
        let mut command = std::process::Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("LEASEWRAP_TOKEN", token)
            .spawn()
            .unwrap()
    };
    let mut one = worker("1", &[]);
    log.wait_newer(0, wait::SOON);
    worker("2", &["exit-after=100"]).wait().unwrap();
    let ended = boot_ns();
    wait::until_true("the first lives on", wait::SOON, || {
        log.stamps().iter().any(|stamp| stamp.at_ns > ended)
    });
    one.kill().unwrap();
    one.wait().unwrap();
    worker("3", &["exit-after=10"]).wait().unwrap();
    let seen = log.hand_overs();
    assert_eq!((seen.len(), seen[0].old, seen[0].new), (2, 1, 2));
    // All the time that the second was there, which wanted to be 100 ms.
    let second = log.spans()[1].1;
    let there = ms_between(second.at_ns, ended);
    assert!(there > 50.0 && seen[0].overlap_ms > there, "{seen:?}");
    assert!(
        seen[1].overlap_ms < 0.0 && seen[1].gap_ms() > 0.0,
        "{seen:?}"
    );
}

#[test]
fn bash_on_a_terminal_stops_and_continues_a_job() {
    let terminal = Terminal::bash();
    terminal.line("sleep 1000");
    wait::until_true("sleep runs", wait::SOON, || {
        !terminal.named("sleep").is_empty()
    });
    terminal.type_text("\x1a");
    terminal.wait("Stopped");
    assert!(terminal.run("jobs").contains("sleep 1000"));
    terminal.line("exit");
    terminal.line("exit");
    terminal.end();
}

#[test]
fn the_run_is_below_the_temporary_directory() {
    assert!(run().dir().starts_with(std::env::temp_dir()));
}
