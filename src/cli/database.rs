//! From `--db`, `--db-file` and `--schema` to a store.

use super::admin::Failed;
use super::args::db::{DbOptions, DbSource};
use crate::exit;
use crate::store::StoreSettings;
use crate::store::settings::{Given, SettingsError, Surroundings};
use crate::sys::environment;

/// Why there is no store.
pub struct Refused(SettingsError);

impl Refused {
    /// Says it and returns the exit code: what is wrong on the command line
    /// is a usage error, a file that cannot be read is not.
    pub fn tell(&self) -> u8 {
        self.failed().tell()
    }

    /// The same, for a command that tells it itself.
    pub fn failed(&self) -> Failed {
        let code = match self.0 {
            SettingsError::File { .. } => exit::DATABASE,
            SettingsError::Nothing
            | SettingsError::Url { .. }
            | SettingsError::Schema { .. }
            | SettingsError::Sqlite { .. } => exit::USAGE,
        };
        Failed {
            message: self.0.to_string(),
            code,
        }
    }
}

/// What is needed to reach the database. To be called before there are threads.
///
/// # Errors
/// [`Refused`]: a URL or file that cannot be used.
pub fn settings(options: &DbOptions) -> Result<StoreSettings, Refused> {
    let urls: Vec<String>;
    let given = match &options.source {
        DbSource::Urls(given) => {
            urls = given.iter().map(|url| url.reveal().to_owned()).collect();
            Given::Urls(&urls)
        }
        DbSource::File(path) => Given::File(path),
    };
    let settings = StoreSettings::new(given, &options.schema, surroundings()).map_err(Refused)?;
    if settings.trusts_own_roots_only() {
        environment::distrust_system_roots();
    }
    Ok(settings)
}

fn surroundings() -> Surroundings {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    Surroundings::new(
        environment,
        user.ok().flatten().map(|user| user.name),
        std::env::current_dir().unwrap_or_default(),
    )
}
