//! The calls of the trait, but for the poll and the acquisition.

use std::time::Duration;

use tokio::time::sleep;

use super::fault::Failure;
use super::link::Rows;
use super::row::{Cells, Columns};
use super::{PgStore, sql};
use crate::lease::ids::{Incarnation, Token};
use crate::lease::record::{Acquire, Fault, Grant, Loss, Released, Renewed, Term, Terms, Unknown};
use crate::store::deadline::Deadline;
use crate::store::{Attempt, Timed};

/// When the releaser looks, in sixteenths of its limit.
const LOOKS: [u32; 6] = [0, 1, 2, 4, 8, 14];

impl PgStore {
    pub(super) async fn renew_call(
        &mut self,
        term: &Term,
        terms: &Terms,
        limit: Duration,
    ) -> Timed<Renewed> {
        let deadline = Deadline::new(self.clock, limit);
        let answer = self
            .call(deadline, |store, left| {
                // A session of our own keeps a limit for every statement.
                let parts: &[&str] = if store.link.is_ours() {
                    &[sql::RENEW]
                } else {
                    &[sql::LIMITS, sql::RENEW]
                };
                let same_token = format!("l.token = {}", term.token.0);
                store.renewal(parts, term, &same_token, terms, left)
            })
            .await;
        let sent_at = answer.sent_at;
        let renewed = match answer.reply {
            Ok(rows) => renewed(&rows, term),
            Err(failure) => Err(failure),
        };
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
        Timed { sent_at, reply }
    }

    /// The message of a renewal of the row that `same_token` admits.
    fn renewal(
        &self,
        parts: &[&str],
        term: &Term,
        same_token: &str,
        terms: &Terms,
        left: Duration,
    ) -> String {
        let (slot, holder) = (term.slot.to_string(), sql::text(&term.holder.to_string()));
        let ttl = sql::interval(terms.ttl);
        let values = [
            ("slot", slot.as_str()),
            ("holder", &holder),
            ("same_token", same_token),
            ("ttl", &ttl),
            // Renewals tell nobody anyhow.
            ("told", "'off'"),
            ("quiet", "'off'"),
        ];
        self.message(parts, &values, left)
    }

    pub(super) async fn settle_call(
        &mut self,
        request: &Acquire,
        limit: Duration,
    ) -> Timed<Renewed> {
        let deadline = Deadline::new(self.clock, limit);
        let mut term = Term {
            slot: request.slot,
            holder: request.holder,
            token: Token(0),
        };
        // Any token, but only where the acquisition was to be.
        let same_server = sql::text(&request.server_incarnation.0);
        let same_server = format!("at.incarnation = {same_server}");
        let answer = self
            .call(deadline, |store, left| {
                let parts = [sql::LIMITS, sql::ONE_AT_A_TIME, sql::RENEW];
                store.renewal(&parts, &term, &same_server, &request.terms, left)
            })
            .await;
        let sent_at = answer.sent_at;
        let settled = match answer.reply {
            Ok(rows) => settled(&rows, request),
            Err(failure) => Err(failure),
        };
        let reply = match settled {
            Ok(Settled::Is(reply)) => reply,
            Ok(Settled::ChangedMeanwhile) => Renewed::Unknown(changed_meanwhile()),
            // It was taken and broken before anybody knew: nothing runs, so
            // it can be given back here.
            Ok(Settled::Closed(token)) => {
                term.token = token;
                let left = deadline.left();
                match self
                    .release_call(&term, &request.server_incarnation, left)
                    .await
                {
                    Released::Unknown(unknown) => Renewed::Unknown(unknown),
                    Released::Done | Released::NotOurs => Renewed::Lost(Loss::Closed),
                }
            }
            Err(Failure::Refused(refused)) if refused.is_gone() => Renewed::Lost(Loss::Missing),
            Err(failure) => Renewed::Unknown(self.given_up(failure)),
        };
        Timed { sent_at, reply }
    }

    pub(super) async fn check_call(&mut self, term: &Term, limit: Duration) -> Renewed {
        self.check_until(term, Deadline::new(self.clock, limit))
            .await
    }

    async fn check_until(&mut self, term: &Term, deadline: Deadline) -> Renewed {
        let slot = term.slot.to_string();
        let build = |store: &Self, left| store.message(&[sql::CHECK], &[("slot", &slot)], left);
        let answer = self.call(deadline, build).await;
        let checked = match answer.reply {
            Ok(rows) => self.checked(&rows, term),
            Err(failure) => Err(failure),
        };
        match checked {
            Ok(reply) => reply,
            Err(Failure::Refused(refused)) if refused.is_gone() => Renewed::Lost(Loss::Missing),
            Err(failure) => Renewed::Unknown(self.given_up(failure)),
        }
    }

    fn checked(&mut self, rows: &Rows, term: &Term) -> Result<Renewed, Failure> {
        let Some(cells) = rows.iter().flatten().next().map(Cells) else {
            return Err(no_row());
        };
        if cells.flag("in_recovery")? {
            return Err(self.in_recovery());
        }
        if let Some(loss) = cells.loss(term.holder, Some(term.token))? {
            return Ok(Renewed::Lost(loss));
        }
        let grant = cells.grant()?.ok_or_else(no_row)?;
        let request = cells.request_for(grant.token)?;
        Ok(Renewed::Granted { grant, request })
    }

    pub(super) async fn release_call(
        &mut self,
        term: &Term,
        incarnation: &Incarnation,
        limit: Duration,
    ) -> Released {
        let same_token = format!("l.token = {}", term.token.0);
        self.give_back(&[sql::LIMITS], term, &same_token, incarnation, limit)
            .await
    }

    pub(super) async fn release_attempt_call(
        &mut self,
        attempt: &Attempt,
        limit: Duration,
    ) -> Released {
        let deadline = Deadline::new(self.clock, limit);
        let term = Term {
            slot: attempt.slot,
            holder: attempt.holder,
            token: Token(0),
        };
        let parts = [sql::LIMITS, sql::ONE_AT_A_TIME];
        let mut last = Released::NotOurs;
        for sixteenths in LOOKS {
            sleep(
                deadline
                    .left()
                    .saturating_sub(limit * (16 - sixteenths) / 16),
            )
            .await;
            let left = deadline.left();
            last = self
                .give_back(
                    &parts,
                    &term,
                    "true",
                    &attempt.incarnation,
                    left.min(limit / 3),
                )
                .await;
            if last == Released::Done {
                break;
            }
        }
        last
    }

    async fn give_back(
        &mut self,
        before: &[&str],
        term: &Term,
        same_token: &str,
        incarnation: &Incarnation,
        limit: Duration,
    ) -> Released {
        let deadline = Deadline::new(self.clock, limit);
        let (slot, holder) = (term.slot.to_string(), sql::text(&term.holder.to_string()));
        let incarnation = sql::text(&incarnation.0);
        let answer = self
            .call_telling(deadline, self.teller(), |store, left, tell| {
                let [told, quiet] = tell.values();
                let values = [
                    ("slot", slot.as_str()),
                    ("holder", &holder),
                    ("same_token", same_token),
                    ("incarnation", &incarnation),
                    told,
                    quiet,
                ];
                let release = sql::fill(sql::RELEASE, &tell.fragments(sql::NOTE_GIVEN));
                let parts: Vec<&str> = before.iter().copied().chain([release.as_str()]).collect();
                store.message(&parts, &values, left)
            })
            .await;
        let released = match answer.reply {
            Ok(rows) => released(&rows),
            Err(failure) => Err(failure),
        };
        match released {
            Ok(released) => released,
            Err(Failure::Refused(refused)) if refused.is_gone() => Released::NotOurs,
            Err(failure) => Released::Unknown(self.given_up(failure)),
        }
    }
}

/// What a renewal's answer says; `None` where it was the term's row when the
/// statement began and not any more when it came to it.
fn renewed(rows: &Rows, term: &Term) -> Result<Option<Renewed>, Failure> {
    let cells = rows
        .last()
        .and_then(|rows| rows.first())
        .map(Cells)
        .ok_or_else(no_row)?;
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
    let cells = rows
        .last()
        .and_then(|rows| rows.first())
        .map(Cells)
        .ok_or_else(no_row)?;
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
    let cells = rows
        .last()
        .and_then(|rows| rows.first())
        .map(Cells)
        .ok_or_else(no_row)?;
    if cells.flag("given")? || cells.flag("before")? {
        return Ok(Released::Done);
    }
    if cells.flag("still")? {
        return Err(Failure::Unanswered(changed_meanwhile()));
    }
    Ok(Released::NotOurs)
}

pub(super) fn no_row() -> Failure {
    Failure::Unanswered(Unknown {
        fault: Fault::Transient,
        message: "the database's answer is incomplete".to_owned(),
    })
}

fn changed_meanwhile() -> Unknown {
    Unknown {
        fault: Fault::Transient,
        message: "the row was changed by somebody else in the same moment".to_owned(),
    }
}
