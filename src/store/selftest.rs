//! What `leasewrap selftest` does to the rows of leases of its own, and of no
//! others: their names say whose they are.

use std::future::Future;
use std::time::Duration;

use super::AnyStore;
use super::any::either;
use super::postgres::Hop;
use super::settings::{SettingsError, StoreSettings};
use crate::lease::ids::{LeaseName, TextError};
use crate::lease::record::Unknown;

/// With this begin the names of the self-test's leases. The schemas know it:
/// rows of other leases are never deleted.
pub const PREFIX: &str = "leasewrap-selftest-";

/// A lease of the self-test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestLease(LeaseName);

impl TestLease {
    /// `leasewrap-selftest-` and `rest`.
    ///
    /// # Errors
    /// Where that is no name.
    pub fn new(rest: &str) -> Result<Self, TextError> {
        LeaseName::new(format!("{PREFIX}{rest}")).map(Self)
    }

    /// Its name.
    pub fn name(&self) -> &LeaseName {
        &self.0
    }
}

/// The self-test's side of a store. Every call is over within its `limit`.
pub trait SelfTest: Send {
    /// Gives the row another holder and another token, as somebody would who
    /// writes to the table by hand. False: nobody holds the lease.
    fn steal(
        &mut self,
        lease: &TestLease,
        limit: Duration,
    ) -> impl Future<Output = Result<bool, Unknown>> + Send;

    /// Moves the instants in the row back by `seconds` (forward where that is
    /// negative): what a database's clock that was stepped by as much shows
    /// to whoever watches the row. Not the revision, which no step of a clock
    /// changes. False: nobody holds the lease.
    fn step_clock(
        &mut self,
        lease: &TestLease,
        seconds: i64,
        limit: Duration,
    ) -> impl Future<Output = Result<bool, Unknown>> + Send;

    /// Removes the lease's rows and its history.
    fn forget(
        &mut self,
        lease: &TestLease,
        limit: Duration,
    ) -> impl Future<Output = Result<(), Unknown>> + Send;
}

impl SelfTest for AnyStore {
    async fn steal(&mut self, lease: &TestLease, limit: Duration) -> Result<bool, Unknown> {
        either!(self, store => store.steal(lease, limit).await)
    }

    async fn step_clock(
        &mut self,
        lease: &TestLease,
        seconds: i64,
        limit: Duration,
    ) -> Result<bool, Unknown> {
        either!(self, store => store.step_clock(lease, seconds, limit).await)
    }

    async fn forget(&mut self, lease: &TestLease, limit: Duration) -> Result<(), Unknown> {
        either!(self, store => store.forget(lease, limit).await)
    }
}

/// Why a line to the database cannot be led through this process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoHop {
    /// SQLite.
    #[error("there is no line to a file")]
    NoLine,
    /// `sslmode=verify-full`.
    #[error("with sslmode=verify-full the line cannot be led through a proxy on this host")]
    Verified,
    /// They were fine before.
    #[error(transparent)]
    Settings(SettingsError),
}

impl StoreSettings {
    /// The servers, in the order in which they are tried, each as it would be
    /// named behind a proxy on this host.
    ///
    /// # Errors
    /// [`NoHop`].
    pub fn hops(&self) -> Result<Vec<Hop>, NoHop> {
        match self {
            Self::Postgres(settings) => settings.hops(),
            Self::Sqlite(_) => Err(NoHop::NoLine),
        }
    }
}
