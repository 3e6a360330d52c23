//! What is logged, and how: `--log-format`, `--log`, `-v`, `-q`.

use clap::{ArgAction, Args, ValueEnum};

/// Options of every command that logs.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Log (on standard error)")]
pub struct LogOptions {
    /// Lines for people or for machines
    #[arg(
        long = "log-format",
        value_name = "FORMAT",
        env = "LEASEWRAP_LOG_FORMAT",
        hide_env_values = true
    )]
    #[arg(value_enum, default_value = "text")]
    pub format: LogFormat,

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
    #[arg(conflicts_with_all = ["verbose", "quiet"])]
    pub filter: Option<String>,

    /// Log renewals too; -vv: everything
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,

    /// Log warnings and worse only; silent at a good end
    #[arg(short, long)]
    pub quiet: bool,
}

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}
