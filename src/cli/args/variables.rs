//! The environment's part of the options.
//!
//! clap knows which variable belongs to which option (for help and man
//! pages); reading them is done here, because people expect more than clap
//! does:
//!
//! - A variable that is empty counts as not set: `LEASEWRAP_TTL=` in a unit
//!   file or a compose file takes the default. So does a switch that is `false`.
//! - What stands on the command line wins, also over the variable of an
//!   option that excludes it (`--no-wait` over `LEASEWRAP_WAIT`).
//! - A wrong value is reported under the variable's name.
//! - A variable matters only to the commands that have its option.

use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::usage::{Place, UsageError};

/// Reads a variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// `command` with the variables in its long help, and none of them read by
/// clap.
pub fn documented(command: Command) -> Command {
    command.mut_subcommands(documented).mut_args(|arg| {
        let Some(variable) = variable(&arg) else {
            return arg;
        };
        let help = arg.get_long_help().or_else(|| arg.get_help());
        let help = format!("{}\n\n[env: {variable}]", help.cloned().unwrap_or_default());
        arg.env(None::<&'static str>).long_help(help)
    })
}

/// `command` with every value that the environment has for what `matches`
/// leaves open, as that option's default. `named` is the same command with
/// the variables' names in it.
///
/// # Errors
/// A variable whose value cannot be read, under its own name; two variables
/// that exclude each other.
pub fn with_environment(
    command: Command,
    named: &Command,
    matches: &ArgMatches,
    environment: &Environment<'_>,
) -> Result<Command, UsageError> {
    if let Some((name, matches)) = matches.subcommand() {
        let Some(named) = named.find_subcommand(name) else {
            return Ok(command);
        };
        let mut outcome = Ok(());
        let command = command.mut_subcommand(name, |inner| {
            fill(inner.clone(), named, matches, environment).unwrap_or_else(|error| {
                outcome = Err(error);
                inner
            })
        });
        return outcome.map(|()| command);
    }
    fill(command, named, matches, environment)
}

fn fill(
    mut command: Command,
    named: &Command,
    matches: &ArgMatches,
    environment: &Environment<'_>,
) -> Result<Command, UsageError> {
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut taken: Vec<(&Arg, String)> = Vec::new();
    for arg in named.get_arguments() {
        let Some(variable) = variable(arg) else {
            continue;
        };
        let Some(value) = environment(&variable).filter(|value| !value.is_empty()) else {
            continue;
        };
        let rivals = rivals(named, arg);
        if given(arg.get_id().as_str()) || rivals.iter().any(|rival| given(rival.get_id().as_str()))
        {
            continue;
        }
        check(arg, &variable, &value)?;
        if is_switch(arg) && value == "false" {
            continue;
        }
        if let Some((_, other)) = taken.iter().find(|(other, _)| rivals.contains(other)) {
            return Err(UsageError::new(format!(
                "{other} and {variable} are both set; set one of them"
            )));
        }
        taken.push((arg, variable));
        command = command.mut_arg(arg.get_id(), |arg| arg.default_value(value));
    }
    Ok(command)
}

/// What `arg` excludes, whichever of the two says so.
fn rivals<'a>(command: &'a Command, arg: &'a Arg) -> Vec<&'a Arg> {
    let names = |one: &Arg, other: &&Arg| command.get_arg_conflicts_with(one).contains(other);
    command
        .get_arguments()
        .filter(|other| names(arg, other) || names(other, &arg))
        .collect()
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Reads the value as its option would, so that what clap gets as a default
/// is known to be right.
fn check(arg: &Arg, variable: &str, value: &OsStr) -> Result<(), UsageError> {
    if is_switch(arg) {
        return match value.to_str() {
            Some("true" | "false") => Ok(()),
            Some(_) | None => Err(UsageError::value(
                variable,
                &value.to_string_lossy(),
                "is not true or false",
            )),
        };
    }
    let alone = arg
        .clone()
        .env(None::<&'static str>)
        .long("value")
        .conflicts_with(clap::builder::Resettable::Reset);
    let mut token = OsString::from("--value=");
    token.push(value);
    Command::new("variable")
        .no_binary_name(true)
        .disable_help_flag(true)
        .arg(alone)
        .try_get_matches_from([token])
        .map(|_| ())
        .map_err(|error| UsageError::from_clap(&error, &Place::Variable(variable.to_owned())))
}

fn variable(arg: &Arg) -> Option<String> {
    arg.get_env()
        .map(|name| name.to_string_lossy().into_owned())
}
