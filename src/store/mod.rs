//! Where leases are kept. A store performs what the lease rules have decided
//! and reports what it saw; it decides nothing.
//!
//! [`AnyStore`] is what the loops use; [`settings::StoreSettings`] says which
//! one, and travels to the releaser. A third store would be a folder, a
//! variant of each and a line in the conformance suite.

pub mod admin;
pub mod any;
mod columns;
mod deadline;
mod mailbox;
mod message;
pub mod postgres;
pub mod selftest;
pub mod settings;
pub mod sqlite;

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lease::ids::{HolderId, Incarnation, Slot};
use crate::lease::record::{
    Acquire, Acquired, Freed, Observed, Released, Renewed, Term, Terms, Unknown,
};
use crate::lease::time::BootInstant;

pub use any::{AnyStore, AnyWatch};
pub use settings::StoreSettings;

/// Reads the boot clock. Given to a store when it is made, since only
/// `sys::clock` may read it.
pub type Clock = fn() -> BootInstant;

/// A reply, and when its request was sent: a deadline counts from the send.
#[derive(Debug, Clone)]
pub struct Timed<R> {
    /// Read right before the statement was handed to the connection, after
    /// connecting and everything else that can take time.
    pub sent_at: BootInstant,
    /// What came back.
    pub reply: R,
}

/// An acquisition that may be under way: enough to give back what it may
/// have taken. The releaser is told before the acquisition is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which place.
    pub slot: Slot,
    /// The identity of the term that it would begin.
    pub holder: HolderId,
    /// The server's incarnation when the acquisition was decided on.
    pub incarnation: Incarnation,
}

/// One lease in one store, over one connection that is opened when needed.
///
/// Every call takes its own time `limit`, is over by then, and answers
/// `Unknown` when it is; a connection whose call ended so is dropped, never
/// reused. The same limit is kept by the server, so that what was given up
/// here does not happen there minutes later.
pub trait Store: Send {
    /// What wakes the users of this store.
    type Watch: Watch;

    /// Reads all slots of the lease. Never answers with what a server in
    /// recovery says.
    fn observe(&mut self, limit: Duration) -> impl Future<Output = Observed> + Send;

    /// Creates or upgrades the schema if it is missing or old and we may.
    fn init(&mut self, limit: Duration) -> impl Future<Output = Result<(), Unknown>> + Send;

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

    /// Looks for a row that is held by `request.holder` whatever its token:
    /// an acquisition whose answer never came is settled so. Renews it when
    /// it is there and live, but only on `request.server_incarnation`: since
    /// then another one may have taken the row, and a failover lost that. It
    /// first waits for the acquisition's statement where that still runs.
    fn settle(
        &mut self,
        request: &Acquire,
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

    /// For the releaser: gives back whatever `attempt` has taken or takes
    /// within `limit`, and returns early only when it has given something
    /// back. [`Released::NotOurs`]: there was nothing.
    fn release_attempt(
        &mut self,
        attempt: &Attempt,
        limit: Duration,
    ) -> impl Future<Output = Released> + Send;

    /// Makes ready for what may be called next, where there is time: an answer
    /// was given, and nothing else waits. What does not work does not matter.
    fn get_ready(&mut self, limit: Duration) -> impl Future<Output = ()> + Send {
        let _ = limit;
        async {}
    }

    /// Ends the connection in order, where there is time for it: nothing more
    /// is called. What is dropped in place of that is not wrong either.
    fn close(&mut self, limit: Duration) -> impl Future<Output = ()> + Send {
        let _ = limit;
        async {}
    }

    /// Why the next acquisition or release is made, for the history: a few
    /// words. They stay until others are given.
    fn because(&mut self, why: &str);

    /// Whether the server that answered last can be told to look for clients
    /// that are gone (`client_connection_check_interval`).
    fn finds_lost_clients(&self) -> bool;

    /// Begins to watch for changes, over a connection of its own. Must be
    /// called within the runtime that is to drive it.
    fn watch(&self) -> Self::Watch;
}

/// Tells when a lease may have changed. Dropping it ends it.
pub trait Watch: Send {
    /// The next notice. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Notice> + Send;

    /// Whether a change may be told a little later where many others are told
    /// of it too: so for a standby, but never for a holder. At first not.
    fn spread(&self, spread: bool);

    /// Ends it in order, as [`Store::close`] does.
    fn close(self, limit: Duration) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        let _ = limit;
        async {}
    }
}

/// What a [`Watch`] says. Notices that nobody has taken yet are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Changes are noticed from now on (again): what happened before may have
    /// been missed, so read once.
    Connected,
    /// Holder, token, closed token, release or request of some slot changed;
    /// what was said of it, where it is a release alone.
    Changed(Option<Freed>),
    /// Changes are not noticed: poll. Said once; `Connected` follows when
    /// that ends.
    Unavailable(Unknown),
}
