//! What the operators' commands share: the store, the limit of each call,
//! and how a failure is told.

use std::fmt::Display;
use std::time::Duration;

use clap::Args;

use super::args::db::DbArgs;
use super::args::usage::UsageError;
use super::args::values;
use super::named::NameArgs;
use super::{database, say};
use crate::exit;
use crate::lease::ids::LeaseName;
use crate::lease::record::Unknown;
use crate::store::{AnyStore, Store as _};

/// Options of every operator's command.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    #[command(flatten)]
    db: DbArgs,
    /// Limit of every call to the database
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_CALL_TIMEOUT",
        hide_env_values = true
    )]
    #[arg(default_value = "6s", value_parser = values::positive_duration)]
    call_timeout: Duration,
}

/// The store, ready for use.
pub struct Admins {
    /// Connects when it is needed.
    pub store: AnyStore,
    /// Of every call.
    pub limit: Duration,
}

/// Why a command ends early: one line for stderr, and the exit code.
#[derive(Debug)]
pub struct Failed {
    /// After `leasewrap: `.
    pub message: String,
    /// Exit code.
    pub code: u8,
}

impl Failed {
    /// Says it and returns the exit code.
    pub fn tell(&self) -> u8 {
        say(&format!("leasewrap: {}", self.message));
        self.code
    }

    /// A usage error.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: exit::USAGE,
        }
    }

    /// leasewrap itself failed. `error` reads after "cannot".
    pub fn cannot(error: &impl Display) -> Self {
        Self {
            message: format!("cannot {error}"),
            code: exit::FAILED,
        }
    }

    /// The database does not answer, or says no. `what` reads after "cannot".
    pub fn call(what: &str, unknown: &Unknown) -> Self {
        Self {
            message: format!("cannot {what}: {}", unknown.message),
            code: exit::DATABASE,
        }
    }

    /// It answered, and what was asked for is not so.
    pub fn refused(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
        }
    }
}

impl From<UsageError> for Failed {
    fn from(error: UsageError) -> Self {
        Self::usage(error.to_string())
    }
}

impl AdminArgs {
    /// Runs `work` with the store; its result is the exit code. `name` is
    /// the lease that it is about, where it is about one.
    pub fn perform(
        self,
        name: Option<&LeaseName>,
        work: impl AsyncFnOnce(&mut Admins) -> Result<u8, Failed>,
    ) -> u8 {
        with_store(self.db, self.call_timeout, name, work)
    }

    /// The same, about one lease that has to be named.
    pub fn named(
        self,
        name: NameArgs,
        command: &str,
        work: impl AsyncFnOnce(&mut Admins, &LeaseName) -> Result<u8, Failed>,
    ) -> u8 {
        match name.required(command) {
            Ok(name) => self.perform(Some(&name), async |admins: &mut Admins| {
                work(admins, &name).await
            }),
            Err(failed) => failed.tell(),
        }
    }
}

/// How long a command's end may wait for the store to be closed.
const CLOSING: Duration = Duration::from_secs(1);

/// Runs `work` with a store whose calls take `limit` at the most.
pub fn with_store(
    db: DbArgs,
    limit: Duration,
    name: Option<&LeaseName>,
    work: impl AsyncFnOnce(&mut Admins) -> Result<u8, Failed>,
) -> u8 {
    run(db, limit, name, work).unwrap_or_else(|failed| failed.tell())
}

fn run(
    db: DbArgs,
    limit: Duration,
    name: Option<&LeaseName>,
    work: impl AsyncFnOnce(&mut Admins) -> Result<u8, Failed>,
) -> Result<u8, Failed> {
    let settings = database::settings(&db.check()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failed {
        message: format!("cannot start: {error}"),
        code: exit::FAILED,
    })?;
    // A store is of one lease; what is about all of them names any.
    let name = name.map_or_else(|| LeaseName::new("default"), |name| Ok(name.clone()));
    let name = name.map_err(|error| Failed::usage(error.to_string()))?;
    let done = runtime.block_on(async {
        let store = AnyStore::new(settings, name, crate::sys::clock::now);
        let mut admins = Admins { store, limit };
        let done = work(&mut admins).await;
        admins.store.close(limit.min(CLOSING)).await;
        done
    });
    // A look-up of a host's name that hangs is not waited for.
    runtime.shutdown_background();
    done
}
