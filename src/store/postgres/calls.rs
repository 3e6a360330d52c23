//! The calls of the trait; poll, acquisition and set-up have files of their own.

use std::time::Duration;

use super::fault::Failure;
use super::link::Rows;
use super::row::{self, Cells, Columns};
use super::{PgStore, PgWatch, Tell, sql};
use crate::lease::ids::{Incarnation, Token};
use crate::lease::record::{
    Acquire, Acquired, Fault, Grant, Loss, Observed, Released, Renewed, Term, Terms, Unknown,
};
use crate::store::deadline::{Deadline, Looks};
use crate::store::{Attempt, Store, Timed};

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
        let deadline = Deadline::new(self.clock, limit);
        let known = self.link.own_session();
        let answer = self
            .call(deadline, |store, left| {
                // A session of our own keeps a limit for every statement.
                let before: &[&str] = if store.link.is_ours() {
                    &[]
                } else {
                    &[sql::LIMITS]
                };
                let (renew, values) = renewing(sql::OF_TERM, term, terms.ttl);
                store.message_of(before, &renew, &values, left)
            })
            .await;
        let sent_at = answer.sent_at;
        let renewed = answer.reply.and_then(|rows| renewed(&rows, term));
        let reply = match renewed {
            Ok(Some(reply)) => reply,
            // The row changed while the statement waited for it.
            Ok(None) => match self.check_until(term, deadline).await {
                Renewed::Granted { .. } => Renewed::Unknown(changed_meanwhile()),
                other => other,
            },
            Err(Failure::Refused(refused)) if refused.is_gone() => Renewed::Lost(Loss::Missing),
            Err(failure) => Renewed::Unknown(self.given_up(failure)),
        };
        self.may_hold(known, term, &reply);
        Timed { sent_at, reply }
    }

    async fn settle(&mut self, request: &Acquire, limit: Duration) -> Timed<Renewed> {
        let deadline = Deadline::new(self.clock, limit);
        let mut term = Term {
            slot: request.slot,
            holder: request.holder,
            token: Token(0),
        };
        let (renew, mut values) = renewing(sql::OF_ATTEMPT, &term, request.terms.ttl);
        values.push((
            "server_incarnation",
            sql::text(&request.server_incarnation.0),
        ));
        let answer = self
            .call(deadline, |store, left| {
                let before = [sql::LIMITS, sql::ONE_AT_A_TIME];
                store.message_of(&before, &renew, &values, left)
            })
            .await;
        let sent_at = answer.sent_at;
        let settled = answer.reply.and_then(|rows| settled(&rows, request));
        let reply = match settled {
            Ok(Settled::Is(reply)) => reply,
            Ok(Settled::ChangedMeanwhile) => Renewed::Unknown(changed_meanwhile()),
            // It was taken and broken before anybody knew: nothing runs, so
            // it can be given back here.
            Ok(Settled::Closed(token)) => {
                term.token = token;
                let left = deadline.left();
                let incarnation = &request.server_incarnation;
                match self.release(&term, incarnation, left).await {
                    Released::Unknown(unknown) => Renewed::Unknown(unknown),
                    Released::Done | Released::NotOurs => Renewed::Lost(Loss::Closed),
                }
            }
            Err(Failure::Refused(refused)) if refused.is_gone() => Renewed::Lost(Loss::Missing),
            Err(failure) => Renewed::Unknown(self.given_up(failure)),
        };
        Timed { sent_at, reply }
    }

    async fn check(&mut self, term: &Term, limit: Duration) -> Renewed {
        self.check_until(term, Deadline::new(self.clock, limit))
            .await
    }

    async fn release(
        &mut self,
        term: &Term,
        incarnation: &Incarnation,
        limit: Duration,
    ) -> Released {
        self.give_back(&[sql::LIMITS], sql::OF_TERM, term, incarnation, limit)
            .await
    }

    async fn release_attempt(&mut self, attempt: &Attempt, limit: Duration) -> Released {
        let term = Term {
            slot: attempt.slot,
            holder: attempt.holder,
            token: Token(0),
        };
        let parts = [sql::LIMITS, sql::ONE_AT_A_TIME];
        let mut looks = Looks::new(self.clock, limit);
        let mut last = Released::NotOurs;
        while let Some(within) = looks.next().await {
            let incarnation = &attempt.incarnation;
            last = self
                .give_back(&parts, "true", &term, incarnation, within.left())
                .await;
            if last == Released::Done {
                break;
            }
        }
        last
    }

    async fn get_ready(&mut self, limit: Duration) {
        self.make_ready(limit).await;
    }

    fn because(&mut self, why: &str) {
        why.clone_into(&mut self.why);
    }

    fn finds_lost_clients(&self) -> bool {
        self.link.finds_lost_clients()
    }

    fn watch(&self) -> PgWatch {
        PgWatch::start(self.link.settings().clone(), &self.name)
    }
}

impl PgStore {
    async fn check_until(&mut self, term: &Term, deadline: Deadline) -> Renewed {
        let slot = term.slot.to_string();
        let known = self.link.own_session();
        let build = |store: &Self, left| store.message(&[sql::CHECK], &[("slot", &slot)], left);
        let answer = self.call(deadline, build).await;
        let checked = answer.reply.and_then(|rows| self.checked(&rows, term));
        match checked {
            Ok(reply) => {
                self.may_hold(known, term, &reply);
                reply
            }
            Err(Failure::Refused(refused)) if refused.is_gone() => Renewed::Lost(Loss::Missing),
            Err(failure) => Renewed::Unknown(self.given_up(failure)),
        }
    }

    fn checked(&mut self, rows: &Rows, term: &Term) -> Result<Renewed, Failure> {
        let cells = row::first(rows)?;
        if cells.flag("in_recovery")? {
            return Err(self.in_recovery());
        }
        if let Some(loss) = cells.loss(term.holder, Some(term.token))? {
            return Ok(Renewed::Lost(loss));
        }
        let grant = cells.grant()?.ok_or_else(row::no_row)?;
        let request = cells.request_for(grant.token)?;
        Ok(Renewed::Granted { grant, request })
    }

    async fn give_back(
        &mut self,
        before: &[&str],
        same_row: &str,
        term: &Term,
        incarnation: &Incarnation,
        limit: Duration,
    ) -> Released {
        let deadline = Deadline::new(self.clock, limit);
        let answer = self
            .call_telling(deadline, self.teller(), |store, left, tell| {
                let (release, values) = giving(same_row, term, incarnation, tell);
                store.message_of(before, &release, &values, left)
            })
            .await;
        let released = answer.reply.and_then(|rows| released(&rows));
        match released {
            Ok(released) => released,
            Err(Failure::Refused(refused)) if refused.is_gone() => Released::NotOurs,
            Err(failure) => Released::Unknown(self.given_up(failure)),
        }
    }
}

/// The statement that renews the row that `same_row` admits.
pub(super) fn renewing(same_row: &str, term: &Term, ttl: Duration) -> (String, sql::Owned) {
    let renew = sql::fill(sql::RENEW, &[("same_row", same_row)]);
    let mut values = of_term(term);
    values.push(("ttl", sql::interval(ttl)));
    (renew, values)
}

/// The statement that gives back the row that `same_row` admits.
pub(super) fn giving(
    same_row: &str,
    term: &Term,
    incarnation: &Incarnation,
    tell: Tell,
) -> (String, sql::Owned) {
    let [tells, note] = tell.fragments(sql::TELL_GIVEN, sql::NOTE_GIVEN);
    let release = sql::fill(sql::RELEASE, &[("same_row", same_row), tells, note]);
    let mut values = of_term(term);
    values.push(("incarnation", sql::text(&incarnation.0)));
    values.extend(
        tell.values()
            .map(|(place, value)| (place, value.to_owned())),
    );
    (release, values)
}

fn of_term(term: &Term) -> sql::Owned {
    vec![
        ("slot", term.slot.to_string()),
        ("holder", sql::text(&term.holder.to_string())),
        ("token", term.token.to_string()),
    ]
}

/// What a renewal's answer says; `None` where it was the term's row when the
/// statement began and not any more when it came to it.
fn renewed(rows: &Rows, term: &Term) -> Result<Option<Renewed>, Failure> {
    let cells = row::last(rows)?;
    if let Some(grant) = cells.grant()? {
        return Ok(Some(granted(grant, &cells)?));
    }
    Ok(cells
        .loss(term.holder, Some(term.token))?
        .map(Renewed::Lost))
}

fn granted(grant: Grant, cells: &Cells<'_>) -> Result<Renewed, Failure> {
    let request = cells.request_for(grant.token)?;
    Ok(Renewed::Granted { grant, request })
}

/// What became of an acquisition.
enum Settled {
    Is(Renewed),
    Closed(Token),
    ChangedMeanwhile,
}

fn settled(rows: &Rows, request: &Acquire) -> Result<Settled, Failure> {
    let cells = row::last(rows)?;
    if let Some(grant) = cells.grant()? {
        return Ok(Settled::Is(granted(grant, &cells)?));
    }
    Ok(match cells.loss(request.holder, None)? {
        Some(Loss::Closed) => Settled::Closed(Token(cells.there("seen_token")?)),
        Some(loss) => Settled::Is(Renewed::Lost(loss)),
        None => Settled::ChangedMeanwhile,
    })
}

fn released(rows: &Rows) -> Result<Released, Failure> {
    let cells = row::last(rows)?;
    if cells.flag("given")? || cells.flag("before")? {
        return Ok(Released::Done);
    }
    if cells.flag("still")? {
        return Err(Failure::Unanswered(changed_meanwhile()));
    }
    Ok(Released::NotOurs)
}

fn changed_meanwhile() -> Unknown {
    Unknown {
        fault: Fault::Transient,
        message: "the row was changed by somebody else in the same moment".to_owned(),
    }
}
