//! One of the stores, chosen at run time.

use std::time::Duration;

use super::admin::{
    Admin, Closed, HistoryEvent, LeaseStatus, ProtectError, Protection, Requested, Seen,
};
use super::postgres::{PgStore, PgWatch};
use super::settings::StoreSettings;
use super::sqlite::{SqliteStore, SqliteWatch};
use super::{Attempt, Clock, Notice, Store, Timed, Watch};
use crate::lease::ids::{Incarnation, Label, LeaseName, Slot, Token};
use crate::lease::record::{Acquire, Acquired, Observed, Released, Renewed, Term, Terms, Unknown};

/// A store of either kind.
pub enum AnyStore {
    /// In a PostgreSQL database.
    Postgres(PgStore),
    /// In a SQLite file.
    Sqlite(SqliteStore),
}

/// Watches a lease in a store of either kind.
pub enum AnyWatch {
    /// `LISTEN`.
    Postgres(PgWatch),
    /// inotify.
    Sqlite(SqliteWatch),
}

impl AnyStore {
    /// The lease `name` in the store that `settings` name. Connects to
    /// nothing yet.
    pub fn new(settings: StoreSettings, name: LeaseName, clock: Clock) -> Self {
        match settings {
            StoreSettings::Postgres(settings) => {
                Self::Postgres(PgStore::new(settings, name, clock))
            }
            StoreSettings::Sqlite(settings) => {
                Self::Sqlite(SqliteStore::new(settings, name, clock))
            }
        }
    }

    /// Says, before the first call, that all is only read and nothing is done
    /// about it: a server that lags behind may answer, where
    /// `target_session_attrs=any` lets it.
    pub fn only_reads(&mut self) {
        match self {
            Self::Postgres(store) => store.only_reads(),
            Self::Sqlite(_) => {}
        }
    }
}

macro_rules! either {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            AnyStore::Postgres($store) => $call,
            AnyStore::Sqlite($store) => $call,
        }
    };
}
pub(super) use either;

impl Store for AnyStore {
    type Watch = AnyWatch;

    async fn observe(&mut self, limit: Duration) -> Observed {
        either!(self, store => store.observe(limit).await)
    }

    async fn init(&mut self, limit: Duration) -> Result<(), Unknown> {
        either!(self, store => store.init(limit).await)
    }

    async fn acquire(&mut self, request: &Acquire, limit: Duration) -> Timed<Acquired> {
        either!(self, store => store.acquire(request, limit).await)
    }

    async fn renew(&mut self, term: &Term, terms: &Terms, limit: Duration) -> Timed<Renewed> {
        either!(self, store => store.renew(term, terms, limit).await)
    }

    async fn settle(&mut self, request: &Acquire, limit: Duration) -> Timed<Renewed> {
        either!(self, store => store.settle(request, limit).await)
    }

    async fn check(&mut self, term: &Term, limit: Duration) -> Renewed {
        either!(self, store => store.check(term, limit).await)
    }

    async fn release(
        &mut self,
        term: &Term,
        incarnation: &Incarnation,
        limit: Duration,
    ) -> Released {
        either!(self, store => store.release(term, incarnation, limit).await)
    }

    async fn release_attempt(&mut self, attempt: &Attempt, limit: Duration) -> Released {
        either!(self, store => store.release_attempt(attempt, limit).await)
    }

    async fn get_ready(&mut self, limit: Duration) {
        either!(self, store => store.get_ready(limit).await);
    }

    async fn close(&mut self, limit: Duration) {
        either!(self, store => store.close(limit).await);
    }

    fn because(&mut self, why: &str) {
        either!(self, store => store.because(why));
    }

    fn finds_lost_clients(&self) -> bool {
        either!(self, store => store.finds_lost_clients())
    }

    fn watch(&self) -> AnyWatch {
        match self {
            Self::Postgres(store) => AnyWatch::Postgres(store.watch()),
            Self::Sqlite(store) => AnyWatch::Sqlite(store.watch()),
        }
    }
}

impl Watch for AnyWatch {
    async fn next(&mut self) -> Notice {
        match self {
            Self::Postgres(watch) => watch.next().await,
            Self::Sqlite(watch) => watch.next().await,
        }
    }

    fn spread(&self, spread: bool) {
        match self {
            Self::Postgres(watch) => watch.spread(spread),
            Self::Sqlite(watch) => watch.spread(spread),
        }
    }

    async fn close(self, limit: Duration) {
        match self {
            Self::Postgres(watch) => watch.close(limit).await,
            Self::Sqlite(watch) => watch.close(limit).await,
        }
    }
}

impl Admin for AnyStore {
    async fn status(
        &mut self,
        name: Option<&LeaseName>,
        limit: Duration,
    ) -> Result<Seen<Vec<LeaseStatus>>, Unknown> {
        either!(self, store => store.status(name, limit).await)
    }

    async fn history(
        &mut self,
        name: Option<&LeaseName>,
        since: Option<Duration>,
        limit: Duration,
    ) -> Result<Seen<Vec<HistoryEvent>>, Unknown> {
        either!(self, store => store.history(name, since, limit).await)
    }

    async fn request_step_down(
        &mut self,
        name: &LeaseName,
        to: Option<&Label>,
        limit: Duration,
    ) -> Result<Vec<Requested>, Unknown> {
        either!(self, store => store.request_step_down(name, to, limit).await)
    }

    async fn close_token(
        &mut self,
        name: &LeaseName,
        slot: Slot,
        token: Token,
        limit: Duration,
    ) -> Result<Closed, Unknown> {
        either!(self, store => store.close_token(name, slot, token, limit).await)
    }

    async fn pause(
        &mut self,
        name: &LeaseName,
        reason: &str,
        limit: Duration,
    ) -> Result<bool, Unknown> {
        either!(self, store => store.pause(name, reason, limit).await)
    }

    async fn resume(&mut self, name: &LeaseName, limit: Duration) -> Result<bool, Unknown> {
        either!(self, store => store.resume(name, limit).await)
    }

    fn schema_sql(&self) -> Option<String> {
        either!(self, store => store.schema_sql())
    }

    async fn drop_schema(&mut self, limit: Duration) -> Result<bool, Unknown> {
        either!(self, store => store.drop_schema(limit).await)
    }

    async fn protect(
        &mut self,
        protection: &Protection,
        limit: Duration,
    ) -> Result<Vec<String>, ProtectError> {
        either!(self, store => store.protect(protection, limit).await)
    }

    async fn unprotect(
        &mut self,
        tables: &[String],
        limit: Duration,
    ) -> Result<Vec<String>, ProtectError> {
        either!(self, store => store.unprotect(tables, limit).await)
    }
}
