//! A world: a database, some leases and their contenders, and what happens
//! to them round by round.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::Backend;
use crate::contender::{Contender, Place};
use crate::faults::Reach;
use crate::judge::{Judge, Wrong};
use crate::plan::{Round, Spec, Strike};
use crate::strike::Wounds;
use crate::support::leasewrap::{lease_name, leasewrap};
use crate::support::run::run;
use crate::support::sys;
use crate::support::wait::{SOON, maybe};
use crate::support::witness::Log;

/// Somebody works when the last sign of life is no older.
const RECENT_MS: f64 = 250.0;
/// Beside the times that the rules ask for: what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked while something is waited for.
const LOOK: Duration = Duration::from_millis(25);

/// A lease with its contenders.
pub struct Lease {
    /// Its name.
    pub name: String,
    /// Who wants it.
    pub contenders: Vec<Contender>,
    logs: Vec<(Log, u64)>,
    terms: PathBuf,
    terms_read: usize,
    /// What the workers witnessed.
    pub judge: Judge,
}

impl Lease {
    fn start(spec: &Spec, backend: &Backend) -> Self {
        let logs: Vec<(Log, u64)> = (0..spec.slots).map(|_| (Log::new(), 0)).collect();
        let terms = run().file("terms");
        fs::write(&terms, "").expect("create the terms");
        let place = Place {
            name: lease_name("campaign"),
            logs: logs.iter().map(|(log, _)| log.path().to_owned()).collect(),
            terms: terms.clone(),
        };
        let (url, port) = (backend.file_url(), backend.port());
        let shapes = spec.contenders.iter();
        Self {
            contenders: shapes
                .map(|s| Contender::start(spec, s, &place, &url, port))
                .collect(),
            name: place.name,
            logs,
            terms,
            terms_read: 0,
            judge: Judge::new(spec.slots),
        }
    }

    /// Who holds a slot.
    pub fn holder(&self, slot: usize) -> Option<&Contender> {
        self.contenders
            .iter()
            .find(|contender| contender.slot() == Some(slot))
    }

    /// Somebody who holds nothing.
    pub fn standby(&self) -> Option<&Contender> {
        self.contenders
            .iter()
            .find(|contender| contender.worker_pid().is_none())
    }

    /// Tells the judge what is new.
    fn look(&mut self) -> Vec<Wrong> {
        for (slot, (log, offset)) in self.logs.iter_mut().enumerate() {
            self.judge.stamps(slot, &log.stamps_from(offset));
        }
        let terms = fs::read_to_string(&self.terms).expect("read the terms");
        let whole = terms.rfind('\n').map_or(0, |end| end + 1);
        for line in terms[self.terms_read..whole].lines() {
            if let Some((token, term)) = line.split_once(' ') {
                self.judge.term(token.parse().unwrap_or(0), term);
            }
        }
        self.terms_read = whole;
        self.judge.wrongs()
    }
}

/// A world.
pub struct World {
    spec: Spec,
    leases: Vec<Lease>,
    backend: Backend,
}

impl World {
    /// Starts it; back when every lease has its workers.
    pub fn start(spec: &Spec) -> Result<Self, String> {
        let backend = Backend::new(spec.setup);
        let leases = (0..spec.leases)
            .map(|_| Lease::start(spec, &backend))
            .collect();
        let mut world = Self {
            spec: spec.clone(),
            leases,
            backend,
        };
        world.recover(&Wounds::default())?;
        Ok(world)
    }

    /// Causes a round's faults, mends them, and waits until all live again;
    /// how long that took. `Err` says what was seen that must never be.
    pub fn live_through(&mut self, round: &Round) -> Result<Duration, String> {
        if round.strikes.iter().any(|strike| strike.fault.forgets()) {
            self.wait_until_all_have_seen_the_row();
        }
        let mut wounds = Wounds::default();
        let struck = sys::boot_ns();
        // What all share comes last: the rows are hit while the server answers.
        let (all, own): (Vec<&Strike>, Vec<&Strike>) = round
            .strikes
            .iter()
            .partition(|strike| strike.fault.reach() == Reach::World);
        for strike in own {
            if let Some(lease) = strike.lease {
                wounds.strike(&self.leases[lease], &self.backend, strike);
            }
        }
        for strike in all {
            wounds.strike_all(&mut self.backend, strike);
        }
        std::thread::sleep(Duration::from_millis(round.dwell_ms));
        if round.strikes.iter().any(|strike| strike.fault.forgets()) {
            self.wait_until_one_that_knows_has_taken_it(struck);
        }
        wounds.mend(&self.leases, &mut self.backend);
        let mended = sys::boot_ns();
        self.recover(&wounds)?;
        let took = Duration::from_nanos(sys::boot_ns() - mended);
        self.backend.rebuild();
        Ok(took)
    }

    fn wait_until_all_have_seen_the_row(&mut self) {
        let _in_time = maybe(SOON, || {
            let mut all = self
                .leases
                .iter_mut()
                .flat_map(|lease| &mut lease.contenders);
            all.all(|one| one.is_whole() && one.has_seen_the_row())
                .then_some(())
        });
    }

    /// Whoever starts anew after a row has vanished knows nothing of it, and
    /// of no token: those that have seen it come first.
    fn wait_until_one_that_knows_has_taken_it(&mut self, struck: u64) {
        let _in_time = maybe(PATIENCE, || {
            std::thread::sleep(LOOK);
            self.leases.iter_mut().for_each(|lease| _ = lease.look());
            let now = sys::boot_ns();
            let works = |lease: &Lease| lease.judge.dead(struck, now, RECENT_MS).is_empty();
            self.leases.iter().all(works).then_some(())
        });
    }

    fn look(&mut self) -> Result<(), String> {
        let wrongs: Vec<Wrong> = self.leases.iter_mut().flat_map(Lease::look).collect();
        self.right(&wrongs)
    }

    fn right(&self, wrongs: &[Wrong]) -> Result<(), String> {
        if wrongs.is_empty() {
            return Ok(());
        }
        let wrongs: Vec<String> = wrongs.iter().map(Wrong::to_string).collect();
        let all = self.leases.iter().flat_map(|lease| &lease.contenders);
        let logs: String = all.map(Contender::tail).collect();
        Err(format!("{}\nends of the logs:\n{logs}", wrongs.join("\n")))
    }

    /// Waits until somebody works for every lease and nothing is left of what was hit.
    fn recover(&mut self, wounds: &Wounds) -> Result<(), String> {
        let mended = sys::boot_ns();
        // Watching for twice 1.1 ttl, and a pause of a standby of up to one.
        let limit = Duration::from_millis(self.spec.ttl_ms * 4) + PATIENCE;
        loop {
            self.look()?;
            let now = sys::boot_ns();
            let over = now - mended > u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
            let mut whole = wounds.all_dead();
            for contender in self
                .leases
                .iter_mut()
                .flat_map(|lease| &mut lease.contenders)
            {
                contender.start_what_has_ended();
                whole &= contender.is_whole();
            }
            let dead = |lease: &Lease| lease.judge.dead(mended, now, RECENT_MS);
            let dead: Vec<Wrong> = self.leases.iter().flat_map(dead).collect();
            if whole && dead.is_empty() {
                return Ok(());
            }
            if over {
                self.right(&dead)?;
                let all = self
                    .leases
                    .iter_mut()
                    .flat_map(|lease| &mut lease.contenders);
                let left: String = all.map(Contender::why_not_whole).collect();
                let hit = &wounds.fatal;
                return Err(format!(
                    "not whole after {limit:?}, {hit:?} were hit:\n{left}"
                ));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Ends all contenders: nobody works, and every lease is free.
    pub fn end(mut self) -> Result<Vec<f64>, String> {
        let mut all: Vec<_> = self
            .leases
            .iter_mut()
            .flat_map(|lease| &mut lease.contenders)
            .collect();
        all.iter().for_each(|contender| contender.stop());
        let stopped = maybe(PATIENCE, || {
            all.iter_mut().all(|c| c.has_stopped()).then_some(())
        });
        if stopped.is_none() {
            let tails: String = all.iter().map(|contender| contender.tail()).collect();
            return Err(format!("some have not ended after TERM:\n{tails}"));
        }
        self.look()?;
        let url = match self.backend.port() {
            Some(port) => format!("postgres://postgres@127.0.0.1:{port}/postgres"),
            None => self.backend.file_url(),
        };
        for lease in &self.leases {
            let ask = || {
                let status = leasewrap().text().switch("status").option("--db", &url);
                let status = status.option("--name", &lease.name);
                status.option("--output", "json").run()
            };
            // A pooler does not try a server again at once that was away.
            let answered = maybe(SOON, || Some(ask()).filter(|status| status.code != 123));
            let status = answered.unwrap_or_else(ask);
            if status.code != 1 || !status.out.contains("\"free\"") {
                return Err(format!("the lease is not free at the end: {status:?}"));
            }
        }
        Ok(self
            .leases
            .iter()
            .flat_map(|lease| lease.judge.overlaps())
            .collect())
    }
}
