//! What an idle holder and a standby cost: memory, statements, WAL; and what
//! of that the peers cost.

use std::fs;
use std::time::{Duration, Instant};

use crate::contenders::{Field, TTL_SECONDS, Wrapper};
use crate::support::installation::on_path;
use crate::support::leasewrap::{holder, lease_name};
use crate::support::proc;
use crate::support::server::{Options, Server};
use crate::support::wait::{SOON, until};
use crate::support::witness::{Log, Stamp, ms_between};

/// Renewals that are counted.
const RENEWALS: i64 = 40;

/// Everything in turn.
pub fn measure(server: &Server) {
    println!("\ncosts");
    field(&Field::new(server));
    renewals(server);
    standby();
    renewals_of_dislock();
}

fn pss_kib(pid: i32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// What each keeps beside its worker: memory while it holds, and the program.
fn field(field: &Field<'_>) {
    println!(
        "{:<34} {:>12} {:>12}",
        "beside a worker that sleeps", "PSS in MiB", "program, kB"
    );
    for wrapper in &field.wrappers {
        let (name, log) = (lease_name("memory"), Log::new());
        let mut command = field.command(*wrapper, &name, &log.worker(&[]));
        let mut child = command.spawn().expect("start a contender");
        // Until the listener is there too, where there is one.
        let enough = |stamps: &[Stamp]| {
            let last = stamps.last().map_or(0, |stamp| stamp.at_ns);
            stamps
                .first()
                .is_some_and(|first| ms_between(first.at_ns, last) > 2_000.0)
        };
        let worker = until("the worker has worked for a while", SOON, || {
            let stamps = log.stamps();
            enough(&stamps).then(|| stamps[0].pid)
        });
        let pid = i32::try_from(child.id()).expect("a pid");
        // In a PID namespace the worker has another pid: its name says it.
        let is_worker = |pid: i32| pid == worker || proc::comm(pid).as_deref() == Some("witness");
        let mut beside = proc::descendants(pid);
        beside.retain(|pid| !is_worker(*pid));
        beside.push(pid);
        let pss: u64 = beside.iter().map(|pid| pss_kib(*pid)).sum();
        let program = fs::metadata(format!("/proc/{pid}/exe")).map_or(0, |program| program.len());
        #[expect(clippy::cast_precision_loss, reason = "some MiB")]
        let pss = pss as f64 / 1024.0;
        println!("{:<34} {pss:>12.2} {:>12}", wrapper.name(), program / 1000);
        drop(log);
        let _ended = child.wait();
    }
    println!("(aim: leasewrap at most 5 MiB; the program of dislock is Python's alone)");
}

/// Statements and WAL for each renewal of the peer that keeps a lease in
/// Postgres, as the server logs them.
fn renewals_of_dislock() {
    if on_path("dislock").is_none() {
        return;
    }
    let server = Server::with(Options::default().set("log_statement", "all"));
    let field = Field::new(&server);
    let (name, log) = (lease_name("renewals"), Log::new());
    let mut command = field.command(Wrapper::Dislock, &name, &log.worker(&[]));
    let mut child = command.spawn().expect("start dislock");
    log.wait_newer(-1, SOON);
    let wal = || -> f64 {
        let lsn = server.psql("select pg_current_wal_insert_lsn() - '0/0'");
        lsn.parse().unwrap_or(f64::NAN)
    };
    let counts = || {
        let log = server.log();
        let statements =
            log.matches("LOG:  statement:").count() + log.matches("LOG:  execute ").count();
        // Each look of ours is one.
        (
            statements - log.matches("pg_current_wal_insert_lsn").count(),
            log.matches("SET expire_at =").count(),
        )
    };
    server.psql("checkpoint");
    let (before, from) = (counts(), wal());
    std::thread::sleep(Duration::from_secs(4 * TTL_SECONDS));
    let (to, after) = (wal(), counts());
    #[expect(clippy::cast_precision_loss, reason = "some tens of statements")]
    let (statements, renewals) = ((after.0 - before.0) as f64, (after.1 - before.1) as f64);
    println!(
        "dislock: {:.1} statements and {:.0} bytes of WAL per renewal (n = {renewals})",
        statements / renewals,
        (to - from) / renewals
    );
    drop(log);
    let _ended = child.wait();
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
