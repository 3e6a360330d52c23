//! What the releaser is told: how to reach the database, and what may be
//! ours there. It stands in a file in memory that the guard inherits and
//! never reads, so that no credentials appear in a command line, a file
//! system or the worker's environment.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lease::ids::{Incarnation, LeaseName};
use crate::lease::record::{Acquire, Grant, Term};
use crate::lease::timing::Timing;
use crate::store::{Attempt, StoreSettings};
use crate::sys::SysError;
use crate::sys::memfd::ReleaseFile;

/// What may be ours in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// Nothing (any more).
    Nothing,
    /// An acquisition is about to be sent, or was never answered.
    Attempt(Attempt),
    /// It was granted.
    Term {
        /// The term.
        term: Term,
        /// Known from the last answered call.
        incarnation: Incarnation,
    },
}

/// Everything that a releaser needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Release {
    /// Which database.
    pub settings: StoreSettings,
    /// Which lease.
    pub name: LeaseName,
    /// How long it may try in all: after one ttl the lease has run out.
    pub patience: Duration,
    /// The limit of one call.
    pub call_limit: Duration,
    /// What may be ours.
    pub claim: Claim,
    /// The socket of `--worker-watchdog`, which is nobody's then.
    pub notify_socket: Option<PathBuf>,
    /// `--log-format json`.
    pub json_log: bool,
}

/// The keeper's side: keeps the file in step with what is claimed.
#[derive(Debug)]
pub struct ClaimFile {
    file: ReleaseFile,
    release: Release,
}

impl ClaimFile {
    /// Writes that nothing is claimed yet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(
        file: ReleaseFile,
        settings: StoreSettings,
        name: LeaseName,
        timing: &Timing,
        json_log: bool,
    ) -> Result<Self, SysError> {
        let mut this = Self {
            file,
            release: Release {
                settings,
                name,
                patience: timing.ttl(),
                call_limit: timing.call_timeout(),
                claim: Claim::Nothing,
                notify_socket: None,
                json_log,
            },
        };
        this.write()?;
        Ok(this)
    }

    /// The releaser is to remove this socket.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn leaves(&mut self, notify_socket: Option<PathBuf>) -> Result<(), SysError> {
        self.release.notify_socket = notify_socket;
        self.write()
    }

    /// To be handed to the guard.
    pub fn file(&self) -> &ReleaseFile {
        &self.file
    }

    /// An acquisition is about to be sent.
    ///
    /// # Errors
    /// When it cannot be written: then it must not be sent.
    pub fn attempt(&mut self, request: &Acquire) -> Result<(), SysError> {
        self.set(Claim::Attempt(Attempt {
            slot: request.slot,
            holder: request.holder,
            incarnation: request.server_incarnation.clone(),
        }))
    }

    /// The term was granted, or confirmed under another incarnation.
    ///
    /// # Errors
    /// When it cannot be written; what stood there before still stands, and
    /// is enough to find the row.
    pub fn granted(&mut self, term: &Term, grant: &Grant) -> Result<(), SysError> {
        self.set(Claim::Term {
            term: term.clone(),
            incarnation: grant.incarnation.clone(),
        })
    }

    /// Nothing is claimed any more.
    ///
    /// # Errors
    /// When it cannot be written: a second release then changes nothing.
    pub fn nothing(&mut self) -> Result<(), SysError> {
        self.set(Claim::Nothing)
    }

    fn set(&mut self, claim: Claim) -> Result<(), SysError> {
        if self.release.claim == claim {
            return Ok(());
        }
        self.release.claim = claim;
        self.write()
    }

    fn write(&mut self) -> Result<(), SysError> {
        // Plain data into a growing buffer: nothing that could fail.
        let bytes = postcard::to_stdvec(&self.release).unwrap_or_default();
        self.file.write(&bytes)
    }
}
