//! What it costs to put a wrapper in front of `true`.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::leasewrap::{binary, lease_name};
use crate::support::run::run;
use crate::support::server::Server;
use crate::{Samples, table};

const RUNS: usize = 60;

/// Runs each in turn.
pub fn measure(server: &Server) {
    let lock = run().file("lock").display().to_string();
    let leasewrap = binary().display().to_string();
    let name = lease_name("start");
    let url = server.url();
    let contenders: Vec<(&str, Vec<&str>)> = vec![
        ("true", vec!["true"]),
        ("flock FILE true", vec!["flock", &lock, "true"]),
        (
            "leasewrap -- true",
            vec![
                &leasewrap, "-q", "--db", &url, "--name", &name, "--", "true",
            ],
        ),
        (
            "leasewrap --pid-namespace -- true",
            vec![
                &leasewrap,
                "-q",
                "--db",
                &url,
                "--name",
                &name,
                "--pid-namespace",
                "--",
                "true",
            ],
        ),
    ];
    let mut rows: Vec<Samples> = contenders
        .iter()
        .map(|(name, _)| Samples::of(name))
        .collect();
    for round in 0..=RUNS {
        for ((_, command), row) in contenders.iter().zip(&mut rows) {
            let begun = Instant::now();
            let ended = Command::new(command[0])
                .args(&command[1..])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .expect("run a contender");
            let took = begun.elapsed();
            assert!(ended.success(), "{command:?}: {ended}");
            // The first round makes the schema and fills the caches.
            if round > 0 {
                row.add(took);
            }
        }
    }
    table("start and end of a wrapper around true", "ms", &rows);
    let over = rows[2].median() - rows[0].median();
    println!("leasewrap over bare true: {over:.2} ms (aim: at most 9)");
    let more = rows[3].median() - rows[2].median();
    println!("--pid-namespace over without: {more:.2} ms (aim: at most 3)");
}
