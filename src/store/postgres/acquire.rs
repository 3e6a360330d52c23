//! The acquisition: who may take a row, and what to do about those who lock it.

use std::time::Duration;

use super::fault::{Failure, LOCK_NOT_AVAILABLE, QUERY_CANCELED, UNIQUE_VIOLATION};
use super::link::Rows;
use super::row::{self, Cells, Columns, timeline};
use super::{PgStore, Tell, sql};
use crate::lease::ids::Slot;
use crate::lease::record::{Acquire, Acquired, Expected, Refusal};
use crate::store::Timed;
use crate::store::deadline::Deadline;
use crate::store::message::above;

/// Whether to wait for whoever locks the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locked {
    Refuse,
    Wait,
}

/// How one try ended.
enum Tried {
    Answered(Acquired),
    RowLocked,
    Failed(Failure),
}

impl PgStore {
    pub(super) async fn acquire_call(
        &mut self,
        request: &Acquire,
        limit: Duration,
    ) -> Timed<Acquired> {
        let deadline = Deadline::new(self.clock, limit);
        let Timed { mut sent_at, reply } =
            self.try_to_take(request, Locked::Refuse, deadline).await;
        let mut tried = reply;
        let mut ended = Vec::new();
        if matches!(tried, Tried::RowLocked) {
            // Those who passed the fence are still at work.
            if request.from_unreleased {
                match self.close_watched(request, deadline).await {
                    Ok(Some(who)) => ended = who,
                    // Renewed, released or taken meanwhile.
                    Ok(None) => {
                        let reply = Acquired::Refused(Refusal::Changed);
                        return Timed { sent_at, reply };
                    }
                    Err(failure) => {
                        let reply = self.not_taken(request, failure, ended, deadline).await;
                        return Timed { sent_at, reply };
                    }
                }
            }
            let again = self.try_to_take(request, Locked::Wait, deadline).await;
            sent_at = again.sent_at;
            tried = again.reply;
        }
        let reply = match tried {
            Tried::Answered(acquired) => acquired,
            Tried::RowLocked => self.locked(request, ended, deadline).await,
            Tried::Failed(failure) => self.not_taken(request, failure, ended, deadline).await,
        };
        Timed { sent_at, reply }
    }

    async fn try_to_take(
        &mut self,
        request: &Acquire,
        locked: Locked,
        deadline: Deadline,
    ) -> Timed<Tried> {
        // Where its holder never gave it back, the history says so.
        let mut tell = if request.from_unreleased {
            Tell::Trigger
        } else {
            self.teller()
        };
        // Once: a second one would find the row changed, by the first.
        let answer = loop {
            let build = |store: &Self, left| store.acquisition(request, locked, left, tell, &[]);
            let answer = self.call_once(deadline, build).await;
            if locked == Locked::Refuse && is_locked(&answer.reply) {
                break answer;
            }
            match self.tell_less(tell, &answer.reply) {
                Some(less) => tell = less,
                None => break answer,
            }
        };
        let reply = match answer.reply {
            Ok(rows) => acquired(&rows).map_or_else(Tried::Failed, Tried::Answered),
            Err(Failure::Refused(refused)) => match refused.code.as_str() {
                LOCK_NOT_AVAILABLE => Tried::RowLocked,
                QUERY_CANCELED if locked == Locked::Wait => Tried::RowLocked,
                // Somebody has written the row, or its token, by hand.
                UNIQUE_VIOLATION => Tried::Answered(Acquired::Refused(Refusal::Changed)),
                _ if refused.is_gone() => Tried::Answered(Acquired::Refused(Refusal::Changed)),
                _ => Tried::Failed(Failure::Refused(refused)),
            },
            Err(failure) => Tried::Failed(failure),
        };
        Timed {
            sent_at: answer.sent_at,
            reply,
        }
    }

    /// A failure is not an answer: what was sent may have happened. But a
    /// lock that could not be had while the token was closed is one.
    async fn not_taken(
        &mut self,
        request: &Acquire,
        failure: Failure,
        ended: Vec<String>,
        deadline: Deadline,
    ) -> Acquired {
        match &failure {
            Failure::Refused(refused)
                if matches!(refused.code.as_str(), LOCK_NOT_AVAILABLE | QUERY_CANCELED) =>
            {
                self.locked(request, ended, deadline).await
            }
            _ => Acquired::Unknown(self.given_up(failure)),
        }
    }

    /// A lock could not be had: who has the row's.
    async fn locked(
        &mut self,
        request: &Acquire,
        ended: Vec<String>,
        deadline: Deadline,
    ) -> Acquired {
        let mut who = ended;
        if who.is_empty() {
            who = self.lockers(request.slot, deadline).await;
        }
        let by = who.join("; ");
        Acquired::Refused(Refusal::Locked { by })
    }

    async fn lockers(&mut self, slot: Slot, deadline: Deadline) -> Vec<String> {
        let slot = slot.to_string();
        let build = |store: &Self, left| store.message(&[sql::LOCKERS], &[("slot", &slot)], left);
        match self.call(deadline, build).await.reply {
            Ok(rows) => who(&rows),
            Err(_only_for_people) => Vec::new(),
        }
    }

    /// Closes the token of a holder that is lost, and ends the sessions that
    /// hold its row. `None`: it was not as watched any more.
    async fn close_watched(
        &mut self,
        request: &Acquire,
        deadline: Deadline,
    ) -> Result<Option<Vec<String>>, Failure> {
        let Expected::Unchanged {
            token, revision, ..
        } = &request.expected
        else {
            return Ok(None);
        };
        let (slot, token, revision) = (
            request.slot.to_string(),
            token.to_string(),
            revision.to_string(),
        );
        let server = sql::text(&request.server_incarnation.0);
        let answer = self
            .call_telling(deadline, Tell::Trigger, |store, left, tell| {
                let [told, quiet] = tell.values();
                let values = [
                    ("slot", slot.as_str()),
                    ("token", &token),
                    ("revision", &revision),
                    ("server_incarnation", &server),
                    told,
                    quiet,
                ];
                // Half of the time is kept for the acquisition itself.
                let limit = store.link.settings().waits_for_locks(left / 2);
                store.message(&[sql::LIMITS, sql::CLOSE_WATCHED], &values, limit)
            })
            .await;
        let rows = answer.reply?;
        // After the two statements of LIMITS: the closing, the sessions.
        let closed = rows.get(2).is_some_and(|rows| !rows.is_empty());
        Ok(closed.then(|| who(&rows)))
    }

    /// The message of an acquisition; what stands in `instead` goes before
    /// what the request says.
    pub(super) fn acquisition(
        &self,
        request: &Acquire,
        locked: Locked,
        left: Duration,
        tell: Tell,
        instead: &sql::Values<'_>,
    ) -> String {
        let settings = self.link.settings();
        // Every acquisition may have to wait for others, which wait for a row.
        let lock = sql::timeout(settings.waits_for_others(left) / 2);
        let waits = settings.waits_for_locks(left);
        let (row_lock, row) = (sql::timeout(waits / 2), sql::timeout(waits));
        let (nowait, row_limits) = match locked {
            Locked::Refuse => ("nowait", ""),
            Locked::Wait => ("", sql::ROW_LIMITS),
        };
        let (acquire, values) = self.taking(request, left, tell);
        let mut values: Vec<(&str, &str)> = [instead, &sql::borrowed(&values)].concat();
        values.extend([
            ("nowait", nowait),
            ("lock_timeout", &lock),
            ("row_lock_timeout", &row_lock),
            ("row_timeout", &row),
        ]);
        let before = [sql::LIMITS, sql::ONE_AT_A_TIME, row_limits];
        let parts = [&before[..], &[sql::LOCK_ROW, &acquire]].concat();
        self.message(&parts, &values, left)
    }

    /// The statement that takes, and what it compares and writes.
    pub(super) fn taking(
        &self,
        request: &Acquire,
        left: Duration,
        tell: Tell,
    ) -> (String, sql::Owned) {
        let terms = &request.terms;
        let (take, token, revision, row_incarnation) = match &request.expected {
            Expected::Missing => (sql::TAKE_NEW, String::new(), String::new(), String::new()),
            Expected::Unchanged {
                token,
                revision,
                incarnation,
            } => (
                sql::TAKE_ROW,
                token.to_string(),
                revision.to_string(),
                sql::text(&incarnation.0),
            ),
        };
        let (above_count, above_same) = above(request);
        let (floor, jump) = token_rule(request);
        let not_after = match self.seen_time {
            Some(seen) => {
                let micros = seen.given_up((self.clock)(), left);
                format!("to_timestamp({micros} / 1000000.0)")
            }
            None => "timestamptz 'infinity'".to_owned(),
        };
        let [told, quiet] = tell.values().map(|(name, value)| (name, value.to_owned()));
        let server_incarnation = sql::text(&request.server_incarnation.0);
        let values = vec![
            ("slot", request.slot.to_string()),
            ("slots", request.slots.to_string()),
            ("holder", sql::text(&request.holder.to_string())),
            ("label", sql::text(terms.label.as_str())),
            ("value", sql::text(terms.value.as_str())),
            ("ttl", sql::interval(terms.ttl)),
            ("takeover_delay", sql::interval(terms.takeover_delay)),
            ("hold_at_least", sql::interval(terms.hold_at_least)),
            ("token", token),
            ("revision", revision),
            ("row_incarnation", row_incarnation),
            ("server_incarnation", server_incarnation),
            ("above_count", above_count),
            ("from_unreleased", request.from_unreleased.to_string()),
            ("floor", floor),
            ("jump", jump),
            ("not_after", not_after),
            told,
            quiet,
        ];
        let [tell, note] = tell.fragments(sql::TELL, sql::NOTE_TAKEN);
        let take = sql::fill(take, &[tell]);
        let fragments = [("take", take.as_str()), ("above_same", &above_same), note];
        (sql::fill(sql::ACQUIRE, &fragments), values)
    }
}

/// The least that a new token may be, and what is added to it (contract,
/// section 4). Without doubt: one more than any, and for a row that is
/// created the seconds since 2026 on the database's clock, so that a table
/// made anew goes on above the old tokens. In doubt it jumps by a random
/// number, and above everything that an earlier timeline can have handed out.
/// In any case it lies above what the contender itself has seen: a row that
/// vanishes twice on one timeline would else bring a smaller token.
fn token_rule(request: &Acquire) -> (String, String) {
    let seen = request
        .furthest
        .map_or(0, |token| token.0.saturating_add(1));
    if request.in_doubt {
        let timeline = timeline(&request.server_incarnation).unwrap_or(1);
        let floor = format!("greatest({timeline}::bigint << 40, {seen}::bigint)");
        return (floor, "trunc(random() * 549755813888)::bigint".to_owned());
    }
    let floor = match request.expected {
        Expected::Missing => {
            "trunc(extract(epoch from at.now - timestamptz '2026-01-01 00:00:00+00'))::bigint"
        }
        Expected::Unchanged { .. } => "1::bigint",
    };
    let floor = format!("greatest({floor}, {seen}::bigint)");
    (floor, "0".to_owned())
}

/// Whether a lock could not be had at once.
fn is_locked(reply: &Result<Rows, Failure>) -> bool {
    matches!(reply, Err(Failure::Refused(refused)) if refused.code == LOCK_NOT_AVAILABLE)
}

fn acquired(rows: &Rows) -> Result<Acquired, Failure> {
    let cells = row::last(rows)?;
    if let Some(grant) = cells.grant()? {
        return Ok(Acquired::Granted(grant));
    }
    let refusal = if cells.flag("paused")? {
        Refusal::Paused
    } else {
        Refusal::Changed
    };
    Ok(Acquired::Refused(refusal))
}

/// The sessions that an answer names.
fn who(rows: &Rows) -> Vec<String> {
    let rows = rows.last().map(Vec::as_slice).unwrap_or_default();
    rows.iter()
        .filter_map(|row| Cells(row).text("who").ok().flatten())
        .collect()
}
