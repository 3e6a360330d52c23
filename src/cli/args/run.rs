//! The run form: `leasewrap [OPTIONS] --db URL -- COMMAND [ARGS]...`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::keep::{Keep, KeepArgs};
use super::usage::UsageError;
use super::values;
use crate::exit::{self, ExitCodes};

/// The run form's options, as clap reads them.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    keep: KeepArgs,
    #[command(flatten)]
    standby: StandbyArgs,
    #[command(flatten)]
    worker: WorkerArgs,

    /// The worker and its arguments, after --
    #[arg(last = true, value_name = "COMMAND", help_heading = None)]
    command: Vec<OsString>,
}

/// How a standby waits.
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

/// What becomes of the worker.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Worker")]
struct WorkerArgs {
    /// Exit code when the lease was lost (1 to 255)
    #[arg(
        long,
        value_name = "N",
        env = "LEASEWRAP_LOST_EXIT_CODE",
        hide_env_values = true
    )]
    #[arg(default_value_t = exit::LOST, value_parser = values::nonzero_exit_code)]
    lost_exit_code: u8,

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

/// A run, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RunOptions {
    /// What every keeper of a lease is told.
    pub keep: Keep,
    /// How long to stand by: `None` for ever, zero not at all.
    pub wait: Option<Duration>,
    /// Stand by again after a loss, a failed precheck or a step-down.
    pub rejoin: bool,
    /// `--lost-exit-code` (never 0) and `--conflict-exit-code`.
    pub exit_codes: ExitCodes,
    /// `--worker-watchdog`.
    pub worker_watchdog: Option<Duration>,
    /// The worker gets `NOTIFY_SOCKET` as it is.
    pub pass_notify: bool,
    /// `--pid-namespace`.
    pub pid_namespace: bool,
    /// The worker's program and arguments; never empty.
    pub command: Vec<OsString>,
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
        Ok(RunOptions {
            keep: self.keep.check()?,
            wait: if self.standby.no_wait {
                Some(Duration::ZERO)
            } else {
                self.standby.wait
            },
            rejoin: self.standby.rejoin,
            exit_codes: ExitCodes {
                lost: self.worker.lost_exit_code,
                conflict: self.standby.conflict_exit_code,
            },
            worker_watchdog: self.worker.worker_watchdog,
            pass_notify: self.worker.pass_notify,
            pid_namespace: self.worker.pid_namespace,
            command: self.command,
        })
    }
}
