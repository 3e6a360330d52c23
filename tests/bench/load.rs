//! Many leases on one server, many standbys of one lease, and a notification
//! queue that is full. The clients are simulated: the store's real code, many
//! at a time in one process.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leasewrap::lease::record::{Acquired, Renewed};
use leasewrap::store::{Notice, Store, Watch};
use rand::RngExt as _;
use tokio::time::{sleep, sleep_until, timeout};

use crate::bouncer::Bouncer;
use crate::contender::{Bench, LIMIT, settings};
use crate::support::proc;
use crate::support::server::{Options, Server};
use crate::{Samples, table};

/// Of a lease with the default ttl of 30 s.
const RENEW_EVERY: Duration = Duration::from_secs(6);
/// How long each number of them is looked at.
const LOOKED: Duration = Duration::from_secs(24);

/// CPU seconds of a process and all below it that still run.
fn cpu_seconds(pid: i32) -> f64 {
    let mut all = proc::descendants(pid);
    all.push(pid);
    let ticks: u64 = all
        .into_iter()
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let rest = stat.rsplit_once(") ")?.1;
            let fields: Vec<&str> = rest.split(' ').collect();
            // utime and stime (proc_pid_stat(5)).
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        })
        .sum();
    // USER_HZ is 100 on every Linux of today.
    ticks as f64 / 100.0
}

/// As the keeper's.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Renewals of 125, 500 and 2,000 leases, through PgBouncer as people with
/// that many would have it.
pub fn leases() {
    let server = Server::with(Options::default().set("shared_buffers", "128MB"));
    let bouncer = Bouncer::start(
        &server,
        "transaction",
        "max_client_conn = 5000\ndefault_pool_size = 20\n",
    );
    let url = bouncer.url("postgres");
    runtime().block_on(async {
        let first = Bench::new(settings(&server.url(), "leasewrap"));
        first.store().init(LIMIT).await.expect("set up");
        println!("\nleases renewed every {RENEW_EVERY:?} on one server, behind PgBouncer");
        println!(
            "{:>8} {:>12} {:>12} {:>10} {:>10}",
            "leases", "renewals/s", "server CPU", "median ms", "p99 ms"
        );
        for count in [125_u32, 500, 2_000] {
            renewed(&server, &url, count).await;
        }
    });
}

async fn renewed(server: &Server, url: &str, count: u32) {
    let settings = settings(url, "leasewrap");
    let mut tasks = Vec::new();
    let done = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    // Acquired over the first interval, as hosts start one after the other.
    let start = tokio::time::Instant::now() + RENEW_EVERY;
    for _ in 0..count {
        let bench = Bench::new(settings.clone());
        let done = Arc::clone(&done);
        tasks.push(tokio::spawn(async move {
            let offset = RENEW_EVERY.mul_f64(rand::rng().random_range(0.0..1.0));
            sleep(offset).await;
            let mut one = bench.contender("one");
            let (term, grant) = one.take(0).await;
            let mut took = Vec::new();
            let mut next = start + offset;
            while next < start + LOOKED {
                sleep_until(next).await;
                next += RENEW_EVERY.mul_f64(rand::rng().random_range(0.8..1.2));
                let sent = Instant::now();
                let reply = one.renew(&term).await;
                assert!(matches!(reply, Renewed::Granted { .. }), "lost: {reply:?}");
                took.push(sent.elapsed());
                done.fetch_add(1, Ordering::Relaxed);
            }
            one.release(&term, &grant).await;
            took
        }));
    }
    sleep_until(start).await;
    let (before, cpu) = (done.load(Ordering::Relaxed), cpu_seconds(server.pid()));
    let since = Instant::now();
    sleep_until(start + LOOKED.mul_f64(0.9)).await;
    let renewals = done.load(Ordering::Relaxed) - before;
    let seconds = since.elapsed().as_secs_f64();
    let cpu = (cpu_seconds(server.pid()) - cpu) / seconds;
    let mut row = Samples::of("");
    for task in tasks {
        for took in task.await.expect("no loss") {
            row.add(took);
        }
    }
    println!(
        "{count:>8} {:>12.1} {:>10.2} % {:>10.2} {:>10.2}   (in {:.0} s, none lost)",
        renewals as f64 / seconds,
        cpu * 100.0,
        row.median(),
        row.at(0.99),
        begun.elapsed().as_secs_f64()
    );
}

/// Standbys of one lease at a ttl of 15 s: what they ask while it is held, and
/// what comes when it is released.
pub fn standbys() {
    let server = Server::with(
        Options::default()
            .set("shared_buffers", "128MB")
            .set("max_connections", "1200"),
    );
    println!("\nstandbys of one lease at a ttl of 15 s, each with a connection for LISTEN");
    println!(
        "{:>8} {:>14} {:>12} {:>14} {:>12} {:>12}",
        "standbys", "statements/s", "server CPU", "hand-over ms", "attempts", "CPU of it"
    );
    for count in [50_u32, 150, 500] {
        runtime().block_on(stand_by(&server, count));
    }
}

#[derive(Default)]
struct Asked {
    polls: AtomicU64,
    attempts: AtomicU64,
}

async fn stand_by(server: &Server, count: u32) {
    let settings = settings(&server.url(), "leasewrap");
    let bench = Bench::new(settings);
    bench.store().init(LIMIT).await.expect("set up");
    let mut holder = bench.contender("holder");
    let (term, grant) = holder.take(0).await;
    let asked = Arc::new(Asked::default());
    let connected = Arc::new(AtomicU64::new(0));
    let (won, mut winner) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    for _ in 0..count {
        let (bench, asked, won) = (bench.clone(), Arc::clone(&asked), won.clone());
        let connected = Arc::clone(&connected);
        tasks.push(tokio::spawn(async move {
            one_stands_by(&bench, &asked, &connected).await;
            let _result = won.send(Instant::now());
            // It holds from now on.
            std::future::pending::<()>().await;
        }));
    }
    while connected.load(Ordering::Relaxed) < u64::from(count) {
        sleep(Duration::from_millis(100)).await;
    }
    // The holder's own renewals are left out.
    let (polls, cpu) = (
        asked.polls.load(Ordering::Relaxed),
        cpu_seconds(server.pid()),
    );
    let since = Instant::now();
    sleep(Duration::from_secs(15)).await;
    let seconds = since.elapsed().as_secs_f64();
    let polls = (asked.polls.load(Ordering::Relaxed) - polls) as f64 / seconds;
    let idle_cpu = (cpu_seconds(server.pid()) - cpu) / seconds;
    let attempts = asked.attempts.load(Ordering::Relaxed);
    let (cpu, released) = (cpu_seconds(server.pid()), Instant::now());
    holder.release(&term, &grant).await;
    let begun = timeout(LIMIT, winner.recv()).await;
    let begun = begun.expect("somebody takes it").expect("it says so");
    // Whoever comes late has come by now.
    sleep(Duration::from_secs(2)).await;
    println!(
        "{count:>8} {polls:>14.1} {:>10.2} % {:>14.1} {:>12} {:>10.2} s",
        idle_cpu * 100.0,
        begun.duration_since(released).as_secs_f64() * 1e3,
        asked.attempts.load(Ordering::Relaxed) - attempts,
        cpu_seconds(server.pid()) - cpu
    );
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// As a keeper does: it polls on every renewal interval of a ttl of 15 s, and
/// when it is told of a change; what is free it tries to take.
async fn one_stands_by(bench: &Bench, asked: &Asked, connected: &AtomicU64) {
    let mut one = bench.contender("standby");
    one.observe().await;
    let mut watch = one.store.watch();
    watch.spread(true);
    loop {
        let pause = Duration::from_secs(3).mul_f64(rand::rng().random_range(0.8..1.2));
        let notice = timeout(pause, watch.next()).await;
        if notice == Ok(Notice::Connected) {
            connected.fetch_add(1, Ordering::Relaxed);
        }
        asked.polls.fetch_add(1, Ordering::Relaxed);
        let seen = one.observe().await;
        if seen.records.iter().all(|record| record.released) {
            asked.attempts.fetch_add(1, Ordering::Relaxed);
            let request = one.request(&seen, 0);
            if let Acquired::Granted(_) = one.store.acquire(&request, LIMIT).await.reply {
                return;
            }
        }
    }
}

/// A session that listens and sleeps in a transaction keeps the queue of
/// notifications from being emptied: it is filled to its 8 GiB, then leases
/// are taken, renewed and given back as ever. (By name alone: it writes 8 GiB.)
pub fn queue() {
    let server = Server::with(Options::default().set("shared_buffers", "128MB"));
    let bench = Bench::new(settings(&server.url(), "leasewrap"));
    let set_up = runtime().block_on(async { bench.store().init(LIMIT).await });
    set_up.expect("set up");
    let empty = rounds(&bench, "with an empty queue");
    let mut sleeper = server.session("postgres");
    sleeper.run("listen held");
    sleeper.run("begin");
    sleeper.run("select 1");
    let begun = Instant::now();
    let fill = "do $$ begin for n in 1..2000 loop
        perform pg_notify('held', n || repeat('x', 7900)); end loop; end $$";
    let said = loop {
        if let Err(said) = server.try_psql("postgres", fill) {
            break said;
        }
    };
    let line = said.lines().next().unwrap_or_default();
    println!(
        "\nfilled after {:.0} s: {line}",
        begun.elapsed().as_secs_f64()
    );
    let usage = server.psql("select round(pg_notification_queue_usage()::numeric, 4)");
    let full = rounds(&bench, &format!("with a queue that is {usage} full"));
    table("taken, renewed and given back", "ms", &[empty, full]);
}

/// Twenty times: taken, renewed and given back.
fn rounds(bench: &Bench, what: &str) -> Samples {
    let mut row = Samples::of(what);
    runtime().block_on(async {
        for _ in 0..20 {
            let mut one = bench.contender("one");
            let since = Instant::now();
            let (term, grant) = one.take(0).await;
            one.renewed(&term).await;
            one.release(&term, &grant).await;
            row.add(since.elapsed());
        }
    });
    row
}
