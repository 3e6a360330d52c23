//! Making a session ready for what it will be in a hurry for. It looks up in
//! the catalogs what a statement names when it meets it first, parses it and
//! plans it: most of what a first acquisition takes, and half of every other.
//! A standby has the time for that before the lease is free, and a holder
//! before it gives it back.

use std::time::Duration;

use super::acquire::Locked;
use super::calls::{giving, renewing};
use super::prepared::Statement;
use super::{PgStore, Tell, sql};
use crate::lease::ids::{Incarnation, Label, Token, Value};
use crate::lease::record::{Acquire, Expected, Observation, Term, Terms};
use crate::store::deadline::Deadline;

impl PgStore {
    /// Of a standby: prepares polls and an acquisition, and sends one of a
    /// slot that there cannot be, which locks and changes nothing.
    pub(super) async fn get_ready_to_take(&mut self, seen: &Observation, deadline: Deadline) {
        let Some(held) = seen.records.iter().find(|record| !record.released) else {
            return;
        };
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
                incarnation: held.incarnation.clone(),
            },
            server_incarnation: seen.server.incarnation.clone(),
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
        self.prepare(
            sql::POLL,
            &[sql::OBSERVE, sql::LOCK_ROW, &acquire],
            &values,
            deadline,
        )
        .await;
        // Either of the first two keeps a row from being taken; the lock is one
        // that nobody else asks for.
        let nobodys = rand::random::<i32>().to_string();
        let nothing = [
            ("slot", "-1"),
            ("not_after", "timestamptz '-infinity'"),
            ("advisory_key", nobodys.as_str()),
        ];
        let build = |store: &Self, left| {
            let built = store.acquisition(&request, Locked::Refuse, left, tell, &nothing);
            format!("{}{built}", sql::POLL)
        };
        self.try_out(build, deadline).await;
    }

    /// Of a holder: prepares renewals and a release, and sends one of a token
    /// that there cannot be. Not in a session that has only just begun: after
    /// a fail-over others wait for their first answers.
    pub(super) async fn get_ready_to_hold(
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
            ..*term
        };
        let tell = self.usual_teller();
        let (renew, ttl) = renewing(sql::OF_TERM, &nobodys, Duration::ZERO);
        let (release, values) = giving(sql::OF_TERM, &nobodys, incarnation, tell);
        let both = [values.as_slice(), &ttl].concat();
        self.prepare("", &[&renew, &release], &both, deadline).await;
        let build = |store: &Self, left| store.message_of(&[sql::LIMITS], &release, &values, left);
        self.try_out(build, deadline).await;
    }

    /// Sends what changes nothing. Whether it worked shows when it counts.
    async fn try_out(&mut self, build: impl Fn(&Self, Duration) -> String, deadline: Deadline) {
        if self.link.is_ours() {
            let _reply = self.call_once(deadline, build).await;
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

    async fn prepare(
        &mut self,
        comment: &str,
        parts: &[&str],
        values: &sql::Owned,
        deadline: Deadline,
    ) {
        let (values, left) = (sql::borrowed(values), deadline.left());
        let statements = self.composed(parts, &values, left, Statement::new);
        let (message, names) = self.link.preparation(&statements);
        let message = format!("{comment}{message}");
        if self.link.send(message, deadline).await.is_ok() {
            self.link.keep_prepared(names);
        }
    }
}
