//! From the old worker's last sign of life to the new one's first, by what
//! ended the old holder. Overlap, the other way round, is printed beside it.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::leasewrap::{holder, lease_name};
use crate::support::proc;
use crate::support::run::run;
use crate::support::server::Server;
use crate::support::sys;
use crate::support::wait::{SOON, until};
use crate::support::witness::Log;
use crate::{Samples, table};

const RUNS: usize = 15;

/// How the old holder comes to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Term,
    KillKeeper,
    KillGuard,
    RowTaken,
}

/// Each end in turn.
pub fn measure(server: &Server) {
    let ends = [
        ("leasewrap, worker ends", End::Clean, false),
        ("leasewrap, TERM to the holder", End::Term, false),
        ("leasewrap, SIGKILL of the keeper", End::KillKeeper, false),
        ("leasewrap, SIGKILL of the guard", End::KillGuard, false),
        ("leasewrap, row taken by hand *", End::RowTaken, false),
        ("worker ends, --pid-namespace", End::Clean, true),
        ("TERM, --pid-namespace", End::Term, true),
        (
            "SIGKILL of the keeper, --pid-namespace",
            End::KillKeeper,
            true,
        ),
        (
            "SIGKILL of the guard, --pid-namespace",
            End::KillGuard,
            true,
        ),
    ];
    let mut rows: Vec<Samples> = ends.iter().map(|(name, ..)| Samples::of(name)).collect();
    let mut flock = Samples::of("flock, worker ends");
    let mut flock_term = Samples::of("flock, TERM to the worker");
    let mut worst_overlap = f64::NEG_INFINITY;
    for _ in 0..RUNS {
        flock.add_ms(by_flock(false));
        flock_term.add_ms(by_flock(true));
        for ((_, end, namespace), row) in ends.iter().zip(&mut rows) {
            let (gap, overlap) = by_leasewrap(server, *end, *namespace);
            row.add_ms(gap);
            worst_overlap = worst_overlap.max(overlap);
        }
    }
    rows.insert(0, flock);
    rows.insert(1, flock_term);
    table("hand-over: last sign of life to first", "ms", &rows);
    println!("* until the old worker is dead, from the row's change");
    println!("largest overlap of all hand-overs: {worst_overlap:.2} ms (never positive)");
}

fn by_leasewrap(server: &Server, end: End, pid_namespace: bool) -> (f64, f64) {
    let name = lease_name("bench");
    let log = Log::new();
    let options: &[&str] = if end == End::Clean {
        &["exit-after=120"]
    } else {
        &[]
    };
    let leasewrap = || {
        let leasewrap = holder(&server.url(), &name).ttl("5s");
        if pid_namespace {
            leasewrap.switch("--pid-namespace")
        } else {
            leasewrap
        }
    };
    let old = leasewrap().worker(&log.worker(options)).spawn();
    let token = log.wait_newer(0, SOON);
    if end == End::RowTaken {
        let at = server.psql(&format!(
            "update leasewrap.lease set holder = gen_random_uuid(), token = token + 1 \
             where name = '{name}'; select 1"
        ));
        assert!(!at.is_empty());
        let changed = sys::boot_ns();
        let last = log.wait_silence(SOON).unwrap_or(changed);
        drop(old);
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one test")]
        let millis = (last as f64 - changed as f64) / 1e6;
        return (millis.max(0.0), f64::NEG_INFINITY);
    }
    let new = leasewrap().worker(&log.worker(&[])).spawn();
    new.wait_event("waiting");
    match end {
        End::Clean | End::RowTaken => {}
        End::Term => old.signal(libc::SIGTERM),
        End::KillKeeper => old.signal(libc::SIGKILL),
        End::KillGuard => {
            sys::kill(old.guard(), libc::SIGKILL);
        }
    }
    log.wait_newer(token, SOON);
    until("the new worker works", SOON, || {
        log.spans().get(1).map(|_| ())
    });
    let overlap = log.hand_overs()[0].overlap_ms;
    drop((old, new));
    (-overlap, overlap)
}

/// The same with `flock FILE witness`: stamps carry no token, so the two
/// workers are told apart by their pids.
fn by_flock(term: bool) -> f64 {
    let lock = run().file("flock");
    let log = Log::new();
    let start = |options: &[&str]| {
        Command::new("flock")
            .arg(&lock)
            .args(log.worker(options))
            .stdin(Stdio::null())
            .spawn()
            .expect("run flock")
    };
    let mut old = start(if term { &[] } else { &["exit-after=120"] });
    let first = until("the old worker works", SOON, || {
        log.stamps().first().map(|stamp| stamp.pid)
    });
    let mut new = start(&[]);
    let pid = i32::try_from(new.id()).expect("a pid");
    until("the next one waits", SOON, || {
        (proc::state(pid) == Some('S')).then_some(())
    });
    std::thread::sleep(Duration::from_millis(20));
    if term {
        sys::kill(first, libc::SIGTERM);
    }
    let gap = until("the new worker works", SOON, || {
        let stamps = log.stamps();
        let last = stamps.iter().rfind(|stamp| stamp.pid == first)?;
        let next = stamps.iter().find(|stamp| stamp.pid != first)?;
        Some(crate::support::witness::ms_between(last.at_ns, next.at_ns))
    });
    for child in proc::children(pid) {
        sys::kill(child, libc::SIGKILL);
    }
    drop((new.wait(), old.wait()));
    gap
}
