//! Where leases are kept. A store performs what the lease rules have decided
//! and reports what it saw; it decides nothing.

use std::future::Future;
use std::time::Duration;

use crate::lease::ids::Incarnation;
use crate::lease::record::{Acquire, Acquired, Observed, Released, Renewed, Term, Terms};
use crate::lease::time::BootInstant;

/// A reply, and when its request was sent: a deadline counts from the send.
#[derive(Debug, Clone)]
pub struct Timed<R> {
    /// Read right before the statement was handed to the connection, after
    /// connecting and everything else that can take time.
    pub sent_at: BootInstant,
    /// What came back.
    pub reply: R,
}

/// One lease in one store, over one connection that is opened when needed.
///
/// Every call takes its own time `limit`, is over by then, and answers
/// `Unknown` when it is; a connection whose call ended so is dropped, never
/// reused. The same limit is kept by the server, so that what was given up
/// here does not happen there minutes later.
pub trait Store: Send {
    /// Reads all slots of the lease.
    fn observe(&mut self, limit: Duration) -> impl Future<Output = Observed> + Send;

    /// Creates or upgrades the schema if it is missing or old and we may.
    fn init(
        &mut self,
        limit: Duration,
    ) -> impl Future<Output = Result<(), crate::lease::record::Unknown>> + Send;

    /// Tries to take a slot that still is as `request` expects it.
    fn acquire(
        &mut self,
        request: &Acquire,
        limit: Duration,
    ) -> impl Future<Output = Timed<Acquired>> + Send;

    /// Renews: one statement, one round trip.
    fn renew(
        &mut self,
        term: &Term,
        terms: &Terms,
        limit: Duration,
    ) -> impl Future<Output = Timed<Renewed>> + Send;

    /// Looks for a row that is held by `term.holder` whatever its token: an
    /// acquisition whose answer never came is settled so. Renews it when it
    /// is there and live.
    fn settle(
        &mut self,
        term: &Acquire,
        limit: Duration,
    ) -> impl Future<Output = Timed<Renewed>> + Send;

    /// Reads one's own row without renewing it.
    fn check(&mut self, term: &Term, limit: Duration) -> impl Future<Output = Renewed> + Send;

    /// Gives the lease back; `incarnation` is the one that the holder knew
    /// from its last answered call.
    fn release(
        &mut self,
        term: &Term,
        incarnation: &Incarnation,
        limit: Duration,
    ) -> impl Future<Output = Released> + Send;
}
