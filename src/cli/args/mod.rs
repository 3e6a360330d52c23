//! The command line: every option with its variable, its default and its
//! check. What comes out is typed and fits together, or is a usage error.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand as _};

pub mod db;
mod hooks;
pub mod keep;
pub mod log;
pub mod run;
pub mod sidecar;
pub mod timing;
pub mod usage;
pub mod values;
pub mod variables;

use super::commands::Commands;
use crate::exit;
use usage::{Place, UsageError};
use variables::Environment;

/// Run a command on at most one machine at a time
///
/// leasewrap takes a named lease in Postgres, runs COMMAND while it holds it,
/// and kills COMMAND, with everything it started, before the lease can pass
/// on. Whoever does not get the lease stands by.
#[derive(Debug, Parser)]
#[command(name = "leasewrap", version, bin_name = "leasewrap")]
#[command(
    override_usage = "leasewrap [OPTIONS] --db <URL> -- <COMMAND> [ARGS]...\n       leasewrap <SUBCOMMAND> [OPTIONS]"
)]
#[command(
    subcommand_value_name = "SUBCOMMAND",
    subcommand_help_heading = "Subcommands"
)]
#[command(args_conflicts_with_subcommands = true, args_override_self = true)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(after_help = MORE, after_long_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    run: run::RunArgs,
    #[command(subcommand)]
    command: Option<Commands>,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = "General")]
    version: Option<bool>,
}

const MORE: &str = "\
Each option but --no-wait, -v and -q has its variable: LEASEWRAP_RENEW_EVERY
for --renew-every.
'leasewrap help' explains more, with examples.";

const EXAMPLES: &str = "\
Examples:
  One of several hosts runs the worker, the others stand by:
    leasewrap --db postgres://app@db/app --name mailer -- ./mailer --queue out

  A cron job of several hosts that runs once:
    leasewrap --db-file /etc/leasewrap.url --name nightly --wait 1m \\
      --hold-at-least 10m --conflict-exit-code 0 -- /usr/local/bin/nightly

Exit codes:
  the worker's own, 128+N where signal N ended it; 2 usage; 120 stepped down;
  121 not acquired; 122 lease lost; 123 database unusable; 125 leasewrap itself
  failed; 126 the command cannot be executed; 127 it is not found";

/// What is asked for.
#[derive(Debug)]
pub enum Parsed {
    /// Run a worker.
    Run(Box<run::RunOptions>),
    /// Anything else.
    Command(Box<Commands>),
}

/// What ends leasewrap right after its command line was read.
#[derive(Debug)]
pub enum Refused {
    /// Help or version, for stdout; exit code 0.
    Told(StyledStr),
    /// A usage error, for stderr; exit code 2.
    Usage(UsageError),
}

impl Refused {
    /// Says it and returns the exit code.
    pub fn tell(&self) -> u8 {
        match self {
            Self::Told(text) => {
                let text = if crate::telemetry::colours(&std::io::stdout()) {
                    text.ansi().to_string()
                } else {
                    text.to_string()
                };
                super::print(format!("{}\n", text.trim_end()).as_bytes())
            }
            Self::Usage(error) => {
                super::say(&format!("leasewrap: {error}"));
                exit::USAGE
            }
        }
    }
}

impl From<UsageError> for Refused {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

/// The command line's definition, for help, completions and man pages.
pub fn definition() -> clap::Command {
    variables::documented(with_help(Cli::command()))
}

/// `-h` and `--help` are short, `help` is long.
fn with_help(command: clap::Command) -> clap::Command {
    let help = clap::Arg::new("help")
        .short('h')
        .long("help")
        .help("Print help")
        .help_heading("General")
        .action(clap::ArgAction::HelpShort);
    command
        .mut_subcommands(|inner| with_help(inner.disable_help_flag(true)))
        .arg(help)
}

/// Reads the command line (`arguments[0]` is the program's name) and the
/// environment.
///
/// # Errors
/// [`Refused`]: help was asked for, or something is wrong.
pub fn parse(arguments: &[OsString], environment: &Environment<'_>) -> Result<Parsed, Refused> {
    match plain_run(arguments, environment) {
        Some(options) => Ok(Parsed::Run(Box::new(options))),
        None => parse_whole(arguments, environment),
    }
}

/// The run form alone.
#[derive(Debug, Parser)]
#[command(name = "leasewrap", args_override_self = true)]
#[command(disable_help_flag = true, disable_version_flag = true)]
struct RunForm {
    #[command(flatten)]
    run: run::RunArgs,
}

/// A run that is right, read without the subcommands: their options are most
/// of the whole definition, and a start of a worker would wait for it. `None`
/// where it is something else, or where the whole definition has to say what
/// is wrong.
fn plain_run(arguments: &[OsString], environment: &Environment<'_>) -> Option<run::RunOptions> {
    let first = arguments.get(1)?.to_str();
    if first.is_none_or(Commands::has_subcommand) {
        return None;
    }
    let named = RunForm::command();
    let command = named.clone().mut_args(|arg| arg.env(None::<&'static str>));
    let matches = command.clone().try_get_matches_from(arguments).ok()?;
    let command = variables::with_environment(command, &named, &matches, environment).ok()?;
    let matches = command.try_get_matches_from(arguments).ok()?;
    RunForm::from_arg_matches(&matches).ok()?.run.check().ok()
}

fn parse_whole(arguments: &[OsString], environment: &Environment<'_>) -> Result<Parsed, Refused> {
    let command = definition();
    let place = place(&command, arguments);
    let refused = |error: clap::Error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Refused::Told(error.render()),
        ErrorKind::InvalidUtf8 => Refused::Usage(UsageError::not_utf8(arguments)),
        _ => Refused::Usage(UsageError::from_clap(&error, &place)),
    };
    let matches = command
        .clone()
        .try_get_matches_from(arguments)
        .map_err(refused)?;
    let command = variables::with_environment(command, &Cli::command(), &matches, environment)?;
    let matches = command.try_get_matches_from(arguments).map_err(refused)?;
    let cli = Cli::from_arg_matches(&matches).map_err(refused)?;
    match cli.command {
        Some(command) => Ok(Parsed::Command(Box::new(command))),
        None => Ok(Parsed::Run(Box::new(cli.run.check()?))),
    }
}

/// A subcommand is one in the first place only, so this is certain.
fn place(command: &clap::Command, arguments: &[OsString]) -> Place {
    let subcommands: Vec<_> = command
        .get_subcommands()
        .map(|known| known.get_name().to_owned())
        .collect();
    let first = arguments
        .get(1)
        .and_then(|first| first.to_str())
        .unwrap_or_default();
    match subcommands.iter().find(|known| *known == first) {
        Some(name) => Place::Subcommand(name.clone()),
        None => Place::Run { subcommands },
    }
}

#[cfg(test)]
mod tests;
