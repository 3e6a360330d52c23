//! Which state of which machine has met which event: noted where a world
//! hands an event to the real machine. Every pair but a rare one is driven, or is
//! named as one that cannot be, with the reason; what is named must not turn up either.

pub mod attach;
pub mod guard;
pub mod keeper;
pub mod watch;

use std::fmt::{self, Debug, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::check::check;
use crate::pod;
use crate::scenarios::{calls_failing, losing_rows, processes_killed, standing_still};
use crate::simulation;
use crate::world::Setup;

/// So many worlds are drawn in the test command.
const WORLDS: u64 = 2500;

/// Names of events, in groups: some belong to more than one table.
type Events = &'static [&'static [&'static str]];

/// One machine: its states, its events, and what cannot be.
pub struct Table {
    pub machine: &'static str,
    pub states: &'static [&'static str],
    pub events: Events,
    pub impossible: &'static [Impossible],
}

/// These events in these states (in all of them where none is named).
pub struct Impossible {
    pub states: &'static [&'static str],
    pub events: Events,
    pub why: &'static str,
}

/// Machine, state and event of pairs that come up in hardly any world. These: a
/// standby is told to end while its precheck runs, and settles an earlier
/// attempt first. (Otherwise none is made before the precheck has answered.)
const RARE: [(&str, &str, &str); 2] = [
    ("keeper", "Acquiring", "fit"),
    ("keeper", "Acquiring", "not fit"),
];

const TABLES: [&Table; 5] = [
    &keeper::TABLE,
    &guard::TABLE,
    &watch::TABLE,
    &watch::CONCLUSIONS,
    &attach::TABLE,
];

/// How often each pair was driven.
pub struct Pairs(Vec<Vec<AtomicU64>>);

impl Default for Pairs {
    fn default() -> Self {
        let cells = |table: &&Table| table.states.len() * table.events().count();
        let zeros = |cells| (0..cells).map(|_| AtomicU64::new(0)).collect();
        Self(TABLES.iter().map(cells).map(zeros).collect())
    }
}

impl Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl Pairs {
    pub fn note(&self, table: &Table, state: &str, event: &str) {
        self.cell(table, state, event)
            .fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, table: &Table, state: &str, event: &str) -> u64 {
        self.cell(table, state, event).load(Ordering::Relaxed)
    }

    fn cell(&self, table: &Table, state: &str, event: &str) -> &AtomicU64 {
        let unknown = |name| -> ! { panic!("{}: {name} is in no table", table.machine) };
        let row = table.states.iter().position(|known| *known == state);
        let row = row.unwrap_or_else(|| unknown(state));
        let column = table.events().position(|known| known == event);
        let column = column.unwrap_or_else(|| unknown(event));
        let is = |other: &&Table| other.machine == table.machine;
        let counts = TABLES.iter().position(is).map(|index| &self.0[index]);
        &counts.expect("one of the tables")[row * table.events().count() + column]
    }

    fn total(&self) -> u64 {
        let cells = self.0.iter().flatten();
        cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}

impl Table {
    fn events(&self) -> impl Iterator<Item = &'static str> {
        self.events.iter().copied().flatten().copied()
    }

    fn impossible(&self, state: &str, event: &str) -> Option<usize> {
        self.impossible.iter().position(|not| {
            (not.states.is_empty() || not.states.contains(&state))
                && not.events.iter().any(|group| group.contains(&event))
        })
    }

    /// Prints it; returns what should not be so.
    fn show(&self, pairs: &Pairs) -> Vec<String> {
        let (mut wrong, mut driven, mut named) = (Vec::new(), 0, 0);
        let mut text = format!("\n{:<28}", self.machine);
        for state in self.states {
            let _ = write!(text, "{state:>11}");
        }
        for event in self.events() {
            let _ = write!(text, "\n  {event:<26}");
            for state in self.states {
                let count = pairs.count(self, state, event);
                let cell = match self.impossible(state, event) {
                    Some(why) => {
                        named += 1;
                        format!("({})", letter(why))
                    }
                    None => {
                        driven += 1;
                        count.to_string()
                    }
                };
                let _ = write!(text, "{cell:>11}");
                let is_rare = RARE.contains(&(self.machine, state, event));
                if !is_rare && self.impossible(state, event).is_some() != (count == 0) {
                    wrong.push(format!("{}: {state} × {event}: {count}", self.machine));
                }
            }
        }
        println!("{text}\n  {driven} pairs driven, {named} that cannot be:");
        for (index, not) in self.impossible.iter().enumerate() {
            println!("  ({}) {}", letter(index), not.why);
        }
        wrong
    }
}

fn letter(index: usize) -> char {
    char::from(b'a' + u8::try_from(index).expect("few reasons"))
}

/// The first name in what a machine shows of itself: `Idle` of
/// `Guard { phase: Idle, …`. Some tell their state to nobody else, and all
/// that comes behind it is not even made.
pub fn first_name(machine: &impl Debug) -> String {
    struct Beginning(String);
    impl fmt::Write for Beginning {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            self.0.push_str(more);
            // Enough for the longest.
            if self.0.len() < 40 {
                Ok(())
            } else {
                Err(fmt::Error)
            }
        }
    }
    let mut beginning = Beginning(String::new());
    let _cut_off = write!(beginning, "{machine:?}");
    let rest = beginning.0.split_once(": ").map_or("", |(_, rest)| rest);
    let end = rest.find(|c: char| !c.is_alphanumeric());
    rest[..end.unwrap_or(rest.len())].to_owned()
}

/// What the checker tries here; its other worlds are tests of their own.
fn tried(driven: &Arc<Pairs>) {
    for setup in [
        calls_failing(2),
        processes_killed(2),
        standing_still(1),
        losing_rows(),
    ] {
        let verdict = check(Setup {
            driven: Arc::clone(driven),
            ..setup
        });
        assert_eq!(verdict.violation, None);
    }
}

/// `LEASEWRAP_SIMULATIONS` draws more, or fewer.
#[test]
fn every_event_in_every_state() {
    let worlds = std::env::var("LEASEWRAP_SIMULATIONS").ok();
    let worlds = worlds.and_then(|worlds| worlds.parse().ok());
    let worlds = worlds.unwrap_or(WORLDS);
    let driven = Arc::new(Pairs::default());
    tried(&driven);
    let by_checker = driven.total();
    let drawn = simulation::drawn(0..worlds, &driven);
    let by_simulation = driven.total() - by_checker;
    pod::drawn(0..worlds * 10, &driven);
    let by_pods = driven.total() - by_simulation - by_checker;
    let wrong: Vec<String> = TABLES
        .iter()
        .flat_map(|table| table.show(&driven))
        .collect();
    println!(
        "\n{by_checker} events by the checker, {by_simulation} in {worlds} worlds that were drawn \
         ({} faults, {} terms), {by_pods} in {} pods that were drawn",
        drawn.faults,
        drawn.terms,
        worlds * 10
    );
    assert!(drawn.terms > worlds * 5, "hardly anybody has run");
    // Fewer do not come to every pair.
    assert!(
        wrong.is_empty() || worlds < WORLDS,
        "not driven, or driven although it cannot be:\n{}",
        wrong.join("\n")
    );
}
