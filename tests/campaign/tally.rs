//! Counting what happened, and saying it past the capturing of the test runner.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::faults::Fault;

/// Writes a line that the test runner does not hold back.
pub fn say(line: &str) {
    let _result = std::io::stderr().write_all(format!("campaign {line}\n").as_bytes());
}

/// What has happened so far.
pub struct Tally {
    seed: u64,
    begun: Instant,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    faults: BTreeMap<Fault, usize>,
    hand_overs: Vec<f64>,
    slowest: (Duration, String),
}

impl Tally {
    /// Nothing so far.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            begun: Instant::now(),
            counted: Mutex::default(),
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These faults were caused.
    pub fn count(&self, faults: impl Iterator<Item = Fault>) {
        let mut counted = self.counted();
        faults.for_each(|fault| *counted.faults.entry(fault).or_default() += 1);
    }

    /// The overlaps of a world's hand-overs.
    pub fn hand_overs(&self, overlaps: &[f64]) {
        self.counted().hand_overs.extend(overlaps);
    }

    /// So long after all was mended everybody lived again.
    pub fn recovered(&self, took: Duration, round: impl FnOnce() -> String) {
        let mut counted = self.counted();
        if took > counted.slowest.0 {
            counted.slowest = (took, round());
        }
    }

    /// One line.
    pub fn report(&self, done: usize) {
        let mut gaps = self.counted().hand_overs.clone();
        gaps.sort_by(|one, other| other.total_cmp(one));
        let gap = |share: f64| {
            let at = ((gaps.len() as f64 - 1.0) * share) as usize;
            gaps.get(at).map_or(0.0, |overlap| -overlap)
        };
        say(&format!(
            "seed={} faults={done} hand_overs={} overlap_ms={:.1} gap_ms={:.0} (median) {:.0} (99th of 100) seconds={}",
            self.seed,
            gaps.len(),
            gaps.first().copied().unwrap_or(f64::NAN),
            gap(0.5),
            gap(0.99),
            self.begun.elapsed().as_secs()
        ));
    }

    /// How often each fault was caused, and after which it took longest.
    pub fn kinds(&self) {
        let counted = self.counted();
        let (took, round) = &counted.slowest;
        say(&format!(
            "slowest recovery: {} ms, {round}",
            took.as_millis()
        ));
        let all = counted.faults.iter();
        let all: Vec<String> = all
            .map(|(fault, count)| format!("{}={count}", fault.name()))
            .collect();
        say(&all.join(" "));
    }
}
