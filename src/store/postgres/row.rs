//! Reads rows into records. A column that cannot be read is a fault of the
//! schema, never a panic.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::fault::Failure;
use crate::lease::ids::{HolderId, Incarnation, Revision, Slot, Token};
use crate::lease::record::{
    Fault, Grant, Loss, Record, Request, RequestKind, Reserved, Term, Unknown,
};

/// One row of an answer.
pub(super) struct Cells<'a>(pub &'a PgRow);

impl Cells<'_> {
    pub(super) fn text(&self, column: &str) -> Result<Option<String>, Failure> {
        self.0
            .try_get::<Option<String>, _>(column)
            .map_err(|error| unreadable(column, &error))
    }

    pub(super) fn number(&self, column: &str) -> Result<Option<i64>, Failure> {
        self.0
            .try_get::<Option<i64>, _>(column)
            .map_err(|error| unreadable(column, &error))
    }

    pub(super) fn small(&self, column: &str) -> Result<Option<i32>, Failure> {
        self.0
            .try_get::<Option<i32>, _>(column)
            .map_err(|error| unreadable(column, &error))
    }

    pub(super) fn flag(&self, column: &str) -> Result<bool, Failure> {
        let flag = self.0.try_get::<Option<bool>, _>(column);
        Ok(flag
            .map_err(|error| unreadable(column, &error))?
            .unwrap_or(false))
    }

    /// Microseconds as a duration; what is not positive is zero.
    pub(super) fn duration(&self, column: &str) -> Result<Duration, Failure> {
        let micros = self.number(column)?.unwrap_or(0);
        Ok(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
    }

    /// A number that must be there.
    pub(super) fn there(&self, column: &str) -> Result<i64, Failure> {
        self.number(column)?.ok_or_else(|| empty(column))
    }

    /// A text that must be there.
    pub(super) fn words(&self, column: &str) -> Result<String, Failure> {
        self.text(column)?.ok_or_else(|| empty(column))
    }

    fn uuid(&self, column: &str) -> Result<Option<Uuid>, Failure> {
        match self.text(column)? {
            None => Ok(None),
            Some(text) => Uuid::parse_str(&text)
                .map(Some)
                .map_err(|error| unreadable(column, &error)),
        }
    }

    /// The slot, where there is a row.
    pub(super) fn slot(&self) -> Result<Option<Slot>, Failure> {
        let Some(slot) = self.small("slot")? else {
            return Ok(None);
        };
        u32::try_from(slot)
            .map(|slot| Some(Slot(slot)))
            .map_err(|error| unreadable("slot", &error))
    }

    /// What the columns of `sql::ROW_COLUMNS` say, where there is a row.
    pub(super) fn record(&self) -> Result<Option<Record>, Failure> {
        let Some(slot) = self.slot()? else {
            return Ok(None);
        };
        let released = self.flag("released")?;
        let held_back = if released {
            self.duration("held_back_us")?
        } else {
            Duration::ZERO
        };
        let remaining = self.duration("reserved_us")?;
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
            ttl: self.duration("ttl_us")?,
            takeover_delay: self.duration("takeover_delay_us")?,
            released,
            expired: self.flag("expired")?,
            expires_in: self.duration("expires_in_us")?,
            held_for: self.duration("held_for_us")?,
            held_back,
            reserved,
            incarnation: Incarnation(self.words("row_incarnation")?),
            request: self.request()?,
        }))
    }

    /// What an operator asks. Something that only a newer leasewrap knows is
    /// not asked of us.
    pub(super) fn request(&self) -> Result<Option<Request>, Failure> {
        let (Some(token), Some(kind)) = (self.number("request_token")?, self.text("request_kind")?)
        else {
            return Ok(None);
        };
        let kind = match kind.as_str() {
            "step-down" => RequestKind::StepDown {
                to: self.text("request_to")?,
            },
            _ => return Ok(None),
        };
        Ok(Some(Request {
            token: Token(token),
            kind,
        }))
    }

    /// A grant, where `revision` is not null.
    pub(super) fn grant(&self) -> Result<Option<Grant>, Failure> {
        let Some(revision) = self.number("revision")? else {
            return Ok(None);
        };
        Ok(Some(Grant {
            token: Token(self.there("token")?),
            revision: Revision(revision),
            incarnation: Incarnation(self.words("incarnation")?),
        }))
    }

    /// Why the row that was seen is not (or no longer) `term`'s; `None` where
    /// it still looks so. With any token where `term` names none.
    pub(super) fn loss(
        &self,
        holder: HolderId,
        token: Option<Token>,
    ) -> Result<Option<Loss>, Failure> {
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

/// The request of a grant counts only for its own token.
pub(super) fn for_token(request: Option<Request>, token: Token) -> Option<Request> {
    request.filter(|request| request.token == token)
}

/// The term's loss, from a row that was looked at.
pub(super) fn loss_of(cells: &Cells<'_>, term: &Term) -> Result<Option<Loss>, Failure> {
    cells.loss(term.holder, Some(term.token))
}

fn unreadable(column: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Unanswered(Unknown {
        fault: Fault::Final,
        message: format!("the column {column} of the answer cannot be read: {error}"),
    })
}

fn empty(column: &str) -> Failure {
    Failure::Unanswered(Unknown {
        fault: Fault::Final,
        message: format!("the column {column} of the answer is empty"),
    })
}

/// The timeline of an incarnation as `incarnation()` writes it.
pub(super) fn timeline(incarnation: &Incarnation) -> Option<u32> {
    let (_system, timeline) = incarnation.0.split_once('/')?;
    timeline.parse().ok()
}
