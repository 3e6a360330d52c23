//! A database that is down, refuses, lacks, or is in the way: 123 and one
//! clear line, or waiting where waiting helps.

use std::time::{Duration, Instant};

use crate::support::leasewrap::{Ended, holder, lease_name};
use crate::support::server::{Options, Server, Stop, shared};
use crate::support::wait::{SOON, until_true};

#[track_caller]
fn unusable(url: &str, words: &[&str]) -> Ended {
    // At once: it would be tried again for a ttl, longer than this is waited for.
    let ended = holder(url, "x").ttl("60s").sh("echo never").run().code(123);
    assert!(ended.out.is_empty(), "{ended:?}");
    for word in words {
        assert!(
            ended.last_line().contains(word),
            "{word:?} is not in {:?}",
            ended.last_line()
        );
    }
    ended
}

#[test]
fn a_wrong_password() {
    let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let server = Server::with(Options {
        hba: Some(hba.to_owned()),
        ..Options::default()
    });
    server.psql("create role lw login password 'right'");
    unusable(&server.url_of("lw:wrong", "postgres"), &["password"]);
    unusable(&server.url_of("lw", "postgres"), &["password"]);
    unusable(&server.url_of("nobody:x", "postgres"), &["nobody"]);
}

#[test]
fn a_missing_role_and_a_missing_database() {
    unusable(
        &shared().url_of("no_such_role", "postgres"),
        &["no_such_role"],
    );
    unusable(
        &shared().url_of("postgres", "no_such_database"),
        &["no_such_database"],
    );
}

#[test]
fn missing_rights() {
    let database = shared().database();
    shared().psql(&format!(
        "create role r_{database} login; revoke create on database {database} from public"
    ));
    let narrow = shared().url_of(&format!("r_{database}"), &database);
    // May not create the schema.
    unusable(&narrow, &["init"]);
    holder(&shared().url_of("postgres", &database), "x")
        .sh("true")
        .run()
        .code(0);
    // May not use it.
    unusable(&narrow, &["permission"]);
    let minimum = format!(
        "grant usage on schema leasewrap to r_{database};
         grant select, insert, update on all tables in schema leasewrap to r_{database};
         grant delete on leasewrap.event to r_{database}"
    );
    shared().try_psql(&database, &minimum).unwrap();
    holder(&narrow, "x").sh("true").run().code(0);
    shared()
        .try_psql(
            &database,
            &format!("revoke update on leasewrap.lease from r_{database}"),
        )
        .unwrap();
    unusable(&narrow, &["permission"]);
}

#[test]
fn a_foreign_table_in_the_way() {
    let database = shared().database();
    shared()
        .try_psql(
            &database,
            "create schema leasewrap; create table leasewrap.lease (mine text)",
        )
        .unwrap();
    unusable(&shared().url_of("postgres", &database), &["leasewrap"]);
    let seen = shared().try_psql(
        &database,
        "select count(*) from information_schema.columns where table_name = 'lease'",
    );
    assert_eq!(seen.unwrap(), "1", "it is left alone");
}

#[test]
fn a_read_only_server_and_no_other() {
    let server = Server::start();
    holder(&server.url(), "x").sh("true").run().code(0);
    let replica = server.replica(Options::default());
    let ended = holder(&replica.url(), "x")
        .option("--wait", "5s")
        .sh("true")
        .run()
        .code(123);
    assert!(
        ended.last_line().contains("read-only") || ended.last_line().contains("recovery"),
        "{ended:?}"
    );
}

#[test]
fn nobody_listens() {
    let start = Instant::now();
    let url = "postgres://postgres@127.0.0.1:9/postgres";
    let ended = holder(url, "x")
        .option("--wait", "600ms")
        .sh("true")
        .run()
        .code(123);
    assert!(
        start.elapsed() >= Duration::from_millis(600),
        "it retries until then"
    );
    assert!(ended.last_line().contains("127.0.0.1"), "{ended:?}");
    holder(url, "x")
        .switch("--no-wait")
        .sh("true")
        .run()
        .code(123);
}

#[test]
fn an_unreachable_server_is_waited_for() {
    let server = Server::start();
    let url = server.url();
    server.stop(Stop::Fast);
    let waiting = holder(&url, "x").ttl("8s").sh("echo ran").spawn();
    waiting.wait_event("call-failed");
    server.start_again();
    assert_eq!(waiting.end_within(SOON * 2).code(0).out, "ran\n");
}

#[test]
fn too_many_connections_are_waited_out() {
    let server = Server::with(
        Options::default()
            .set("max_connections", "6")
            .set("superuser_reserved_connections", "1"),
    );
    server.psql("create role lw login; grant create on database postgres to lw");
    let mut sessions = Vec::new();
    until_true("it is full", SOON, || {
        let full = server.try_psql("postgres", "select 1").is_err();
        if !full {
            let mut session = server.session("postgres");
            session.send("select 1;");
            sessions.push(session);
        }
        full
    });
    let waiting = holder(&server.url_of("lw", "postgres"), "x")
        .ttl("8s")
        .sh("echo ran")
        .spawn();
    waiting.wait_event("call-failed");
    drop(sessions);
    assert_eq!(waiting.end_within(SOON * 2).code(0).out, "ran\n");
}

#[test]
fn once_it_has_worked_the_same_errors_are_retried() {
    let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let server = Server::with(Options {
        hba: Some(hba.to_owned()),
        ..Options::default()
    });
    server.psql("create role lw login password 'one'; grant create on database postgres to lw");
    let url = server.url_of("lw:one", "postgres");
    let name = lease_name("rotated");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let leasewrap = holder(&url, &name)
        .ttl("20s")
        .option("--renew-every", "1s")
        .stdin(read)
        .sh("read line; exit 5")
        .spawn();
    leasewrap.wait_event("acquired");
    server.psql("alter role lw password 'two'");
    server.psql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'lw'");
    leasewrap.wait_event("call-failed");
    server.psql("alter role lw password 'one'");
    drop(write);
    leasewrap.end().code(5);
}

#[test]
fn a_holder_whose_database_stays_away_ends_with_122() {
    let server = Server::start();
    let leasewrap = holder(&server.url(), "x")
        .ttl("2s")
        .worker(&["sleep", "1000"])
        .spawn();
    leasewrap.worker();
    server.psql("select 1");
    server.stop(Stop::Kill);
    let ended = leasewrap.end().code(122);
    assert!(ended.last_line().contains("lost"), "{ended:?}");
}

#[test]
fn a_release_that_fails_changes_no_exit_code() {
    let server = Server::start();
    let leasewrap = holder(&server.url(), "x")
        .ttl("12s")
        .sh("read line; exit 19");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let leasewrap = leasewrap.stdin(read).spawn();
    leasewrap.worker();
    server.stop(Stop::Immediate);
    drop(write);
    let ended = leasewrap.end().code(19);
    assert!(ended.last_line().contains("runs out"), "{ended:?}");
}

#[test]
fn over_the_unix_socket_and_ipv4_by_name() {
    let socket = shared().dir().display().to_string();
    let port = shared().port();
    for url in [
        format!("postgres://postgres@/postgres?host={socket}&port={port}"),
        format!(
            "postgres://postgres@{}:{port}/postgres",
            socket.replace('/', "%2F")
        ),
        format!("postgresql://postgres@localhost:{port}/postgres"),
    ] {
        holder(&url, &lease_name("hosts")).sh("true").run().code(0);
    }
}
