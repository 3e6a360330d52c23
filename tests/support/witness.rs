//! A worker that witnesses when it lived: every two milliseconds it appends
//! who it is and the boot time to a file that all workers of a test share.
//! From that file follows how long an old holder's workers outlived their
//! right (the overlap) and how long nobody worked (the gap). When the file is
//! deleted, its workers end: chains of forks could be caught by nothing else.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run::run;
use super::sys;
use super::wait::{maybe, until};

/// Bytes of one stamp: boot time, token, pid, generation.
const STAMP: usize = 24;

/// One sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// On the boot clock, read before the stamp was written.
    pub at_ns: u64,
    /// The fencing token of the worker's environment; 0 without one.
    pub token: i64,
    /// Who wrote it.
    pub pid: i32,
    /// 0 is the worker, others are descendants.
    pub generation: u32,
}

/// The file that workers stamp; dropping it ends them.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
}

/// What a log says about one change of holder.
#[derive(Debug, Clone, Copy)]
pub struct HandOver {
    /// From the new holder's first sign of life to the old one's last; not
    /// positive when they never lived at the same time.
    pub overlap_ms: f64,
    /// The old token.
    pub old: i64,
    /// The new one.
    pub new: i64,
}

impl HandOver {
    /// How long nobody worked.
    pub fn gap_ms(&self) -> f64 {
        (-self.overlap_ms).max(0.0)
    }
}

impl Log {
    /// A new, empty log that everybody may stamp.
    pub fn new() -> Self {
        let path = run().file("stamps");
        File::create(&path).expect("create the log");
        Self { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A worker's command line: the witness with this log and these options.
    pub fn worker(&self, options: &[&str]) -> Vec<String> {
        let program = run().program("witness").display().to_string();
        let log = self.path.display().to_string();
        [program, log]
            .into_iter()
            .chain(options.iter().map(|option| (*option).to_owned()))
            .collect()
    }

    /// All stamps so far, in the order of their boot times.
    pub fn stamps(&self) -> Vec<Stamp> {
        let bytes = fs::read(&self.path).expect("read the log");
        let mut stamps: Vec<Stamp> = bytes.chunks_exact(STAMP).map(Stamp::decode).collect();
        stamps.sort_by_key(|stamp| stamp.at_ns);
        stamps
    }

    /// The stamps that were added behind `offset`, in the order of writing;
    /// `offset` moves behind them.
    pub fn stamps_from(&self, offset: &mut u64) -> Vec<Stamp> {
        let mut file = File::open(&self.path).expect("open the log");
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(*offset)).expect("seek");
        file.read_to_end(&mut bytes).expect("read the log");
        let whole = bytes.len() - bytes.len() % STAMP;
        *offset += u64::try_from(whole).expect("a length");
        bytes.chunks_exact(STAMP).map(Stamp::decode).collect()
    }

    /// The first and last stamp of each token, in the order of the tokens.
    pub fn spans(&self) -> Vec<(i64, Stamp, Stamp)> {
        let mut spans = std::collections::BTreeMap::new();
        for stamp in self.stamps() {
            spans.entry(stamp.token).or_insert((stamp, stamp)).1 = stamp;
        }
        spans
            .into_iter()
            .map(|(token, (first, last))| (token, first, last))
            .collect()
    }

    /// The changes of holder. An overlap counts against every earlier token,
    /// not the one before alone.
    pub fn hand_overs(&self) -> Vec<HandOver> {
        let spans = self.spans();
        let mut found = Vec::new();
        for (i, (new, first, _)) in spans.iter().enumerate().skip(1) {
            let (old, last) = spans[..i]
                .iter()
                .map(|(old, _, last)| (*old, last.at_ns))
                .max_by_key(|(_, last)| *last)
                .expect("there is an earlier one");
            found.push(HandOver {
                overlap_ms: ms_between(first.at_ns, last),
                old,
                new: *new,
            });
        }
        found
    }

    /// Waits for the first stamp of a token larger than `token`; which it is.
    #[track_caller]
    pub fn wait_newer(&self, token: i64, limit: Duration) -> i64 {
        let what = format!("a worker with a token above {token}");
        until(&what, limit, || {
            self.spans()
                .into_iter()
                .map(|(newer, _, _)| newer)
                .find(|newer| *newer > token)
        })
    }

    /// Waits for `count` different processes to have stamped under `token`.
    #[track_caller]
    pub fn wait_processes(&self, token: i64, count: usize, limit: Duration) {
        let what = format!("{count} processes with token {token}");
        until(&what, limit, || {
            (self.processes(token).len() >= count).then_some(())
        });
    }

    /// The processes that have stamped under `token`.
    pub fn processes(&self, token: i64) -> Vec<i32> {
        let stamps = self.stamps();
        let mut pids: Vec<i32> = stamps
            .iter()
            .filter(|s| s.token == token)
            .map(|s| s.pid)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Waits until nobody has stamped for 50 ms, twenty-five times the
    /// period; the boot time of the last stamp. `None` when somebody still does.
    pub fn wait_silence(&self, limit: Duration) -> Option<u64> {
        maybe(limit, || {
            // Read before: time that passes while we look is no silence.
            let now = sys::boot_ns();
            let last = self.stamps().last()?.at_ns;
            (ms_between(last, now) > 50.0).then_some(last)
        })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _result = fs::remove_file(&self.path);
    }
}

/// From `earlier` to `later`, negative when they are the other way round.
pub fn ms_between(earlier: u64, later: u64) -> f64 {
    let (from, to) = (i128::from(earlier), i128::from(later));
    (to - from) as f64 / 1e6
}

impl Stamp {
    fn decode(bytes: &[u8]) -> Self {
        let field = |at: usize| bytes[at..at + 8].try_into().expect("eight bytes");
        let both = u64::from_le_bytes(field(16));
        Self {
            at_ns: u64::from_le_bytes(field(0)),
            token: i64::from_le_bytes(field(8)),
            pid: i32::try_from(both & 0xffff_ffff).expect("a pid"),
            generation: u32::try_from(both >> 32).expect("a generation"),
        }
    }

    fn encode(self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        let both = u64::from(self.pid.unsigned_abs()) | u64::from(self.generation) << 32;
        bytes[..8].copy_from_slice(&self.at_ns.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.token.to_le_bytes());
        bytes[16..].copy_from_slice(&both.to_le_bytes());
        bytes
    }
}

/// The options of the program.
#[derive(Debug, Clone, Default)]
struct Plan {
    children: u32,
    daemon: bool,
    chains: u32,
    ignore: Vec<i32>,
    report: bool,
    leader_gone: bool,
    exit_after: Option<Duration>,
    exit_code: i32,
    every: Option<Duration>,
}

impl Plan {
    fn every(&self) -> Duration {
        self.every.unwrap_or(Duration::from_millis(2))
    }
}

/// The program `witness LOG [OPTION…]`: stamps until it is killed.
///
/// `children=N` forks N children that stamp; `daemon` forks one that leaves
/// for a session of its own; `chains=N` forks N processes that stamp once,
/// fork the next and end; `ignore=SIGNAL` ignores that number; `report`
/// catches every signal that can be caught and writes `signal N` lines to
/// stdout; `leader-gone` ends the first thread while another one stamps;
/// `exit-after=MS` ends the worker itself, with `exit-code=N`; `every=MS`
/// stamps at this period.
pub fn main(args: &[String]) -> i32 {
    let Some((log, options)) = args.split_first() else {
        return 2;
    };
    let mut plan = Plan::default();
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option, "0"));
        let Ok(number) = value.parse::<u32>() else {
            return 2;
        };
        let signed = i32::try_from(number).unwrap_or(0);
        match name {
            "children" => plan.children = number,
            "daemon" => plan.daemon = true,
            "chains" => plan.chains = number,
            "ignore" => plan.ignore.push(signed),
            "report" => plan.report = true,
            "leader-gone" => plan.leader_gone = true,
            "exit-after" => plan.exit_after = Some(Duration::from_millis(number.into())),
            "exit-code" => plan.exit_code = signed,
            "every" => plan.every = Some(Duration::from_millis(number.into())),
            _ => return 2,
        }
    }
    match File::options().append(true).open(log) {
        Ok(log) => perform(&log, &plan),
        Err(_) => 2,
    }
}

fn perform(log: &File, plan: &Plan) -> i32 {
    plan.ignore.iter().for_each(|signal| sys::ignore(*signal));
    if plan.report {
        sys::report(1);
    }
    if plan.leader_gone {
        let log = log.try_clone().expect("share the log");
        let every = plan.every();
        std::thread::spawn(move || stamp_for(&log, 4, None, every));
        sys::end_thread();
    }
    for _ in 0..plan.children {
        if sys::fork() == 0 {
            stamp_for(log, 1, None, plan.every());
        }
    }
    if plan.daemon && sys::fork() == 0 {
        // The child in between ends, so that the daemon is an orphan.
        let _session = nix::unistd::setsid();
        if sys::fork() == 0 {
            stamp_for(log, 2, None, plan.every());
        }
        sys::exit_now(0);
    }
    for _ in 0..plan.chains {
        if sys::fork() == 0 {
            chain(log);
        }
    }
    stamp_for(log, 0, plan.exit_after, plan.every());
    plan.exit_code
}

/// Stamps again and again, for ever or for a time, at least once.
fn stamp_for(log: &File, generation: u32, time: Option<Duration>, every: Duration) {
    let end = time.map(|time| sys::boot_ns() + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    loop {
        stamp(log, generation);
        std::thread::sleep(every);
        if end.is_some_and(|end| sys::boot_ns() >= end) {
            return;
        }
    }
}

/// Flees from pid to pid.
fn chain(log: &File) {
    loop {
        stamp(log, 3);
        std::thread::sleep(Duration::from_millis(2));
        if sys::fork() != 0 {
            sys::exit_now(0);
        }
    }
}

fn stamp(mut log: &File, generation: u32) {
    if log.metadata().map_or(0, |file| file.nlink()) == 0 {
        sys::exit_now(0);
    }
    static TOKEN: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    let token = TOKEN.get_or_init(|| {
        std::env::var("LEASEWRAP_TOKEN")
            .ok()
            .and_then(|token| token.parse().ok())
            .unwrap_or(0)
    });
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    let stamp = Stamp {
        at_ns: sys::boot_ns(),
        token: *token,
        pid,
        generation,
    };
    // One write with O_APPEND is one piece, whoever else writes.
    let _result = log.write(&stamp.encode());
}
