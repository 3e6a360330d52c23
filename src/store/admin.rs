//! What operators ask of a store: `status`, `history`, `step-down`, `break`,
//! `pause`, `resume`, `init`, `protect`. None of it bumps a revision, touches
//! an incarnation or hands out a token.

use std::future::Future;
use std::time::Duration;

use crate::lease::ids::{Label, LeaseName, Slot, Token};
use crate::lease::record::{Record, Request, Server, Unknown};

/// An instant on the *database's* wall clock, in milliseconds since the Unix
/// epoch. For people only; it is never compared with any other clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbTime(pub i64);

/// An answer for people, with the database's time and what the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// When it was read, by the database's clock.
    pub now: DbTime,
    /// The server that answered. It may be a standby: for reading that is good enough.
    pub server: Server,
    /// The answer.
    pub value: T,
}

/// One lease, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Its name.
    pub name: LeaseName,
    /// Set while it is paused.
    pub paused: Option<PauseStatus>,
    /// Its slots that have a row, by slot.
    pub slots: Vec<SlotStatus>,
    /// The sessions of leasewraps that wait for it, where they can be seen
    /// (they cannot through a pooler or for a name that Postgres shortens).
    pub standbys: Option<Vec<Standby>>,
}

/// Who paused a lease, when and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseStatus {
    /// The operator's words; may be empty.
    pub reason: String,
    /// The database role that did it.
    pub by: String,
    /// When.
    pub since: DbTime,
}

/// One slot, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotStatus {
    /// The row.
    pub record: Record,
    /// How often its holder has changed.
    pub changes: u64,
    /// When it was last acquired.
    pub acquired_at: DbTime,
    /// When it was last acquired or renewed.
    pub renewed_at: DbTime,
    /// Until when it lasts or lasted without a further renewal.
    pub expires_at: DbTime,
    /// When it was given back.
    pub released_at: Option<DbTime>,
}

/// What is shown of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// Held, and renewed in time.
    Held,
    /// Not given back, and not renewed in time.
    Expired,
    /// Later writes of the row may have been lost.
    InDoubt,
    /// Given back, but kept taken yet (`--hold-at-least`, `step-down --to`).
    HeldBack,
    /// Given back.
    Free,
}

impl SlotStatus {
    /// What `server`, which has shown the row, makes of it. An expired slot
    /// is never shown as held. (That the lease is paused is said beside it.)
    pub fn state(&self, server: &Server) -> SlotState {
        let record = &self.record;
        if !server.in_recovery && record.incarnation != server.incarnation {
            SlotState::InDoubt
        } else if record.released {
            let kept = !record.held_back().is_zero() || record.reserved.is_some();
            if kept {
                SlotState::HeldBack
            } else {
                SlotState::Free
            }
        } else if record.expired {
            SlotState::Expired
        } else {
            SlotState::Held
        }
    }
}

/// A leasewrap that waits, as the server's list of sessions shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// Where from: an address, or "local" for a Unix socket.
    pub from: String,
    /// Since when it is connected.
    pub since: DbTime,
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEvent {
    /// When.
    pub at: DbTime,
    /// Of which lease.
    pub name: LeaseName,
    /// Of which slot.
    pub slot: Slot,
    /// Of which term.
    pub token: Token,
    /// The holder's label.
    pub label: String,
    /// What.
    pub what: What,
    /// Why, in words; may be empty.
    pub why: String,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum What {
    /// A term began.
    Acquired,
    /// It was given back.
    Released,
    /// Its token was closed.
    Closed,
    /// A step-down was asked for.
    StepDown,
    /// The lease was paused (token 0).
    Paused,
    /// It was resumed (token 0).
    Resumed,
    /// Something that a newer leasewrap writes.
    Other(String),
}

impl What {
    /// As it stands in the table `event`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Acquired => "acquired",
            Self::Released => "released",
            Self::Closed => "closed",
            Self::StepDown => "step-down",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Other(text) => text,
        }
    }

    /// From the table `event`.
    pub fn of(text: &str) -> Self {
        match text {
            "acquired" => Self::Acquired,
            "released" => Self::Released,
            "closed" => Self::Closed,
            "step-down" => Self::StepDown,
            "paused" => Self::Paused,
            "resumed" => Self::Resumed,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// A holder that was asked to step down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// Of which slot.
    pub slot: Slot,
    /// The term that is meant.
    pub token: Token,
    /// Its holder's label.
    pub label: String,
    /// The holder's ttl: how long to wait for it at most.
    pub ttl: Duration,
    /// What was asked.
    pub request: Request,
}

/// What became of closing a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closed {
    /// The fence and renewals refuse it from now on (or did already).
    Done {
        /// The holder's ttl: how long to wait at most for its confirmation.
        ttl: Duration,
    },
    /// That token is not (or no longer) the slot's, or was given back.
    NotCurrent,
}

/// What `protect` is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Tables, as SQL writes them (`orders`, `shop.orders`, `"Odd"`).
    pub tables: Vec<String>,
    /// The lease whose holder may write to them.
    pub name: LeaseName,
    /// Roles that may write without a token.
    pub allow_roles: Vec<String>,
}

/// Why `protect` did nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProtectError {
    /// There is no such table.
    NoSuchTable(String),
    /// That is no table, or one that cannot have the trigger.
    NotProtectable(String),
    /// It is leasewrap's own: fenced, it would keep everybody from the lease.
    Own(String),
    /// There is no such role.
    NoSuchRole(String),
    /// This store has no other tables (SQLite).
    Unsupported,
    /// The store did not answer, or said no.
    Failed(Unknown),
}

impl From<Unknown> for ProtectError {
    fn from(unknown: Unknown) -> Self {
        Self::Failed(unknown)
    }
}

/// The operators' side of a store (with `Store::init`, which makes the
/// schema). Every call is over within its `limit`. Where there is no schema,
/// there are no leases and no history; what writes says so.
pub trait Admin: Send {
    /// Every lease, or one.
    fn status(
        &mut self,
        name: Option<&LeaseName>,
        limit: Duration,
    ) -> impl Future<Output = Result<Seen<Vec<LeaseStatus>>, Unknown>> + Send;

    /// What happened, oldest first; of the last `since`, where given.
    fn history(
        &mut self,
        name: Option<&LeaseName>,
        since: Option<Duration>,
        limit: Duration,
    ) -> impl Future<Output = Result<Seen<Vec<HistoryEvent>>, Unknown>> + Send;

    /// Asks every present holder of the lease for an orderly stop and release.
    /// Empty: nobody holds it.
    fn request_step_down(
        &mut self,
        name: &LeaseName,
        to: Option<&Label>,
        limit: Duration,
    ) -> impl Future<Output = Result<Vec<Requested>, Unknown>> + Send;

    /// `break`: closes that token of that slot.
    fn close_token(
        &mut self,
        name: &LeaseName,
        slot: Slot,
        token: Token,
        limit: Duration,
    ) -> impl Future<Output = Result<Closed, Unknown>> + Send;

    /// Nobody may take the lease from now on. False: it was paused already
    /// (the reason is replaced).
    fn pause(
        &mut self,
        name: &LeaseName,
        reason: &str,
        limit: Duration,
    ) -> impl Future<Output = Result<bool, Unknown>> + Send;

    /// Ends a pause. False: there was none.
    fn resume(
        &mut self,
        name: &LeaseName,
        limit: Duration,
    ) -> impl Future<Output = Result<bool, Unknown>> + Send;

    /// `init --print`: the SQL of the schema; `None` where there is nothing
    /// that another could do for us (SQLite).
    fn schema_sql(&self) -> Option<String>;

    /// `init --drop`: removes everything that `init` made, protections of
    /// tables included. False: there was nothing.
    fn drop_schema(
        &mut self,
        limit: Duration,
    ) -> impl Future<Output = Result<bool, Unknown>> + Send;

    /// Fences tables and each of their partitions, all or none; the names of
    /// all that are fenced now.
    fn protect(
        &mut self,
        protection: &Protection,
        limit: Duration,
    ) -> impl Future<Output = Result<Vec<String>, ProtectError>> + Send;

    /// `protect --remove`; the names of all that were fenced.
    fn unprotect(
        &mut self,
        tables: &[String],
        limit: Duration,
    ) -> impl Future<Output = Result<Vec<String>, ProtectError>> + Send;
}
