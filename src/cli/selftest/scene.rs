//! One lease, a holder, a standby, and what their workers witness.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::contender::{Contender, Database, Start};
use super::judge::{HandOver, Stamp, hand_over};
use super::{Bench, START_LIMIT, Trouble, witness};
use crate::store::selftest::TestLease;
use crate::sys::clock;
use crate::sys::memfd::SharedLog;

/// How often the witnesses' log is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A new worker has to have lived for this long: an old one that is still
/// there would have stamped many times.
const WORKED: Duration = Duration::from_millis(150);

/// From the stop signal to SIGKILL where the worker ignores it.
pub const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// What the witnesses of one lease have written.
pub struct Stamps {
    file: SharedLog,
    read: u64,
    all: Vec<Stamp>,
}

impl Stamps {
    fn new() -> Result<Self, Trouble> {
        Ok(Self {
            file: SharedLog::create().map_err(Trouble::Sys)?,
            read: 0,
            all: Vec::new(),
        })
    }

    /// All so far.
    pub fn all(&mut self) -> Result<&[Stamp], Trouble> {
        let new = self.file.read_from(self.read).map_err(Trouble::Sys)?;
        let (whole, _) = new.as_chunks::<{ Stamp::BYTES }>();
        self.all.extend(whole.iter().map(Stamp::decode));
        self.read += (whole.len() * Stamp::BYTES) as u64;
        Ok(&self.all)
    }
}

/// A lease under a fault.
pub struct Scene<'a> {
    /// What all share.
    pub bench: &'a Bench,
    /// The lease.
    pub lease: &'a TestLease,
    stamps: Stamps,
}

impl<'a> Scene<'a> {
    /// Nobody has it yet.
    pub fn new(bench: &'a Bench, lease: &'a TestLease) -> Result<Self, Trouble> {
        let stamps = Stamps::new()?;
        Ok(Self {
            bench,
            lease,
            stamps,
        })
    }

    /// Starts a leasewrap whose worker is a witness with these words.
    fn start(
        &self,
        database: &Database,
        label: &str,
        wait: Duration,
        worker: &[&str],
    ) -> Result<Contender, Trouble> {
        Contender::start(Start {
            database,
            lease: self.lease,
            ttl: self.bench.ttl,
            wait,
            label,
            stop_timeout: STOP_TIMEOUT,
            stamps: &self.stamps.file,
            worker,
        })
    }

    /// Starts a holder; back when its worker, and its daemon, have stamped.
    pub async fn hold(
        &mut self,
        database: &Database,
        worker: &[&str],
    ) -> Result<(Contender, i64), Trouble> {
        let mut holder = self.start(database, "selftest: holder", START_LIMIT, worker)?;
        let wanted = 1 + usize::from(worker.contains(&witness::DAEMON));
        let limit = clock::now() + START_LIMIT;
        let mut look = ticks();
        loop {
            let stamps = self.stamps.all()?;
            let pids: BTreeSet<u32> = stamps.iter().map(|stamp| stamp.pid).collect();
            if let Some(first) = stamps.first()
                && pids.len() >= wanted
            {
                let token = first.token;
                return Ok((holder, token));
            }
            if clock::now() >= limit || holder.has_ended() {
                return Err(holder.not_seen("its worker at work"));
            }
            look.tick().await;
        }
    }

    /// Starts a standby; back when it has seen the holder's row, from when on
    /// it watches.
    pub async fn stand_by(&self) -> Result<Contender, Trouble> {
        let wait = START_LIMIT + self.bench.take_over_limit();
        let standby = self.start(&self.bench.database, "selftest: standby", wait, &[])?;
        let right = |line: &serde_json::Value| {
            line["event"] == "waiting"
                && ["held", "watching"]
                    .iter()
                    .any(|why| line["reason"] == *why)
        };
        standby
            .event("a standby that waits", START_LIMIT, right)
            .await?;
        Ok(standby)
    }

    /// Waits until a worker with another token has worked for a while.
    pub async fn handed_over(
        &mut self,
        standby: &mut Contender,
        limit: Duration,
    ) -> Result<HandOver, Trouble> {
        let limit = clock::now() + limit;
        let mut look = ticks();
        loop {
            let stamps = self.stamps.all()?;
            let newest = stamps.iter().map(|stamp| stamp.token).max();
            let of_newest = || stamps.iter().filter(|stamp| Some(stamp.token) == newest);
            let (first, last) = (
                of_newest().map(|stamp| stamp.at).min(),
                of_newest().map(|stamp| stamp.at).max(),
            );
            if let (Some(first), Some(last)) = (first, last)
                && last.saturating_since(first) >= WORKED
                && let Some(seen) = hand_over(stamps)
            {
                return Ok(seen);
            }
            if clock::now() >= limit || standby.has_ended() {
                return Err(standby.not_seen("the standby's worker at work"));
            }
            look.tick().await;
        }
    }

    /// What the log says in the end: everybody has had time to show itself.
    pub fn judged(&mut self) -> Result<Option<HandOver>, Trouble> {
        Ok(hand_over(self.stamps.all()?))
    }

    /// The last sign of life of the worker with `token`.
    pub fn last_of(&mut self, token: i64) -> Result<Option<Stamp>, Trouble> {
        let stamps = self.stamps.all()?;
        let last = stamps.iter().filter(|stamp| stamp.token == token);
        Ok(last.max_by_key(|stamp| stamp.at).copied())
    }
}

/// Looks that do not pile up when this process was kept waiting.
pub fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
