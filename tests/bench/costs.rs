//! What an idle holder and a standby cost: memory, statements, WAL.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::leasewrap::{holder, lease_name};
use crate::support::server::{Options, Server};
use crate::support::wait::until;

/// Renewals that are counted.
const RENEWALS: i64 = 40;

/// Everything in turn.
pub fn measure(server: &Server) {
    println!("\ncosts");
    memory(server);
    renewals(server);
    standby();
}

fn pss_kib(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

fn memory(server: &Server) {
    let leasewrap = holder(&server.url(), &lease_name("memory"))
        .worker(&["sleep", "60"])
        .spawn();
    leasewrap.wait_event("acquired");
    // Until the listener is there too.
    until("it listens", Duration::from_secs(5), || {
        (server.psql("select count(*) from pg_stat_activity where query like 'listen%' or query like 'LISTEN%'")
            != "0")
            .then_some(())
    });
    let (keeper, guard) = (pss_kib(leasewrap.pid()), pss_kib(leasewrap.guard()));
    println!(
        "memory while holding (PSS): keeper {keeper} KiB + guard {guard} KiB = {:.2} MiB (aim: at most 5)",
        (keeper + guard) as f64 / 1024.0
    );
}

fn renewals(server: &Server) {
    let name = lease_name("renewals");
    let _leasewrap = holder(&server.url(), &name)
        .ttl("1s")
        .option("--renew-every", "100ms")
        .worker(&["sleep", "60"])
        .spawn();
    let revision = || -> i64 {
        server
            .psql(&format!(
                "select coalesce(max(revision), 0) from leasewrap.lease where name = '{name}'"
            ))
            .parse()
            .unwrap_or(0)
    };
    let look = "select pg_current_wal_insert_lsn() - '0/0', n_tup_upd, n_tup_hot_upd \
                from pg_stat_user_tables where schemaname = 'leasewrap' and relname = 'lease'";
    until("it renews", Duration::from_secs(10), || {
        (revision() > 3).then_some(())
    });
    server.psql("checkpoint");
    // The page's first image after a checkpoint is not a renewal's own cost.
    let before = revision();
    until("one more", Duration::from_secs(5), || {
        (revision() > before).then_some(())
    });
    let (first, wal) = (revision(), server.psql(look));
    until("some renewals", Duration::from_secs(30), || {
        (revision() >= first + RENEWALS).then_some(())
    });
    let (last, wal_after) = (revision(), server.psql(look));
    let field = |row: &str, index: usize| -> f64 {
        row.split('|')
            .nth(index)
            .and_then(|field| field.trim().parse().ok())
            .unwrap_or(f64::NAN)
    };
    #[expect(clippy::cast_precision_loss, reason = "some tens of renewals")]
    let count = (last - first) as f64;
    println!(
        "WAL per renewal: {:.0} bytes (aim: at most 250; n = {count})",
        (field(&wal_after, 0) - field(&wal, 0)) / count
    );
}

/// Statements per second of a standby, as the server logs them.
fn standby() {
    let options = Options::default()
        .set("log_statement", "all")
        .set("log_line_prefix", "%a|");
    let server = Server::with(options);
    let name = lease_name("standby");
    let first = holder(&server.url(), &name)
        .ttl("15s")
        .worker(&["sleep", "60"])
        .spawn();
    first.wait_event("acquired");
    let waiting = holder(&server.url(), &name)
        .ttl("15s")
        .env("PGAPPNAME", "standby")
        .worker(&["true"])
        .spawn();
    waiting.wait_event("waiting");
    // Both are settled when the holder has renewed once.
    std::thread::sleep(Duration::from_secs(4));
    let statements = || {
        let log = server.log();
        let of = |kind: &str| log.matches(kind).count();
        (of("LOG:  statement:"), of("set renewed_at"))
    };
    let (before, begun) = (statements(), Instant::now());
    std::thread::sleep(Duration::from_secs(30));
    let (after, seconds) = (statements(), begun.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "some tens of statements")]
    let per_second = |count: usize| count as f64 / seconds;
    println!(
        "statements per second of one holder and one standby at a ttl of 15 s: {:.2} \
         (aim: the standby at most 0.4, the holder one per renewal, 0.33)",
        per_second(after.0 - before.0)
    );
}
