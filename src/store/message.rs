//! Messages to a database: SQL with named places, and the rows that come back.

use std::borrow::Cow;
use std::fmt::Write;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Database, Either, Executor};

use crate::lease::record::Acquire;

/// What stands for `:name` in a constant.
pub(in crate::store) type Values<'a> = [(&'a str, &'a str)];

/// Fills the places of `sql`, in one pass, so that a value is never looked
/// into. `::` is a cast and `:=` an assignment; a place without a value stays,
/// and Postgres refuses it.
pub(in crate::store) fn fill(sql: &str, values: &Values<'_>) -> String {
    fill_by(sql, |place| {
        let value = values.iter().find(|(name, _)| *name == place);
        value.map(|(_, value)| Cow::Borrowed(*value))
    })
}

/// The same, with the values that `value` has.
pub(in crate::store) fn fill_by<'a>(
    sql: &str,
    mut value: impl FnMut(&str) -> Option<Cow<'a, str>>,
) -> String {
    let mut filled = String::with_capacity(sql.len() + 256);
    let mut rest = sql;
    while let Some(at) = rest.find(':') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("::") {
            filled.push_str("::");
            rest = after;
            continue;
        }
        let name = &rest[1..];
        let end = name
            .find(|c: char| !c.is_ascii_lowercase() && c != '_')
            .unwrap_or(name.len());
        match value(&name[..end]) {
            Some(value) => filled.push_str(&value),
            None => {
                let _always_ok = write!(filled, ":{}", &name[..end]);
            }
        }
        rest = &name[end..];
    }
    filled.push_str(rest);
    filled
}

/// Of the rows of a lease `a`: how many there must be above our slots, and
/// what tells that one of them is as it was watched.
pub(in crate::store) fn above(request: &Acquire) -> (String, String) {
    let rows: Vec<String> = request
        .above
        .iter()
        .map(|above| format!("({}, {}, {})", above.slot, above.token, above.revision))
        .collect();
    let same = if rows.is_empty() {
        "false".to_owned()
    } else {
        let rows = rows.join(", ");
        format!("(a.slot, a.token, a.revision) in (values {rows})")
    };
    (rows.len().to_string(), same)
}

/// Sends one message; the rows of each of its statements.
pub(in crate::store) async fn collect<'c, D: Database>(
    connection: impl Executor<'c, Database = D>,
    sql: String,
) -> Result<Vec<Vec<D::Row>>, sqlx::Error> {
    let (mut rows, mut current) = (Vec::new(), Vec::new());
    // Audited: every value in it is a literal made by a store's `sql::text`,
    // or a number.
    let mut answers = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(connection);
    while let Some(answer) = answers.try_next().await? {
        match answer {
            Either::Left(_statement_done) => rows.push(std::mem::take(&mut current)),
            Either::Right(row) => current.push(row),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_looked_into() {
        let filled = fill(
            "select :a::text, :b, :c, x := 1",
            &[("a", ":b"), ("b", "'::a'")],
        );
        assert_eq!(filled, "select :b::text, '::a', :c, x := 1");
    }
}
