//! The connection to the file, and messages to it. A message is a few
//! statements, mostly one transaction. sqlx runs them in a thread of the
//! connection's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _, Row};
use tokio::time::{sleep, timeout};

use super::failure::{Failure, failure, no_answer};
use super::files::{self, FileId, Files};
use super::host::{Host, wrong};
use super::{bar, bell};
use crate::lease::record::{Fault, Unknown};
use crate::store::columns::{Columns, unreadable};
use crate::store::deadline::Deadline;
use crate::store::message::collect;

/// The rows of each statement of a message.
pub(super) type Rows = Vec<Vec<SqliteRow>>;

/// A connection to the file, or what is needed to have one.
pub(super) struct Link {
    path: PathBuf,
    open: Option<Open>,
}

struct Open {
    /// Nothing once it is on its way out.
    connection: Option<SqliteConnection>,
    /// As long as these are there, others see what this connection does.
    files: Files,
    identity: Identity,
    /// Nothing can be written over it.
    read_only: bool,
    /// Its last message has no answer, and may keep it from closing for long.
    is_late: bool,
}

impl Open {
    /// What is to be closed: only where the files are those that it knows may
    /// it do what the last one does. Whoever looks and is then held up for as
    /// long as others take to remove them, to open the file, to write and to
    /// close it does harm all the same; between the two lie microseconds.
    fn leave(&mut self) -> Option<SqliteConnection> {
        let connection = self.connection.take()?;
        let files = &self.files;
        let is_current = || Files::at(&files.path).is_ok_and(|now| now.as_ref() == Some(files));
        if self.is_late || !is_current() {
            return barred(connection, &files.path, Some(files.database));
        }
        bar::lift(files.database);
        Some(connection)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

/// A connection that does not do what the last one does; nothing where that
/// cannot be had. Then it is never closed, and this process opens no other.
fn barred(
    connection: SqliteConnection,
    path: &Path,
    id: Option<FileId>,
) -> Option<SqliteConnection> {
    if bar::bar(path, id).is_ok() {
        return Some(connection);
    }
    std::mem::forget(connection);
    None
}

/// What stands for an incarnation (contract, section 4) here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// What was drawn for it.
    pub drawn: String,
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

    /// Whether what is open can only be read.
    pub(super) fn is_read_only(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.read_only)
    }

    /// Which files are open.
    pub(super) fn files(&self) -> Option<&Files> {
        self.open.as_ref().map(|open| &open.files)
    }

    /// Whether what is open is what anybody finds who comes next.
    fn is_current(&self) -> Result<bool, Unknown> {
        Ok(match &self.open {
            Some(open) => Files::at(&self.path)?.as_ref() == Some(&open.files),
            None => false,
        })
    }

    /// Opens the file, unless it is open; it is left when another one has
    /// taken its place, or that of what SQLite has beside it, since whoever
    /// comes next uses that.
    pub(super) async fn connect(&mut self, deadline: Deadline) -> Result<&Identity, Failure> {
        if !self.is_current()? {
            self.close(deadline).await;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => self.open(deadline).await?,
        };
        Ok(&self.open.insert(open).identity)
    }

    /// Opens it, once nothing else of this process is in the way.
    async fn open(&self, deadline: Deadline) -> Result<Open, Failure> {
        loop {
            let opened = self.try_open(deadline).await;
            let pause = Duration::from_millis(rand::random_range(2..=20));
            if !matches!(opened, Err(Failure::Replaced)) || pause >= deadline.left() {
                return opened;
            }
            sleep(pause).await;
        }
    }

    async fn try_open(&self, deadline: Deadline) -> Result<Open, Failure> {
        let before = Files::at(&self.path)?.ok_or(Failure::Missing)?;
        if before.has_strays()? {
            return Err(Failure::Replaced);
        }
        let path = files::usable(&self.path)?;
        let newest = bell::words(&path).newest;
        let mut connection = raw(&path, Make::Never, deadline).await?;
        let host = Host::read()?;
        let found = identify(&mut connection, &self.path, &host, deadline).await;
        // From here on they stay the same ones. Before, they may have changed,
        // and what was read can be of files that do not belong together.
        let files = Files::at(&self.path)?.ok_or(Failure::Missing)?;
        let is_sound = files.path == path
            && files.database == before.database
            && match &found {
                Ok(found) => files.are_open()? && files.hold(found.wal)?,
                Err(_) => !files.has_strays()?,
            };
        if !is_sound {
            // It may be either of two files.
            if let Some(connection) = barred(connection, &path, FileId::at(&path)) {
                close(connection, deadline).await;
            }
            return Err(Failure::Replaced);
        }
        // All that was removed is closed.
        bar::lift(files.database);
        let found = found?;
        if let Some(newest) = newest.filter(|newest| found.newest < *newest)
            && put_back(&mut connection, newest, &self.path, deadline).await?
        {
            close(connection, deadline).await;
            return Err(Failure::Replaced);
        }
        let mut read_only = found.read_only;
        if let Some(change) = found.change {
            let done = send_if_writable(&mut connection, change, &self.path, deadline).await?;
            read_only |= done.is_none();
        }
        let file = format!("{}.{}", found.file, files.database.inode);
        let incarnation = format!("{file}/{}.{}", host.boot, host.time_namespace);
        Ok(Open {
            connection: Some(connection),
            files,
            identity: Identity {
                drawn: found.file,
                file,
                incarnation,
            },
            read_only,
            is_late: false,
        })
    }

    /// Sends a message. The connection stays only where all of it succeeded:
    /// so nothing of it is left open.
    pub(super) async fn send(&mut self, sql: String, deadline: Deadline) -> Result<Rows, Failure> {
        let mut open = self.open.take().ok_or(Failure::Missing)?;
        let connection = open.connection.as_mut().ok_or(Failure::Missing)?;
        let sent = send(connection, sql, &self.path, deadline).await;
        open.is_late = matches!(sent, Err(Failure::Unanswered(_)));
        let rows = sent?;
        self.open = Some(open);
        // Written to files that nobody finds any more: that does not count.
        if !self.is_current()? {
            self.close(deadline).await;
            return Err(Failure::Replaced);
        }
        Ok(rows)
    }

    /// Puts what was committed into the file itself ([`super::sql::MERGE`]);
    /// whether nothing is left to be put there.
    pub(super) async fn merge(&mut self, deadline: Deadline) -> Result<bool, Failure> {
        // What nobody finds must not come into what others use.
        if !self.is_current()? {
            return Err(Failure::Replaced);
        }
        let rows = self.send(super::sql::MERGE.to_owned(), deadline).await?;
        let cells = last(&rows)?;
        Ok(!cells.flag("busy")? && cells.there("checkpointed")? >= cells.there("log")?)
    }

    /// Closes the file. The last one of all merges and removes what is beside
    /// it.
    pub(super) async fn close(&mut self, deadline: Deadline) {
        let open = self.open.take();
        if let Some(connection) = open.and_then(|mut open| open.leave()) {
            close(connection, deadline).await;
        }
    }
}

/// A connection to the file at `path`, whatever is in it.
pub(super) async fn raw(
    path: &Path,
    make: Make,
    deadline: Deadline,
) -> Result<SqliteConnection, Failure> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(make == Make::IfMissing)
        // Every commit is on the disk.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(patience(deadline))
        .thread_name(|_| "lw-sqlite".to_owned())
        .disable_statement_logging();
    match timeout(deadline.left(), options.connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(failure(&error, path)),
        Err(_elapsed) => Err(no_answer(path).into()),
    }
}

/// Closes a connection, and waits for it. One that is dropped is open for a
/// while yet, and one that does not answer stays so.
pub(super) async fn close(connection: SqliteConnection, deadline: Deadline) {
    let _closed_or_not = timeout(deadline.left(), connection.close()).await;
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

/// Sends what only somebody who may write can do. Whoever may not goes on
/// without, and never writes over this connection, also where that is allowed
/// later: what should come before is missing.
async fn send_if_writable(
    connection: &mut SqliteConnection,
    sql: String,
    path: &Path,
    deadline: Deadline,
) -> Result<Option<Rows>, Failure> {
    match send(connection, sql, path, deadline).await {
        Ok(rows) => Ok(Some(rows)),
        Err(Failure::ReadOnly) => {
            let never = "pragma query_only = true".to_owned();
            send(connection, never, path, deadline).await?;
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// An earlier file is in the place of one whose history had come further: it
/// is another database from now on, where that can be written down.
async fn put_back(
    connection: &mut SqliteConnection,
    newest: i64,
    path: &Path,
    deadline: Deadline,
) -> Result<bool, Failure> {
    let message = super::sql::put_back(newest);
    let done = send_if_writable(connection, message, path, deadline).await?;
    if done.is_some() {
        tracing::warn!(
            event = "put-back",
            "{}: it has lost leases that were taken or given back (a backup was put back, or its \
             -wal deleted); all in it are in doubt, and watched before they are taken",
            path.display()
        );
    }
    Ok(done.is_some())
}

/// What a file says.
struct Found {
    /// Which one it is.
    file: String,
    /// How far its history has come.
    newest: i64,
    /// What is to be changed in it.
    change: Option<String>,
    /// Frames that must be in `-wal`, where any must, and the size of a page.
    wal: Option<(i64, i64)>,
    /// We may not.
    read_only: bool,
}

/// Looks at the file, whether it is ours and of this host.
async fn identify(
    connection: &mut SqliteConnection,
    path: &Path,
    host: &Host,
    deadline: Deadline,
) -> Result<Found, Failure> {
    let question = super::sql::message(super::sql::IDENTIFY, &[]);
    let rows = match send(connection, question, path, deadline).await {
        Err(Failure::Missing) => return Err(foreign_or_missing(connection, path, deadline).await),
        rows => rows?,
    };
    // The first one sets the limit.
    let found = rows.iter().skip(1).find_map(|rows| rows.last());
    let cells = found.map(Cells).ok_or(Failure::Missing)?;
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
    let change = (boot != host.boot || known != machines)
        .then(|| super::sql::known(&known, &host.boot, (&machines, &boot)));
    let log = send_if_writable(connection, super::sql::LOG.to_owned(), path, deadline).await?;
    let read_only = log.is_none();
    let mut wal = None;
    if let Some(rows) = log {
        let log = last(&rows)?;
        let (frames, merged) = (log.there("log")?, log.there("checkpointed")?);
        wal = (frames > merged).then_some((frames, cells.there("page_size")?));
    }
    Ok(Found {
        file: cells.words("file")?,
        newest: cells.there("newest")?,
        change,
        wal,
        read_only,
    })
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
