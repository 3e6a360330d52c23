//! Leases in PostgreSQL.
//!
//! | file | what |
//! |---|---|
//! | `url`, `passfile`, `target`, `settings` | where the server is and how to log in, by libpq's rules |
//! | `link`, `fault` | one connection, with limits; what an error means |
//! | `schema.sql`, `schema` | tables, triggers and functions; their set-up |
//! | `sql`, `row` | the statements, and how their answers are read |
//! | `calls`, `acquire` | the trait's calls |
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
mod protect;
mod row;
mod schema;
mod selftest;
pub mod settings;
mod sql;
mod target;
pub mod url;

use std::time::Duration;

use self::fault::{Failure, PROGRAM_LIMIT_EXCEEDED};
use self::link::{Link, Rows};
pub use self::hop::{Hop, Place};
pub use self::listener::PgWatch;
pub use self::settings::{PgSettings, PgSource};
pub use self::url::UrlError;
use super::deadline::Deadline;
use super::{Attempt, Clock, Store, Timed};
use crate::lease::ids::{Incarnation, LeaseName};
use crate::lease::record::{Acquire, Acquired, Observed, Released, Renewed, Term, Terms, Unknown};
use crate::lease::time::BootInstant;

/// One lease in a PostgreSQL database.
pub struct PgStore {
    link: Link,
    name: LeaseName,
    clock: Clock,
    why: String,
    /// Written with a notification refused (its queue was full): try with one
    /// again next time.
    seen_time: Option<SeenTime>,
    known: Option<Known>,
}

/// How long the schema had known an incarnation when it was asked. (Not since
/// when: it may be longer than this host runs.)
struct Known {
    incarnation: Incarnation,
    asked_at: BootInstant,
    known_for: Duration,
}

/// The database's clock when a poll was answered.
#[derive(Debug, Clone, Copy)]
struct SeenTime {
    /// When the poll was sent.
    sent_at: BootInstant,
    /// The database's clock, in microseconds since the Unix epoch.
    database_us: i64,
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
        }
    }

    fn schema(&self) -> String {
        sql::identifier(self.link.settings().schema())
    }

    /// A message made of `parts`, with `values` and those that all need.
    fn message(&self, parts: &[&str], values: &sql::Values<'_>, limit: Duration) -> String {
        let (schema, name, why) = (
            self.schema(),
            sql::text(self.name.as_str()),
            sql::text(&self.why),
        );
        let advisory = schema::advisory_key(self.link.settings().schema(), self.name.as_str());
        // The locks of one statement are waited for one after the other.
        let (statement, lock) = (sql::timeout(limit), sql::timeout(limit / 2));
        let common = [
            ("schema", schema.as_str()),
            ("name", &name),
            ("why", &why),
            ("advisory_class", schema::ADVISORY_CLASS),
            ("advisory_key", &advisory),
            ("statement_timeout", &statement),
            ("lock_timeout", &lock),
        ];
        let all: Vec<(&str, &str)> = values.iter().chain(common.iter()).copied().collect();
        let composed = sql::fill(
            &parts.concat(),
            &[
                ("row_columns", sql::ROW_COLUMNS),
                ("seen_columns", sql::SEEN_COLUMNS),
                ("session_mark", sql::SESSION_MARK),
            ],
        );
        sql::fill(&composed, &all)
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
        let message = build(self, deadline.left());
        let sent_at = (self.clock)();
        let reply = self.link.send(message, deadline).await;
        if let Ok(rows) = &reply {
            self.see_mark(rows);
        }
        Timed { sent_at, reply }
    }

    /// Where an answer shows the session's mark, the session is ours.
    fn see_mark(&mut self, rows: &Rows) {
        let last = rows.last().and_then(|rows| rows.first()).map(row::Cells);
        if let Some(Ok(Some(mark))) = last.map(|cells| row::Columns::text(&cells, "session")) {
            self.link.saw_mark(&mark);
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

    /// As [`Self::call`], for a message that may notify: where the queue of
    /// notifications is full, it is sent again without one.
    async fn call_notifying(
        &mut self,
        deadline: Deadline,
        build: impl Fn(&Self, Duration, &str) -> String,
    ) -> Timed<Result<Rows, Failure>> {
        let answer = self
            .call(deadline, |store, left| build(store, left, "off"))
            .await;
        if is_queue_full(&answer.reply) {
            return self
                .call(deadline, |store, left| build(store, left, "on"))
                .await;
        }
        answer
    }
}

/// Whether the queue of notifications kept a message from being committed.
fn is_queue_full(reply: &Result<Rows, Failure>) -> bool {
    matches!(reply, Err(Failure::Refused(refused)) if refused.code == PROGRAM_LIMIT_EXCEEDED)
}

impl Store for PgStore {
    type Watch = PgWatch;

    async fn observe(&mut self, limit: Duration) -> Observed {
        self.observe_call(limit).await
    }

    async fn init(&mut self, limit: Duration) -> Result<(), Unknown> {
        self.init_call(limit).await
    }

    async fn acquire(&mut self, request: &Acquire, limit: Duration) -> Timed<Acquired> {
        self.acquire_call(request, limit).await
    }

    async fn renew(&mut self, term: &Term, terms: &Terms, limit: Duration) -> Timed<Renewed> {
        self.renew_call(term, terms, limit).await
    }

    async fn settle(&mut self, request: &Acquire, limit: Duration) -> Timed<Renewed> {
        self.settle_call(request, limit).await
    }

    async fn check(&mut self, term: &Term, limit: Duration) -> Renewed {
        self.check_call(term, limit).await
    }

    async fn release(
        &mut self,
        term: &Term,
        incarnation: &Incarnation,
        limit: Duration,
    ) -> Released {
        self.release_call(term, incarnation, limit).await
    }

    async fn release_attempt(&mut self, attempt: &Attempt, limit: Duration) -> Released {
        self.release_attempt_call(attempt, limit).await
    }

    fn because(&mut self, why: &str) {
        why.clone_into(&mut self.why);
    }

    fn watch(&self) -> PgWatch {
        PgWatch::start(self.link.settings().clone(), &self.name)
    }
}
