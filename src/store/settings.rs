//! Which store, and what is needed to reach it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::postgres::settings::{PgSettings, PgSource};
use super::postgres::url::UrlError;
use super::sqlite::SqliteSettings;

/// Which store, and what is needed to reach it. It travels to the releaser
/// through a sealed memfd, so it holds everything: what the environment said
/// too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum StoreSettings {
    /// A PostgreSQL database.
    Postgres(PgSettings),
    /// A SQLite file.
    Sqlite(SqliteSettings),
}

/// What the caller's environment and directories say about the database,
/// read once at the start.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Surroundings {
    /// Every `PG…` variable.
    pub variables: BTreeMap<String, String>,
    /// The home directory: for the password file and TLS files.
    pub home: Option<PathBuf>,
    /// The name of the user that runs leasewrap: the role's default.
    pub user: Option<String>,
    /// The working directory: for relative paths.
    pub directory: PathBuf,
}

impl Surroundings {
    /// Takes what counts from the caller's environment: `PG…` and `HOME`.
    /// `user` is the name of the effective user.
    pub fn new(
        environment: impl IntoIterator<Item = (String, String)>,
        user: Option<String>,
        directory: PathBuf,
    ) -> Self {
        let mut variables = BTreeMap::new();
        let mut home = None;
        for (name, value) in environment {
            if name.starts_with("PG") {
                variables.insert(name, value);
            } else if name == "HOME" && !value.is_empty() {
                home = Some(PathBuf::from(value));
            }
        }
        Self {
            variables,
            home,
            user,
            directory,
        }
    }
}

// Not derived: PGPASSWORD is among the variables.
impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

/// Where the database is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given<'a> {
    /// `--db`, once or several times.
    Urls(&'a [String]),
    /// `--db-file`.
    File(&'a Path),
}

/// Why the settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Neither `--db` nor `--db-file`.
    #[error("no database is named; give --db postgres://USER@HOST/DATABASE or --db-file PATH")]
    Nothing,
    /// A URL is wrong.
    #[error("{flag}: {error}")]
    Url {
        /// The flag that named it.
        flag: &'static str,
        /// What is wrong with it.
        error: UrlError,
    },
    /// The file cannot be read.
    #[error("--db-file {path}: cannot read it: {error}")]
    File {
        /// Its path.
        path: String,
        /// Why not.
        error: String,
    },
    /// The schema's name cannot be one.
    #[error("--schema {name:?}: {why}")]
    Schema {
        /// The name seen.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file of an embedded store cannot be one.
    #[error("--db sqlite:{path} {why}")]
    Sqlite {
        /// What was seen.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Text of somebody else's without anything that a terminal would act on, or
/// that would end the line or turn it round.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Bidirectional controls (Unicode, UAX #9).
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                line.extend(character.escape_unicode());
            }
            _ if character.is_control() => line.extend(character.escape_default()),
            _ => line.push(character),
        }
    }
    line
}

/// More than any file that names a database, or says a password.
const FILE_LIMIT: u64 = 1 << 20;

/// Opens a file that is read again at each connect: a regular one. A FIFO is
/// not waited for until somebody writes to it, and no device is read.
pub(super) fn open_file(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other(
            "it is not a regular file, which can be read again at each connect",
        ));
    }
    Ok(file)
}

/// Reads a small one.
pub(super) fn read_file(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let mut file = open_file(path)?.take(FILE_LIMIT + 1);
    let length = file.read_to_string(&mut text)?;
    if length as u64 > FILE_LIMIT {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

impl StoreSettings {
    /// Reads and checks everything that can be checked without connecting.
    ///
    /// # Errors
    /// [`SettingsError`] is one clear line, with no password in it.
    pub fn new(
        given: Given<'_>,
        schema: &str,
        surroundings: Surroundings,
    ) -> Result<Self, SettingsError> {
        let first = match given {
            Given::Urls([]) => return Err(SettingsError::Nothing),
            Given::Urls([first, ..]) => first.clone(),
            // What is in it is looked at again below, and at each connect.
            Given::File(path) => read_file(&surroundings.directory.join(path))
                .map(|text| text.trim().to_owned())
                .unwrap_or_default(),
        };
        if let Some(rest) = first.strip_prefix("sqlite:") {
            let alone = !matches!(given, Given::Urls([_, _, ..]));
            return Self::embedded(rest, alone, schema, &surroundings);
        }
        let source = match given {
            Given::Urls(urls) => PgSource::Urls(urls.to_vec()),
            Given::File(path) => PgSource::File(surroundings.directory.join(path)),
        };
        let settings = PgSettings::new(source, schema, surroundings)?;
        Ok(Self::Postgres(settings))
    }

    fn embedded(
        rest: &str,
        alone: bool,
        schema: &str,
        surroundings: &Surroundings,
    ) -> Result<Self, SettingsError> {
        if !alone {
            let path = one_line(rest);
            let why = "is one database and cannot stand beside others; give one --db";
            return Err(SettingsError::Sqlite { path, why });
        }
        if schema != "leasewrap" {
            let name = schema.to_owned();
            let why = "SQLite has no schemas; name another file";
            return Err(SettingsError::Schema { name, why });
        }
        SqliteSettings::new(rest, &surroundings.directory).map(Self::Sqlite)
    }

    /// Whether the system's roots have to be kept from the TLS layer.
    pub fn trusts_own_roots_only(&self) -> bool {
        match self {
            Self::Postgres(settings) => settings.trusts_own_roots_only(),
            Self::Sqlite(_) => false,
        }
    }

    /// How long a statement may run on the server at most, whatever its own
    /// call allows: `--call-timeout`. Set once per connection, it costs nothing.
    #[must_use]
    pub fn call_limit(self, limit: Duration) -> Self {
        match self {
            Self::Postgres(settings) => Self::Postgres(settings.call_limit(limit)),
            Self::Sqlite(settings) => Self::Sqlite(settings),
        }
    }

    /// How long an acquisition waits at most for whoever has locked the row,
    /// whatever time it has for the rest.
    #[must_use]
    pub fn lock_limit(self, limit: Duration) -> Self {
        match self {
            Self::Postgres(settings) => Self::Postgres(settings.lock_limit(limit)),
            // Whoever writes to a file locks all of it, for another lease too.
            Self::Sqlite(settings) => Self::Sqlite(settings),
        }
    }
}
