//! What people type and see: the command line and the operator's commands,
//! one file each.

use std::ffi::OsString;
use std::io::{self, Write as _};

use self::args::Parsed;
use crate::sys::{entry, process};
use crate::telemetry::format::one_line;

pub mod admin;
pub mod args;
mod attach;
pub mod break_;
pub mod commands;
pub mod completions;
mod database;
pub mod doctor;
mod ending;
pub mod history;
pub mod init;
pub mod install;
pub mod man;
pub mod named;
pub mod output;
pub mod pause;
pub mod protect;
mod refused;
pub mod resume;
mod run;
pub mod selftest;
mod serve;
pub mod status;
pub mod step_down;
pub mod terms;
pub mod timeline;

/// One line on stderr from a command that has no log (yet), whatever a path
/// or a server has put into it. That nobody reads it (closed, broken) is no
/// failure.
pub fn say(line: &str) {
    drop(writeln!(io::stderr().lock(), "{}", one_line(line)));
}

/// Output of a command on stdout; the result is the exit code. A reader that
/// is gone has seen what it wanted (`| head`).
pub fn print(output: &[u8]) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(output).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!(
                "leasewrap: cannot write to standard output: {error}"
            ));
            crate::exit::FAILED
        }
        Ok(()) | Err(_) => 0,
    }
}

/// The command line's work; the result is the exit code.
pub fn main(arguments: &[OsString]) -> u8 {
    // The password may be in the memory and in the environment.
    if let Err(error) = process::become_undumpable() {
        say(&format!("leasewrap: cannot {error}"));
        return crate::exit::FAILED;
    }
    if let Some(words) = selftest::witness::asked(arguments) {
        return selftest::witness::run(words);
    }
    let parsed = args::parse(arguments, &|name| std::env::var_os(name));
    entry::hide_passwords();
    // Half a megabyte, which the parser of the command line alone has used.
    process::release_freed_memory();
    match parsed {
        Ok(Parsed::Run(options)) => run::run(*options),
        Ok(Parsed::Command(command)) => command.perform(),
        Err(refused) => refused.tell(),
    }
}
