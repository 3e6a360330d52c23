//! Making a session ready for what it will be in a hurry for. It looks up in
//! the catalogs what a statement names when it meets it first, parses it and
//! plans it: most of what a first acquisition takes, and half of every other.
//! A standby has the time for that before the lease is free, and a holder
//! before it gives it back. Never before an answer is given, though, and never
//! for long: what is called next waits for it.

use std::time::Duration;

use super::acquire::Locked;
use super::calls::{giving, renewing};
use super::prepared::Statement;
use super::{PgStore, Tell, sql};
use crate::lease::ids::{Incarnation, Label, Token, Value};
use crate::lease::record::{Acquire, Expected, Observation, Record, Renewed, Term, Terms};
use crate::store::deadline::Deadline;

/// How long a preparation may wait for somebody who changes a table.
const LOCK_LIMIT: &str = "set local lock_timeout = '100ms';";

/// What the last answer has shown to be worthwhile.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Somebody holds the lease; it may be ours next.
    ToTake {
        held: Box<Record>,
        incarnation: Incarnation,
    },
    /// We hold it.
    ToHold {
        term: Term,
        incarnation: Incarnation,
    },
}

impl PgStore {
    /// Notes what a poll has shown.
    pub(super) fn may_take(&mut self, seen: &Observation) {
        self.wanted = seen
            .records
            .iter()
            .find(|record| !record.released)
            .map(|held| Wanted::ToTake {
                held: Box::new(held.clone()),
                incarnation: seen.server.incarnation.clone(),
            })
            .map(Box::new);
    }

    /// Notes that the session that was `known` has shown that we hold the
    /// lease, where its answer does. Not one that has only just begun: after a
    /// fail-over others wait for their first answers.
    pub(super) fn may_hold(&mut self, known: Option<u64>, term: &Term, reply: &Renewed) {
        let Renewed::Granted { grant, .. } = reply else {
            return;
        };
        let known = known.is_some() && known == self.link.own_session();
        self.wanted = known.then(|| {
            Box::new(Wanted::ToHold {
                term: term.clone(),
                incarnation: grant.incarnation.clone(),
            })
        });
    }

    pub(super) async fn make_ready(&mut self, limit: Duration) {
        let deadline = Deadline::new(self.clock, limit);
        match self.wanted.take().map(|wanted| *wanted) {
            Some(Wanted::ToTake { held, incarnation }) => {
                self.make_ready_to_take(*held, incarnation, deadline).await;
            }
            Some(Wanted::ToHold { term, incarnation }) => {
                self.make_ready_to_hold(&term, &incarnation, deadline).await;
            }
            None => {}
        }
    }

    /// Of a standby: prepares polls and an acquisition, and sends one of a
    /// slot that there cannot be, which locks and changes nothing.
    async fn make_ready_to_take(
        &mut self,
        held: Record,
        incarnation: Incarnation,
        deadline: Deadline,
    ) {
        let (Ok(label), Ok(value)) = (Label::new("standby"), Value::new("")) else {
            return;
        };
        let Some(holder) = held.holder.filter(|_| self.link.gets_ready_to_take()) else {
            return;
        };
        let request = Acquire {
            slot: held.slot,
            slots: 1,
            above: Vec::new(),
            holder,
            expected: Expected::Unchanged {
                token: held.token,
                revision: held.revision,
                incarnation: held.incarnation,
            },
            server_incarnation: incarnation,
            in_doubt: false,
            furthest: None,
            from_unreleased: false,
            terms: Terms {
                ttl: held.ttl,
                takeover_delay: held.takeover_delay,
                hold_at_least: Duration::ZERO,
                label,
                value,
            },
        };
        let tell = self.usual_teller();
        let (acquire, mut values) = self.taking(&request, deadline.left(), tell);
        values.push(("nowait", "nowait".to_owned()));
        let parts = [sql::OBSERVE, sql::LOCK_ROW, acquire.as_str()];
        if !self.prepare(sql::POLL, &parts, &values, deadline).await {
            return;
        }
        // Either of the first two keeps a row from being taken; the lock is one
        // that nobody else asks for.
        let nobodys = rand::random::<i32>().to_string();
        let nothing = [
            ("slot", "'-1'::integer"),
            ("not_after", "timestamptz '-infinity'"),
            ("advisory_key", nobodys.as_str()),
        ];
        let left = deadline.left();
        let built = self.acquisition(&request, Locked::Refuse, left, tell, &nothing);
        self.try_out(format!("{}{built}", sql::POLL), deadline)
            .await;
    }

    /// Of a holder: prepares renewals and a release, and sends one of a token
    /// that there cannot be.
    async fn make_ready_to_hold(
        &mut self,
        term: &Term,
        incarnation: &Incarnation,
        deadline: Deadline,
    ) {
        if !self.link.gets_ready_to_hold() {
            return;
        }
        let nobodys = Term {
            token: Token(-1),
            ..term.clone()
        };
        let tell = self.usual_teller();
        let (renew, ttl) = renewing(sql::OF_TERM, &nobodys, Duration::ZERO);
        let (release, values) = giving(sql::OF_TERM, &nobodys, incarnation, tell);
        let both = [values.as_slice(), &ttl].concat();
        if self.prepare("", &[&renew, &release], &both, deadline).await {
            let left = deadline.left();
            let built = self.message_of(&[sql::LIMITS], &release, &values, left);
            self.try_out(built, deadline).await;
        }
    }

    /// Who mostly tells of a change.
    fn usual_teller(&self) -> Tell {
        if self.tells {
            Tell::Ourselves
        } else {
            Tell::Trigger
        }
    }

    /// Whether they are prepared now.
    async fn prepare(
        &mut self,
        comment: &str,
        parts: &[&str],
        values: &sql::Owned,
        deadline: Deadline,
    ) -> bool {
        let (values, left) = (sql::borrowed(values), deadline.left());
        let statements = self.composed(parts, &values, left, Statement::new);
        let Some((message, names)) = self.link.preparation(&statements) else {
            return false;
        };
        let message = format!("{comment}{LOCK_LIMIT}\n{message}");
        let prepared = self.link.send(message, deadline).await.is_ok();
        if prepared {
            self.link.keep_prepared(names);
        }
        prepared
    }

    /// Sends what changes nothing. Whether it worked shows when it counts.
    async fn try_out(&mut self, message: String, deadline: Deadline) {
        let _answer = self.link.send(message, deadline).await;
    }
}
