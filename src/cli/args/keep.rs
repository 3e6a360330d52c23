//! The options of whoever keeps a lease: the run form and `serve`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::db::{DbArgs, DbOptions};
use super::hooks::HookArgs;
use super::log::LogArgs;
use super::timing::TimingArgs;
use super::usage::UsageError;
use super::values;
use crate::http::listen::ListenAddress;
use crate::keeper::hooks::HookSettings;
use crate::lease::ids::{Label, LeaseName, TextError, Value};
use crate::lease::keeper::Takeover;
use crate::lease::record::Terms;
use crate::lease::timing::Timing;
use crate::telemetry::LogOptions;
use crate::wire::StopTo;

/// What the run form and `serve` have in common.
#[derive(Debug, Clone, Args)]
pub(super) struct KeepArgs {
    #[command(flatten)]
    db: DbArgs,
    #[command(flatten)]
    lease: LeaseArgs,
    #[command(flatten)]
    takeover: TakeoverArgs,
    #[command(flatten)]
    timing: TimingArgs,
    #[command(flatten)]
    stop: StopArgs,
    #[command(flatten)]
    hooks: HookArgs,
    #[command(flatten)]
    shown: ShownArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// What is taken, and what is written into its row.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Lease")]
struct LeaseArgs {
    /// Name of the lease
    #[arg(
        long,
        value_name = "NAME",
        env = "LEASEWRAP_NAME",
        hide_env_values = true
    )]
    #[arg(default_value = "default", value_parser = values::lease_name)]
    name: LeaseName,

    /// At most this many holders at once
    #[arg(
        long,
        value_name = "N",
        env = "LEASEWRAP_SLOTS",
        hide_env_values = true
    )]
    #[arg(default_value = "1", value_parser = values::slots)]
    slots: u32,

    /// This holder's name for people [default: HOSTNAME/PID]
    #[arg(
        long,
        value_name = "TEXT",
        env = "LEASEWRAP_LABEL",
        hide_env_values = true
    )]
    #[arg(value_parser = values::label)]
    label: Option<Label>,

    /// Published with the lease: an address, say
    #[arg(
        long,
        value_name = "TEXT",
        env = "LEASEWRAP_VALUE",
        hide_env_values = true
    )]
    #[arg(default_value = "", hide_default_value = true, value_parser = values::value)]
    value: Value,

    /// Keep the lease taken until this long after it was acquired
    ///
    /// By the database's clock, and also when the worker ends sooner: a job
    /// that several hosts' cron starts at the same minute runs once.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_HOLD_AT_LEAST",
        hide_env_values = true
    )]
    #[arg(default_value = "0s", hide_default_value = true, value_parser = values::duration)]
    hold_at_least: Duration,
}

/// When a standby may take over.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Standing by")]
struct TakeoverArgs {
    /// When a lease that was not released may be taken
    ///
    /// observed: after watching it for 1.1 times the holder's ttl on the own
    /// clock. clock: when the database's clock says that it has expired;
    /// faster after a lost host, unsafe where that clock steps.
    #[arg(
        long,
        value_name = "RULE",
        env = "LEASEWRAP_TAKEOVER",
        hide_env_values = true
    )]
    #[arg(value_enum, default_value = "observed")]
    takeover: Rule,

    /// Others wait this much longer before they take over from us
    ///
    /// For work whose effects outlast its process.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_TAKEOVER_DELAY",
        hide_env_values = true
    )]
    #[arg(default_value = "0s", hide_default_value = true, value_parser = values::duration)]
    takeover_delay: Duration,
}

/// How the worker is stopped, and what it gets.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Worker")]
struct StopArgs {
    /// Signal of an orderly stop
    #[arg(
        long,
        value_name = "SIGNAL",
        env = "LEASEWRAP_STOP_SIGNAL",
        hide_env_values = true
    )]
    #[arg(default_value = "TERM", value_parser = values::stop_signal)]
    stop_signal: i32,

    /// Who gets that signal
    ///
    /// tree: every process of the worker, as systemd does, so that a program
    /// behind sh -c gets it. worker: the first process alone.
    #[arg(
        long,
        value_name = "WHOM",
        env = "LEASEWRAP_STOP_TO",
        hide_env_values = true
    )]
    #[arg(value_enum, default_value = "tree")]
    stop_to: Whom,

    /// Give libpq programs the fencing token through PGOPTIONS
    ///
    /// PgBouncer refuses start-up parameters that it does not know.
    #[arg(long, env = "LEASEWRAP_PGOPTIONS", hide_env_values = true)]
    pgoptions: bool,
}

/// Who may look.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pages and probes")]
struct ShownArgs {
    /// Serve /, /livez, /readyz, /leader and /metrics there
    ///
    /// PORT (on loopback), HOST:PORT (IPv6 in brackets) or the absolute path of a
    /// Unix socket.
    #[arg(
        long,
        value_name = "ADDR",
        env = "LEASEWRAP_LISTEN",
        hide_env_values = true
    )]
    #[arg(value_parser = values::listen)]
    listen: Option<ListenAddress>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Whom {
    Tree,
    Worker,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rule {
    Observed,
    Clock,
}

/// The same, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Keep {
    /// The database.
    pub db: DbOptions,
    /// The lease.
    pub name: LeaseName,
    /// At most so many holders: at least 1.
    pub slots: u32,
    /// What is written into the row: ttl, `--takeover-delay`,
    /// `--hold-at-least`, label and value.
    pub terms: Terms,
    /// When an unreleased lease may be taken.
    pub takeover: Takeover,
    /// The times.
    pub timing: Timing,
    /// Signal number of an orderly stop.
    pub stop_signal: i32,
    /// Whom it is sent to.
    pub stop_to: StopTo,
    /// Extend the worker's `PGOPTIONS`.
    pub pgoptions: bool,
    /// `--precheck`, `--on-event`, `--hook-timeout`.
    pub hooks: HookSettings,
    /// Where the pages are served.
    pub listen: Option<ListenAddress>,
    /// What is logged.
    pub log: LogOptions,
}

impl KeepArgs {
    /// Checks the options together.
    pub(super) fn check(self) -> Result<Keep, UsageError> {
        let timing = self.timing.check()?;
        let label = match self.lease.label {
            Some(label) => label,
            None => default_label().map_err(|error| {
                UsageError::new(format!("--label: HOSTNAME/PID {error}; give one"))
            })?,
        };
        Ok(Keep {
            db: self.db.check()?,
            name: self.lease.name,
            slots: self.lease.slots,
            terms: Terms {
                ttl: timing.ttl(),
                takeover_delay: self.takeover.takeover_delay,
                hold_at_least: self.lease.hold_at_least,
                label,
                value: self.lease.value,
            },
            takeover: match self.takeover.takeover {
                Rule::Observed => Takeover::Observed,
                Rule::Clock => Takeover::Clock,
            },
            timing,
            stop_signal: self.stop.stop_signal,
            stop_to: match self.stop.stop_to {
                Whom::Tree => StopTo::Tree,
                Whom::Worker => StopTo::Worker,
            },
            pgoptions: self.stop.pgoptions,
            hooks: self.hooks.check(),
            listen: self.shown.listen,
            log: self.log.check(),
        })
    }
}

/// `HOSTNAME/PID`.
fn default_label() -> Result<Label, TextError> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    Label::new(format!("{}/{}", host.to_string_lossy(), std::process::id()))
}
