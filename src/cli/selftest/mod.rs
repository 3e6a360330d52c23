//! `selftest`: causes the faults of the first promise, with real leasewraps
//! against the user's own database, and measures how long the old worker
//! outlived its right (never) and how long nobody worked.

mod clean_up;
mod contender;
mod faults;
mod judge;
mod proxy;
mod report;
mod scene;
pub mod witness;

use std::cell::RefCell;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use signal_hook_tokio::Signals;
use tokio::time::timeout;

use self::contender::Database;
use self::faults::Fault;
use self::report::{Line, Report};
use super::admin::Failed;
use super::args::db::DbArgs;
use super::args::values;
use super::output::{Output, Paint, json};
use super::{database, print, say};
use crate::exit;
use crate::lease::time::BootInstant;
use crate::store::admin::Admin as _;
use crate::store::selftest::{SelfTest as _, TestLease};
use crate::store::{AnyStore, Store as _, StoreSettings};
use crate::sys::{SysError, clock, inherited, process, signals};
use crate::telemetry::format::span;

/// So many faults at a time: each takes a handful of processes, and waits
/// most of its time.
const AT_A_TIME: usize = 4;

/// What is not done by then has failed: under two minutes, with the clearing
/// up.
const ALL_WITHIN: Duration = Duration::from_secs(100);

/// How long a leasewrap may take to get to work.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// Limit of every call of the self-test's own.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Arguments of `leasewrap selftest`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
For each fault a leasewrap holds a lease and another one stands by, both real
ones; both workers, with a descendant that has daemonized, say every two
milliseconds that they live. The overlap is how long the old worker was still
alive when the new one started: negative, or something is wrong. The gap is how
long nobody worked. TAKEN BY says how the standby came to its right: released
by the holder's own host, or silent, where the row had to be watched.

The leases are named leasewrap-selftest-…; they, their history and every process
are gone at the end, also after Ctrl-C. The schema is made where it is missing,
and stays. A client cannot step a database's clock: the instants in the row are
moved by an hour instead, which is what such a clock shows to a standby. The cut
line is a proxy within this process; there is none for SQLite, and none with
sslmode=verify-full: that fault is then named as not run.

Exit code: 0 when no overlap was positive and every fault was seen to its end
(or is none of this database's); 1 otherwise; 123 when the database cannot be
used; 128+N after a signal.

Examples:
  leasewrap selftest --db postgres://app@db/app")]
pub struct SelfTest {
    /// The ttl of its leases (1s to 15s): a database far away needs a longer one
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = ttl)]
    ttl: Duration,
    /// For people or for machines
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    db: DbArgs,
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = values::duration(text)?;
    if (Duration::from_secs(1)..=Duration::from_secs(15)).contains(&ttl) {
        Ok(ttl)
    } else {
        Err("is not between 1s and 15s".to_owned())
    }
}

/// Why a fault was not seen to its end.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The kernel refused something.
    #[error("cannot {0}")]
    Sys(SysError),
    /// What was waited for did not come.
    #[error("waited in vain for {what}; the last line of its log: {said}")]
    NotSeen {
        /// What.
        what: String,
        /// The last line of the log.
        said: String,
    },
    /// The database refused something.
    #[error("cannot {what}: {said}")]
    Store {
        /// What.
        what: &'static str,
        /// Why.
        said: String,
    },
    /// No proxy.
    #[error("cannot put a proxy before the database: {0}")]
    Proxy(String),
    /// There is no such fault here.
    #[error("{0}")]
    NoSuchFault(String),
    /// The whole test takes too long.
    #[error("was not done in time")]
    TimeUp,
}

/// What all faults share.
pub struct Bench {
    /// How leasewraps reach the database.
    pub database: Database,
    /// How the self-test does.
    pub settings: StoreSettings,
    /// Of the leases.
    pub ttl: Duration,
    /// Every lease that was used.
    leases: RefCell<Vec<TestLease>>,
    /// Tells this run's leases from others'.
    run: u32,
    /// What is not done by then has failed.
    deadline: BootInstant,
}

impl Bench {
    /// How long a standby may take, twice the watching included.
    pub fn take_over_limit(&self) -> Duration {
        self.ttl * 3 + START_LIMIT
    }

    fn lease(&self, rest: &str) -> Result<TestLease, Failed> {
        TestLease::new(&format!("{:08x}-{rest}", self.run))
            .map_err(|error| Failed::usage(error.to_string()))
    }

    async fn fault(&self, fault: Fault) -> Line {
        let result = match self.lease(fault.name()) {
            Ok(lease) => {
                self.leases.borrow_mut().push(lease.clone());
                let left = self.deadline.saturating_since(clock::now());
                let caused = timeout(left, fault.cause(self, &lease)).await;
                caused.unwrap_or(Err(Trouble::TimeUp))
            }
            Err(failed) => Err(Trouble::NoSuchFault(failed.message)),
        };
        Line::of(fault, result)
    }
}

impl SelfTest {
    /// Causes everything; the result is the exit code.
    pub fn perform(self) -> u8 {
        let output = self.output;
        match self.run() {
            Ok(report) => {
                let text = match output {
                    Output::Json => json(&report),
                    Output::Text => report.text(Paint::stdout()),
                };
                match print(text.as_bytes()) {
                    0 => report.exit_code,
                    code => code,
                }
            }
            Err(failed) => failed.tell(),
        }
    }

    fn run(self) -> Result<Report, Failed> {
        let options = self.db.check()?;
        let settings = database::settings(&options)?;
        // Whatever a killed keeper leaves becomes ours to reap and to end.
        process::become_subreaper().map_err(|error| failed(&error))?;
        signals::ignore_failed_writes();
        signals::unblock_all();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SysError::on("start a runtime"))
            .map_err(|error| failed(&error))?;
        runtime.block_on(async {
            let bench = Bench {
                database: Database::of(&options),
                settings,
                ttl: self.ttl,
                leases: RefCell::default(),
                run: rand::random(),
                deadline: clock::now() + ALL_WITHIN,
            };
            bench.run().await
        })
    }
}

fn failed(error: &SysError) -> Failed {
    Failed {
        message: format!("cannot {error}"),
        code: exit::FAILED,
    }
}

impl Bench {
    async fn run(&self) -> Result<Report, Failed> {
        let began = clock::now();
        let mut signals = stop_signals().map_err(|error| failed(&error))?;
        self.prepare().await?;
        say(&format!(
            "{} faults, {AT_A_TIME} at a time, with a ttl of {}",
            Fault::ALL.len(),
            span(self.ttl)
        ));
        let mut lines = Vec::new();
        let signal = {
            let caused = futures_util::stream::iter(Fault::ALL).map(|fault| self.fault(fault));
            let mut caused = std::pin::pin!(caused.buffer_unordered(AT_A_TIME));
            loop {
                tokio::select! {
                    line = caused.next() => match line {
                        Some(line) => {
                            say(&line.progress(lines.len() + 1));
                            lines.push(line);
                        }
                        None => break None,
                    },
                    Some(signal) = signals.next() => break Some(signal),
                }
            }
        };
        if let Some(signal) = signal {
            say(&format!("{} came: clearing up", signals::name(signal)));
        }
        let mut left = Vec::new();
        left.extend(clean_up::processes().await.err());
        let leases = self.leases.take();
        left.extend(clean_up::rows(self, &leases).await);
        for what in &left {
            say(&format!("leasewrap: left behind: {what}"));
        }
        let took = clock::now().saturating_since(began);
        Ok(Report::new(lines, left, signal, [self.ttl, took]))
    }

    /// Looks whether the database can be used, and whether what is written
    /// can be removed again, before anything is written.
    async fn prepare(&self) -> Result<(), Failed> {
        let lease = self.lease("none")?;
        let name = lease.name();
        let mut store = AnyStore::new(self.settings.clone(), name.clone(), clock::now);
        let seen = store.status(Some(name), CALL_LIMIT).await;
        let seen = seen.map_err(|unknown| Failed::call("reach the database", &unknown))?;
        // Where there is no schema, there is no time either.
        if seen.now.0 == 0 {
            let made = store.init(CALL_LIMIT).await;
            made.map_err(|unknown| Failed::call("create the schema", &unknown))?;
            say("the schema was missing: it was made, and stays");
        }
        let forgotten = store.forget(&lease, CALL_LIMIT).await;
        forgotten.map_err(|unknown| Failed::call("remove rows of the self-test", &unknown))
    }
}

/// What ends the test early; those that the caller ignores stay ignored.
fn stop_signals() -> Result<Signals, SysError> {
    let ignored = inherited::get().ignored();
    let all = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];
    Signals::new(all.into_iter().filter(|signal| !ignored.contains(*signal)))
        .map_err(SysError::on("catch signals"))
}
