//! Which database: `--db`, `--db-file`, `--schema`.

use std::fmt;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::usage::UsageError;
use super::values;

/// Options of every command that talks to the database.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct DbArgs {
    /// Where the lease is kept: postgres://USER@HOST/DATABASE, sqlite:PATH
    ///
    /// sqlite:PATH is for the processes of one host. For Postgres,
    /// libpq's keywords, several hosts (h1:p1,h2:p2), target_session_attrs,
    /// sslmode up to verify-full, the PG* variables and the password file are
    /// honoured. May be repeated: the servers are tried in order. A password
    /// given here is overwritten in the process list at the start; --db-file
    /// and LEASEWRAP_DB keep it out of there altogether.
    #[arg(long, value_name = "URL", env = "LEASEWRAP_DB", hide_env_values = true)]
    #[arg(action = ArgAction::Append, value_parser = DbUrl::read, conflicts_with = "db_file")]
    db: Vec<DbUrl>,

    /// A file that holds the URL; read again at every connect
    ///
    /// So credentials can rotate: write the new URL beside the file and
    /// rename it over.
    #[arg(
        long,
        value_name = "PATH",
        env = "LEASEWRAP_DB_FILE",
        hide_env_values = true
    )]
    #[arg(conflicts_with = "db")]
    db_file: Option<PathBuf>,

    /// Schema of leasewrap's tables
    #[arg(
        long,
        value_name = "NAME",
        env = "LEASEWRAP_SCHEMA",
        hide_env_values = true
    )]
    #[arg(default_value = "leasewrap", value_parser = values::schema)]
    schema: String,
}

/// The database in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DbOptions {
    /// Where.
    pub source: DbSource,
    /// Schema of leasewrap's tables.
    pub schema: String,
}

/// Where the URL comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbSource {
    /// `--db`: one or more, tried in order.
    Urls(Vec<DbUrl>),
    /// `--db-file`: read again at every connect.
    File(PathBuf),
}

/// A URL; shows its password to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct DbUrl(String);

impl DbUrl {
    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let known = ["postgres://", "postgresql://", "sqlite:"];
        if known.iter().any(|scheme| text.starts_with(scheme)) {
            return Ok(Self(text.to_owned()));
        }
        Err("is no database URL; give postgres://USER@HOST/DATABASE or sqlite:PATH".to_owned())
    }

    /// The URL, password and all: for the connection only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&values::without_password(&self.0))
    }
}

impl fmt::Debug for DbUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl DbArgs {
    /// Checks the options together.
    ///
    /// # Errors
    /// When no database is named.
    pub fn check(self) -> Result<DbOptions, UsageError> {
        let source = match (self.db_file, self.db) {
            (Some(file), _) => DbSource::File(file),
            (None, urls) if !urls.is_empty() => DbSource::Urls(urls),
            (None, _) => {
                return Err(UsageError::new(
                    "no database is named; give --db postgres://USER@HOST/DATABASE or --db-file PATH, \
                 or set LEASEWRAP_DB or LEASEWRAP_DB_FILE",
                ));
            }
        };
        Ok(DbOptions {
            source,
            schema: self.schema,
        })
    }
}
