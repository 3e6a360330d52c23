//! The columns of Postgres's rows.

use std::fmt::Display;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{Row, ValueRef};

use super::fault::Failure;
use super::link::Rows;
use crate::lease::ids::Incarnation;
use crate::lease::record::{Fault, Unknown};
pub(super) use crate::store::columns::Columns;
use crate::store::columns::unreadable;

/// One row of an answer.
pub(super) struct Cells<'a>(pub &'a PgRow);

impl Columns for Cells<'_> {
    type Failure = Failure;

    fn text(&self, column: &str) -> Result<Option<String>, Failure> {
        Ok(self.raw(column)?.map(str::to_owned))
    }

    fn number(&self, column: &str) -> Result<Option<i64>, Failure> {
        let number = self.raw(column)?.map(str::parse).transpose();
        number.map_err(|error| unreadable(column, &error).into())
    }

    fn flag(&self, column: &str) -> Result<bool, Failure> {
        Ok(self.raw(column)? == Some("t"))
    }

    /// Seconds, as `extract(epoch from …)` gives them.
    fn duration(&self, column: &str) -> Result<Duration, Failure> {
        let seconds = self.raw(column)?.unwrap_or("0").parse::<f64>();
        let seconds = seconds.map_err(|error| unreadable(column, &error))?;
        Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    }
}

impl Cells<'_> {
    /// The value as Postgres writes it, whatever its type: the simple
    /// protocol has texts alone. So nothing needs a cast in SQL, which a
    /// fresh session would pay for.
    fn raw(&self, column: &str) -> Result<Option<&str>, Failure> {
        let wrong = |error: &dyn Display| Failure::from(unreadable(column, error));
        let value = self.0.try_get_raw(column).map_err(|error| wrong(&error))?;
        if value.is_null() {
            return Ok(None);
        }
        value.as_str().map(Some).map_err(|error| wrong(&error))
    }
}

/// The first row of an answer.
pub(super) fn first(rows: &Rows) -> Result<Cells<'_>, Failure> {
    let row = rows.iter().flatten().next();
    row.map(Cells).ok_or_else(no_row)
}

/// The row of the last statement, where that has one.
pub(super) fn last(rows: &Rows) -> Result<Cells<'_>, Failure> {
    let row = rows.last().and_then(|rows| rows.first());
    row.map(Cells).ok_or_else(no_row)
}

/// There is less than there always is.
pub(super) fn no_row() -> Failure {
    Failure::Unanswered(Unknown {
        fault: Fault::Transient,
        message: "the database's answer is incomplete".to_owned(),
    })
}

/// The timeline of an incarnation as `incarnation()` writes it.
pub(super) fn timeline(incarnation: &Incarnation) -> Option<u32> {
    let (_system, timeline) = incarnation.0.split_once('/')?;
    u32::from_str_radix(timeline, 16).ok()
}
