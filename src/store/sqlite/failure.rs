//! How a call fails, and what SQLite's errors mean.

use std::path::Path;

use super::host::wrong;
use crate::lease::record::{Fault, Unknown};

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another process has kept the file locked: nothing happened.
    Locked,
    /// There is no such file, or nothing of ours in it.
    Missing,
    /// It is the file of the host whose machines have these ids.
    OtherHost(String),
    /// Files were removed, or others put in their place: what was written
    /// since, nobody finds.
    Replaced,
    /// We may not write to it. Nothing happened.
    ReadOnly,
    /// There is no answer, or none that can be read.
    Unanswered(Unknown),
}

impl From<Unknown> for Failure {
    fn from(unknown: Unknown) -> Self {
        Self::Unanswered(unknown)
    }
}

impl Failure {
    /// As an answer that says nothing.
    pub(super) fn unknown(self, path: &Path) -> Unknown {
        let path = path.display();
        match self {
            Self::Unanswered(unknown) => unknown,
            Self::Locked => Unknown {
                fault: Fault::Transient,
                message: format!("{path}: another process keeps the file locked"),
            },
            Self::Replaced => Unknown {
                fault: Fault::Transient,
                message: format!("{path}: it, its -wal or its -shm was removed or replaced"),
            },
            Self::OtherHost(machine) => wrong(format!(
                "{path}: it is the file of another host (machine {machine}); a file works on one \
                 host alone. Name another one, or run `leasewrap init` if it was moved here for good"
            )),
            Self::ReadOnly => wrong(format!(
                "{path}: there is no right to write to it; leasewrap has to be able to write to \
                 the file and to its directory (to read a file suffices while another leasewrap \
                 has it open)"
            )),
            Self::Missing => wrong(format!(
                "{path}: there are no leases in it; run `leasewrap init`"
            )),
        }
    }
}

/// What an error of SQLite's means (sqlite.org, "Result and Error Codes").
pub(super) fn failure(error: &sqlx::Error, path: &Path) -> Failure {
    let message = format!("{}: {error}", path.display());
    let sqlx::Error::Database(error) = error else {
        let fault = Fault::Transient;
        return Failure::Unanswered(Unknown { fault, message });
    };
    let said = error.message();
    let code = error
        .code()
        .and_then(|code| code.parse::<u32>().ok())
        .unwrap_or(0);
    let message = format!("{}: {said}", path.display());
    // The lower byte is the primary code.
    match code & 0xff {
        5 | 6 => Failure::Locked,
        // The file was moved or removed meanwhile.
        8 if code == 1032 => Failure::Replaced,
        8 => Failure::ReadOnly,
        1 if said.contains("no such table") || said.contains("no such column") => Failure::Missing,
        // One that cannot be opened, one that is damaged, no database at all,
        // an error of ours, a missing right.
        1 | 3 | 11 | 14 | 23 | 26 => Failure::Unanswered(wrong(message)),
        _ => Failure::Unanswered(Unknown {
            fault: Fault::Transient,
            message,
        }),
    }
}

pub(super) fn no_answer(path: &Path) -> Unknown {
    Unknown {
        fault: Fault::Transient,
        message: format!("{}: no answer in time", path.display()),
    }
}
