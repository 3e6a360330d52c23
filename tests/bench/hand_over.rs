//! From the old worker's last sign of life to the new one's first, by what
//! ended the old holder; and how long the two lived side by side.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::contenders::{Field, TTL_SECONDS, Wrapper};
use crate::picture::{self, Panel, Row};
use crate::support::leasewrap::{Leasewrap, binary, guard_of, holder, lease_name};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::sys;
use crate::support::wait::{SOON, maybe, until};
use crate::support::witness::{Log, Stamp, ms_between};
use crate::{Samples, table};

/// Of ends that hand over at once.
const RUNS: usize = 9;
/// Where a lock is waited out.
const SLOW_RUNS: usize = 3;

/// What the next one takes to stand by, with some to spare.
const SETTLED: Duration = Duration::from_millis(300);
/// So long it is looked whether the old worker goes on beside the new one.
const LOOKED: Duration = Duration::from_millis(300);

/// How the old holder comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Clean,
    /// TERM to the wrapper (to the worker with flock, which would leave it).
    Term,
    KillWrapper,
    KillGuard,
    StopWrapper,
    /// Of the old one's line to the server.
    Cut,
    /// For all, and as long as [`HUNG`].
    HungServer,
    /// Somebody takes the lock from the old one, and leaves it.
    Stolen,
}

/// All of them.
const ENDS: [End; 8] = [
    End::Clean,
    End::Term,
    End::KillWrapper,
    End::KillGuard,
    End::StopWrapper,
    End::Cut,
    End::HungServer,
    End::Stolen,
];

/// A hand-over that has not come by then does not come.
const LIMIT: Duration = Duration::from_secs(4 * TTL_SECONDS);

/// How long a server hangs.
const HUNG: Duration = Duration::from_secs(2 * TTL_SECONDS);

/// What one hand-over showed.
enum Seen {
    /// How long nobody worked; negative: both did.
    HandedOver { gap_ms: f64 },
    /// The old worker went on for as long as it was looked at, beside the new one.
    Beside { gap_ms: f64 },
    /// The wrapper and its worker went on.
    NoEnd,
}

/// Each end in turn, and each contender in turn.
pub fn measure(field: &Field<'_>, server: &Server) {
    ends(field);
    row_taken(server);
    told(server, &["step-down"], "step-down");
    told(server, &["break", "--yes"], "break");
}

/// The ends alone, of which the picture is made.
pub fn ends(field: &Field<'_>) {
    let panels: Vec<Panel> = ENDS.into_iter().map(|end| of_end(field, end)).collect();
    picture::write(&panels);
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Clean => "The worker ends",
            Self::Term => "TERM to the wrapper",
            Self::KillWrapper => "SIGKILL of the wrapper",
            Self::KillGuard => "SIGKILL of the guard",
            Self::StopWrapper => "SIGSTOP of the wrapper, at a ttl of 5 s",
            Self::Cut => "The line to the server is cut, at a ttl of 5 s",
            Self::HungServer => "The server hangs for 10 s, at a ttl of 5 s",
            Self::Stolen => "Somebody takes the lock away, by hand",
        }
    }

    /// Whose end it can be, and is one.
    fn is_for(self, wrapper: Wrapper) -> bool {
        let ours = [Wrapper::Leasewrap, Wrapper::Contained].contains(&wrapper);
        match self {
            Self::Clean | Self::Term => wrapper.waits(),
            // The lock of flock lives on with the worker: nothing hands over.
            Self::KillWrapper | Self::StopWrapper => wrapper.waits() && wrapper != Wrapper::Flock,
            Self::KillGuard => ours,
            Self::Cut | Self::HungServer => {
                wrapper.waits() && ![Wrapper::Flock, Wrapper::Contained].contains(&wrapper)
            }
            Self::Stolen => wrapper.waits() && wrapper != Wrapper::Contained,
        }
    }

    /// Whether the next one comes only afterwards: it would wait for a file
    /// that is gone.
    fn is_before_the_next(self, wrapper: Wrapper) -> bool {
        self == Self::Stolen && wrapper == Wrapper::Flock
    }

    /// Whether it is waited out, so that few runs have to do.
    fn is_slow(self, wrapper: Wrapper) -> bool {
        match self {
            Self::StopWrapper | Self::Cut | Self::HungServer => true,
            Self::KillWrapper => wrapper == Wrapper::Etcdctl,
            Self::Clean | Self::Term | Self::KillGuard | Self::Stolen => false,
        }
    }
}

fn of_end(field: &Field<'_>, end: End) -> Panel {
    let wrappers: Vec<Wrapper> = field
        .wrappers
        .iter()
        .copied()
        .filter(|wrapper| end.is_for(*wrapper))
        .collect();
    let mut rows: Vec<Samples> = wrappers
        .iter()
        .map(|wrapper| Samples::of(wrapper.name()))
        .collect();
    let mut beside = vec![0_usize; wrappers.len()];
    let mut no_end = vec![false; wrappers.len()];
    for round in 0..RUNS {
        for (index, wrapper) in wrappers.iter().enumerate() {
            if no_end[index] || (end.is_slow(*wrapper) && round >= SLOW_RUNS) {
                continue;
            }
            match once(field, *wrapper, end) {
                Seen::HandedOver { gap_ms } => rows[index].add_ms(gap_ms),
                Seen::Beside { gap_ms } => {
                    rows[index].add_ms(gap_ms);
                    beside[index] += 1;
                }
                Seen::NoEnd => no_end[index] = true,
            }
        }
    }
    let what = end.name();
    let title = format!("{what}: last sign of life to first; negative: both lived");
    table(&title, "ms", &rows);
    for ((row, beside), no_end) in rows.iter().zip(&beside).zip(&no_end) {
        if *no_end {
            println!("  {}: nothing was handed over within {LIMIT:?}", row.name());
        }
        if *beside > 0 {
            println!(
                "  {}: in {beside} of {} the old worker lived on beside the new one",
                row.name(),
                row.count()
            );
        }
    }
    let drawn = |(index, wrapper): (usize, &Wrapper)| Row {
        name: match (end, wrapper) {
            (End::Term, Wrapper::Flock) => "flock, TERM to the worker",
            _ => wrapper.name(),
        },
        ours: [Wrapper::Leasewrap, Wrapper::Contained].contains(wrapper),
        gaps_ms: rows[index].at_least(0.0),
        beside: rows[index].count() - rows[index].at_least(0.0).len(),
        none: no_end[index].then(|| format!("nothing is handed over within {LIMIT:?}")),
    };
    let mut drawn: Vec<Row> = wrappers.iter().enumerate().map(drawn).collect();
    if [End::KillWrapper, End::StopWrapper].contains(&end) {
        drawn.insert(0, Row::of_flock());
    }
    Panel {
        title: what,
        rows: drawn,
    }
}

fn once(field: &Field<'_>, wrapper: Wrapper, end: End) -> Seen {
    let name = lease_name("bench");
    let log = Log::new();
    let clean: &[&str] = &["exit-after=700"];
    let options = if end == End::Clean { clean } else { &[] };
    let start = |port: Option<u16>, options: &[&str]| {
        field
            .command_by(wrapper, port, &name, &log.worker(options))
            .stderr(Stdio::null())
            .spawn()
            .expect("start a contender")
    };
    let port = field.port(wrapper);
    let line = port.filter(|_| end == End::Cut).map(Proxy::to);
    let mut old = start(
        line.as_ref().map_or(port, |line| Some(line.port())),
        options,
    );
    let first = until("the old worker works", SOON, || {
        log.stamps().first().copied()
    });
    // In a PID namespace of its own each worker has the same pid, but not the
    // same token.
    let of_first = |stamp: &Stamp| (stamp.pid, stamp.token) == (first.pid, first.token);
    let early = !end.is_before_the_next(wrapper);
    let new = early.then(|| start(port, &[]));
    std::thread::sleep(SETTLED);
    let pid = i32::try_from(old.id()).expect("a pid");
    match end {
        End::Clean => {}
        End::Term if wrapper == Wrapper::Flock => drop(sys::kill(first.pid, libc::SIGTERM)),
        End::Term => drop(sys::kill(pid, libc::SIGTERM)),
        End::KillWrapper => drop(sys::kill(pid, libc::SIGKILL)),
        End::StopWrapper => drop(sys::kill(pid, libc::SIGSTOP)),
        End::KillGuard => {
            let guard = guard_of(pid).expect("it has a guard");
            sys::kill(guard, libc::SIGKILL);
        }
        End::Cut => line.iter().for_each(Proxy::cut),
        End::HungServer => {
            field.hang(wrapper, true);
            std::thread::sleep(HUNG);
            field.hang(wrapper, false);
        }
        End::Stolen => field.steal(wrapper, &name),
    }
    let mut new = new.unwrap_or_else(|| start(port, &[]));
    let begun = maybe(LIMIT, || {
        let stamps = log.stamps();
        let found = stamps.iter().find(|stamp| !of_first(stamp))?;
        Some(found.at_ns)
    });
    let Some(begun) = begun else {
        drop(log);
        finish([&mut old, &mut new]);
        return Seen::NoEnd;
    };
    std::thread::sleep(LOOKED);
    let stamps = log.stamps();
    let last = stamps.iter().rfind(|stamp| of_first(stamp));
    let last = last.map_or(0, |stamp| stamp.at_ns);
    let gap_ms = ms_between(last, begun);
    // Without their log the workers end, and then whoever waits for them.
    drop(log);
    finish([&mut old, &mut new]);
    if gap_ms < -0.9 * LOOKED.as_secs_f64() * 1e3 {
        Seen::Beside { gap_ms }
    } else {
        Seen::HandedOver { gap_ms }
    }
}

/// Ends what has not ended with its worker.
fn finish(children: [&mut Child; 2]) {
    for child in children {
        if maybe(SOON, || child.try_wait().ok().flatten()).is_none() {
            let _result = child.kill();
            let _ended = child.wait();
        }
    }
}

/// From a change of the row by hand until the worker is dead.
fn row_taken(server: &Server) {
    let mut row = Samples::of("leasewrap");
    for _ in 0..RUNS {
        row.add_ms(taken_once(server));
    }
    table(
        "row taken by hand, until the old worker is dead",
        "ms",
        &[row],
    );
    println!("(aim: at most 20; of the other contenders none sees it)");
}

/// From an operator's command until the worker is dead, the command's own
/// start included.
fn told(server: &Server, command: &[&str], what: &str) {
    let mut row = Samples::of("leasewrap");
    for _ in 0..RUNS {
        let name = lease_name("told");
        let log = Log::new();
        let old = listening(server, &name, &log);
        let before = sys::boot_ns();
        let mut told = Command::new(binary());
        told.args(command)
            .args(["--db", &server.url(), "--name", &name]);
        told.stdin(Stdio::null()).stdout(Stdio::null());
        let mut told = told.stderr(Stdio::null()).spawn().expect("run it");
        let last = log.wait_silence(SOON).unwrap_or_else(sys::boot_ns);
        row.add_ms(ms_between(before, last).max(0.0));
        let _ended = told.wait();
        drop(old);
    }
    let title = format!("{what}, from the command until the old worker is dead");
    table(&title, "ms", &[row]);
    println!("(aim: within 200)");
}

fn taken_once(server: &Server) -> f64 {
    let name = lease_name("taken");
    let log = Log::new();
    let old = listening(server, &name, &log);
    let mut session = server.session("postgres");
    let take = format!(
        "update leasewrap.lease set holder = gen_random_uuid(), token = token + 1 \
         where name = '{name}';"
    );
    let before = sys::boot_ns();
    session.run(&take);
    let last = log.wait_silence(SOON).unwrap_or_else(sys::boot_ns);
    drop(old);
    ms_between(before, last).max(0.0)
}

/// A holder that hears of changes.
fn listening(server: &Server, name: &str, log: &Log) -> Leasewrap {
    let old = holder(&server.url(), name)
        .ttl("5s")
        .worker(&log.worker(&[]))
        .spawn();
    log.wait_newer(0, SOON);
    let listening = format!(
        "select count(*) from pg_stat_activity \
         where application_name like 'leasewrap {name}%' and query ilike 'listen%'"
    );
    until("it listens", SOON, || {
        (server.psql(&listening) != "0").then_some(())
    });
    old
}
