//! SQL with named places.

use std::fmt::Write;

/// What stands for `:name` in a constant.
pub(in crate::store) type Values<'a> = [(&'a str, &'a str)];

/// Fills the places of `sql`, in one pass, so that a value is never looked
/// into. `::` is a cast and `:=` an assignment; a place without a value stays,
/// and Postgres refuses it.
pub(in crate::store) fn fill(sql: &str, values: &Values<'_>) -> String {
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
        let value = values.iter().find(|(place, _)| *place == &name[..end]);
        match value {
            Some((_, value)) if end > 0 => filled.push_str(value),
            _ => {
                let _always_ok = write!(filled, ":{}", &name[..end]);
            }
        }
        rest = &name[end..];
    }
    filled.push_str(rest);
    filled
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
