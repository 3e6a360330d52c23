//! The commands that leasewrap runs beside the worker.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::values;
use crate::keeper::hooks::HookSettings;

/// The hooks' options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hooks")]
pub(super) struct HookArgs {
    /// Hold the lease only while this shell command passes
    ///
    /// Run before every attempt and on every renewal interval. Not 0, not
    /// startable or not done within --hook-timeout: no attempt, or an orderly
    /// stop and exit 120.
    #[arg(
        long,
        value_name = "COMMAND",
        env = "LEASEWRAP_PRECHECK",
        hide_env_values = true
    )]
    #[arg(value_parser = values::shell_command)]
    precheck: Option<OsString>,

    /// Run this shell command at every change
    ///
    /// At acquired, renewed-late, losing, lost, released, holder-changed: one
    /// at a time, in order. It gets LEASEWRAP_EVENT, LEASEWRAP_REASON,
    /// LEASEWRAP_MESSAGE, LEASEWRAP_LEASE, LEASEWRAP_SLOT, LEASEWRAP_TOKEN,
    /// LEASEWRAP_HOLDER, LEASEWRAP_HOLDER_LABEL and LEASEWRAP_HOLDER_VALUE,
    /// and the same as JSON on its standard input. What it says is logged.
    #[arg(
        long,
        value_name = "COMMAND",
        env = "LEASEWRAP_ON_EVENT",
        hide_env_values = true
    )]
    #[arg(value_parser = values::shell_command)]
    on_event: Option<OsString>,

    /// Then a hook is killed with all it started
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_HOOK_TIMEOUT",
        hide_env_values = true
    )]
    #[arg(default_value = "5s", value_parser = values::positive_duration)]
    hook_timeout: Duration,
}

impl HookArgs {
    pub(super) fn check(self) -> HookSettings {
        HookSettings {
            precheck: self.precheck,
            on_event: self.on_event,
            timeout: self.hook_timeout,
        }
    }
}
