//! Figures, each side by side with its peer in one run: `cargo bench`, or one
//! part of them: `cargo bench --bench peers -- start`, `hand-over`, `costs`,
//! `fence`, `leases`, `standbys`, `failover`; by name alone `picture`, the ends
//! of `hand-over` that the README's picture shows (in ten minutes),
//! and `queue`, which fills 8 GiB.
//!
//! Every measure alternates between the contenders, so that whatever else the
//! machine does hits all of them; medians are shown with the 10th and 90th
//! percentile. Peers that are not installed are left out, and named.

#[path = "../support/mod.rs"]
mod support;

#[path = "../store/postgres/bouncer.rs"]
#[expect(dead_code, reason = "it is neither restarted nor paused here")]
mod bouncer;
#[path = "../store/bench.rs"]
#[expect(dead_code, reason = "the store's tests use all of it")]
mod contender;
mod contenders;
mod costs;
mod failover;
mod fence;
mod hand_over;
mod load;
mod picture;
mod simulated;
mod start;

use std::time::Duration;

use contenders::Field;
use support::server::Server;

/// Samples of one contender.
pub struct Samples {
    name: String,
    millis: Vec<f64>,
}

impl Samples {
    /// None yet.
    pub fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            millis: Vec::new(),
        }
    }

    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.millis.push(took.as_secs_f64() * 1e3);
    }

    /// One more, in milliseconds.
    pub fn add_ms(&mut self, millis: f64) {
        self.millis.push(millis);
    }

    fn at(&self, fraction: f64) -> f64 {
        let mut sorted = self.millis.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into some hundred samples"
        )]
        let index = ((sorted.len().saturating_sub(1)) as f64 * fraction).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    /// Whose they are.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.millis.len()
    }

    /// Those that are not below `least`.
    pub fn at_least(&self, least: f64) -> Vec<f64> {
        let millis = self.millis.iter().copied();
        millis.filter(|millis| *millis >= least).collect()
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// Prints one table.
pub fn table(what: &str, unit: &str, rows: &[Samples]) {
    println!("\n{what} ({unit})");
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>5}",
        "", "median", "p10", "p90", "n"
    );
    for row in rows {
        println!(
            "{:<34} {:>9.2} {:>9.2} {:>9.2} {:>5}",
            row.name,
            row.median(),
            row.at(0.1),
            row.at(0.9),
            row.count()
        );
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let wanted = |part: &str| {
        let named: Vec<_> = args[1..]
            .iter()
            .filter(|arg| !arg.starts_with("--"))
            .collect();
        named.is_empty() || named.iter().any(|name| *name == part)
    };
    println!("leasewrap {} against its peers", env!("CARGO_PKG_VERSION"));
    if wanted("start") || wanted("hand-over") {
        let server = Server::start();
        let field = Field::new(&server);
        if wanted("start") {
            start::measure(&field);
        }
        if wanted("hand-over") {
            hand_over::measure(&field, &server);
        }
    }
    if wanted("costs") {
        costs::measure(&Server::start());
    }
    if wanted("fence") {
        fence::measure();
    }
    if wanted("leases") {
        load::leases();
    }
    if wanted("standbys") {
        load::standbys();
    }
    if wanted("failover") {
        failover::measure();
    }
    if args.iter().any(|arg| arg == "picture") {
        hand_over::ends(&Field::new(&Server::start()));
    }
    if args.iter().any(|arg| arg == "queue") {
        load::queue();
    }
}
