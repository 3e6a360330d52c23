//! Leases in PostgreSQL.
//!
//! | file | what |
//! |---|---|
//! | `url`, `passfile`, `target`, `settings` | where the server is and how to log in, by libpq's rules |
//! | `link`, `fault` | one connection, with limits; what an error means |
//! | `schema.sql`, `schema` | tables, triggers and functions; their set-up |
//! | `sql`, `prepared`, `row` | the statements, which of them a session knows, and how their answers are read |
//! | `calls`, `poll`, `acquire`, `ready` | the trait's calls, and making a session ready for them |
//! | `listener` | `LISTEN`, in a connection of its own |
//! | `admin`, `protect`, `doctor` | what operators ask |
//! | `selftest`, `hop` | what the self-test does: to rows of its own, and to a line |

mod acquire;
mod admin;
mod calls;
pub mod doctor;
mod fault;
mod hop;
mod link;
mod listener;
mod passfile;
mod poll;
mod prepared;
mod protect;
mod ready;
mod row;
mod schema;
mod selftest;
pub mod settings;
mod sql;
mod target;
pub mod url;

use std::time::Duration;

use self::fault::{
    Failure, LOCK_NOT_AVAILABLE, NO_SUCH_STATEMENT, NOT_SUPPORTED, PROGRAM_LIMIT_EXCEEDED,
    QUERY_CANCELED, RIGHT_MISSING,
};
pub use self::hop::{Hop, Place};
use self::link::{Link, Rows};
pub use self::listener::PgWatch;
use self::ready::Wanted;
pub use self::settings::{PgSettings, PgSource};
pub use self::url::UrlError;
use super::deadline::{Deadline, SeenTime};
use super::{Clock, Timed};
use crate::lease::ids::{Incarnation, LeaseName};
use crate::lease::time::BootInstant;

/// One lease in a PostgreSQL database.
pub struct PgStore {
    link: Link,
    name: LeaseName,
    clock: Clock,
    why: String,
    seen_time: Option<SeenTime>,
    known: Option<Known>,
    /// Ask for the incarnation in the plain way.
    plain_identity: bool,
    /// Tell of our own changes ourselves.
    tells: bool,
    /// What to make the session ready for when there is time.
    wanted: Option<Box<Wanted>>,
}

/// How long the schema had known an incarnation when it was asked. (Not since
/// when: it may be longer than this host runs.)
struct Known {
    incarnation: Incarnation,
    asked_at: BootInstant,
    known_for: Duration,
}

impl PgStore {
    /// The lease `name` in the database of `settings`. Connects to nothing yet.
    pub fn new(settings: PgSettings, name: LeaseName, clock: Clock) -> Self {
        let application = format!("leasewrap {name}");
        Self {
            link: Link::new(settings, application),
            name,
            clock,
            why: String::new(),
            seen_time: None,
            known: None,
            plain_identity: true,
            tells: true,
            wanted: None,
        }
    }

    /// See [`super::AnyStore::only_reads`].
    pub fn only_reads(&mut self) {
        self.link.only_reads();
    }

    fn identity(&self) -> &'static str {
        if self.plain_identity {
            sql::IDENTITY
        } else {
            sql::IDENTITY_BY_FUNCTION
        }
    }

    /// A message made of `parts`, with `values` and those that all need; where
    /// `values` do not say who tells of a change, the trigger does.
    fn message(&self, parts: &[&str], values: &sql::Values<'_>, limit: Duration) -> String {
        let statement = |part: &str, values: &sql::Values<'_>| self.link.statement(part, values);
        self.composed(parts, values, limit, statement).concat()
    }

    /// The same of a statement, with its values, behind other parts.
    fn message_of(
        &self,
        before: &[&str],
        statement: &str,
        values: &sql::Owned,
        limit: Duration,
    ) -> String {
        let parts = [before, &[statement]].concat();
        self.message(&parts, &sql::borrowed(values), limit)
    }

    /// What `made` makes of each of `parts`, with `values` and those that all
    /// need.
    fn composed<T>(
        &self,
        parts: &[&str],
        values: &sql::Values<'_>,
        limit: Duration,
        made: impl Fn(&str, &sql::Values<'_>) -> T,
    ) -> Vec<T> {
        let (name, why) = (sql::text(self.name.as_str()), sql::text(&self.why));
        let schema = self.link.settings().schema();
        let (names, advisory) = (
            schema::names(schema),
            schema::advisory_key(schema, self.name.as_str()),
        );
        // The locks of one statement are waited for one after the other.
        let (statement, lock) = (sql::timeout(limit), sql::timeout(limit / 2));
        let common = [
            ("name", name.as_str()),
            ("why", &why),
            ("advisory_class", schema::ADVISORY_CLASS),
            ("advisory_key", &advisory),
            ("statement_timeout", &statement),
            ("lock_timeout", &lock),
        ];
        let names = names.iter().map(|(place, value)| (*place, value.as_str()));
        let values = values.iter().copied().chain(Tell::Trigger.values());
        let all: Vec<(&str, &str)> = values.chain(common).chain(names).collect();
        let fragments = [
            ("row_columns", sql::ROW_COLUMNS),
            ("seen_columns", sql::SEEN_COLUMNS),
            ("session_mark", sql::SESSION_MARK),
            ("identity", self.identity()),
        ];
        let parts = parts.iter();
        parts
            .map(|part| made(&sql::fill(part, &fragments), &all))
            .collect()
    }

    /// Connects and sends a message once; when it was sent, and the answer.
    /// `build` makes the message for the time that is left then.
    async fn call_once(
        &mut self,
        deadline: Deadline,
        build: impl Fn(&Self, Duration) -> String,
    ) -> Timed<Result<Rows, Failure>> {
        if let Err(unknown) = self.link.connect(deadline).await {
            let reply = Err(Failure::Unanswered(unknown));
            let sent_at = (self.clock)();
            return Timed { sent_at, reply };
        }
        loop {
            let message = build(self, deadline.left());
            let sent_at = (self.clock)();
            let reply = self.link.send(message, deadline).await;
            match &reply {
                Ok(rows) => self.see_session(rows),
                // It was changed from outside, or what it was made for.
                Err(Failure::Refused(refused))
                    if matches!(refused.code.as_str(), NO_SUCH_STATEMENT | NOT_SUPPORTED)
                        && self.link.forget_prepared() =>
                {
                    continue;
                }
                // Not open to this role, or on this server.
                Err(Failure::Refused(refused))
                    if self.plain_identity
                        && self.link.is_open()
                        && matches!(
                            refused.code.as_str(),
                            RIGHT_MISSING | NOT_SUPPORTED | "42883"
                        ) =>
                {
                    self.plain_identity = false;
                    continue;
                }
                Err(_) => {}
            }
            return Timed { sent_at, reply };
        }
    }

    /// Where an answer shows the session's mark, the session is ours.
    fn see_session(&mut self, rows: &Rows) {
        let Ok(cells) = row::last(rows) else {
            return;
        };
        if let (Ok(mark), Ok(process)) = (
            row::Columns::words(&cells, "session"),
            row::Columns::words(&cells, "process"),
        ) {
            self.link.saw_session(&mark, &process);
        }
    }

    /// The same for a message that may come twice: an idle connection may
    /// have been closed long ago, by a restart of the server or of a pooler.
    /// That shows when it is used; then a fresh one is tried at once.
    async fn call(
        &mut self,
        deadline: Deadline,
        build: impl Fn(&Self, Duration) -> String,
    ) -> Timed<Result<Rows, Failure>> {
        let reused = self.link.is_open();
        let answer = self.call_once(deadline, &build).await;
        let closed = answer.reply.is_err() && !self.link.is_open();
        if reused && closed && !deadline.left().is_zero() {
            return self.call_once(deadline, &build).await;
        }
        answer
    }

    /// As [`Self::call`], for a message that tells of a change: where that is
    /// what fails, it is sent again so that less is told.
    async fn call_telling(
        &mut self,
        deadline: Deadline,
        first: Tell,
        build: impl Fn(&Self, Duration, Tell) -> String,
    ) -> Timed<Result<Rows, Failure>> {
        let mut tell = first;
        loop {
            // Time is left for less to be told.
            let share = if tell == Tell::Ourselves { 2 } else { 1 };
            let answer = self
                .call(deadline, |store, left| build(store, left / share, tell))
                .await;
            match self.tell_less(tell, &answer.reply) {
                Some(less) => tell = less,
                None => return answer,
            }
        }
    }

    /// Who is to tell of a change that we make: mostly its own statement. Now
    /// and then the trigger, which also sees to the history's age.
    fn teller(&self) -> Tell {
        if self.tells && rand::random_ratio(19, 20) {
            Tell::Ourselves
        } else {
            Tell::Trigger
        }
    }

    /// Whether a message failed for what it tells, and how to tell less: the
    /// trigger bears with a history that cannot be written, and a full queue
    /// of notifications keeps nothing from being committed.
    fn tell_less(&mut self, tell: Tell, reply: &Result<Rows, Failure>) -> Option<Tell> {
        let Err(Failure::Refused(refused)) = reply else {
            return None;
        };
        if refused.code == PROGRAM_LIMIT_EXCEEDED && tell != Tell::Nobody {
            return Some(Tell::Nobody);
        }
        if tell != Tell::Ourselves {
            return None;
        }
        // Missing, or not ours to write.
        if refused.code.starts_with("42") {
            self.tells = false;
            return Some(Tell::Trigger);
        }
        // Of the row or of the history: somebody makes an index of it, say.
        let locked = matches!(refused.code.as_str(), LOCK_NOT_AVAILABLE | QUERY_CANCELED);
        locked.then_some(Tell::Trigger)
    }
}

/// Who tells listeners and the history of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tell {
    /// The statement that makes it.
    Ourselves,
    /// The table's trigger.
    Trigger,
    /// The history hears of it, by the trigger; listeners do not.
    Nobody,
}

impl Tell {
    /// What a message needs for that.
    fn values(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Ourselves => [("told", "'on'"), ("quiet", "'off'")],
            Self::Trigger => [("told", "'off'"), ("quiet", "'off'")],
            Self::Nobody => [("told", "'off'"), ("quiet", "'on'")],
        }
    }

    /// The fragments of a statement that takes or gives back.
    fn fragments(
        self,
        tell: &'static str,
        note: &'static str,
    ) -> [(&'static str, &'static str); 2] {
        match self {
            Self::Ourselves => [("tell", tell), ("note", note)],
            Self::Trigger | Self::Nobody => [("tell", ""), ("note", "")],
        }
    }
}
