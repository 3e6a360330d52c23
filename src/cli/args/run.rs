//! The run form: `leasewrap [OPTIONS] --db URL -- COMMAND [ARGS]...`.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::db::{DbArgs, DbOptions};
use super::hooks::HookArgs;
use super::log::LogArgs;
use super::timing::TimingArgs;
use super::usage::UsageError;
use super::values;
use crate::exit::{self, ExitCodes};
use crate::http::listen::ListenAddress;
use crate::keeper::hooks::HookSettings;
use crate::lease::ids::{Label, LeaseName, TextError, Value};
use crate::lease::keeper::Takeover;
use crate::lease::record::Terms;
use crate::lease::timing::Timing;
use crate::telemetry::LogOptions;
use crate::wire::StopTo;

/// The run form's options, as clap reads them.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    db: DbArgs,
    #[command(flatten)]
    lease: LeaseArgs,
    #[command(flatten)]
    standby: StandbyArgs,
    #[command(flatten)]
    timing: TimingArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    hooks: HookArgs,
    #[command(flatten)]
    shown: ShownArgs,
    #[command(flatten)]
    log: LogArgs,

    /// The worker and its arguments, after --
    #[arg(last = true, value_name = "COMMAND", help_heading = None)]
    command: Vec<OsString>,
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

/// How a standby waits, and when it may take over.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Standing by")]
struct StandbyArgs {
    /// How long to stand by [default: for ever]
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_WAIT",
        hide_env_values = true
    )]
    #[arg(value_parser = values::duration, conflicts_with = "no_wait")]
    wait: Option<Duration>,

    /// Do not stand by: as --wait 0s
    #[arg(long)]
    no_wait: bool,

    /// After a loss, a failed precheck or a step-down, stand by again
    ///
    /// With a new guard and a new holder, instead of ending.
    #[arg(long, env = "LEASEWRAP_REJOIN", hide_env_values = true)]
    rejoin: bool,

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

    /// Exit code when the lease was not acquired (0 to 255)
    #[arg(
        long,
        value_name = "N",
        env = "LEASEWRAP_CONFLICT_EXIT_CODE",
        hide_env_values = true
    )]
    #[arg(default_value_t = exit::NOT_ACQUIRED, value_parser = values::any_exit_code)]
    conflict_exit_code: u8,
}

/// How the worker is stopped, and what it gets.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Worker")]
struct WorkerArgs {
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

    /// Exit code when the lease was lost (1 to 255)
    #[arg(
        long,
        value_name = "N",
        env = "LEASEWRAP_LOST_EXIT_CODE",
        hide_env_values = true
    )]
    #[arg(default_value_t = exit::LOST, value_parser = values::nonzero_exit_code)]
    lost_exit_code: u8,

    /// Give libpq programs the fencing token through PGOPTIONS
    ///
    /// PgBouncer refuses start-up parameters that it does not know.
    #[arg(long, env = "LEASEWRAP_PGOPTIONS", hide_env_values = true)]
    pgoptions: bool,

    /// Stop a worker that does not say WATCHDOG=1 at least this often
    ///
    /// As sd_notify(3) does, on a socket that leasewrap gives it in
    /// NOTIFY_SOCKET. It gets an orderly stop, and leasewrap exits with 120.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_WORKER_WATCHDOG",
        hide_env_values = true
    )]
    #[arg(value_parser = values::positive_duration)]
    worker_watchdog: Option<Duration>,

    /// Let the worker speak to the service manager itself
    ///
    /// It gets NOTIFY_SOCKET as leasewrap got it (sd_notify(3)); a unit needs
    /// NotifyAccess=all for it to be heard. WATCHDOG_USEC and WATCHDOG_PID stay
    /// leasewrap's.
    #[arg(long, env = "LEASEWRAP_PASS_NOTIFY", hide_env_values = true)]
    #[arg(conflicts_with = "worker_watchdog")]
    pass_notify: bool,
    /// Give the worker a PID namespace that ends with leasewrap
    ///
    /// The kernel then ends all that the worker has started even when every
    /// process of leasewrap is killed at the same instant. Needs root,
    /// CAP_SYS_ADMIN or user namespaces.
    #[arg(long, env = "LEASEWRAP_PID_NAMESPACE", hide_env_values = true)]
    pid_namespace: bool,
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

/// A run, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// The database.
    pub db: DbOptions,
    /// The lease.
    pub name: LeaseName,
    /// At most so many holders: at least 1.
    pub slots: u32,
    /// What is written into the row: ttl, `--takeover-delay`,
    /// `--hold-at-least`, label and value.
    pub terms: Terms,
    /// How long to stand by: `None` for ever, zero not at all.
    pub wait: Option<Duration>,
    /// Stand by again after a loss, a failed precheck or a step-down.
    pub rejoin: bool,
    /// When an unreleased lease may be taken.
    pub takeover: Takeover,
    /// The times.
    pub timing: Timing,
    /// Signal number of an orderly stop.
    pub stop_signal: i32,
    /// Whom it is sent to.
    pub stop_to: StopTo,
    /// `--lost-exit-code` (never 0) and `--conflict-exit-code`.
    pub exit_codes: ExitCodes,
    /// Extend the worker's `PGOPTIONS`.
    pub pgoptions: bool,
    /// `--precheck`, `--on-event`, `--hook-timeout`.
    pub hooks: HookSettings,
    /// `--worker-watchdog`.
    pub worker_watchdog: Option<Duration>,
    /// The worker gets `NOTIFY_SOCKET` as it is.
    pub pass_notify: bool,
    /// `--pid-namespace`.
    pub pid_namespace: bool,
    /// Where the pages are served.
    pub listen: Option<ListenAddress>,
    /// The worker's program and arguments; never empty.
    pub command: Vec<OsString>,
    /// What is logged.
    pub log: LogOptions,
}

impl RunArgs {
    /// Checks the options together.
    ///
    /// # Errors
    /// [`UsageError`]: no database, no command, or times that do not fit.
    pub fn check(self) -> Result<RunOptions, UsageError> {
        if self
            .command
            .first()
            .is_none_or(|program| program.is_empty())
        {
            return Err(UsageError::new(
                "no command to run; give it after --: leasewrap --db URL -- COMMAND [ARGS]...",
            ));
        }
        let timing = self.timing.check()?;
        let label = match self.lease.label {
            Some(label) => label,
            None => default_label().map_err(|error| {
                UsageError::new(format!("--label: HOSTNAME/PID {error}; give one"))
            })?,
        };
        Ok(RunOptions {
            db: self.db.check()?,
            name: self.lease.name,
            slots: self.lease.slots,
            terms: Terms {
                ttl: timing.ttl(),
                takeover_delay: self.standby.takeover_delay,
                hold_at_least: self.lease.hold_at_least,
                label,
                value: self.lease.value,
            },
            wait: if self.standby.no_wait {
                Some(Duration::ZERO)
            } else {
                self.standby.wait
            },
            rejoin: self.standby.rejoin,
            takeover: match self.standby.takeover {
                Rule::Observed => Takeover::Observed,
                Rule::Clock => Takeover::Clock,
            },
            timing,
            stop_signal: self.worker.stop_signal,
            stop_to: match self.worker.stop_to {
                Whom::Tree => StopTo::Tree,
                Whom::Worker => StopTo::Worker,
            },
            exit_codes: ExitCodes {
                lost: self.worker.lost_exit_code,
                conflict: self.standby.conflict_exit_code,
            },
            pgoptions: self.worker.pgoptions,
            hooks: self.hooks.check(),
            worker_watchdog: self.worker.worker_watchdog,
            pass_notify: self.worker.pass_notify,
            pid_namespace: self.worker.pid_namespace,
            listen: self.shown.listen,
            command: self.command,
            log: self.log.check(),
        })
    }
}

/// `HOSTNAME/PID`.
fn default_label() -> Result<Label, TextError> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    Label::new(format!("{}/{}", host.to_string_lossy(), std::process::id()))
}
