//! One lease, a holder, a standby, and what their workers witnessed.

use std::io::Write;
use std::time::Duration;

use crate::support::leasewrap::{Builder, Leasewrap, holder, lease_name};
use crate::support::server::Server;
use crate::support::wait::{SOON, until};
use crate::support::witness::{HandOver, Log, ms_between};

/// A lease under a fault.
pub struct Scene {
    /// The fault's name.
    pub fault: String,
    /// The lease's name.
    pub name: String,
    /// What the workers stamp.
    pub log: Log,
    ttl: Duration,
}

impl Scene {
    /// A lease with this ttl.
    pub fn new(fault: &str, ttl: Duration) -> Self {
        let fault = fault.to_owned();
        Self {
            name: lease_name(&fault),
            fault,
            log: Log::new(),
            ttl,
        }
    }

    /// A leasewrap of this lease whose worker is a witness with these options.
    pub fn leasewrap(&self, url: &str, worker: &[&str]) -> Builder {
        let ttl = format!("{}ms", self.ttl.as_millis());
        holder(url, &self.name)
            .ttl(&ttl)
            .worker(&self.log.worker(worker))
    }

    /// Starts a holder; back when its worker, and as many descendants as its
    /// options say, have stamped.
    #[track_caller]
    pub fn hold(&self, url: &str, worker: &[&str]) -> (Leasewrap, i64) {
        self.start(self.leasewrap(url, worker), worker)
    }

    /// The same, for a leasewrap with more options.
    #[track_caller]
    pub fn start(&self, leasewrap: Builder, worker: &[&str]) -> (Leasewrap, i64) {
        let before = self.log.spans().last().map_or(0, |(token, _, _)| *token);
        let holder = leasewrap.spawn();
        holder.wait_event("acquired");
        let token = self.log.wait_newer(before, SOON);
        let number = |option: &str| {
            let value = worker.iter().find_map(|word| word.strip_prefix(option));
            value
                .and_then(|value| value.parse::<usize>().ok())
                .unwrap_or(0)
        };
        let daemon = usize::from(worker.contains(&"daemon"));
        let processes = 1 + number("children=") + number("chains=") + daemon;
        self.log.wait_processes(token, processes, SOON);
        (holder, token)
    }

    /// Starts a standby; back when it stands by.
    #[track_caller]
    pub fn stand_by(&self, url: &str) -> Leasewrap {
        let standby = self.leasewrap(url, &[]).spawn();
        standby.wait_event("waiting");
        standby
    }

    /// Waits until a worker with a token above `old` has worked for a while,
    /// prints the figures, and asserts that nobody else did at that time.
    #[track_caller]
    pub fn handed_over(&self, old: i64, limit: Duration) -> HandOver {
        let new = self.log.wait_newer(old, limit);
        until("the new worker works", SOON, || {
            let (_, first, last) = self
                .log
                .spans()
                .into_iter()
                .find(|(token, _, _)| *token == new)?;
            (ms_between(first.at_ns, last.at_ns) > 150.0).then_some(())
        });
        let all = self.log.hand_overs();
        let seen = *all
            .iter()
            .find(|seen| seen.new == new)
            .expect("the new token is in the log");
        self.say(&format!(
            "overlap_ms={:.1} gap_ms={:.1}",
            seen.overlap_ms,
            seen.gap_ms()
        ));
        assert!(seen.overlap_ms <= 0.0, "two workers lived: {seen:?}");
        seen
    }

    /// The same for a lease that was given back: `next` has it without having
    /// watched it run out.
    #[track_caller]
    pub fn given_back(&self, next: &Leasewrap, old: i64) {
        self.handed_over(old, 2 * SOON);
        let acquired = next.wait_event("acquired");
        assert_eq!(acquired["basis"], "released", "{acquired}");
    }

    /// Prints figures, past the capturing of the test runner.
    pub fn say(&self, figures: &str) {
        let line = format!("fault={} {figures}\n", self.fault);
        let _result = std::io::stderr().write_all(line.as_bytes());
    }

    /// Asserts that the worker with `token` goes on through `what` for the
    /// time `long`, and that nobody else starts.
    #[track_caller]
    pub fn goes_on(&self, token: i64, long: Duration, what: &str) {
        let from = crate::support::sys::boot_ns();
        let enough = |last: u64| ms_between(from, last) > long.as_secs_f64() * 1e3;
        until(
            &format!("the worker goes on through {what}"),
            long + SOON,
            || {
                let spans = self.log.spans();
                let (latest, _, last) = spans.last().copied()?;
                assert_eq!(latest, token, "another worker started: {what}");
                enough(last.at_ns).then_some(())
            },
        );
    }

    /// The lease's row, as `column|column`.
    pub fn row(&self, server: &Server, columns: &str) -> String {
        server.psql(&format!(
            "select {columns} from leasewrap.lease where name = '{}'",
            self.name
        ))
    }

    /// The ttl, and a share of it.
    pub fn ttl(&self, share: f64) -> Duration {
        self.ttl.mul_f64(share)
    }
}
