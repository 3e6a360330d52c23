//! `leasewrap selftest`, whole: figures, exit code, and nothing left behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::support::leasewrap::{Builder, Leasewrap, leasewrap};
use crate::support::run::run;
use crate::support::server::shared;
use crate::support::wait::{SOON, until, until_true};

/// Under two minutes, as promised, also on a host that is busy with tests.
const WHOLE: Duration = Duration::from_secs(120);

/// The longest time that a holder of its waits for a lease.
const WAIT: Duration = Duration::from_secs(20);

/// Each is four faults at a time: more than two of them leave a small host no
/// time for the moments that they measure.
fn turn() -> MutexGuard<'static, ()> {
    static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let turn = TURNS[next % TURNS.len()].lock();
    turn.unwrap_or_else(PoisonError::into_inner)
}

fn selftest_of(url: &str) -> Builder {
    leasewrap().text().switch("selftest").option("--db", url)
}

/// With a ttl that a busy host keeps.
fn selftest(url: &str) -> Builder {
    selftest_of(url).option("--ttl", "5s")
}

/// Its exit code and output, when nothing of it lives any more.
#[track_caller]
fn ended(mut selftest: Leasewrap, limit: Duration) -> (i32, String) {
    let code = until("the self-test ends", limit, || selftest.ended());
    let left = selftest.alive();
    assert!(left.is_empty(), "processes are left: {left:?}");
    selftest.wait_read();
    (code, selftest.out())
}

/// The faults of a report in which all that was run holds.
#[track_caller]
fn all_hold(code: i32, out: &str) -> Vec<Value> {
    let report: Value = serde_json::from_str(out).unwrap_or_else(|e| panic!("{e}: {out}"));
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["safe"], true, "{report:#}");
    assert_eq!(report["left_behind"], serde_json::json!([]));
    let faults = report["faults"].as_array().unwrap().clone();
    assert_eq!(faults.len(), 12, "{report:#}");
    for fault in faults.iter().filter(|fault| fault["verdict"] != "not-run") {
        assert_eq!(fault["verdict"], "holds", "{fault:#}");
        let overlap = fault["overlap_ms"].as_f64().unwrap();
        assert!(overlap <= 0.0, "two workers lived: {fault:#}");
        assert!(fault["gap_ms"].as_f64().unwrap() >= 0.0, "{fault:#}");
        eprintln!(
            "fault={} overlap_ms={overlap} gap_ms={}",
            fault["fault"], fault["gap_ms"]
        );
    }
    faults
}

fn named<'a>(faults: &'a [Value], name: &str) -> &'a Value {
    let found = faults.iter().find(|fault| fault["fault"] == name);
    found.unwrap_or_else(|| panic!("no fault {name}"))
}

/// A database with a schema, and a role that has the documented rights alone.
fn narrow() -> (String, String) {
    let database = shared().database();
    let url = shared().url_of("postgres", &database);
    let made = leasewrap().text().switch("init").option("--db", &url);
    made.run().code(0);
    let role = format!("narrow_{database}");
    let rights = format!(
        "create role {role} login;
         grant usage on schema leasewrap to {role};
         grant select, insert, update on all tables in schema leasewrap to {role};
         grant delete on leasewrap.event to {role}"
    );
    shared().try_psql(&database, &rights).unwrap();
    (shared().url_of(&role, &database), database)
}

/// How many leases are held now.
fn held(database: &str) -> u32 {
    let count = "select count(*) from leasewrap.lease where released_at is null";
    shared().try_psql(database, count).unwrap().parse().unwrap()
}

#[track_caller]
fn no_rows(database: &str) {
    for table in ["lease", "event"] {
        let count = format!("select count(*) from leasewrap.{table}");
        assert_eq!(shared().try_psql(database, &count).unwrap(), "0", "{table}");
    }
}

#[test]
fn every_fault_against_postgres_with_no_more_than_the_documented_rights() {
    let _turn = turn();
    let (url, database) = narrow();
    let selftest = selftest(&url).option("--output", "json").spawn();
    let (code, out) = ended(selftest, WHOLE);
    let faults = all_hold(code, &out);
    no_rows(&database);
    assert!(faults.iter().all(|fault| fault["verdict"] == "holds"));
    for seen_by_the_host in ["keeper-sigkill", "guard-sigstop", "term", "clean-end"] {
        assert_eq!(named(&faults, seen_by_the_host)["basis"], "released");
    }
    for watched in ["cut-connection", "clock-ahead", "clock-back"] {
        assert_eq!(named(&faults, watched)["basis"], "silent");
    }
    assert_eq!(named(&faults, "cut-connection")["exit_code"], 122);
}

#[test]
fn every_fault_against_sqlite() {
    let _turn = turn();
    let path = run().file("selftest.db");
    let url = format!("sqlite:{}", path.display());
    let selftest = selftest(&url).option("--output", "json").spawn();
    let (code, out) = ended(selftest, WHOLE);
    let faults = all_hold(code, &out);
    let cut = named(&faults, "cut-connection");
    assert_eq!(cut["verdict"], "not-run");
    assert!(cut["note"].as_str().unwrap().contains("no line"), "{cut}");
    let mut status = leasewrap().text().switch("status").option("--db", &url);
    status = status.option("--output", "json");
    let seen = status.run();
    assert!(!seen.out.contains("selftest"), "{seen:?}");
}

#[test]
fn several_servers_and_a_file_of_urls() {
    let _turn = turn();
    let (url, database) = narrow();
    let dead = "postgres://nobody@127.0.0.1:9/x";
    let file = crate::support::leasewrap::file_with(&format!("{dead}\n{url}\n"));
    let by_file = leasewrap()
        .text()
        .switch("selftest")
        .option("--db-file", &file.display().to_string());
    for selftest in [by_file, selftest(dead).option("--db", &url)] {
        let (code, out) = ended(selftest.option("--output", "json").spawn(), WHOLE);
        let faults = all_hold(code, &out);
        assert_eq!(named(&faults, "cut-connection")["verdict"], "holds");
        no_rows(&database);
    }
}

#[test]
fn people_get_a_table_and_progress_over_the_unix_socket() {
    let _turn = turn();
    let (_, database) = narrow();
    let (dir, port) = (shared().dir().display().to_string(), shared().port());
    let url = format!("postgres://narrow_{database}@/{database}?host={dir}&port={port}");
    let mut selftest = selftest(&url).spawn();
    let code = until("the self-test ends", WHOLE, || selftest.ended());
    assert_eq!(code, 0, "{}", selftest.log().join("\n"));
    selftest.wait_out("Never two");
    let out = selftest.out();
    assert!(out.starts_with("FAULT "), "{out}");
    assert!(!out.contains("not run") && !out.contains('\x1b'), "{out}");
    until_true("the last fault is told of", SOON, || {
        let log = selftest.log();
        log.iter().any(|line| line.starts_with("[12/12] "))
    });
    assert!(selftest.alive().is_empty());
    no_rows(&database);
}

#[test]
fn what_ends_it_early_leaves_nothing_behind() {
    let _turn = turn();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let (url, database) = narrow();
        let selftest = selftest(&url).spawn();
        until_true("some leases are held", SOON, || held(&database) >= 3);
        selftest.signal(signal);
        let (code, out) = ended(selftest, Duration::from_secs(40));
        assert_eq!(code, 128 + signal, "{out}");
        assert!(
            out.contains("ended early") && !out.contains("Never two"),
            "{out}"
        );
        no_rows(&database);
    }
}

#[test]
fn a_selftest_that_is_killed_takes_its_workers_with_it() {
    let _turn = turn();
    let (url, database) = narrow();
    let selftest = selftest(&url).spawn();
    until_true("some leases are held", SOON, || held(&database) >= 3);
    selftest.signal(libc::SIGKILL);
    gone(&selftest);
}

/// The line that is cut leads through the self-test's own process.
#[test]
fn a_selftest_that_is_killed_leaves_nobody_at_its_dead_line() {
    let _turn = turn();
    let (url, _) = narrow();
    let selftest = selftest(&url).spawn();
    until_true("the cut line's leasewrap is there", WHOLE, || {
        let alive = selftest.alive();
        alive.iter().any(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("-cut-connection")
        })
    });
    selftest.signal(libc::SIGKILL);
    gone(&selftest);
}

#[track_caller]
fn gone(selftest: &Leasewrap) {
    until_true("everything ends by itself", SOON + WAIT, || {
        selftest.alive().is_empty()
    });
}

#[test]
fn a_database_that_cannot_be_used_is_said_at_once() {
    let ended = selftest("postgres://nobody@127.0.0.1:1/x").run().code(123);
    assert!(ended.out.is_empty() && ended.last_line().contains("127.0.0.1:1"));
    let ended = selftest_of("sqlite:x").option("--ttl", "20s").run().code(2);
    assert!(
        ended
            .last_line()
            .contains("--ttl: '20s' is not between 1s and 15s")
    );
}

#[test]
fn rows_of_other_leases_are_not_removed() {
    let (url, database) = narrow();
    let name = crate::support::leasewrap::lease_name("mine");
    crate::support::leasewrap::holder(&url, &name)
        .sh("true")
        .run()
        .code(0);
    let forget = format!("select leasewrap.forget_selftest('{name}')");
    shared().try_psql(&database, &forget).unwrap();
    let count = "select count(*) from leasewrap.lease";
    assert_eq!(shared().try_psql(&database, count).unwrap(), "1");
    let delete = "delete from leasewrap.lease";
    assert!(
        shared()
            .try_psql(&database, delete)
            .unwrap_err()
            .contains("never deleted")
    );
}
