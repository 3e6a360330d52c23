//! Usage errors: one clear line with the flag, the value seen, and what
//! would be right; and never a password.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::values::shown;

/// What is wrong with the command line or a variable; exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

impl UsageError {
    /// One line, without a password.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// About one flag (or variable) and the value that was seen there.
    pub fn value(flag: &str, seen: &str, problem: &str) -> Self {
        Self(format!(
            "{flag}: '{}' {}",
            shown(seen),
            problem.trim_end_matches('.')
        ))
    }

    /// About the first of these arguments that is not UTF-8: clap does not say
    /// which.
    pub fn not_utf8(arguments: &[OsString]) -> Self {
        let options = arguments.split(|word| word == "--").next();
        let mut before = "the command line";
        for word in options.unwrap_or_default().iter().skip(1) {
            let Some(text) = word.to_str() else {
                let text = word.to_string_lossy();
                let (flag, seen) = match text.split_once('=') {
                    Some((flag, seen)) if flag.starts_with('-') => (flag, seen),
                    // The equals sign of a URL, say.
                    Some(_) | None => (before, &*text),
                };
                return Self::value(&shown(flag), seen, NOT_UTF8);
            };
            before = text;
        }
        Self(format!("an option's value {NOT_UTF8}"))
    }

    /// From clap's error.
    pub fn from_clap(error: &clap::Error, place: &Place) -> Self {
        let flag = match place {
            Place::Variable(variable) => variable.clone(),
            Place::Run { .. } | Place::Subcommand(_) => flag(error),
        };
        let seen = text(error, ContextKind::InvalidValue);
        match error.kind() {
            ErrorKind::InvalidValue if seen.is_empty() => {
                Self(format!("{flag} needs a value{}", one_of(error, "")))
            }
            ErrorKind::InvalidValue => Self::value(&flag, &seen, &one_of(error, "is not known")),
            ErrorKind::ValueValidation => {
                let problem = error.source().map(ToString::to_string);
                Self::value(
                    &flag,
                    &seen,
                    &verb(problem.as_deref().unwrap_or("is not valid")),
                )
            }
            ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => unknown(error, place),
            ErrorKind::ArgumentConflict => {
                let prior = strings(error, ContextKind::PriorArg).join(", ");
                Self(format!(
                    "{flag} cannot be combined with {}",
                    option_only(&prior)
                ))
            }
            ErrorKind::MissingRequiredArgument => Self(format!(
                "{}{} is missing",
                place
                    .subcommand()
                    .map(|name| format!("{name}: "))
                    .unwrap_or_default(),
                strings(error, ContextKind::InvalidArg).join(", ")
            )),
            ErrorKind::InvalidUtf8 => Self(format!("{flag}: the value {NOT_UTF8}")),
            ErrorKind::TooManyValues
            | ErrorKind::TooFewValues
            | ErrorKind::WrongNumberOfValues
            | ErrorKind::NoEquals => Self(format!("{flag} does not take '{}'", shown(&seen))),
            _ => Self(first_line(error)),
        }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

const NOT_UTF8: &str = "is not UTF-8; only the worker's command may be other bytes";

/// Where the error was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this variable.
    Variable(String),
    /// Among the options of this subcommand.
    Subcommand(String),
    /// In the run form.
    Run {
        /// What would have been a subcommand as the first word.
        subcommands: Vec<String>,
    },
}

impl Place {
    fn subcommand(&self) -> Option<&str> {
        match self {
            Self::Subcommand(name) => Some(name),
            Self::Variable(_) | Self::Run { .. } => None,
        }
    }
}

/// What looks like a word of ours and is none.
fn unknown(error: &clap::Error, place: &Place) -> UsageError {
    let seen = match text(error, ContextKind::InvalidArg) {
        none if none.is_empty() => text(error, ContextKind::InvalidSubcommand),
        seen => seen,
    };
    let word = shown(&seen);
    if seen.starts_with('-') && seen != "-" {
        let near = strings(error, ContextKind::SuggestedArg);
        return UsageError(match (near.first(), place) {
            (Some(near), _) => {
                format!(
                    "{word}: no such option; did you mean {}?",
                    option_only(near)
                )
            }
            // clap names its first letter alone.
            (None, _) if seen[1..].starts_with(|c: char| c.is_ascii_digit()) => format!(
                "{word}: no such option; a value that begins with a dash is given as --OPTION={word}…"
            ),
            (None, Place::Subcommand(name)) => {
                format!("{word}: no such option of {name} (see leasewrap {name} --help)")
            }
            (None, Place::Run { .. } | Place::Variable(_)) => format!(
                "{word}: no such option (see leasewrap --help; options of the worker's command go after --)"
            ),
        });
    }
    if seen.contains("://") {
        return UsageError(format!(
            "'{word}' stands alone; give a database with --db URL"
        ));
    }
    UsageError(match place {
        Place::Subcommand(name) => {
            format!("{name} takes no '{word}' (see leasewrap {name} --help)")
        }
        Place::Run { subcommands } if subcommands.contains(&seen) => format!(
            "'{word}' comes too late: a subcommand goes first (leasewrap {word} …), a program of that name after -- (leasewrap … -- {word} …)"
        ),
        Place::Run { subcommands } => {
            let near = subcommands
                .iter()
                .find(|known| one_slip_apart(known, &seen));
            let hint = match near {
                Some(known) => format!("did you mean {known}? To run it,"),
                None => "to run it,".to_owned(),
            };
            format!("'{word}' is no subcommand; {hint} put -- before it: leasewrap … -- {word} …")
        }
        Place::Variable(name) => format!("{name}: '{word}' is not valid"),
    })
}

/// One letter wrong, missing, too many, or two neighbours swapped; two such
/// slips in a long word.
fn one_slip_apart(known: &str, seen: &str) -> bool {
    let allowed = if known.len() > 5 { 2 } else { 1 };
    distance(known.as_bytes(), seen.as_bytes()) <= allowed
}

/// Damerau's distance (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (last[j - 1] + change).min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

fn strings(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(all)) => all.clone(),
        Some(_) | None => Vec::new(),
    }
}

fn text(error: &clap::Error, kind: ContextKind) -> String {
    strings(error, kind).into_iter().next().unwrap_or_default()
}

fn flag(error: &clap::Error) -> String {
    option_only(&text(error, ContextKind::InvalidArg)).to_owned()
}

/// `--ttl` of `--ttl <DURATION>`, `--verbose` of `--verbose...`.
fn option_only(described: &str) -> &str {
    described.split([' ', '=', '.']).next().unwrap_or(described)
}

fn one_of(error: &clap::Error, otherwise: &str) -> String {
    let valid = strings(error, ContextKind::ValidValue);
    if valid.is_empty() {
        return otherwise.to_owned();
    }
    let empty = otherwise.is_empty();
    format!(
        "{} one of {}",
        if empty { ":" } else { "is not" },
        valid.join(", ")
    )
}

/// Messages of foreign parsers ("invalid digit found in string") become
/// something that reads after the value.
fn verb(problem: &str) -> String {
    match problem.split(' ').next() {
        Some("is" | "has" | "holds" | "begins" | "ends" | "does" | "names") => problem.to_owned(),
        Some(_) | None => format!("is not valid: {problem}"),
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    shown(line.strip_prefix("error: ").unwrap_or(line))
}
