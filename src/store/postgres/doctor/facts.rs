//! What `doctor` is told.

use std::time::Duration;

use crate::lease::time::BootInstant;

/// The server and the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server_version_num`: 150004.
    pub version: i64,
    /// `15.4`, with the packager's words.
    pub version_text: String,
    /// A standby.
    pub in_recovery: bool,
    /// Transactions are read-only by default, or by recovery.
    pub read_only: bool,
    /// Who we are.
    pub role: String,
    /// Where we are.
    pub database: String,
    /// There is a pooler in between.
    pub pooled: bool,
    /// The default that others' commits have; ours have at least `on`.
    pub synchronous_commit: String,
    /// Commits reach the disk at all.
    pub fsync: bool,
    /// Pages survive a crash while being written.
    pub full_page_writes: bool,
    /// Whom commits wait for; empty for nobody.
    pub synchronous_standby_names: String,
    /// How full the queue of notifications is.
    pub queue_percent: i64,
    /// System identifier and timeline can be read.
    pub incarnation_readable: bool,
}

/// The schema, and what we may do there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaFacts {
    /// What stands there.
    pub there: SchemaThere,
    /// We may create it.
    pub may_create: bool,
    /// The rights that we lack: `lease: UPDATE`.
    pub lacking: Vec<String>,
    /// Tables of ours that a crash empties.
    pub unlogged: Vec<String>,
}

/// What stands where the schema should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaThere {
    /// Nothing.
    Nothing,
    /// A table `lease` that is not ours.
    Foreign,
    /// Ours; whether this leasewrap can work with it, where that can be read.
    Ours {
        /// `None`: we may not read it.
        usable: Option<bool>,
    },
}

/// A server that follows this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// For people.
    pub name: String,
    /// `async`, `potential`, `sync`, `quorum`; `None` where we may not see.
    pub sync_state: Option<String>,
    /// `streaming`, `catchup`, `backup`…
    pub state: Option<String>,
}

/// A table that is fenced, or a partition of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencedTable {
    /// As SQL writes it.
    pub name: String,
    /// Its trigger is there and enabled.
    pub fenced: bool,
}

/// One question and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// When it was sent.
    pub sent_at: BootInstant,
    /// Until the answer.
    pub took: Duration,
    /// The database's clock meanwhile, in microseconds since the Unix epoch.
    pub database_us: i64,
}
