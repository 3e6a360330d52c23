//! The connection to the file, and messages to it. A message is a few
//! statements, mostly one transaction. sqlx runs them in a thread of the
//! connection's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Row};
use tokio::time::timeout;

use super::host::{self, FileId, Host, wrong};
use crate::lease::record::{Fault, Unknown};
use crate::store::columns::{Columns, unreadable};
use crate::store::deadline::Deadline;
use crate::store::message::collect;

/// The rows of each statement of a message.
pub(super) type Rows = Vec<Vec<SqliteRow>>;

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another process has kept the file locked: nothing happened.
    Locked,
    /// There is no such file, or nothing of ours in it.
    Missing,
    /// It is the file of the host whose machines have these ids.
    OtherHost(String),
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
            Self::OtherHost(machine) => wrong(format!(
                "{path}: it is the file of another host (machine {machine}); a file works on one \
                 host alone. Name another one, or run `leasewrap init` if it was moved here for good"
            )),
            Self::Missing => wrong(format!(
                "{path}: there are no leases in it; run `leasewrap init`"
            )),
        }
    }
}

/// A connection to the file, or what is needed to have one.
pub(super) struct Link {
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    connection: SqliteConnection,
    file: FileId,
    identity: Identity,
}

/// What stands for an incarnation (contract, section 4) here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Which file: a restored or replaced one has lost later writes.
    pub file: String,
    /// That, and which boot and time namespace: a record of another one that
    /// was not released is taken only by watching.
    pub incarnation: String,
}

/// Whether a connection may make the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Never,
    IfMissing,
}

impl Link {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Which file is open.
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.open.as_ref().map(|open| &open.identity)
    }

    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Opens the file, unless it is open; it is left when another one has
    /// taken its place, since whoever comes next uses that.
    pub(super) async fn connect(&mut self, deadline: Deadline) -> Result<&Identity, Failure> {
        let there = host::file(&self.path)?;
        if self
            .open
            .as_ref()
            .is_some_and(|open| Some(open.file) != there)
        {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let file = there.ok_or(Failure::Missing)?;
                self.open(file, deadline).await?
            }
        };
        Ok(&self.open.insert(open).identity)
    }

    async fn open(&self, file: FileId, deadline: Deadline) -> Result<Open, Failure> {
        let mut connection = self.raw(Make::Never, deadline).await?;
        let host = Host::read()?;
        let identity = identify(&mut connection, &self.path, file, &host, deadline).await?;
        Ok(Open {
            connection,
            file,
            identity,
        })
    }

    /// A connection, whatever is in the file.
    pub(super) async fn raw(
        &self,
        make: Make,
        deadline: Deadline,
    ) -> Result<SqliteConnection, Failure> {
        host::directory(&self.path)?;
        let options = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(make == Make::IfMissing)
            // Every commit is on the disk.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(patience(deadline))
            .thread_name(|_| "lw-sqlite".to_owned())
            .disable_statement_logging();
        match timeout(deadline.left(), options.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(failure(&error, &self.path)),
            Err(_elapsed) => Err(no_answer(&self.path).into()),
        }
    }

    /// Sends a message. The connection stays only where all of it succeeded:
    /// so nothing of it is left open.
    pub(super) async fn send(&mut self, sql: String, deadline: Deadline) -> Result<Rows, Failure> {
        let Some(mut open) = self.open.take() else {
            return Err(Failure::Missing);
        };
        let rows = send(&mut open.connection, sql, &self.path, deadline).await?;
        // Written to a file that nobody finds any more: that does not count.
        if host::file(&self.path)? != Some(open.file) {
            return Err(Failure::Unanswered(Unknown {
                fault: Fault::Transient,
                message: format!("{}: the file was replaced", self.path.display()),
            }));
        }
        self.open = Some(open);
        Ok(rows)
    }
}

/// How long SQLite waits for others: it gives up before we do, so that its
/// answer still reaches us. It counts the sleeps that it asks for, of up to
/// 100 ms, and never looks at a clock: a busy host makes each of them longer.
fn patience(deadline: Deadline) -> Duration {
    // It counts milliseconds in an `int`; sqlx panics past that.
    const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);
    (deadline.left() / 2).min(LONGEST)
}

/// Sends a message over `connection`, which must not be used again where that
/// fails.
pub(super) async fn send(
    connection: &mut SqliteConnection,
    sql: String,
    path: &Path,
    deadline: Deadline,
) -> Result<Rows, Failure> {
    let busy = patience(deadline).as_millis();
    let sql = format!("pragma busy_timeout = {busy};\n{sql}");
    match timeout(deadline.left(), collect(connection, sql)).await {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(failure(&error, path)),
        Err(_elapsed) => Err(no_answer(path).into()),
    }
}

/// Looks at the file: whether it is ours, of this host, and which one.
async fn identify(
    connection: &mut SqliteConnection,
    path: &Path,
    file: FileId,
    host: &Host,
    deadline: Deadline,
) -> Result<Identity, Failure> {
    let rows = match send(connection, super::sql::IDENTIFY.to_owned(), path, deadline).await {
        Err(Failure::Missing) => return Err(foreign_or_missing(connection, path, deadline).await),
        rows => rows?,
    };
    let cells = rows
        .iter()
        .flatten()
        .map(Cells)
        .next_back()
        .ok_or(Failure::Missing)?;
    if cells.there("compatible_from")? > super::sql::VERSION {
        return Err(wrong(format!(
            "{}: it was upgraded by a newer leasewrap that older ones cannot work with; use that \
             version",
            path.display()
        ))
        .into());
    }
    if cells.there("version")? < super::sql::VERSION {
        return Err(Failure::Missing);
    }
    let (machines, boot) = (cells.words("machine")?, cells.words("boot")?);
    let Some(known) = host.known_to(&machines, &boot) else {
        return Err(Failure::OtherHost(machines));
    };
    if boot != host.boot || known != machines {
        let change = super::sql::known(&known, &host.boot, (&machines, &boot));
        send(connection, change, path, deadline).await?;
    }
    let file = format!("{}.{}", cells.words("file")?, file.inode);
    let incarnation = format!("{file}/{}.{}", host.boot, host.time_namespace);
    Ok(Identity { file, incarnation })
}

/// There is no `lease_schema`: nothing of ours, or somebody else's.
async fn foreign_or_missing(
    connection: &mut SqliteConnection,
    path: &Path,
    deadline: Deadline,
) -> Failure {
    let rows = match send(connection, super::sql::FOREIGN.to_owned(), path, deadline).await {
        Ok(rows) => rows,
        Err(failure) => return failure,
    };
    if rows.iter().skip(1).all(Vec::is_empty) {
        return Failure::Missing;
    }
    Failure::Unanswered(wrong(format!(
        "{}: it holds a table \"lease\" that is not leasewrap's; name another file",
        path.display()
    )))
}

/// What an error of SQLite's means (sqlite.org, "Result and Error Codes").
fn failure(error: &sqlx::Error, path: &Path) -> Failure {
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
        1 if said.contains("no such table") || said.contains("no such column") => Failure::Missing,
        // A read-only file, one that cannot be opened, one that is damaged,
        // no database at all, an error of ours, a missing right.
        1 | 3 | 8 | 11 | 14 | 23 | 26 => Failure::Unanswered(wrong(message)),
        _ => Failure::Unanswered(Unknown {
            fault: Fault::Transient,
            message,
        }),
    }
}

fn no_answer(path: &Path) -> Unknown {
    Unknown {
        fault: Fault::Transient,
        message: format!("{}: no answer in time", path.display()),
    }
}

/// One row of an answer.
pub(super) struct Cells<'a>(pub &'a SqliteRow);

impl Columns for Cells<'_> {
    type Failure = Failure;

    fn text(&self, column: &str) -> Result<Option<String>, Failure> {
        let text = self.0.try_get::<Option<String>, _>(column);
        text.map_err(|error| unreadable(column, &error).into())
    }

    fn number(&self, column: &str) -> Result<Option<i64>, Failure> {
        let number = self.0.try_get::<Option<i64>, _>(column);
        number.map_err(|error| unreadable(column, &error).into())
    }

    fn flag(&self, column: &str) -> Result<bool, Failure> {
        Ok(self.number(column)?.unwrap_or(0) != 0)
    }

    /// Microseconds.
    fn duration(&self, column: &str) -> Result<Duration, Failure> {
        let micros = self.number(column)?.unwrap_or(0);
        Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
    }
}

/// The last row of the last statement that has one.
pub(super) fn last(rows: &Rows) -> Result<Cells<'_>, Failure> {
    let last = rows.iter().skip(1).rev().find_map(|rows| rows.last());
    last.map(Cells).ok_or_else(|| {
        Failure::Unanswered(Unknown {
            fault: Fault::Transient,
            message: "the answer is incomplete".to_owned(),
        })
    })
}
