//! Many at once on an empty database.

use std::time::Duration;

use crate::support::leasewrap::{Leasewrap, holder};
use crate::support::server::{Server, shared};
use crate::support::wait::SOON;
use crate::support::witness::Log;

#[test]
fn twenty_at_once_on_an_empty_database() {
    let server = Server::start();
    let url = server.url();
    let names = ["a", "b", "c", "d"];
    let all: Vec<Leasewrap> = (0..20)
        .map(|index| {
            holder(&url, names[index % names.len()])
                .option("--wait", "60s")
                .sh("echo ran")
                .spawn()
        })
        .collect();
    for leasewrap in all {
        let ended = leasewrap.end_within(Duration::from_secs(90)).code(0);
        assert_eq!(ended.out, "ran\n");
    }
    assert_eq!(server.psql("select count(*) from leasewrap.lease"), "4");
    let strange = "select string_agg(tablename, ',') from pg_tables \
                   where schemaname not in ('leasewrap', 'pg_catalog', 'information_schema')";
    assert_eq!(server.psql(strange), "", "nothing outside its schema");
}

#[test]
fn twenty_at_once_for_one_lease_run_one_after_the_other() {
    let url = shared().url_of("postgres", &shared().database());
    let log = Log::new();
    let all: Vec<Leasewrap> = (0..20)
        .map(|_| {
            holder(&url, "one")
                .ttl("30s")
                .worker(&log.worker(&["exit-after=20"]))
                .spawn()
        })
        .collect();
    for leasewrap in all {
        leasewrap.end_within(Duration::from_secs(90)).code(0);
    }
    assert_eq!(log.spans().len(), 20);
    let seen = log.hand_overs();
    assert!(seen.iter().all(|seen| seen.overlap_ms <= 0.0), "{seen:?}");
}

#[test]
fn a_run_on_a_schema_that_is_there_issues_no_ddl() {
    let server =
        Server::with(crate::support::server::Options::default().set("log_statement", "ddl"));
    holder(&server.url(), "one").sh("true").run().code(0);
    let before = server
        .log()
        .lines()
        .filter(|line| line.contains("leasewrap one") && is_ddl(line))
        .count();
    assert!(before > 0, "the first one creates it:\n{}", server.log());
    holder(&server.url(), "two").sh("true").run().code(0);
    let after = server
        .log()
        .lines()
        .filter(|line| line.contains("leasewrap two") && is_ddl(line))
        .count();
    assert_eq!(after, 0, "{}", server.log());
}

fn is_ddl(line: &str) -> bool {
    line.contains("statement:") || line.contains("execute ")
}

#[test]
fn who_waits_for_what_is_seen_in_pg_stat_activity() {
    let name = crate::support::leasewrap::lease_name("activity");
    let holder = holder(&shared().url(), &name)
        .worker(&["sleep", "1000"])
        .spawn();
    holder.worker();
    let ask = format!(
        "select count(*) > 0 from pg_stat_activity where application_name = 'leasewrap {name}'"
    );
    crate::support::wait::until_true("it is seen", SOON, || shared().psql(&ask) == "t");
}
