//! The commands that act on one lease: which, and whether it is meant.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;

use super::admin::{Admins, Failed};
use super::args::values;
use crate::lease::ids::{LeaseName, Slot, Token};
use crate::lease::record::Record;
use crate::store::admin::{Admin, LeaseStatus};
use crate::store::{Store, Watch};
use crate::telemetry::format::one_line;

/// How long to wait for a notification before looking without one.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// `--name`.
#[derive(Debug, Clone, Args)]
pub struct NameArgs {
    /// Which lease
    #[arg(
        long,
        value_name = "NAME",
        env = "LEASEWRAP_NAME",
        hide_env_values = true
    )]
    #[arg(value_parser = values::lease_name)]
    name: Option<LeaseName>,
}

impl NameArgs {
    /// The name; there is no default where something is changed.
    ///
    /// # Errors
    /// A usage error.
    pub fn required(self, command: &str) -> Result<LeaseName, Failed> {
        self.name.ok_or_else(|| {
            Failed::usage(format!(
                "{command}: which lease? give --name NAME (a run without --name uses 'default')"
            ))
        })
    }
}

/// Asks on the terminal; `yes` answers in advance.
///
/// # Errors
/// A usage error where there is nobody to ask.
pub fn confirm(question: &str, yes: bool) -> Result<bool, Failed> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Failed::usage(
            "standard input is no terminal to ask at; give --yes to go ahead",
        ));
    }
    let mut stderr = io::stderr().lock();
    let mut answer = String::new();
    let asked = write!(stderr, "{question} [y/N] ")
        .and_then(|()| stderr.flush())
        .and_then(|()| io::stdin().read_line(&mut answer));
    Ok(asked.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Waits until `seen` makes something of the lease's status, for at most
/// `limit`; `None` when that is over.
///
/// # Errors
/// The last call's, when no call has succeeded.
pub async fn until<T>(
    admins: &mut Admins,
    name: &LeaseName,
    limit: Duration,
    mut seen: impl FnMut(Option<&LeaseStatus>) -> Option<T>,
) -> Result<Option<T>, Failed> {
    // Watching begins before the first look, so that no change is missed.
    let mut watch = admins.store.watch();
    let mut trouble = None;
    let look = async {
        loop {
            match admins.store.status(Some(name), admins.limit).await {
                Ok(status) => {
                    trouble = None;
                    if let Some(found) = seen(status.value.first()) {
                        return found;
                    }
                }
                Err(unknown) => trouble = Some(unknown),
            }
            // Whatever the notice says, or that there was none: look again.
            drop(tokio::time::timeout(LOOK_EVERY, watch.next()).await);
        }
    };
    let found = tokio::time::timeout(limit, look).await.ok();
    match (found, trouble) {
        (None, Some(unknown)) => Err(Failed::call("read the lease", &unknown)),
        (found, _) => Ok(found),
    }
}

/// The row of `slot`, where there is one.
pub fn record(status: Option<&LeaseStatus>, slot: Slot) -> Option<&Record> {
    let mut slots = status?.slots.iter();
    slots
        .find(|status| status.record.slot == slot)
        .map(|status| &status.record)
}

/// Whether the term with `token` is over: given back, or another one's.
pub fn over(record: Option<&Record>, token: Token) -> bool {
    record.is_none_or(|record| record.released || record.token != token)
}

/// A holder for people.
pub fn who(label: &str, token: Token) -> String {
    format!("\"{}\" (token {token})", one_line(label))
}
