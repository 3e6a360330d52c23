//! What it costs to put a wrapper in front of `true`.

use std::process::Command;
use std::time::Instant;

use crate::contenders::{Field, Wrapper};
use crate::support::leasewrap::lease_name;
use crate::{Samples, table};

const RUNS: usize = 60;

/// Runs each in turn.
pub fn measure(field: &Field<'_>) {
    let name = lease_name("start");
    let worker = ["true".to_owned()];
    let mut bare = Samples::of("bare true");
    let mut rows: Vec<Samples> = field
        .wrappers
        .iter()
        .map(|wrapper| Samples::of(wrapper.name()))
        .collect();
    for round in 0..=RUNS {
        // The first round makes schemas and fills caches.
        let counts = round > 0;
        timed(&mut Command::new("true"), counts, &mut bare);
        for (wrapper, row) in field.wrappers.iter().zip(&mut rows) {
            // A slow one is measured less often.
            if *wrapper != Wrapper::Dislock || round % 6 == 0 {
                timed(&mut field.command(*wrapper, &name, &worker), counts, row);
            }
        }
    }
    let base = bare.median();
    rows.insert(0, bare);
    table("start and end of a wrapper around true", "ms", &rows);
    let of = |wrapper: Wrapper| {
        let row = rows.iter().find(|row| row.name() == wrapper.name());
        row.map_or(f64::NAN, Samples::median)
    };
    let (plain, contained) = (of(Wrapper::Leasewrap), of(Wrapper::Contained));
    println!(
        "leasewrap over bare true: {:.2} ms (aim: at most 9); --pid-namespace over without: \
         {:.2} ms (aim: at most 3)",
        plain - base,
        contained - plain
    );
}

fn timed(command: &mut Command, counts: bool, row: &mut Samples) {
    let begun = Instant::now();
    let ended = command.status().expect("run a contender");
    let took = begun.elapsed();
    assert!(ended.success(), "{command:?}: {ended}");
    if counts {
        row.add(took);
    }
}
