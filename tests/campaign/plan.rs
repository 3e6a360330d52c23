//! What happens, all of it from the seed: which worlds, which faults, when.
//! Processes and servers keep their own time, so that a seed repeats the
//! faults and not each interleaving; it mostly fails again all the same.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::faults::{ALL, Fault, Reach, left_out};

/// What the database of a world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// One server.
    Plain,
    /// One server whose wall clock can be stepped.
    Clock,
    /// A primary and a streaming replica; a new one after each fail-over.
    Pair,
    /// A server behind PgBouncer in transaction pooling mode.
    Pooled,
    /// A server whose log lies on a small file system (root alone).
    SmallDisk,
    /// An SQLite file.
    File,
}

/// All of them; the first ones make up a short campaign.
const SETUPS: [Setup; 6] = [
    Setup::Plain,
    Setup::Pair,
    Setup::Clock,
    Setup::Pooled,
    Setup::SmallDisk,
    Setup::File,
];

/// What the machine allows.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    /// Network namespaces, mounts, memory cgroups.
    pub root: bool,
    /// PID namespaces.
    pub namespaces: bool,
}

/// One contender of a lease.
#[derive(Debug, Clone)]
pub struct Shape {
    /// `serve` and `attach` in place of one leasewrap.
    pub pod: bool,
    /// `--pid-namespace`.
    pub contained: bool,
    /// `--rejoin`.
    pub rejoin: bool,
    /// In a network namespace with an address of its own.
    pub own_network: bool,
    /// The options of its worker.
    pub worker: &'static [&'static str],
}

/// What workers do beside stamping.
const WORKERS: [&[&str]; 4] = [
    &[],
    &["children=1", "ignore=15"],
    &["daemon", "ignore=15", "ignore=1"],
    &["children=1", "daemon"],
];

/// A world: a database, some leases with the same contenders each.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its database.
    pub setup: Setup,
    /// Leases side by side.
    pub leases: usize,
    /// `--slots`.
    pub slots: usize,
    /// `--ttl`, in ms.
    pub ttl_ms: u64,
    /// The contenders of each lease.
    pub contenders: Vec<Shape>,
}

/// One fault on one lease, or on all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strike {
    /// Which lease; none for what all share.
    pub lease: Option<usize>,
    /// The fault.
    pub fault: Fault,
    /// Which slot's holder, where it is a holder that is hit.
    pub slot: usize,
    /// A number for what else is to be chosen.
    pub pick: u64,
}

/// Faults at the same time, and for how long they last.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// The faults.
    pub strikes: Vec<Strike>,
    /// How long until all is mended, in ms.
    pub dwell_ms: u64,
}

impl fmt::Display for Round {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for strike in &self.strikes {
            match strike.lease {
                Some(lease) => write!(out, "lease {lease}/{}: ", strike.slot)?,
                None => write!(out, "all: ")?,
            }
            write!(out, "{}; ", strike.fault.name())?;
        }
        write!(out, "for {} ms", self.dwell_ms)
    }
}

/// One world's plan: an endless row of rounds.
pub struct Plan {
    /// The world.
    pub spec: Spec,
    random: StdRng,
}

impl Plan {
    /// The plan of one world of a campaign.
    pub fn new(seed: u64, world: u32, means: Means) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ u64::from(world).rotate_left(32));
        // Every kind of database in turn; its options by the seed.
        let setups = SETUPS
            .iter()
            .filter(|s| means.root || **s != Setup::SmallDisk);
        let setups: Vec<Setup> = setups.copied().collect();
        let setup = setups[usize::try_from(world).unwrap_or(0) % setups.len()];
        let slots = if random.random_bool(0.25) { 2 } else { 1 };
        let rejoin = random.random_bool(0.3);
        let contained = means.namespaces && random.random_bool(0.4);
        let file = setup == Setup::File;
        let contenders = (0..slots + 1)
            .map(|_| Shape {
                pod: !rejoin && !file && random.random_bool(0.2),
                contained,
                rejoin,
                own_network: means.root && !file && random.random_bool(0.3),
                worker: WORKERS.choose(&mut random).copied().unwrap_or_default(),
            })
            .collect();
        let spec = Spec {
            setup,
            leases: 2,
            slots,
            ttl_ms: random.random_range(2_500..=3_500),
            contenders,
        };
        Self { spec, random }
    }

    fn one_of(&mut self, reaches: &[Reach]) -> Option<Fault> {
        let fit = |fault: &&Fault| reaches.contains(&fault.reach()) && fault.fits(&self.spec);
        let mut fitting: Vec<Fault> = ALL.iter().filter(fit).copied().collect();
        if fitting.iter().any(|fault| fault.is_of_one_setup()) && self.random.random_bool(0.5) {
            fitting.retain(|fault| fault.is_of_one_setup());
        }
        fitting.choose(&mut self.random).copied()
    }

    fn strike(&mut self, lease: Option<usize>, fault: Fault) -> Strike {
        Strike {
            lease,
            fault,
            slot: self.random.random_range(0..self.spec.slots),
            pick: self.random.random(),
        }
    }

    /// The next round.
    pub fn round(&mut self) -> Round {
        let ttl = self.spec.ttl_ms;
        let mut strikes = Vec::new();
        let of_all = self.random.random_bool(0.3);
        let shared = of_all.then(|| self.one_of(&[Reach::World])).flatten();
        let shared = shared.filter(|fault| left_out(&self.spec, &[*fault]).is_none());
        strikes.extend(shared.map(|fault| self.strike(None, fault)));
        for lease in 0..self.spec.leases {
            let mut faults: Vec<Fault> = shared.into_iter().collect();
            // Beside a fault of all, and beside each other, only sometimes.
            let wanted = [
                (
                    if of_all { 0.3 } else { 1.0 },
                    &[Reach::Process, Reach::Line, Reach::Row][..],
                ),
                (0.25, &[Reach::Process][..]),
            ];
            for (share, reaches) in wanted {
                if !self.random.random_bool(share) {
                    continue;
                }
                let Some(fault) = self.one_of(reaches) else {
                    continue;
                };
                faults.push(fault);
                if left_out(&self.spec, &faults).is_some() {
                    faults.pop();
                    continue;
                }
                strikes.push(self.strike(Some(lease), fault));
            }
        }
        let long = self.random.random_bool(0.4);
        let forgets = strikes.iter().any(|strike| strike.fault.forgets());
        let dwell_ms = match (forgets, long) {
            // All must have seen it before anybody starts anew.
            (true, _) => ttl * 3 / 2,
            (false, true) => self.random.random_range(ttl..=ttl * 8 / 5),
            (false, false) => self.random.random_range(20..=ttl * 2 / 5),
        };
        Round { strikes, dwell_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEANS: Means = Means {
        root: true,
        namespaces: true,
    };

    fn rounds(seed: u64, world: u32) -> (Spec, Vec<Round>) {
        let mut plan = Plan::new(seed, world, MEANS);
        let rounds = (0..200).map(|_| plan.round()).collect();
        (plan.spec, rounds)
    }

    #[test]
    fn a_seed_repeats_its_faults() {
        assert_eq!(rounds(7, 3).1, rounds(7, 3).1);
        assert_ne!(rounds(7, 3).1, rounds(8, 3).1);
        assert_ne!(rounds(7, 3).1, rounds(7, 9).1);
    }

    #[test]
    fn nothing_that_is_not_promised_is_planned() {
        for world in 0..60 {
            let (spec, rounds) = rounds(1, world);
            for round in rounds {
                for lease in 0..spec.leases {
                    let here = |s: &&Strike| s.lease.is_none_or(|its| its == lease);
                    let faults: Vec<Fault> =
                        round.strikes.iter().filter(here).map(|s| s.fault).collect();
                    assert_eq!(left_out(&spec, &faults), None, "{round}");
                    assert!(faults.iter().all(|fault| fault.fits(&spec)), "{round}");
                }
            }
        }
    }

    #[test]
    fn every_fault_comes_up() {
        let mut seen = std::collections::BTreeSet::new();
        for world in 0..120 {
            let strikes = rounds(1, world)
                .1
                .into_iter()
                .flat_map(|round| round.strikes);
            seen.extend(strikes.map(|strike| strike.fault));
        }
        let missing: Vec<&Fault> = ALL.iter().filter(|fault| !seen.contains(fault)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
