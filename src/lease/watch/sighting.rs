//! One slot, as a standby has seen it over time.

use std::time::Duration;

use super::Doubt;
use crate::lease::ids::{Revision, Token};
use crate::lease::record::Record;
use crate::lease::time::BootInstant;

/// A row that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Sighting {
    /// What it shows now; `None` when it is gone.
    pub(super) shows: Option<(Token, Revision)>,
    /// The furthest that it has ever shown.
    pub(super) furthest: (Token, Revision),
    /// Since when it has stood still.
    pub(super) since: BootInstant,
    /// Since when the database's clock says that it has expired.
    pub(super) expired_since: Option<BootInstant>,
    /// Why later writes may have been lost, whatever the incarnation says.
    pub(super) doubt: Option<Doubt>,
    /// The longest ttl seen since it last went on.
    pub(super) ttl: Duration,
    /// The longest take-over delay seen since it last went on.
    pub(super) takeover_delay: Duration,
}

impl Sighting {
    /// A row that was not there before.
    pub(super) fn first(record: &Record, at: BootInstant) -> Self {
        let mut new = Self {
            shows: None,
            furthest: (record.token, record.revision),
            since: at,
            expired_since: None,
            doubt: None,
            ttl: record.ttl,
            takeover_delay: record.takeover_delay,
        };
        new.see(record, at, false);
        new
    }

    /// It is there.
    pub(super) fn see(&mut self, record: &Record, at: BootInstant, other_server: bool) {
        let shows = (record.token, record.revision);
        if other_server || self.shows != Some(shows) {
            self.since = at;
            self.expired_since = None;
        }
        if shows > self.furthest {
            // Somebody is alive who knows of everything before.
            self.furthest = shows;
            self.doubt = None;
            (self.ttl, self.takeover_delay) = (record.ttl, record.takeover_delay);
        } else if shows < self.furthest {
            self.doubt = Some(Doubt::GoneBack);
        }
        self.shows = Some(shows);
        self.ttl = self.ttl.max(record.ttl);
        self.takeover_delay = self.takeover_delay.max(record.takeover_delay);
        self.expired_since = record.expired.then_some(self.expired_since.unwrap_or(at));
    }

    /// It is not there any more.
    pub(super) fn miss(&mut self, at: BootInstant, other_server: bool) {
        if other_server || self.shows.take().is_some() {
            self.since = at;
        }
        self.expired_since = None;
        self.doubt = Some(Doubt::Gone);
    }
}
