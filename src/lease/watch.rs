//! The take-over rule: when a standby may take which slot.
//!
//! A row that was released is free at once. A row that was not is free when
//! its revision has stood still for 1.1 times its holder's ttl on *our own*
//! boot clock, so that a stepped clock of the database frees nothing early.
//! Where writes may have been lost (a failover, a restored backup), even a
//! released or missing row has to stand still so long: a successor of the
//! release may be among them.

mod look;
mod sighting;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use self::look::Look;
use self::sighting::Sighting;
pub use self::words::{Basis, Doubt, Reason};
use super::ids::{Incarnation, Slot, Token};
use super::record::{Above, Expected, Freed, Observation, Record, Server};
use super::time::BootInstant;
use super::timing::{Chance, watch};

/// A schema that has known its incarnation for so long has been told of
/// every holder that was there before the failover: they have renewed, or
/// their rows would have been watched long since.
const YOUNG: Duration = Duration::from_secs(24 * 60 * 60);

/// Among how many slots without a row a contender chooses: enough to keep
/// contenders apart, whatever `--slots` says.
const SPREAD: usize = 64;

/// `--takeover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Takeover {
    /// Only what was watched long enough oneself is free.
    Observed,
    /// What the database's clock says has expired is free.
    Clock,
}

/// What a contender brings along.
#[derive(Debug, Clone, Copy)]
pub struct Contender<'a> {
    /// `--takeover`.
    pub takeover: Takeover,
    /// `--slots`.
    pub slots: u32,
    /// `--label`: a row may be reserved for it.
    pub label: &'a str,
    /// Its own ttl.
    pub ttl: Duration,
    /// Its own `--takeover-delay`.
    pub takeover_delay: Duration,
}

/// Whether there is something to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This slot, now.
    Free(Candidate),
    /// Not now.
    Taken {
        /// Why not.
        reason: Reason,
        /// When it may be different without anybody doing anything.
        until: Option<BootInstant>,
    },
}

/// A slot that may be taken, and what the acquisition has to compare.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Which place.
    pub slot: Slot,
    /// What must be there still.
    pub expected: Expected,
    /// The incarnation of the server that was watched.
    pub server_incarnation: Incarnation,
    /// The rows from `--slots` on.
    pub above: Vec<Above>,
    /// The row was not released.
    pub from_unreleased: bool,
    /// Later writes of some slot may have been lost, so that the token has to
    /// jump over those that were handed out by them: no two slots share one.
    pub in_doubt: bool,
    /// The largest token that was ever seen of the lease, also where no row
    /// shows it any more: the new one is larger.
    pub furthest: Option<Token>,
    /// What gives the right.
    pub basis: Basis,
}

/// What a standby has seen of the slots of a lease, and since when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Watch {
    /// What the last writable server said, and when that was received.
    last: Option<(BootInstant, Observation)>,
    /// Since when that server has shown the same incarnation.
    server_since: Option<BootInstant>,
    /// It had shown another one before.
    server_changed: bool,
    /// Every slot whose row was ever seen.
    slots: BTreeMap<Slot, Sighting>,
}

/// Whether one slot may be taken.
enum Status {
    Free(Basis),
    Taken(Reason, Option<BootInstant>),
}

impl Watch {
    /// A poll was answered at `at`. Returns the rows of holders that were
    /// not there before.
    pub fn see(&mut self, observation: Observation, at: BootInstant) -> Vec<Record> {
        // A server in recovery may be behind by any time, and shows the
        // past: it neither starts nor ends a watch.
        if observation.server.in_recovery {
            return Vec::new();
        }
        let before = self.last.as_ref().map(|(_, last)| &last.server.incarnation);
        let other_server = before != Some(&observation.server.incarnation);
        let first = before.is_none();
        if other_server {
            self.server_since = Some(at);
            self.server_changed = !first;
        }
        let mut new_holders = Vec::new();
        for (slot, sighting) in &mut self.slots {
            if !observation
                .records
                .iter()
                .any(|record| record.slot == *slot)
            {
                sighting.miss(at, other_server);
            }
        }
        for record in &observation.records {
            let token = self
                .slots
                .get(&record.slot)
                .and_then(|s| s.shows)
                .map(|(token, _)| token);
            if !first && !record.released && token != Some(record.token) {
                new_holders.push(record.clone());
            }
            self.slots
                .entry(record.slot)
                .and_modify(|sighting| sighting.see(record, at, other_server))
                .or_insert_with(|| Sighting::first(record, at));
        }
        self.last = Some((at, observation));
        new_holders
    }

    /// What the last writable server said, and when that was received.
    pub fn last(&self) -> Option<(BootInstant, &Observation)> {
        self.last
            .as_ref()
            .map(|(at, observation)| (*at, observation))
    }

    /// Whether there is something to be taken at `at`.
    pub fn verdict(&self, contender: &Contender<'_>, at: BootInstant, chance: Chance) -> Verdict {
        let Some((_, observation)) = &self.last else {
            return Verdict::Taken {
                reason: Reason::Starting,
                until: None,
            };
        };
        if let Some(pause) = &observation.paused {
            let reason = Reason::Paused {
                reason: pause.reason.clone(),
            };
            return Verdict::Taken {
                reason,
                until: None,
            };
        }
        let above = match self.above(contender, observation, at) {
            Ok(above) => above,
            Err((slot, until)) => {
                return Verdict::Taken {
                    reason: Reason::SlotAbove { slot },
                    until,
                };
            }
        };
        let mut free = Vec::new();
        let mut taken: Option<(Reason, Option<BootInstant>)> = None;
        for (slot, record) in self.usable(contender, observation) {
            match self.status(slot, record, contender, at) {
                Status::Free(basis) => free.push((slot, record, basis)),
                Status::Taken(reason, until) => {
                    let sooner = taken
                        .as_ref()
                        .is_none_or(|(_, other)| earlier(until, *other));
                    if sooner {
                        taken = Some((reason, until));
                    }
                }
            }
        }
        // What a step-down has left to us comes first; else any will do.
        let ours = free.iter().position(|(_, record, _)| {
            record.is_some_and(|r| {
                r.reserved
                    .as_ref()
                    .is_some_and(|to| to.label == contender.label)
            })
        });
        if free.is_empty() {
            let (reason, until) = taken.unwrap_or((Reason::Starting, None));
            return Verdict::Taken { reason, until };
        }
        let (slot, record, basis) = free.swap_remove(ours.unwrap_or(chance.pick(free.len())));
        Verdict::Free(Candidate {
            slot,
            expected: expected(record),
            server_incarnation: observation.server.incarnation.clone(),
            above,
            from_unreleased: record.is_some_and(|record| !record.released),
            in_doubt: self.has_doubt(contender, observation),
            furthest: self.furthest(),
            basis,
        })
    }

    /// What is free if a notification says the truth. Only where the row that
    /// was seen last is the lease's only one and in no doubt, and nothing was
    /// kept back: everything else takes another look. Whether it is the truth
    /// the acquisition finds out, which compares it.
    pub fn freed(&self, freed: Freed, contender: &Contender<'_>) -> Option<Candidate> {
        let (_, observation) = self.last.as_ref()?;
        let [record] = observation.records.as_slice() else {
            return None;
        };
        let fits = contender.slots == 1
            && self.slots.len() == 1
            && record.slot == freed.slot
            && freed.slot.0 < contender.slots
            && observation.paused.is_none()
            && !record.released
            && record.held_back().is_zero()
            && record.token == freed.token
            && record.revision < freed.revision
            && !self.has_doubt(contender, observation);
        fits.then(|| Candidate {
            slot: freed.slot,
            expected: Expected::Unchanged {
                token: freed.token,
                revision: freed.revision,
                incarnation: record.incarnation.clone(),
            },
            server_incarnation: observation.server.incarnation.clone(),
            above: Vec::new(),
            from_unreleased: false,
            in_doubt: false,
            furthest: self.furthest(),
            basis: Basis::Released,
        })
    }

    /// The largest token that was ever seen.
    fn furthest(&self) -> Option<Token> {
        self.slots.values().map(|seen| seen.furthest.0).max()
    }

    /// The slots that the contender may use, and their rows.
    fn usable<'a>(
        &self,
        contender: &Contender<'_>,
        observation: &'a Observation,
    ) -> Vec<(Slot, Option<&'a Record>)> {
        let row = |slot| {
            observation
                .records
                .iter()
                .find(|record| record.slot == slot)
        };
        let rows = observation
            .records
            .iter()
            .filter(|record| record.slot.0 < contender.slots);
        let missing = (0..contender.slots)
            .map(Slot)
            .filter(|slot| row(*slot).is_none());
        rows.map(|record| (record.slot, Some(record)))
            .chain(missing.take(SPREAD).map(|slot| (slot, None)))
            .collect()
    }

    /// The rows of the slots that the contender does not use: all must be free.
    fn above(
        &self,
        contender: &Contender<'_>,
        observation: &Observation,
        at: BootInstant,
    ) -> Result<Vec<Above>, (Slot, Option<BootInstant>)> {
        let gone = self
            .slots
            .iter()
            .filter(|(_, sighting)| sighting.shows.is_none());
        let rows = observation
            .records
            .iter()
            .map(|record| (record.slot, Some(record)));
        let mut above = Vec::new();
        for (slot, record) in rows.chain(gone.map(|(slot, _)| (*slot, None))) {
            if slot.0 < contender.slots {
                continue;
            }
            match self.status(slot, record, contender, at) {
                Status::Free(_) => above.extend(record.map(|record| Above {
                    slot,
                    token: record.token,
                    revision: record.revision,
                })),
                Status::Taken(_, until) => return Err((slot, until)),
            }
        }
        Ok(above)
    }

    fn status(
        &self,
        slot: Slot,
        record: Option<&Record>,
        contender: &Contender<'_>,
        at: BootInstant,
    ) -> Status {
        let Some((seen_at, Observation { server, .. })) = &self.last else {
            return Status::Taken(Reason::Starting, None);
        };
        let doubt = self.doubt(slot, record, server);
        let sighting = self.slots.get(&slot);
        if let Some(doubt) = doubt {
            let ttl = sighting.map_or(contender.ttl, |s| s.ttl.max(contender.ttl));
            let delay = sighting.map_or(contender.takeover_delay, |s| {
                s.takeover_delay.max(contender.takeover_delay)
            });
            let since = sighting.map_or(self.server_since.unwrap_or(*seen_at), |s| s.since);
            let watched = at.saturating_since(since);
            let look = Look {
                since,
                seen_at: *seen_at,
                at,
            };
            let ripe = match record {
                // What is not there cannot expire by the database's clock.
                None => look.reached(since + watch(ttl, delay)),
                Some(record) => look.ripe(record, ttl, delay),
            };
            return match (ripe, record) {
                (Err(until), _) => {
                    let left = until.saturating_since(at);
                    Status::Taken(Reason::Doubting { doubt, left }, Some(until))
                }
                (Ok(()), Some(record)) if record.released => {
                    look.released(record, contender, Basis::Doubted { doubt, watched })
                }
                (Ok(()), _) => Status::Free(Basis::Doubted { doubt, watched }),
            };
        }
        match (record, sighting) {
            (None, _) | (Some(_), None) => Status::Free(Basis::New),
            (Some(record), Some(sighting)) => {
                let look = Look {
                    since: sighting.since,
                    seen_at: *seen_at,
                    at,
                };
                if record.released {
                    look.released(record, contender, Basis::Released)
                } else {
                    look.unreleased(record, sighting.expired_since, contender.takeover)
                }
            }
        }
    }

    /// Whether later writes of any slot may have been lost.
    fn has_doubt(&self, contender: &Contender<'_>, observation: &Observation) -> bool {
        let row = |slot| observation.records.iter().find(|row| row.slot == slot);
        let missing = (0..contender.slots)
            .map(Slot)
            .find(|slot| row(*slot).is_none());
        let known = self.slots.keys().copied().chain(missing);
        let mut doubts = known.map(|slot| self.doubt(slot, row(slot), &observation.server));
        doubts.any(|doubt| doubt.is_some())
    }

    /// Why later writes of this slot's row may have been lost, if so.
    fn doubt(&self, slot: Slot, record: Option<&Record>, server: &Server) -> Option<Doubt> {
        let seen = self.slots.get(&slot).and_then(|sighting| sighting.doubt);
        match record {
            Some(record) if record.incarnation != server.incarnation => {
                Some(Doubt::OtherIncarnation)
            }
            Some(_) => seen,
            None if seen.is_some() => seen,
            // Only one's own first look at a database can be its first one.
            None if self.server_changed => Some(Doubt::OtherIncarnation),
            None => {
                let young = server.known_for.is_none_or(|known_for| known_for < YOUNG);
                (server.timeline != Some(1) && young).then_some(Doubt::YoungTimeline)
            }
        }
    }
}

fn expected(record: Option<&Record>) -> Expected {
    match record {
        None => Expected::Missing,
        Some(record) => Expected::Unchanged {
            token: record.token,
            revision: record.revision,
            incarnation: record.incarnation.clone(),
        },
    }
}

/// Whether `one` comes before `other`; `None` is never.
fn earlier(one: Option<BootInstant>, other: Option<BootInstant>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one < other,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
pub(super) mod tests;
