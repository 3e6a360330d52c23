//! What a failed call means, in one clear line.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use super::target::Target;
use crate::lease::record::{Fault, Unknown};
use crate::store::settings::{self, SettingsError};

/// What the server itself has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// SQLSTATE (manual, "PostgreSQL Error Codes").
    pub code: String,
    /// Its message, without the password.
    pub message: String,
    /// Whether it ends the session.
    pub fatal: bool,
    /// Said beside a refused login.
    note: Option<String>,
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server said no: what was asked did not happen.
    Refused(Refused),
    /// There is no answer, or none that can be read.
    Unanswered(Unknown),
}

/// The lock could not be had at once, or within `lock_timeout`.
pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
/// The statement took longer than `statement_timeout`, or was cancelled.
pub(super) const QUERY_CANCELED: &str = "57014";
/// A key is there already.
pub(super) const UNIQUE_VIOLATION: &str = "23505";
/// Also said when the queue of notifications is full.
pub(super) const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
/// Nothing of this name is prepared: somebody has said `DISCARD ALL`, say.
pub(super) const NO_SUCH_STATEMENT: &str = "26000";
/// Also said where what is prepared would have other columns by now.
pub(super) const NOT_SUPPORTED: &str = "0A000";
/// There is no right to it.
pub(super) const RIGHT_MISSING: &str = "42501";
/// A server in recovery, or `default_transaction_read_only`.
pub(super) const READ_ONLY: &str = "25006";
/// No such role, or no line in `pg_hba.conf`.
pub(super) const INVALID_AUTHORIZATION: &str = "28000";
/// Also PgBouncer's word for everything that it does not like.
pub(super) const PROTOCOL_VIOLATION: &str = "08P01";

impl From<Unknown> for Failure {
    fn from(unknown: Unknown) -> Self {
        Self::Unanswered(unknown)
    }
}

impl Failure {
    /// From what sqlx says of a call to `target`.
    pub(super) fn of(error: &sqlx::Error, target: &Target) -> Self {
        let at = &target.shown;
        let unanswered = |fault, message: String| {
            Self::Unanswered(Unknown {
                fault,
                message: one_line(&target.scrubbed(&format!("{at}: {message}"))),
            })
        };
        match error {
            sqlx::Error::Database(error) => {
                let error = error.downcast_ref::<PgDatabaseError>();
                Self::Refused(Refused {
                    code: error.code().to_owned(),
                    message: one_line(&target.scrubbed(&format!("{at}: {}", said(error)))),
                    fatal: !matches!(error.severity(), sqlx::postgres::PgSeverity::Error),
                    note: target.note.clone(),
                })
            }
            // A wrong certificate does not become right by waiting.
            sqlx::Error::Tls(error) => unanswered(Fault::Final, format!("TLS: {error}")),
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                // How rustls reports a certificate that it does not trust.
                unanswered(Fault::Final, format!("TLS: {error}"))
            }
            sqlx::Error::Io(error) => unanswered(Fault::Transient, plain(error)),
            sqlx::Error::Configuration(error) => unanswered(Fault::Final, error.to_string()),
            other => unanswered(Fault::Transient, other.to_string()),
        }
    }

    /// As an answer that says nothing.
    pub(super) fn unknown(self) -> Unknown {
        match self {
            Self::Unanswered(unknown) => unknown,
            Self::Refused(refused) => refused.unknown(),
        }
    }
}

impl Refused {
    /// Whether the schema is missing, or something that should be in it.
    pub(super) fn is_missing(&self) -> bool {
        self.is_gone() || matches!(self.code.as_str(), "42703" | "42883")
    }

    /// Whether the schema or the table is missing, and with it every row.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.code.as_str(), "3F000" | "42P01")
    }

    /// As an answer that says nothing, with what to do about it.
    pub(super) fn unknown(self) -> Unknown {
        let fault = self.fault();
        let mut message = self.message;
        let remedy = match self.code.as_str() {
            "28P01" | INVALID_AUTHORIZATION => self
                .note
                .as_deref()
                .or(Some("check the role and the password")),
            "3D000" => Some("create the database, or name another one"),
            RIGHT_MISSING => {
                Some("have a DBA grant the rights that `leasewrap init --print` names")
            }
            READ_ONLY => Some("name a server that can be written to"),
            _ => None,
        };
        if let Some(remedy) = remedy {
            message = format!("{message}; {remedy}");
        }
        Unknown { fault, message }
    }

    fn fault(&self) -> Fault {
        match self.code.as_str() {
            READ_ONLY => Fault::ReadOnly,
            PROTOCOL_VIOLATION => {
                // PgBouncer 1.18 says nearly everything with this code.
                let message = self.message.to_ascii_lowercase();
                let final_ones = [
                    "password",
                    "authentication",
                    "no such database",
                    "no such user",
                    "startup parameter",
                ];
                if final_ones.iter().any(|text| message.contains(text)) {
                    Fault::Final
                } else {
                    Fault::Transient
                }
            }
            // 57P04: the database was dropped.
            "57P04" => Fault::Final,
            code => match code.get(..2) {
                // A text that the database's encoding has no place for, no such
                // role or password, no such database or schema, no right or
                // no such object, a feature that is missing, what a trigger
                // raises (somebody else's, or our own fence).
                Some("22" | "28" | "3D" | "3F" | "42" | "0A" | "P0" | "LW") => Fault::Final,
                _ => Fault::Transient,
            },
        }
    }
}

impl From<SettingsError> for Unknown {
    fn from(error: SettingsError) -> Self {
        Self {
            fault: Fault::Final,
            message: error.to_string(),
        }
    }
}

fn said(error: &PgDatabaseError) -> String {
    match error.detail() {
        Some(detail) => format!("{} ({detail})", error.message()),
        None => DatabaseError::message(error).to_owned(),
    }
}

/// What an I/O error says to people.
fn plain(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "the connection was closed".to_owned()
        }
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::NotFound => "there is no such socket: no server listens there".to_owned(),
        _ => error.to_string(),
    }
}

/// Servers may say several lines; people are shown one.
fn one_line(text: &str) -> String {
    let lines = text.split('\n').map(str::trim);
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    settings::one_line(&lines.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_one_line_that_moves_no_cursor() {
        assert_eq!(one_line("a\n\n  b\x1b[2J\n"), "a b\\u{1b}[2J");
    }
}
