//! Leases in a SQLite file, for one host: the same columns and rules as in
//! PostgreSQL, without a server.
//!
//! The database's clock is this host's wall clock. The incarnation is the
//! file (drawn at random when it was made, and its inode), the boot and the
//! time namespace. Standbys are woken by inotify on a small file beside the
//! database, which is touched after every change that concerns them.

mod admin;
mod bar;
mod bell;
mod calls;
mod failure;
mod files;
mod host;
mod link;
mod selftest;
mod sql;
mod watch;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::failure::Failure;
use self::host::Host;
use self::link::{Identity, Link, Make, Rows, last};
pub use self::watch::SqliteWatch;
use super::columns::Columns;
use super::deadline::{Deadline, SeenTime};
use super::settings::{SettingsError, one_line};
use super::{Clock, Timed};
use crate::lease::ids::LeaseName;
use crate::lease::record::Unknown;

/// Which file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SqliteSettings {
    path: PathBuf,
}

impl SqliteSettings {
    /// From what follows `sqlite:`; a relative path counts from `directory`.
    ///
    /// # Errors
    /// Where that is no path of a file.
    pub(super) fn new(rest: &str, directory: &Path) -> Result<Self, SettingsError> {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let why = if path.is_empty() {
            "names no file; give sqlite:PATH"
        } else if path == ":memory:" {
            "is of this process alone; give sqlite:PATH"
        } else if path.contains(['?', '\0']) {
            "has parameters; SQLite needs none, give sqlite:PATH"
        } else {
            let path = directory.join(path);
            return Ok(Self { path });
        };
        Err(SettingsError::Sqlite {
            path: one_line(path),
            why,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// One lease in a SQLite file.
pub struct SqliteStore {
    link: Link,
    name: LeaseName,
    clock: Clock,
    why: String,
    seen_time: Option<SeenTime>,
    /// What others must find is in `-wal` alone.
    unmerged: bool,
}

impl SqliteStore {
    /// The lease `name` in the file of `settings`. Opens nothing yet.
    pub fn new(settings: SqliteSettings, name: LeaseName, clock: Clock) -> Self {
        Self {
            link: Link::new(settings.path),
            name,
            clock,
            why: String::new(),
            seen_time: None,
            unmerged: false,
        }
    }

    /// Opens the file and sends a message; when it was sent, and the answer.
    async fn call(
        &mut self,
        deadline: Deadline,
        build: impl FnOnce(&Self) -> String,
    ) -> Timed<Result<Rows, Failure>> {
        if let Err(failure) = self.link.connect(deadline).await {
            let sent_at = (self.clock)();
            let reply = Err(failure);
            return Timed { sent_at, reply };
        }
        let message = build(self);
        let sent_at = (self.clock)();
        let reply = self.link.send(message, deadline).await;
        Timed { sent_at, reply }
    }

    /// The same for a message that may change what watchers wait for.
    async fn call_and_wake(
        &mut self,
        deadline: Deadline,
        build: impl FnOnce(&Self) -> String,
    ) -> Timed<Result<Rows, Failure>> {
        let answer = self.call(deadline, build).await;
        if let (Ok(rows), Some(files)) = (&answer.reply, self.link.files()) {
            let word = |column| last(rows).and_then(|cells| cells.there(column)).ok();
            let words = bell::Words {
                newest: word("newest"),
                highest: word("highest"),
            };
            bell::wake(&files.path, words, deadline.left()).await;
        }
        answer
    }

    /// A message with `values` and those that all need.
    fn message(&self, sql: &str, values: &sql::Values<'_>) -> String {
        let known = |part: fn(&Identity) -> &str| self.link.identity().map_or("", part);
        let common = [
            ("name", sql::text(self.name.as_str())),
            ("why", sql::text(&self.why)),
            ("drawn", sql::text(known(|identity| &identity.drawn))),
            ("file", sql::text(known(|identity| &identity.file))),
            (
                "incarnation",
                sql::text(known(|identity| &identity.incarnation)),
            ),
        ];
        let common = common.iter().map(|(place, value)| (*place, value.as_str()));
        let all: Vec<(&str, &str)> = values.iter().copied().chain(common).collect();
        sql::message(sql, &all)
    }

    fn given_up(&self, failure: Failure) -> Unknown {
        failure.unknown(self.link.path())
    }

    async fn init_once(&mut self, deadline: Deadline) -> Result<(), Failure> {
        match self.link.connect(deadline).await {
            // It is there, and ours.
            Ok(_) => return Ok(()),
            // Another host's: whoever runs `init` says that it is ours now.
            Err(Failure::Missing | Failure::OtherHost(_)) => {}
            Err(failure) => return Err(failure),
        }
        let path = files::usable(self.link.path())?;
        let mut connection = link::raw(&path, Make::IfMissing, deadline).await?;
        let host = Host::read()?;
        let sql = sql::creation(&host, bell::words(&path).newest.unwrap_or(0));
        link::send(&mut connection, sql, self.link.path(), deadline).await?;
        link::close(connection, deadline).await;
        bell::wake(&path, bell::Words::default(), deadline.left()).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let at = |rest: &str| SqliteSettings::new(rest, Path::new("/here"));
        let path = |rest: &str| at(rest).expect("a path").path;
        assert_eq!(path("a.db"), Path::new("/here/a.db"));
        assert_eq!(path("/x/a.db"), Path::new("/x/a.db"));
        assert_eq!(path("///x/a.db"), Path::new("/x/a.db"));
        assert_eq!(path("//a.db"), Path::new("/here/a.db"));
        for wrong in ["", "//", ":memory:", "a.db?mode=ro"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
