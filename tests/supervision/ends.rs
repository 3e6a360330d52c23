//! How leasewrap ends when its worker ends, or cannot start.

use std::os::unix::fs::PermissionsExt;

use crate::leasewrap;
use crate::support::leasewrap::{file_with, holder, lease_name};
use crate::support::server::shared;

fn rows(name: &str) -> String {
    let tables = shared().psql(
        "select count(*) from pg_tables where schemaname = 'leasewrap' and tablename = 'lease'",
    );
    if tables == "0" {
        return "0".to_owned();
    }
    shared().psql(&format!(
        "select count(*) from leasewrap.lease where name = '{name}'"
    ))
}

fn executable(text: &str, mode: u32) -> String {
    let path = file_with(text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

#[test]
fn the_workers_own_code() {
    for code in [0, 1, 3, 122, 125, 255] {
        leasewrap().sh(&format!("exit {code}")).run().code(code);
    }
    for signal in [
        libc::SIGKILL,
        libc::SIGSEGV,
        libc::SIGHUP,
        libc::SIGPIPE,
        libc::SIGABRT,
    ] {
        leasewrap()
            .sh(&format!("ulimit -c 0; kill -{signal} $$"))
            .run()
            .code(128 + signal);
    }
}

#[test]
fn what_cannot_run_is_found_out_before_the_lease_is_taken() {
    let plain = executable("#!/bin/sh\n", 0o644);
    for (command, code) in [
        ("/no/such/program", 127),
        ("no-such-program-on-the-path", 127),
        ("/etc/passwd/program", 127),
        ("/tmp", 126),
        (plain.as_str(), 126),
    ] {
        let name = lease_name("unrunnable");
        let ended = holder(&shared().url(), &name).worker(&[command]).run();
        assert!(ended.says(&[command]), "it names the program: {ended:?}");
        // Not a directory and a file in the way are both "not found" to some shells.
        if command.starts_with("/etc") {
            assert!([126, 127].contains(&ended.code), "{ended:?}");
        } else {
            ended.code(code);
        }
        assert_eq!(rows(&name), "0", "{command}: the lease was never taken");
    }
}

#[test]
fn what_cannot_run_is_found_out_without_a_database() {
    let ended = holder("postgres://nobody@127.0.0.1:1/none", "x")
        .worker(&["/no/such/program"])
        .run();
    ended.code(127);
}

#[test]
fn a_missing_interpreter_gives_the_lease_back_at_once() {
    let script = executable("#!/no/such/interpreter\n", 0o755);
    let name = lease_name("interpreter");
    let ended = holder(&shared().url(), &name)
        .ttl("60s")
        .worker(&[script])
        .run();
    assert!([126, 127].contains(&ended.code), "{ended:?}");
    holder(&shared().url(), &name)
        .option("--wait", "5s")
        .sh("true")
        .run()
        .code(0);
}

#[test]
fn a_script_without_an_interpreter_runs_as_a_shell_would_run_it() {
    let script = executable("echo by the shell: $1\nexit 4\n", 0o755);
    let ended = leasewrap().worker(&[script.as_str(), "yes"]).run().code(4);
    assert_eq!(ended.out, "by the shell: yes\n");
}

#[test]
fn arguments_and_environment_arrive_as_they_are() {
    let words = ["printf", "%s|", "a b", "", "--db", "*", "ü", "'\"\\"];
    let ended = leasewrap().worker(&words).run().code(0);
    assert_eq!(ended.out, "a b||--db|*|ü|'\"\\|");
}

#[test]
fn the_worker_knows_its_lease_and_nothing_of_leasewraps_own() {
    let name = lease_name("environment");
    let builder = holder(&shared().url(), &name).ttl("20s").worker(&["env"]);
    let own = [
        "LEASEWRAP_DB",
        "LEASEWRAP_DB_FILE",
        "LEASEWRAP_SCHEMA",
        "LEASEWRAP_LABEL",
        "LEASEWRAP_VALUE",
    ];
    // Given on the command line too: so none of these is in force.
    let builder = builder
        .option("--schema", "leasewrap")
        .option("--label", "l")
        .option("--value", "v");
    let builder = own
        .iter()
        .fold(builder, |builder, variable| builder.env(variable, "x"));
    let others = [
        ("LEASEWRAP_LOG", "warn"),
        ("LEASEWRAP_SLOTS", "1"),
        ("LEASEWRAP_NAME", "other"),
    ];
    let builder = others.iter().fold(builder, |builder, (variable, value)| {
        builder.env(variable, value)
    });
    let builder = builder
        .env("NOTIFY_SOCKET", "/x")
        .env("WATCHDOG_PID", "1")
        .env("WATCHDOG_USEC", "5");
    let builder = builder
        .env("PGAPPNAME", "mine")
        .env("LEASEWRAP_TOKEN", "999")
        .env("LEASEWRAP_REJOIN", "false");
    let ended = builder.run().code(0);
    let value = |variable: &str| {
        ended
            .out
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{variable}=")))
    };
    assert_eq!(value("LEASEWRAP_LEASE"), Some(name.as_str()));
    assert_eq!(value("LEASEWRAP_SLOT"), Some("0"));
    assert_eq!(value("LEASEWRAP_TTL_MS"), Some("20000"));
    assert_eq!(value("PGAPPNAME"), Some("mine"));
    let row = shared().psql(&format!(
        "select holder, token from leasewrap.lease where name = '{name}'"
    ));
    let seen = format!(
        "{}|{}",
        value("LEASEWRAP_HOLDER").unwrap(),
        value("LEASEWRAP_TOKEN").unwrap()
    );
    assert_eq!(seen, row);
    let kept =
        ["LEASE", "SLOT", "HOLDER", "TOKEN", "TTL_MS"].map(|name| format!("LEASEWRAP_{name}="));
    let strange: Vec<&str> = ended
        .out
        .lines()
        .filter(|line| {
            ["LEASEWRAP", "NOTIFY", "WATCHDOG", "LW_"]
                .iter()
                .any(|prefix| line.starts_with(prefix))
        })
        .filter(|line| !kept.iter().any(|kept| line.starts_with(kept)))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn a_leasewrap_within_a_leasewrap() {
    let (outer, inner) = (lease_name("outer"), lease_name("inner"));
    let words = holder(&shared().url(), &inner).sh("exit 21").words();
    let words: Vec<String> = words.into_iter().collect();
    let leasewrap = holder(&shared().url(), &outer)
        .env("LEASEWRAP_SLOTS", "2")
        .worker(&words);
    leasewrap.run().code(21);
    let names = shared().psql(&format!(
        "select count(*) from leasewrap.lease where name in ('{outer}', '{inner}')"
    ));
    assert_eq!(names, "2");
}
