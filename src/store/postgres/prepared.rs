//! Statements that a session of our own has prepared, executed by name:
//! without that, parsing and planning are half of what a call costs the
//! server, and of what a hand-over waits for. Behind a pooler nothing is
//! prepared: the next message may meet another session.

use std::borrow::Cow;
use std::collections::HashMap;

use super::sql::{Values, fill_by};

/// The places whose values change from call to call, and their types in a
/// prepared statement. All others are part of its text.
const PARAMETERS: [(&str, &str); 20] = [
    ("slot", "integer"),
    ("slots", "integer"),
    ("holder", "uuid"),
    ("label", "text"),
    ("value", "text"),
    ("ttl", "interval"),
    ("takeover_delay", "interval"),
    ("hold_at_least", "interval"),
    ("token", "bigint"),
    ("revision", "bigint"),
    ("incarnation", "text"),
    ("row_incarnation", "text"),
    ("server_incarnation", "text"),
    ("above_count", "bigint"),
    ("from_unreleased", "boolean"),
    ("floor", "bigint"),
    ("jump", "bigint"),
    ("not_after", "timestamptz"),
    ("why", "text"),
    ("lock_timeout", "text"),
];

/// A statement, taken apart into what stays and what changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// Its text, with numbers in place of the parameters.
    text: String,
    /// The types of the parameters, in the order of their numbers.
    types: Vec<&'static str>,
    /// Their values, as literals.
    arguments: Vec<String>,
}

impl Statement {
    /// `sql` is one statement with named places.
    pub(super) fn new(sql: &str, values: &Values<'_>) -> Self {
        let mut names: Vec<&str> = Vec::new();
        let (mut types, mut arguments) = (Vec::new(), Vec::new());
        let text = fill_by(sql.trim().trim_end_matches(';'), |place| {
            let (_, value) = values.iter().find(|(name, _)| *name == place)?;
            let Some((name, kind)) = PARAMETERS.iter().find(|(name, _)| *name == place) else {
                return Some(Cow::Borrowed(*value));
            };
            let known = names.iter().position(|known| known == name);
            let at = known.unwrap_or_else(|| {
                names.push(name);
                types.push(*kind);
                arguments.push((*value).to_owned());
                names.len() - 1
            });
            Some(Cow::Owned(format!("${}", at + 1)))
        });
        Self {
            text,
            types,
            arguments,
        }
    }
}

/// What a session has prepared: names by text.
#[derive(Debug)]
pub(super) struct Prepared {
    names: HashMap<String, String>,
    /// In every name. A pooler that hands our start-up options on to sessions
    /// that others use too makes those look like ours: there a name must mean
    /// what we have prepared, or nothing.
    mark: u64,
    /// How many names were given. None comes twice: a statement stays
    /// prepared where the rest of its message fails.
    given: u32,
}

impl Prepared {
    pub(super) fn new() -> Self {
        Self {
            names: HashMap::new(),
            mark: rand::random(),
            given: 0,
        }
    }

    /// A message that executes the statement by its name, if it has one.
    pub(super) fn execute(&self, statement: &Statement) -> Option<String> {
        let name = self.names.get(&statement.text)?;
        Some(match statement.arguments.as_slice() {
            [] => format!("\nexecute {name};"),
            arguments => format!("\nexecute {name}({});", arguments.join(", ")),
        })
    }

    /// A message that prepares statements, and what is to be kept in mind
    /// when it has worked. Their plans hold for all values: each finds its
    /// rows by a primary key.
    pub(super) fn prepare(&mut self, statements: &[Statement]) -> (String, Names) {
        let mut message = "set plan_cache_mode = force_generic_plan;".to_owned();
        let mut names = HashMap::new();
        for Statement { text, types, .. } in statements {
            self.given += 1;
            let name = format!("leasewrap_{:016x}_{}", self.mark, self.given);
            let types = match types.as_slice() {
                [] => String::new(),
                types => format!(" ({})", types.join(", ")),
            };
            message.push_str(&format!("\nprepare {name}{types} as {text};"));
            names.insert(text.clone(), name);
        }
        (message, Names(names))
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// They are there.
    pub(super) fn keep(&mut self, names: Names) {
        self.names.extend(names.0);
    }

    /// They are gone; whether there were any.
    pub(super) fn forget(&mut self) -> bool {
        let had_any = !self.names.is_empty();
        self.names.clear();
        had_any
    }
}

/// What a message was to prepare.
#[derive(Debug)]
pub(super) struct Names(HashMap<String, String>);

#[cfg(test)]
mod tests {
    use super::*;

    const SQL: &str = "\nselect :name, :slot::text, l from :schema.lease l
        where slot = :slot and :token > 0;\n";

    fn statement(slot: &str, name: &str) -> Statement {
        let values = [
            ("slot", slot),
            ("name", name),
            ("token", "9"),
            ("ttl", "'unused'"),
            // Whoever comes first counts.
            ("token", "8"),
            ("schema", "\"s\""),
        ];
        Statement::new(SQL, &values)
    }

    #[test]
    fn what_changes_is_an_argument_and_all_else_is_text() {
        let found = statement("3", "E'a:slot'");
        assert_eq!(
            found.text,
            "select E'a:slot', $1::text, l from \"s\".lease l\n        where slot = $1 and $2 > 0"
        );
        assert_eq!(found.types, ["integer", "bigint"]);
        assert_eq!(found.arguments, ["3", "9"]);
    }

    #[test]
    fn only_what_was_prepared_word_for_word_is_executed_by_name() {
        let mut prepared = Prepared {
            mark: 0xab,
            ..Prepared::new()
        };
        assert_eq!(prepared.execute(&statement("3", "E'a'")), None);
        let (message, names) = prepared.prepare(&[statement("-1", "E'a'")]);
        assert!(message.contains(
            "\nprepare leasewrap_00000000000000ab_1 (integer, bigint) as select E'a', $1"
        ));
        assert_eq!(prepared.execute(&statement("3", "E'a'")), None, "not yet");
        prepared.keep(names);
        assert_eq!(
            prepared.execute(&statement("3", "E'a'")).as_deref(),
            Some("\nexecute leasewrap_00000000000000ab_1(3, 9);")
        );
        assert_eq!(prepared.execute(&statement("3", "E'b'")), None);
        assert!(prepared.forget() && !prepared.forget());
        assert_eq!(prepared.execute(&statement("3", "E'a'")), None);
        let (message, _) = prepared.prepare(&[statement("3", "E'a'")]);
        assert!(message.contains("\nprepare leasewrap_00000000000000ab_2 "));
    }

    #[test]
    fn no_two_sessions_use_the_same_name() {
        let message = || Prepared::new().prepare(&[statement("3", "E'a'")]).0;
        assert_ne!(message(), message());
    }

    #[test]
    fn a_statement_without_parameters_has_no_parentheses() {
        let mut prepared = Prepared {
            mark: 0xab,
            ..Prepared::new()
        };
        let statement = Statement::new("select 1", &[]);
        let (message, names) = prepared.prepare(std::slice::from_ref(&statement));
        assert!(message.ends_with("\nprepare leasewrap_00000000000000ab_1 as select 1;"));
        prepared.keep(names);
        assert_eq!(
            prepared.execute(&statement).as_deref(),
            Some("\nexecute leasewrap_00000000000000ab_1;")
        );
    }
}
