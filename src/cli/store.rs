//! From the options to the store's settings.

use std::path::PathBuf;

use nix::unistd::{User, geteuid};

use super::args::db::{DbOptions, DbSource};
use crate::store::settings::{Given, SettingsError, StoreSettings, Surroundings};

/// Reads and checks everything that can be checked without connecting.
///
/// # Errors
/// One clear line, with no password in it.
pub fn settings(options: &DbOptions) -> Result<StoreSettings, SettingsError> {
    // What is not UTF-8 is none of libpq's settings.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let user = User::from_uid(geteuid())
        .ok()
        .flatten()
        .map(|user| user.name);
    // A working directory that was removed: relative paths lead nowhere then.
    let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let surroundings = Surroundings::new(environment, user, directory);
    match &options.source {
        DbSource::Urls(urls) => {
            let urls: Vec<String> = urls.iter().map(|url| url.reveal().to_owned()).collect();
            StoreSettings::new(Given::Urls(&urls), &options.schema, surroundings)
        }
        DbSource::File(path) => {
            StoreSettings::new(Given::File(path), &options.schema, surroundings)
        }
    }
}
