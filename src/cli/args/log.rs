//! What is logged, and how: `--log-format`, `--log`, `-v`, `-q`.

use clap::{ArgAction, Args, ValueEnum};

use crate::telemetry::{Detail, Format, LogOptions, check_filter};

/// Options of every command that logs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log (on standard error)")]
pub(super) struct LogArgs {
    /// Lines for people or for machines
    #[arg(
        long = "log-format",
        value_name = "FORMAT",
        env = "LEASEWRAP_LOG_FORMAT",
        hide_env_values = true
    )]
    #[arg(value_enum, default_value = "text")]
    format: Shape,

    /// A filter as tracing reads it, such as leasewrap=debug
    ///
    /// Where it is given, it stands in place of -v and -q; on the command
    /// line these stand in place of the variable.
    #[arg(
        long = "log",
        value_name = "FILTER",
        env = "LEASEWRAP_LOG",
        hide_env_values = true
    )]
    #[arg(value_parser = check_filter, conflicts_with_all = ["verbose", "quiet"])]
    filter: Option<String>,

    /// Log renewals too; -vv: everything
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,

    /// Log warnings and worse only; silent at a good end
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shape {
    Text,
    Json,
}

impl LogArgs {
    pub(super) fn check(self) -> LogOptions {
        LogOptions {
            format: match self.format {
                Shape::Text => Format::Text,
                Shape::Json => Format::Json,
            },
            detail: match (self.filter, self.quiet, self.verbose) {
                (Some(filter), _, _) => Detail::Filter(filter),
                (None, true, _) => Detail::Quiet,
                (None, false, 0) => Detail::Usual,
                (None, false, 1) => Detail::Verbose,
                (None, false, _) => Detail::Everything,
            },
        }
    }
}
