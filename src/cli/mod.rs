//! What people type and see: the command line and the operator's commands,
//! one file each.

use std::io::{self, IsTerminal, Write as _};

pub mod args;
pub mod commands;
pub mod completions;
pub mod man;

/// One line on stderr from a command that has no log (yet). That nobody
/// reads it (closed, broken) is no failure.
pub fn say(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
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

/// Whether colours help there: on a terminal, unless `NO_COLOR` is set (to
/// anything but the empty text, see no-color.org) or the terminal is dumb.
pub fn colours(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
