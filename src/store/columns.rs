//! Reads rows into records, whichever database they come from. A column that
//! cannot be read is a fault of the schema, never a panic.

use std::fmt::Display;
use std::time::Duration;

use uuid::Uuid;

use super::admin::{
    DbTime, HistoryEvent, LeaseStatus, PauseStatus, Requested, SlotStatus, Standby, What,
};
use super::settings::one_line;
use crate::lease::ids::{HolderId, Incarnation, Label, LeaseName, Revision, Slot, Token};
use crate::lease::record::{Fault, Grant, Loss, Record, Request, RequestKind, Reserved, Unknown};

/// The columns of one row.
pub(super) trait Columns {
    /// How a call fails.
    type Failure: From<Unknown>;

    /// A text, or null.
    fn text(&self, column: &str) -> Result<Option<String>, Self::Failure>;
    /// A whole number, or null.
    fn number(&self, column: &str) -> Result<Option<i64>, Self::Failure>;
    /// True; null is false.
    fn flag(&self, column: &str) -> Result<bool, Self::Failure>;
    /// A duration, however the database writes it; null, and what is not
    /// positive, is zero.
    fn duration(&self, column: &str) -> Result<Duration, Self::Failure>;

    /// A number that must be there.
    fn there(&self, column: &str) -> Result<i64, Self::Failure> {
        self.number(column)?
            .ok_or_else(|| unreadable(column, &"it is empty").into())
    }

    /// A text that must be there.
    fn words(&self, column: &str) -> Result<String, Self::Failure> {
        self.text(column)?
            .ok_or_else(|| unreadable(column, &"it is empty").into())
    }

    /// A UUID, or null.
    fn uuid(&self, column: &str) -> Result<Option<Uuid>, Self::Failure> {
        let text = self.text(column)?;
        let uuid = text.map(|text| Uuid::parse_str(&text)).transpose();
        uuid.map_err(|error| unreadable(column, &error).into())
    }

    /// An instant on the database's clock, which must be there.
    fn time(&self, column: &str) -> Result<DbTime, Self::Failure> {
        self.there(column).map(DbTime)
    }

    /// The lease; `None` too for a name that we would not take ourselves, and
    /// somebody has written by hand.
    fn lease(&self) -> Result<Option<LeaseName>, Self::Failure> {
        let name = self.text("lease")?;
        Ok(name.and_then(|name| LeaseName::new(name).ok()))
    }

    /// The slot, where there is a row.
    fn slot(&self) -> Result<Option<Slot>, Self::Failure> {
        let slot = self.number("slot")?.map(u32::try_from).transpose();
        let slot = slot.map_err(|error| unreadable("slot", &error))?;
        Ok(slot.map(Slot))
    }

    /// The row of a slot, where there is one.
    fn record(&self) -> Result<Option<Record>, Self::Failure> {
        let Some(slot) = self.slot()? else {
            return Ok(None);
        };
        let released = self.flag("released")?;
        let ttl = self.duration("ttl")?;
        let expires_in = self.duration("expires_in")?;
        let remaining = self.duration("reserved_in")?.min(ttl);
        let reserved = match self.text("reserved_for")? {
            Some(label) if released && !remaining.is_zero() => Some(Reserved { label, remaining }),
            _ => None,
        };
        Ok(Some(Record {
            slot,
            holder: self.uuid("holder")?.map(HolderId),
            label: self.words("label")?,
            value: self.words("value")?,
            token: Token(self.there("token")?),
            closed_token: self.number("closed_token")?.map(Token),
            revision: Revision(self.there("revision")?),
            ttl,
            takeover_delay: self.duration("takeover_delay")?,
            released,
            expired: expires_in.is_zero(),
            expires_in,
            held_for: self.duration("held_for")?,
            hold_at_least: self.duration("hold_at_least")?,
            reserved,
            incarnation: Incarnation(self.words("row_incarnation")?),
            request: self.request()?,
        }))
    }

    /// What an operator asks. Something that only a newer leasewrap knows is
    /// not asked of us.
    fn request(&self) -> Result<Option<Request>, Self::Failure> {
        let token = self.number("request_token")?.map(Token);
        let kind = self.text("request_kind")?;
        let (Some(token), Some("step-down")) = (token, kind.as_deref()) else {
            return Ok(None);
        };
        let to = self.text("request_to")?;
        let kind = RequestKind::StepDown { to };
        Ok(Some(Request { token, kind }))
    }

    /// An operator's request that is meant for this token.
    fn request_for(&self, token: Token) -> Result<Option<Request>, Self::Failure> {
        Ok(self.request()?.filter(|request| request.token == token))
    }

    /// A grant, where `revision` is not null.
    fn grant(&self) -> Result<Option<Grant>, Self::Failure> {
        let Some(revision) = self.number("revision")? else {
            return Ok(None);
        };
        Ok(Some(Grant {
            token: Token(self.there("token")?),
            revision: Revision(revision),
            incarnation: Incarnation(self.words("incarnation")?),
        }))
    }

    /// Who was asked to step down, in favour of `to`.
    fn requested(&self, to: Option<&Label>) -> Result<Requested, Self::Failure> {
        let token = Token(self.there("token")?);
        let to = to.map(ToString::to_string);
        Ok(Requested {
            slot: self.slot()?.ok_or_else(no_slot)?,
            token,
            label: self.words("label")?,
            ttl: self.duration("ttl")?,
            request: Request {
                token,
                kind: RequestKind::StepDown { to },
            },
        })
    }

    /// Who has paused the lease, where it is.
    fn pause(&self) -> Result<Option<PauseStatus>, Self::Failure> {
        if !self.flag("paused")? {
            return Ok(None);
        }
        Ok(Some(PauseStatus {
            reason: self.words("pause_reason")?,
            by: self.words("pause_role")?,
            since: self.time("pause_since_ms")?,
        }))
    }

    /// One line of the history of a lease.
    fn event(&self, name: LeaseName) -> Result<HistoryEvent, Self::Failure> {
        Ok(HistoryEvent {
            at: self.time("at_ms")?,
            name,
            slot: self.slot()?.ok_or_else(no_slot)?,
            token: Token(self.there("token")?),
            label: self.words("label")?,
            what: What::of(&self.words("what")?),
            why: self.words("why")?,
        })
    }

    /// Why the row that was seen is not (or no longer) that holder's under
    /// that token (any token, where none is named); `None` where it is.
    fn loss(&self, holder: HolderId, token: Option<Token>) -> Result<Option<Loss>, Self::Failure> {
        let Some(seen) = self.number("seen_token")?.map(Token) else {
            return Ok(Some(Loss::Missing));
        };
        if self.uuid("seen_holder")? != Some(holder.0) {
            let label = self.words("seen_label")?;
            return Ok(Some(Loss::OtherHolder { label, token: seen }));
        }
        if token.is_some_and(|token| token != seen) {
            return Ok(Some(Loss::OtherToken(seen)));
        }
        if self.flag("seen_released")? {
            return Ok(Some(Loss::Released));
        }
        Ok(self.flag("seen_closed")?.then_some(Loss::Closed))
    }
}

/// Leases, of which each slot has a row; sorted by name.
pub(super) fn leases<C: Columns>(
    rows: impl Iterator<Item = C>,
    standbys: impl Fn(&LeaseName) -> Result<Option<Vec<Standby>>, C::Failure>,
) -> Result<Vec<LeaseStatus>, C::Failure> {
    let mut leases: Vec<LeaseStatus> = Vec::new();
    for row in rows {
        let Some(name) = row.lease()? else {
            continue;
        };
        if leases.last().is_none_or(|last| last.name != name) {
            leases.push(LeaseStatus {
                paused: row.pause()?,
                slots: Vec::new(),
                standbys: standbys(&name)?,
                name,
            });
        }
        let (Some(record), Some(lease)) = (row.record()?, leases.last_mut()) else {
            continue;
        };
        lease.slots.push(SlotStatus {
            record,
            changes: u64::try_from(row.there("changes")?).unwrap_or(0),
            acquired_at: row.time("acquired_ms")?,
            renewed_at: row.time("renewed_ms")?,
            expires_at: row.time("expires_ms")?,
            released_at: row.number("released_ms")?.map(DbTime),
        });
    }
    Ok(leases)
}

/// The history, oldest first.
pub(super) fn history<C: Columns>(
    rows: impl Iterator<Item = C>,
) -> Result<Vec<HistoryEvent>, C::Failure> {
    let event = |row: C| match row.lease() {
        Ok(name) => name.map(|name| row.event(name)),
        Err(failure) => Some(Err(failure)),
    };
    rows.filter_map(event).collect()
}

fn no_slot() -> Unknown {
    unreadable("slot", &"it is empty")
}

/// A column that is not what it should be; why may repeat what is in it.
pub(super) fn unreadable(column: &str, why: &dyn Display) -> Unknown {
    let message = format!("the column {column} of the answer cannot be read: {why}");
    Unknown {
        fault: Fault::Final,
        message: one_line(&message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_column_ends_no_line() {
        let error = Uuid::parse_str("\n").expect_err("no UUID");
        let said = unreadable("holder", &error).message;
        assert!(said.contains("holder") && !said.contains('\n'), "{said:?}");
    }
}
