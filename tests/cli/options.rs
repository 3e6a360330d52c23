//! What each option does, given as a flag and as its variable.

use std::time::{Duration, Instant};

use crate::support::leasewrap::{Builder, file_with, holder, lease_name, leasewrap as bare};
use crate::support::proc;
use crate::support::proxy::Proxy;
use crate::support::run::run;
use crate::support::server::shared;
use crate::support::wait::{SOON, until_true};
use crate::support::witness::Log;
use crate::{leasewrap, row};

/// A run in each of the two ways to say it.
fn both_ways(flag: &str, variable: &str, value: &str, check: impl Fn(Builder, &str)) {
    for by_flag in [true, false] {
        let name = lease_name("option");
        let builder = holder(&shared().url(), &name);
        let builder = if by_flag {
            builder.option(flag, value)
        } else {
            builder.env(variable, value)
        };
        check(builder, &name);
    }
}

#[test]
fn everything_by_variables() {
    let name = lease_name("variables");
    let builder = bare()
        .env("LEASEWRAP_DB", &shared().url())
        .env("LEASEWRAP_NAME", &name);
    let ended = builder
        .env("LEASEWRAP_TTL", "9s")
        .sh("echo $LEASEWRAP_LEASE $LEASEWRAP_TTL_MS")
        .run()
        .code(0);
    assert_eq!(ended.out, format!("{name} 9000\n"));
}

#[test]
fn a_flag_wins_over_its_variable_and_an_empty_one_is_none() {
    let builder = leasewrap()
        .ttl("9s")
        .env("LEASEWRAP_TTL", "8s")
        .env("LEASEWRAP_SLOTS", "");
    assert_eq!(
        builder.sh("echo $LEASEWRAP_TTL_MS").run().code(0).out,
        "9000\n"
    );
}

#[test]
fn the_default_name() {
    let url = shared().url_of("postgres", &shared().database());
    let ended = bare()
        .option("--db", &url)
        .sh("echo $LEASEWRAP_LEASE $LEASEWRAP_TTL_MS")
        .run()
        .code(0);
    assert_eq!(ended.out, "default 30000\n");
}

#[test]
fn label_and_value_are_published() {
    both_ways(
        "--label",
        "LEASEWRAP_LABEL",
        "host ü/7",
        |builder, name| {
            builder.sh("true").run().code(0);
            assert_eq!(row(name, "label"), "host ü/7");
        },
    );
    both_ways(
        "--value",
        "LEASEWRAP_VALUE",
        "http://x:1/?a=b'c\"",
        |builder, name| {
            builder.sh("true").run().code(0);
            assert_eq!(row(name, "value"), "http://x:1/?a=b'c\"");
        },
    );
    let name = lease_name("label");
    let builder = holder(&shared().url(), &name).sh("echo $PPID");
    let leasewrap = builder.run().code(0);
    let label = row(&name, "label");
    let host = nix::unistd::gethostname().unwrap();
    assert!(
        label.starts_with(&format!("{}/", host.to_string_lossy())),
        "{label}"
    );
    assert_ne!(
        label.rsplit('/').next(),
        Some(leasewrap.out.trim()),
        "the keeper's pid, not the guard's"
    );
}

#[test]
fn names_of_every_kind() {
    for name in [
        "ü ß 漢字",
        "with 'quotes\"",
        "a/b\\c",
        "$1; drop table x",
        &"n".repeat(200),
    ] {
        let name = format!("{}{name}", std::process::id());
        let name: String = name.chars().take(200).collect();
        let ended = holder(&shared().url(), &name)
            .sh("printf %s \"$LEASEWRAP_LEASE\"")
            .run()
            .code(0);
        assert_eq!(ended.out, name);
    }
}

#[test]
fn slots_let_as_many_in_and_no_more() {
    let name = lease_name("slots");
    let log = Log::new();
    let url = shared().url();
    let start = || {
        holder(&url, &name)
            .option("--slots", "3")
            .worker(&log.worker(&[]))
            .spawn()
    };
    let holders: Vec<_> = (0..3).map(|_| start()).collect();
    let mut slots: Vec<i64> = holders
        .iter()
        .map(|holder| holder.wait_event("acquired")["slot"].as_i64().unwrap())
        .collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2]);
    until_true("three work", SOON, || log.spans().len() == 3);
    holder(&url, &name)
        .option("--slots", "3")
        .switch("--no-wait")
        .sh("true")
        .run()
        .code(121);
    let fourth = start();
    fourth.wait_event("waiting");
    holders[1].signal(libc::SIGTERM);
    fourth.wait_event("acquired");
    until_true("the fourth works", SOON, || log.spans().len() == 4);
    let tokens = shared().psql(&format!(
        "select count(distinct token) = count(*) from leasewrap.lease where name = '{name}'"
    ));
    assert_eq!(tokens, "t", "the same token for no two slots");
}

#[test]
fn fewer_slots_wait_for_the_ones_above() {
    let name = lease_name("slots");
    let url = shared().url();
    let holders: Vec<_> = (0..2)
        .map(|_| {
            holder(&url, &name)
                .option("--slots", "2")
                .worker(&["sleep", "1000"])
                .spawn()
        })
        .collect();
    let slot_of = |index: usize| {
        holders[index].wait_event("acquired")["slot"]
            .as_i64()
            .unwrap()
    };
    let (above, below) = if slot_of(0) == 1 {
        (&holders[0], &holders[1])
    } else {
        (&holders[1], &holders[0])
    };
    let single = holder(&url, &name).sh("true").spawn();
    single.wait_event("waiting");
    // Slot 0 is free now, but a holder of slot 1 would be a second one.
    below.signal(libc::SIGTERM);
    until_true("slot 0 is released", SOON, || {
        shared().psql(&format!(
            "select count(*) from leasewrap.lease where name = '{name}' and released_at is not null"
        )) == "1"
    });
    holder(&url, &name)
        .switch("--no-wait")
        .sh("true")
        .run()
        .code(121);
    above.signal(libc::SIGTERM);
    single.end().code(0);
}

#[test]
fn hold_at_least_keeps_it_taken_after_the_end() {
    both_ways(
        "--hold-at-least",
        "LEASEWRAP_HOLD_AT_LEAST",
        "10s",
        |builder, name| {
            let start = Instant::now();
            builder.sh("true").run().code(0);
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "it does not stay itself"
            );
            let next = holder(&shared().url(), name);
            next.switch("--no-wait").sh("true").run().code(121);
            holder(&shared().url(), name)
                .option("--wait", "40s")
                .sh("true")
                .spawn()
                .end_within(Duration::from_secs(60))
                .code(0);
            assert!(
                start.elapsed() >= Duration::from_millis(9_900),
                "{:?}",
                start.elapsed()
            );
        },
    );
}

#[test]
fn stop_signal_and_stop_to_by_variable() {
    let script = "trap 'exit 41' USR2; echo ready; while :; do sleep 0.02; done";
    let builder = leasewrap()
        .env("LEASEWRAP_STOP_SIGNAL", "SIGUSR2")
        .env("LEASEWRAP_STOP_TO", "worker");
    let leasewrap = builder.sh(script).spawn();
    leasewrap.wait_out("ready");
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(41);
}

#[test]
fn stop_timeout_by_variable() {
    let leasewrap = leasewrap().env("LEASEWRAP_STOP_TIMEOUT", "200ms");
    let leasewrap = leasewrap
        .sh("trap '' TERM; echo ready; while :; do sleep 0.02; done")
        .spawn();
    leasewrap.wait_out("ready");
    leasewrap.signal(libc::SIGTERM);
    leasewrap.end().code(137);
}

#[test]
fn the_longest_times_that_can_be_given() {
    let file = crate::support::run::run().file("long.db");
    for url in [shared().url(), format!("sqlite:{}", file.display())] {
        let name = lease_name("long");
        let builder = holder(&url, &name).ttl("366d");
        builder.switch("--no-wait").sh("true").run().code(0);
        let history = bare().text().switch("history");
        let history = history.option("--db", &url).option("--name", &name);
        let ended = history.option("--since", "100000y").run().code(0);
        assert!(ended.out.contains("1970-01-01"), "{ended:?}");
    }
}

#[test]
fn exit_codes_of_ones_own() {
    let name = lease_name("codes");
    let url = shared().url();
    let first = holder(&url, &name).worker(&["sleep", "1000"]);
    let first = first.option("--lost-exit-code", "77").spawn();
    first.wait_event("acquired");
    let second = || holder(&url, &name).switch("--no-wait").sh("true");
    second().option("--conflict-exit-code", "0").run().code(0);
    second()
        .env("LEASEWRAP_CONFLICT_EXIT_CODE", "44")
        .run()
        .code(44);
    first.worker();
    shared().psql(&format!(
        "update leasewrap.lease set token = token + 1 where name = '{name}'"
    ));
    first.end().code(77);
}

#[test]
fn takeover_delay_is_kept_in_the_row_and_waited_out() {
    both_ways(
        "--takeover-delay",
        "LEASEWRAP_TAKEOVER_DELAY",
        "6s",
        |builder, name| {
            let log = Log::new();
            let first = builder.ttl("4s").worker(&log.worker(&[])).spawn();
            let token = log.wait_newer(0, SOON);
            let second = holder(&shared().url(), name)
                .ttl("4s")
                .worker(&log.worker(&[]))
                .spawn();
            second.wait_event("waiting");
            first.lose();
            log.wait_newer(token, 2 * SOON);
            let seen = log.hand_overs()[0];
            // The last renewal was no older than the ttl less the margin, or
            // the worker had been dead by then.
            assert!(
                seen.gap_ms() > 6_500.0,
                "1.1 ttl less a renewal's age, and the delay: {seen:?}"
            );
        },
    );
}

#[test]
fn takeover_by_the_databases_clock() {
    both_ways(
        "--takeover",
        "LEASEWRAP_TAKEOVER",
        "clock",
        |builder, name| {
            let log = Log::new();
            let first = holder(&shared().url(), name)
                .ttl("2s")
                .worker(&log.worker(&[]))
                .spawn();
            let token = log.wait_newer(0, SOON);
            first.lose();
            let dead = Instant::now();
            // One that has watched nothing, and need not.
            builder
                .ttl("8s")
                .worker(&log.worker(&["exit-after=50"]))
                .run()
                .code(0);
            assert!(dead.elapsed() < Duration::from_secs(15));
            log.wait_newer(token, SOON);
            assert!(log.hand_overs()[0].overlap_ms <= 0.0);
        },
    );
}

#[test]
fn a_schema_of_ones_own() {
    let database = shared().database();
    let url = shared().url_of("postgres", &database);
    let name = lease_name("schema");
    holder(&url, &name)
        .option("--schema", "Ünder \"lease\"")
        .sh("true")
        .run()
        .code(0);
    holder(&url, &name)
        .env("LEASEWRAP_SCHEMA", "other")
        .sh("true")
        .run()
        .code(0);
    let schemas = "select string_agg(schemaname, ',' order by schemaname) from pg_tables where tablename = 'lease'";
    assert_eq!(
        shared().try_psql(&database, schemas).unwrap(),
        "other,Ünder \"lease\""
    );
}

#[test]
fn the_url_in_a_file_is_read_again_at_each_connect() {
    let (first, second) = (Proxy::to(shared().port()), Proxy::to(shared().port()));
    let file = file_with(&format!("{}\n", first.url("postgres")));
    let path = file.display().to_string();
    for variable in [false, true] {
        std::fs::write(&file, first.url("postgres")).unwrap();
        let builder = bare().option("--name", &lease_name("file")).ttl("8s");
        let builder = if variable {
            builder.env("LEASEWRAP_DB_FILE", &path)
        } else {
            builder.option("--db-file", &path)
        };
        let leasewrap = builder.worker(&["sleep", "1000"]).spawn();
        leasewrap.wait_event("acquired");
        let before = second.accepted();
        std::fs::write(&file, second.url("postgres")).unwrap();
        first.reset();
        until_true("it connects to where the file says now", SOON, || {
            second.accepted() > before
        });
        let worker = leasewrap.worker();
        assert!(proc::alive(worker), "without losing the lease");
        leasewrap.signal(libc::SIGTERM);
        leasewrap.end().code(143);
        second.reset();
    }
}

#[test]
fn a_file_that_is_missing_or_empty() {
    let ended = bare()
        .option("--db-file", "/no/such/file")
        .option("--wait", "300ms")
        .sh("true")
        .run();
    assert!(
        [2, 123].contains(&ended.code) && ended.says(&["/no/such/file"]),
        "{ended:?}"
    );
    let empty = file_with("").display().to_string();
    let ended = bare()
        .option("--db-file", &empty)
        .option("--wait", "300ms")
        .sh("true")
        .run();
    assert!(
        [2, 123].contains(&ended.code) && ended.says(&[&empty]),
        "{ended:?}"
    );
    // A FIFO that nobody writes to, and a device that has no end.
    let fifo = run().file("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for path in [fifo.to_str().unwrap(), "/dev/zero"] {
        let ended = bare().option("--db-file", path).sh("true").run();
        let ended = ended.code(123);
        assert!(ended.says(&["not a regular file"]), "{ended:?}");
    }
}

#[test]
fn pgoptions_reach_a_libpq_worker() {
    let psql = crate::support::installation::tool("psql")
        .display()
        .to_string();
    let name = lease_name("pg'opt ions\\");
    let ask = "select current_setting('leasewrap.name'), current_setting('leasewrap.slot'), \
               current_setting('leasewrap.token'), current_setting('work_mem'), \
               current_setting('client_connection_check_interval', true)";
    // PostgreSQL 14 and later.
    let checks = shared().psql("select current_setting('server_version_num')::int >= 140000");
    let checked = if checks == "t" { "500ms" } else { "" };
    let words = [psql.as_str(), "-XAtq", &shared().url(), "-c", ask];
    for by_flag in [true, false] {
        let builder = holder(&shared().url(), &name).env("PGOPTIONS", "-c work_mem=7MB");
        let builder = if by_flag {
            builder.switch("--pgoptions")
        } else {
            builder.env("LEASEWRAP_PGOPTIONS", "true")
        };
        let ended = builder.worker(&words).run().code(0);
        let quoted = name.replace('\'', "''");
        let token = shared().psql(&format!(
            "select token from leasewrap.lease where name = '{quoted}'"
        ));
        assert_eq!(
            ended.out.trim_end(),
            format!("{name}|0|{token}|7MB|{checked}")
        );
    }
}
