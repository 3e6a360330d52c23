//! From `--db`, `--db-file` and `--schema` to a store.

use super::admin::Failed;
use super::args::db::{DbOptions, DbSource};
use crate::exit;
use crate::store::StoreSettings;
use crate::store::settings::{Given, SettingsError, Surroundings};
use crate::sys::environment;

/// What is needed to reach the database. To be called before there are threads.
///
/// # Errors
/// A URL or file that cannot be used.
pub fn settings(options: &DbOptions) -> Result<StoreSettings, Failed> {
    let urls: Vec<String>;
    let given = match &options.source {
        DbSource::Urls(given) => {
            urls = given.iter().map(|url| url.reveal().to_owned()).collect();
            Given::Urls(&urls)
        }
        DbSource::File(path) => Given::File(path),
    };
    let settings = StoreSettings::new(given, &options.schema, surroundings()).map_err(refused)?;
    if settings.trusts_own_roots_only() {
        environment::distrust_system_roots();
    }
    Ok(settings)
}

/// What is wrong on the command line is a usage error, a file that cannot be
/// read is not.
fn refused(error: SettingsError) -> Failed {
    let code = match error {
        SettingsError::File { .. } => exit::DATABASE,
        SettingsError::Nothing
        | SettingsError::Url { .. }
        | SettingsError::Schema { .. }
        | SettingsError::Sqlite { .. } => exit::USAGE,
    };
    Failed {
        message: error.to_string(),
        code,
    }
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
