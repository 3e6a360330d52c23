//! A database that keeps a lease as `CONTRACT` wants it: what the SQL of the
//! real store does, in one place, and its mutations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leasewrap::lease::ids::{HolderId, Incarnation, Revision, Slot, Token};
use leasewrap::lease::record::{
    Acquire, Acquired, Expected, Fault, Grant, Loss, Observation, Observed, Pause, Record, Refusal,
    Released, Renewed, Request, RequestKind, Server, Term, Unknown,
};

use super::Mutation;
use super::relative::REVISION_ORIGIN;

/// Tokens that may have been lost on one timeline are fewer.
const JUMP: i64 = 1 << 20;

/// How many commits a lagging replica may miss.
pub const LAG: usize = 2;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    pub holder: Option<HolderId>,
    pub token: Token,
    pub closed: Option<Token>,
    pub revision: Revision,
    pub ttl: Duration,
    pub takeover_delay: Duration,
    pub released: bool,
    /// By the clock of the model, which the database's clock is off from.
    pub renewed_at: u64,
    pub incarnation: Incarnation,
    pub request: Option<Request>,
}

pub type Rows = BTreeMap<Slot, Row>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    pub rows: Rows,
    /// States before the last commits, the latest last.
    pub before: Vec<Rows>,
    pub timeline: u32,
    pub in_recovery: bool,
    /// The schema is there.
    pub schema: bool,
    /// By how much the database's clock is ahead, in nanoseconds; its steps
    /// change the distance to every `expires_at`.
    pub ahead: i64,
    pub paused: bool,
    /// Every token that was ever handed out, lost commits included.
    pub granted: BTreeSet<Token>,
    pub mutation: Option<Mutation>,
}

impl Store {
    pub fn new(mutation: Option<Mutation>) -> Self {
        Self {
            rows: Rows::new(),
            before: Vec::new(),
            timeline: 1,
            in_recovery: false,
            schema: true,
            ahead: 0,
            paused: false,
            granted: BTreeSet::new(),
            mutation,
        }
    }

    fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub fn incarnation(&self) -> Incarnation {
        Incarnation(format!("timeline {}", self.timeline))
    }

    /// A commit, which a lagging replica may not have yet.
    fn commit(&mut self) {
        if self.before.len() == LAG {
            self.before.remove(0);
        }
        self.before.push(self.rows.clone());
    }

    /// A replica is promoted that has missed the last `lost` commits.
    pub fn fail_over(&mut self, lost: usize) {
        for _ in 0..lost {
            if let Some(rows) = self.before.pop() {
                self.rows = rows;
            }
        }
        self.before.clear();
        self.timeline += 1;
    }

    pub fn observe(&self, now: u64) -> Observed {
        if !self.schema {
            return Observed::NoSchema;
        }
        let young = self.timeline > 1 && !self.mutated(Mutation::MissingRowOnPromotedReplica);
        let known_for = if young {
            Duration::ZERO
        } else {
            Duration::from_secs(2 * 24 * 60 * 60)
        };
        Observed::Seen(Observation {
            server: Server {
                incarnation: self.incarnation(),
                in_recovery: self.in_recovery,
                timeline: Some(self.timeline),
                known_for: Some(known_for),
            },
            paused: self.paused.then(|| Pause {
                reason: String::new(),
            }),
            records: self
                .rows
                .iter()
                .map(|(slot, row)| self.record(*slot, row, now))
                .collect(),
        })
    }

    fn record(&self, slot: Slot, row: &Row, now: u64) -> Record {
        let expires_at = row.renewed_at + nanos(row.ttl);
        let now = now.saturating_add_signed(self.ahead);
        let expires_in = Duration::from_nanos(expires_at.saturating_sub(now));
        Record {
            slot,
            holder: row.holder,
            label: String::new(),
            value: String::new(),
            token: row.token,
            closed_token: row.closed,
            revision: row.revision,
            ttl: row.ttl,
            takeover_delay: row.takeover_delay,
            released: row.released,
            expired: expires_in.is_zero(),
            expires_in,
            // It grows for ever, and no rule looks at it.
            held_for: Duration::ZERO,
            hold_at_least: Duration::ZERO,
            reserved: None,
            incarnation: if self.mutated(Mutation::IncarnationsDoNotMatter) {
                self.incarnation()
            } else {
                row.incarnation.clone()
            },
            request: row.request.clone(),
        }
    }

    pub fn acquire(&mut self, request: &Acquire, now: u64) -> Acquired {
        if self.paused {
            return Acquired::Refused(Refusal::Paused);
        }
        let row = self.rows.get(&request.slot);
        let as_expected = match (&request.expected, row) {
            (Expected::Missing, None) => true,
            (
                Expected::Unchanged {
                    token,
                    revision,
                    incarnation,
                },
                Some(row),
            ) => {
                let released = row.released || self.mutated(Mutation::NoticesAreBelieved);
                *token == row.token
                    && *revision == row.revision
                    && (request.from_unreleased || released)
                    && (*incarnation == row.incarnation
                        || self.mutated(Mutation::IncarnationsDoNotMatter))
            }
            (Expected::Missing, Some(_)) | (Expected::Unchanged { .. }, None) => false,
        };
        let above = self.rows.range(Slot(request.slots)..).collect::<Vec<_>>();
        let above_as_expected = above.len() == request.above.len()
            && above
                .iter()
                .zip(&request.above)
                .all(|((slot, row), above)| {
                    **slot == above.slot
                        && row.token == above.token
                        && row.revision == above.revision
                });
        let same_server = request.server_incarnation == self.incarnation();
        let same = as_expected && above_as_expected && same_server;
        if !(same || self.mutated(Mutation::AcquisitionComparesNothing)) {
            return Acquired::Refused(Refusal::Changed);
        }
        // No two slots share a token.
        let tokens = self.rows.values().map(|row| row.token);
        let last = tokens.max().unwrap_or(Token(1000));
        let revision = row.map_or(Revision(REVISION_ORIGIN), |row| {
            Revision(row.revision.0 + 1)
        });
        let token = match (request.in_doubt, self.mutated(Mutation::FixedTokenJump)) {
            (true, true) => Token(last.0 + JUMP),
            (true, false) => Token((last.0 + 1).max(i64::from(self.timeline) * JUMP)),
            (false, _) => Token(last.0 + 1),
        };
        let grant = Grant {
            token,
            revision,
            incarnation: self.incarnation(),
        };
        self.commit();
        self.rows.insert(
            request.slot,
            Row {
                holder: Some(request.holder),
                token,
                closed: None,
                revision,
                ttl: request.terms.ttl,
                takeover_delay: request.terms.takeover_delay,
                released: false,
                renewed_at: now.saturating_add_signed(self.ahead),
                incarnation: self.incarnation(),
                request: None,
            },
        );
        Acquired::Granted(grant)
    }

    pub fn renew(&mut self, term: &Term, now: u64) -> Renewed {
        self.renewed(term.slot, term.holder, Some(term.token), now)
    }

    pub fn settle(&mut self, request: &Acquire, now: u64) -> Renewed {
        let any = self.mutated(Mutation::TooLateOnANewIncarnation);
        if !any && request.server_incarnation != self.incarnation() {
            return Renewed::Unknown(Unknown {
                fault: Fault::Transient,
                message: String::new(),
            });
        }
        self.renewed(request.slot, request.holder, None, now)
    }

    fn renewed(&mut self, slot: Slot, holder: HolderId, token: Option<Token>, now: u64) -> Renewed {
        let (incarnation, now) = (self.incarnation(), now.saturating_add_signed(self.ahead));
        let before = self.rows.clone();
        let Some(row) = self.rows.get_mut(&slot) else {
            return Renewed::Lost(Loss::Missing);
        };
        if row.holder != Some(holder) {
            let label = String::new();
            return Renewed::Lost(Loss::OtherHolder {
                label,
                token: row.token,
            });
        }
        if token.is_some_and(|token| token != row.token) {
            return Renewed::Lost(Loss::OtherToken(row.token));
        }
        if row.closed.is_some_and(|closed| closed >= row.token) {
            return Renewed::Lost(Loss::Closed);
        }
        if row.released {
            return Renewed::Lost(Loss::Released);
        }
        row.revision.0 += 1;
        row.renewed_at = now;
        row.incarnation = incarnation.clone();
        let grant = Grant {
            token: row.token,
            revision: row.revision,
            incarnation,
        };
        let request = row
            .request
            .clone()
            .filter(|request| request.token == row.token);
        let after = std::mem::replace(&mut self.rows, before);
        self.commit();
        self.rows = after;
        Renewed::Granted { grant, request }
    }

    /// Reads one's own row.
    pub fn check(&self, term: &Term) -> Renewed {
        self.clone().renew(term, 0)
    }

    /// By token, or by holder alone for a term whose token is not known.
    pub fn release(
        &mut self,
        slot: Slot,
        holder: HolderId,
        token: Option<Token>,
        incarnation: &Incarnation,
    ) -> Released {
        let present = self.incarnation();
        let stamps_present = self.mutated(Mutation::ReleaseStampsTheNewIncarnation);
        let before = self.rows.clone();
        let Some(row) = self.rows.get_mut(&slot) else {
            return Released::NotOurs;
        };
        if row.holder != Some(holder) || token.is_some_and(|token| token != row.token) {
            return Released::NotOurs;
        }
        if row.released && !stamps_present {
            return Released::Done;
        }
        row.released = true;
        row.revision.0 += 1;
        row.request = None;
        row.incarnation = if stamps_present {
            present
        } else {
            incarnation.clone()
        };
        let after = std::mem::replace(&mut self.rows, before);
        self.commit();
        self.rows = after;
        Released::Done
    }

    /// What a notification tells of: everything but renewals.
    pub fn shown(&self) -> Rows {
        let mut rows = self.rows.clone();
        for row in rows.values_mut() {
            (row.revision, row.renewed_at) = (Revision(0), 0);
            row.incarnation = self.incarnation();
        }
        rows
    }

    /// Some slot that is held.
    pub fn held(&self) -> Option<Slot> {
        let mut rows = self.rows.iter();
        rows.find(|(_, row)| !row.released).map(|(slot, _)| *slot)
    }

    /// Somebody takes the row with SQL.
    pub fn steal(&mut self, slot: Slot, thief: HolderId, now: u64) {
        self.commit();
        if let Some(row) = self.rows.get_mut(&slot) {
            row.holder = Some(thief);
            row.token.0 += 1;
            row.revision.0 += 1;
            row.renewed_at = now.saturating_add_signed(self.ahead);
            row.released = false;
        }
    }

    /// `leasewrap break`.
    pub fn close(&mut self, slot: Slot) {
        self.commit();
        if let Some(row) = self.rows.get_mut(&slot) {
            row.closed = Some(row.token);
        }
    }

    /// `leasewrap step-down`.
    pub fn request(&mut self, slot: Slot) {
        let bumps = self.mutated(Mutation::RequestsBumpTheRevision);
        if let Some(row) = self.rows.get_mut(&slot) {
            row.request = Some(Request {
                token: row.token,
                kind: RequestKind::StepDown { to: None },
            });
            row.revision.0 += i64::from(bumps);
        }
    }
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
