//! What a store says, and what is asked of it: plain data that the machines
//! decide on. Three answers, three variants: granted, refused, *unknown*.
//! Instants of the database's clock never appear, only differences that the
//! database itself has computed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{HolderId, Incarnation, Label, Revision, Slot, Token, Value};

/// One row of the table `lease`, as a reply carried it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Record {
    /// Which place.
    pub slot: Slot,
    /// Who took it last; still there after the release.
    pub holder: Option<HolderId>,
    /// The holder's label.
    pub label: String,
    /// The holder's value.
    pub value: String,
    /// The last token handed out for this slot.
    pub token: Token,
    /// The highest token that fence and renewals no longer accept.
    pub closed_token: Option<Token>,
    /// Plus one at every acquisition, renewal, release.
    pub revision: Revision,
    /// The holder's ttl.
    pub ttl: Duration,
    /// The holder's `--takeover-delay`.
    pub takeover_delay: Duration,
    /// Given back by its holder.
    pub released: bool,
    /// The database's clock is at or past `expires_at`.
    pub expired: bool,
    /// Until `expires_at`, by the database's clock; zero when expired.
    pub expires_in: Duration,
    /// Since `acquired_at`, by the database's clock.
    pub held_for: Duration,
    /// The holder's `--hold-at-least`: so long after it was acquired the row
    /// is kept taken, also when it is given back.
    pub hold_at_least: Duration,
    /// For whom a step-down keeps the row, and for how long yet.
    pub reserved: Option<Reserved>,
    /// The incarnation under which it was last acquired, renewed or released.
    pub incarnation: Incarnation,
    /// What an operator asks of the holder.
    pub request: Option<Request>,
}

impl Record {
    /// Whether the last token is closed.
    pub fn closed(&self) -> bool {
        self.closed_token.is_some_and(|closed| closed >= self.token)
    }

    /// By how much, at least, the database's clock was set back since the row
    /// was given back: that lets it expire at once.
    pub fn clock_set_back(&self) -> Option<Duration> {
        Some(self.expires_in).filter(|_| self.released && !self.expired)
    }

    /// How long its `--hold-at-least` keeps the row taken yet, by the
    /// database's clock.
    pub fn held_back(&self) -> Duration {
        self.hold_at_least.saturating_sub(self.held_for)
    }
}

/// A slot that a `step-down --to LABEL` keeps for one standby.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reserved {
    /// The label of the standby that may take it.
    pub label: String,
    /// How long it is kept yet (at most one ttl in all).
    pub remaining: Duration,
}

/// An operator's request; void for any other token than the one it names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// For which term.
    pub token: Token,
    /// What is asked.
    pub kind: RequestKind,
}

/// What an operator may ask of a holder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// An orderly stop and release.
    StepDown {
        /// Leave it to the standby of this label.
        to: Option<String>,
    },
}

/// What a server says of itself along with every reply.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    /// Its present incarnation.
    pub incarnation: Incarnation,
    /// A standby: nothing it says starts or ends a watch.
    pub in_recovery: bool,
    /// The present timeline, where it can be read.
    pub timeline: Option<u32>,
    /// How long the schema has known the present incarnation (its record of
    /// incarnations); `None` while there is no record of it.
    pub known_for: Option<Duration>,
}

/// Nobody may take the lease: `leasewrap pause`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pause {
    /// Why, in the operator's words.
    pub reason: String,
}

/// Everything one poll tells about a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Observation {
    /// The server that answered.
    pub server: Server,
    /// Set while the lease is paused.
    pub paused: Option<Pause>,
    /// Every slot that has a row, by slot.
    pub records: Vec<Record>,
}

impl Observation {
    /// Whether `holder` has a slot that it has not given back.
    pub fn shows(&self, holder: HolderId) -> bool {
        let mut live = self.records.iter().filter(|record| !record.released);
        live.any(|record| record.holder == Some(holder))
    }
}

/// What an acquisition compares, itself, at the database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expected {
    /// There is no row for this slot.
    Missing,
    /// The row is still the one that was watched.
    Unchanged {
        /// Its token.
        token: Token,
        /// Its revision.
        revision: Revision,
        /// The incarnation that the row carries.
        incarnation: Incarnation,
    },
}

/// What a notification says of a slot: that this term gave it back, and the
/// row's revision since. Anybody can notify anything, so it gives no right; it
/// makes an attempt worthwhile, which compares all of it at the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Freed {
    /// Which place.
    pub slot: Slot,
    /// The token of the term that is over.
    pub token: Token,
    /// The revision that the release has made.
    pub revision: Revision,
}

/// An acquisition. The store compares `expected` and `server_incarnation`
/// in the statement that writes; it decides nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Acquire {
    /// Which place.
    pub slot: Slot,
    /// N of `--slots N`: every slot from N on must be free.
    pub slots: u32,
    /// The rows of the slots from N on, which were watched and found free:
    /// there must be no others, and each must be unchanged. Mostly empty.
    pub above: Vec<Above>,
    /// This term's identity.
    pub holder: HolderId,
    /// What must be there still.
    pub expected: Expected,
    /// The incarnation of the server that was watched; no other must be
    /// written to, when the acquisition is settled either.
    pub server_incarnation: Incarnation,
    /// Later writes may have been lost: the token jumps (contract, section 4).
    pub in_doubt: bool,
    /// The largest token that was ever seen of the lease. The new one is
    /// larger, also where that row has vanished since: the jump alone goes
    /// above earlier timelines, and not above an earlier jump on this one.
    pub furthest: Option<Token>,
    /// Whether the row was held when it was watched: such a take-over closes the
    /// token first where the row is locked, and ends the sessions that hold it.
    /// Where it was not, it must still be released.
    pub from_unreleased: bool,
    /// The new holder's times, label and value.
    pub terms: Terms,
}

impl Acquire {
    /// Whether a look shows that an acquisition without an answer has taken
    /// nothing, and can take nothing any more: its row is another one than it
    /// compares. As long as the row is as it was, it may be done late, or be
    /// done and not committed yet.
    pub fn cannot_come_true(&self, seen: &Observation) -> bool {
        if seen.shows(self.holder) {
            return false;
        }
        let row = seen.records.iter().find(|record| record.slot == self.slot);
        match (&self.expected, row) {
            (Expected::Missing, row) => row.is_some(),
            (Expected::Unchanged { .. }, None) => true,
            (
                Expected::Unchanged {
                    token, revision, ..
                },
                Some(row),
            ) => row.token != *token || row.revision != *revision,
        }
    }
}

/// A row of a slot that a contender with fewer slots does not use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Above {
    /// Which place.
    pub slot: Slot,
    /// Its token when it was watched.
    pub token: Token,
    /// Its revision when it was watched.
    pub revision: Revision,
}

/// What a holder writes into its row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Terms {
    /// How long the lease lasts from a renewal.
    pub ttl: Duration,
    /// `--takeover-delay`.
    pub takeover_delay: Duration,
    /// `--hold-at-least`.
    pub hold_at_least: Duration,
    /// For people.
    pub label: Label,
    /// Published.
    pub value: Value,
}

/// The answer to an acquisition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Acquired {
    /// The slot is ours.
    Granted(Grant),
    /// It was not as expected, or its row is locked by somebody.
    Refused(Refusal),
    /// No answer: it may have happened, or may yet happen.
    Unknown(Unknown),
}

/// A term that the store has granted or confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The fencing token of the term.
    pub token: Token,
    /// The row's revision.
    pub revision: Revision,
    /// The incarnation that the row now carries.
    pub incarnation: Incarnation,
}

/// Why an acquisition was refused. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The row, or the server, is not the one that was watched.
    Changed,
    /// A lock was not to be had; who holds the row's, as far as can be seen.
    Locked {
        /// For people: the sessions that hold it. Empty: none is seen.
        by: String,
    },
    /// Somebody paused the lease.
    Paused,
}

/// A renewal compares holder, token, not closed, not released.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Which place.
    pub slot: Slot,
    /// The term's identity.
    pub holder: HolderId,
    /// The term's token.
    pub token: Token,
}

/// The answer to a renewal, or to reading one's own row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Renewed {
    /// Still ours.
    Granted {
        /// The row as it is now.
        grant: Grant,
        /// An operator's request, where there is one for this token.
        request: Option<Request>,
    },
    /// No longer ours: kill at once.
    Lost(Loss),
    /// No answer, or one that gives no right.
    Unknown(Unknown),
}

/// What was seen in place of one's own, live term.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Loss {
    /// No such row (or table, or schema).
    Missing,
    /// Another holder.
    OtherHolder {
        /// Its label.
        label: String,
        /// Its token.
        token: Token,
    },
    /// The same holder with another token.
    OtherToken(Token),
    /// The token was closed (`break`).
    Closed,
    /// Somebody released it.
    Released,
}

impl Loss {
    /// For machines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::OtherHolder { .. } => "other-holder",
            Self::OtherToken(_) => "other-token",
            Self::Closed => "closed",
            Self::Released => "released",
        }
    }
}

/// For people: reads after "lease lost:".
impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("its row is gone"),
            Self::OtherHolder { label, token } if label.is_empty() => {
                write!(f, "a holder without a label has it, with token {token}")
            }
            Self::OtherHolder { label, token } => {
                write!(f, "\"{label}\" has it, with token {token}")
            }
            Self::OtherToken(token) => write!(f, "its row carries another token, {token}"),
            Self::Closed => f.write_str("its token was closed (break)"),
            Self::Released => f.write_str("somebody else released it"),
        }
    }
}

/// The answer to a release. A release that comes twice is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Released {
    /// Given back, now or before.
    Done,
    /// The row was no longer ours; nothing was touched.
    NotOurs,
    /// No answer.
    Unknown(Unknown),
}

/// The answer to a poll.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Observed {
    /// What the server says.
    Seen(Observation),
    /// There is no schema, or it is of another version: `init` first.
    NoSchema,
    /// No answer.
    Unknown(Unknown),
}

/// Why a call has no usable answer. It moves no deadline and gives no right.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unknown {
    /// Whether trying again can help.
    pub fault: Fault,
    /// One clear line for people, never with a password in it.
    pub message: String,
}

/// How a failed call is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Unreachable, time-out, starting up, shutting down, too many
    /// connections, serialization: retry.
    Transient,
    /// A read-only server (a standby) and no other host: retry when it has
    /// been writable before.
    ReadOnly,
    /// Wrong password or role, missing database, missing rights, a foreign
    /// table in the way: final at the first connect, retried later on.
    Final,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::watch::tests::held;

    #[test]
    fn a_token_is_closed_by_itself_or_by_a_later_one() {
        for (closed, is) in [
            (None, false),
            (Some(4), false),
            (Some(5), true),
            (Some(6), true),
        ] {
            let record = Record {
                closed_token: closed.map(Token),
                ..held(5, 1)
            };
            assert_eq!(record.closed(), is, "{closed:?}");
        }
    }

    #[test]
    fn a_loss_is_named_for_machines_and_told_to_people() {
        let token = Token(7);
        let other = |label: &str| Loss::OtherHolder {
            label: label.to_owned(),
            token,
        };
        for (loss, name, words) in [
            (Loss::Missing, "missing", "its row is gone"),
            (
                other("db-2"),
                "other-holder",
                "\"db-2\" has it, with token 7",
            ),
            (
                other(""),
                "other-holder",
                "a holder without a label has it, with token 7",
            ),
            (
                Loss::OtherToken(token),
                "other-token",
                "its row carries another token, 7",
            ),
            (Loss::Closed, "closed", "its token was closed (break)"),
            (Loss::Released, "released", "somebody else released it"),
        ] {
            assert_eq!((loss.name(), loss.to_string().as_str()), (name, words));
        }
    }
}
