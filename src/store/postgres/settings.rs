//! What is needed to reach a PostgreSQL database, now and at a later connect.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::target::{self, Roots, Target};
use super::url::{self, Parameters, UrlError};
use crate::store::settings::{SettingsError, Surroundings, read_file};

/// Where the URLs come from.
#[derive(Clone, Serialize, Deserialize)]
pub enum PgSource {
    /// They were given; tried in this order.
    Urls(Vec<String>),
    /// One a line in this file, which is read again at every connect, so that
    /// credentials can rotate.
    File(PathBuf),
}

// Not derived: URLs hold passwords.
impl fmt::Debug for PgSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Urls(urls) => write!(f, "{} URLs", urls.len()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is needed to reach the database. Holds credentials; its `Debug` shows
/// none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PgSettings {
    source: PgSource,
    schema: String,
    surroundings: Surroundings,
    call_limit: Duration,
    lock_limit: Duration,
}

impl PgSettings {
    /// Checks everything that can be checked without connecting.
    ///
    /// # Errors
    /// [`SettingsError`] is one clear line, with no password in it.
    pub fn new(
        source: PgSource,
        schema: &str,
        surroundings: Surroundings,
    ) -> Result<Self, SettingsError> {
        let why = if schema.is_empty() || schema.len() > 63 {
            Some("a schema's name has 1 to 63 bytes")
        } else if schema.contains(char::is_control) {
            Some("a schema's name has no control characters")
        } else if schema.starts_with("pg_") {
            Some("PostgreSQL keeps names that begin with pg_ for itself")
        } else {
            None
        };
        if let Some(why) = why {
            let name = schema.to_owned();
            return Err(SettingsError::Schema { name, why });
        }
        let settings = Self {
            source,
            schema: schema.to_owned(),
            surroundings,
            call_limit: Duration::from_secs(30),
            lock_limit: Duration::MAX,
        };
        settings.targets()?;
        Ok(settings)
    }

    /// How long a statement may run on the server at most (default 30 s).
    #[must_use]
    pub fn call_limit(mut self, limit: Duration) -> Self {
        self.call_limit = limit;
        self
    }

    /// How long an acquisition waits for whoever has locked the row, at most
    /// (default: as long as it may take).
    #[must_use]
    pub fn lock_limit(mut self, limit: Duration) -> Self {
        self.lock_limit = limit;
        self
    }

    /// What is left of that, and of a call.
    pub(super) fn waits_for_locks(&self, left: Duration) -> Duration {
        left.min(self.lock_limit)
    }

    /// The same for other acquisitions of the lease: several may come first,
    /// and each of them waits for its commit, or for a row.
    pub(super) fn waits_for_others(&self, left: Duration) -> Duration {
        left.min(self.lock_limit.saturating_mul(10))
    }

    pub(super) fn statement_limit(&self) -> Duration {
        self.call_limit
    }

    /// `--schema`.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// Where the server may be, in the order in which to try. Reads files.
    pub(super) fn targets(&self) -> Result<Vec<Target>, SettingsError> {
        let named = self.named()?;
        Ok(named.into_iter().flat_map(|(_, targets)| targets).collect())
    }

    /// Whether the file that names the database is one of its own: a secret
    /// that is mounted, say, from where it may not come back for long.
    pub(super) fn is_in_a_file(&self) -> bool {
        matches!(self.source, PgSource::File(_))
    }

    /// What each URL says, and where it leads to. Reads files.
    pub(super) fn named(&self) -> Result<Vec<(Parameters, Vec<Target>)>, SettingsError> {
        let (flag, urls) = match &self.source {
            PgSource::Urls(urls) => ("--db", urls.clone()),
            PgSource::File(path) => ("--db-file", lines(path)?),
        };
        let resolve = |text: &String| {
            let parameters = url::parse(text)?;
            let targets = target::resolve(parameters.clone(), &self.surroundings)?;
            Ok((parameters, targets))
        };
        let named: Result<_, UrlError> = urls.iter().map(resolve).collect();
        named.map_err(|error| SettingsError::Url { flag, error })
    }

    /// Whether servers' certificates are checked against files of our own
    /// alone (`sslrootcert`). The TLS layer adds what it takes for the
    /// system's roots to them, and has to be kept from it.
    pub fn trusts_own_roots_only(&self) -> bool {
        let Ok(targets) = self.targets() else {
            return false;
        };
        let mut checked = targets.iter().filter_map(Target::roots).peekable();
        checked.peek().is_some() && checked.all(|roots| roots == Roots::Own)
    }
}

/// The lines of a file that are not empty.
fn lines(path: &Path) -> Result<Vec<String>, SettingsError> {
    let wrong = |error: String| SettingsError::File {
        path: path.display().to_string(),
        error,
    };
    let text = read_file(path).map_err(|error| wrong(error.to_string()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    Ok(lines)
}
