//! The columns of Postgres's rows.

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::fault::Failure;
use crate::lease::ids::Incarnation;
pub(super) use crate::store::columns::Columns;
use crate::store::columns::unreadable;

/// One row of an answer.
pub(super) struct Cells<'a>(pub &'a PgRow);

impl Columns for Cells<'_> {
    type Failure = Failure;

    fn text(&self, column: &str) -> Result<Option<String>, Failure> {
        let text = self.0.try_get::<Option<String>, _>(column);
        text.map_err(|error| unreadable(column, &error).into())
    }

    fn number(&self, column: &str) -> Result<Option<i64>, Failure> {
        let number = self.0.try_get::<Option<i64>, _>(column);
        // Or of four bytes.
        let number =
            number.or_else(|_| Ok(self.0.try_get::<Option<i32>, _>(column)?.map(i64::from)));
        number.map_err(|error: sqlx::Error| unreadable(column, &error).into())
    }

    fn flag(&self, column: &str) -> Result<bool, Failure> {
        let flag = self.0.try_get::<Option<bool>, _>(column);
        let flag = flag.map_err(|error| unreadable(column, &error))?;
        Ok(flag.unwrap_or(false))
    }
}

/// The timeline of an incarnation as `incarnation()` writes it.
pub(super) fn timeline(incarnation: &Incarnation) -> Option<u32> {
    let (_system, timeline) = incarnation.0.split_once('/')?;
    timeline.parse().ok()
}
