//! The poll: what a lease looks like, on which server.

use std::time::Duration;

use super::fault::{Failure, READ_ONLY};
use super::link::Rows;
use super::row::{self, Cells, Columns, timeline};
use super::schema::Missing;
use super::{Known, PgStore, Tell, sql};
use crate::lease::ids::Incarnation;
use crate::lease::record::{Fault, Observation, Observed, Pause, Server, Unknown};
use crate::lease::time::BootInstant;
use crate::store::deadline::{Deadline, SeenTime};

impl PgStore {
    pub(super) async fn observe_call(&mut self, limit: Duration) -> Observed {
        let deadline = Deadline::new(self.clock, limit);
        let build = |store: &Self, left| store.message(&[sql::POLL, sql::OBSERVE], &[], left);
        let mut answer = self.call(deadline, build).await;
        if says_missing(&answer.reply) {
            match self.missing(deadline).await {
                Missing::Schema => return Observed::NoSchema,
                Missing::Unknown(unknown) => return Observed::Unknown(unknown),
                Missing::Nothing => answer = self.call(deadline, build).await,
            }
        }
        let seen = match answer.reply {
            Ok(rows) => self.observed(&rows, answer.sent_at),
            Err(Failure::Refused(refused)) if refused.is_missing() => {
                return Observed::Unknown(self.damaged(&refused.message));
            }
            Err(failure) => Err(failure),
        };
        match seen {
            Ok(mut observation) => {
                observation.server.known_for = self.known_for(&observation.server, deadline).await;
                self.may_take(&observation);
                Observed::Seen(observation)
            }
            Err(failure) => Observed::Unknown(self.given_up(failure)),
        }
    }

    /// What a poll has seen.
    fn observed(&mut self, rows: &Rows, sent_at: BootInstant) -> Result<Observation, Failure> {
        let first = row::first(rows)?;
        let server = server(&first)?;
        if server.in_recovery {
            return Err(self.in_recovery());
        }
        let database_us = first.duration("now")?.as_micros();
        let database_us = i64::try_from(database_us).unwrap_or(i64::MAX);
        self.seen_time = Some(SeenTime {
            sent_at,
            database_us,
        });
        let mut records = Vec::new();
        for row in rows.iter().flatten() {
            records.extend(Cells(row).record()?);
        }
        let paused = first.flag("paused")?;
        let reason = first.text("pause_reason")?.unwrap_or_default();
        Ok(Observation {
            server,
            paused: paused.then_some(Pause { reason }),
            records,
        })
    }

    /// Nothing that a server in recovery says counts; another host may be
    /// the primary by now.
    pub(super) fn in_recovery(&mut self) -> Failure {
        self.link.close();
        Failure::Unanswered(Unknown {
            fault: Fault::ReadOnly,
            message: "the server is a standby (in recovery), which cannot be written to; \
                      name the primary"
                .to_owned(),
        })
    }

    /// `failure` as an answer that says nothing. A server that cannot be
    /// written to is left: another host may be the primary by now.
    pub(super) fn given_up(&mut self, failure: Failure) -> Unknown {
        if matches!(&failure, Failure::Refused(refused) if refused.code == READ_ONLY) {
            self.link.close();
        }
        failure.unknown()
    }

    /// What was read of an answer, or why it says nothing.
    pub(super) fn read<T>(&mut self, read: Result<T, Failure>) -> Result<T, Unknown> {
        read.map_err(|failure| self.given_up(failure))
    }

    /// How long the schema has known the present incarnation: asked once, and
    /// never on the first timeline, where it makes no difference.
    async fn known_for(&mut self, server: &Server, deadline: Deadline) -> Option<Duration> {
        if server.timeline == Some(1) {
            return None;
        }
        let known = self.known.as_ref();
        if known.is_none_or(|known| known.incarnation != server.incarnation) {
            self.look_up(&server.incarnation, deadline).await?;
        }
        let known = self.known.as_ref()?;
        let since = (self.clock)().saturating_since(known.asked_at);
        Some(known.known_for.saturating_add(since))
    }

    /// Asks how long it is known. Where it is not, the record of incarnations
    /// begins to know it; where that fails, the next poll tries again.
    async fn look_up(&mut self, incarnation: &Incarnation, deadline: Deadline) -> Option<()> {
        let text = sql::text(&incarnation.0);
        let build = |store: &Self, left| {
            store.message(&[sql::POLL, sql::KNOWN], &[("incarnation", &text)], left)
        };
        let rows = self.call(deadline, build).await.reply.ok()?;
        let Ok(cells) = row::first(&rows) else {
            let build = |store: &Self, left| {
                let parts = [sql::POLL, sql::LIMITS, sql::NOTE_INCARNATION];
                store.message(&parts, &Tell::Nobody.values(), left)
            };
            let _known_from_the_next_poll_on = self.call(deadline, build).await;
            return None;
        };
        self.known = Some(Known {
            incarnation: incarnation.clone(),
            asked_at: (self.clock)(),
            known_for: cells.duration("known").ok()?,
        });
        Some(())
    }
}

/// What a server says of itself along with every reply.
pub(super) fn server(cells: &Cells<'_>) -> Result<Server, Failure> {
    let incarnation = Incarnation(cells.words("incarnation")?);
    let in_recovery = incarnation.0 == "in recovery";
    Ok(Server {
        timeline: timeline(&incarnation),
        incarnation,
        in_recovery,
        known_for: None,
    })
}

/// Whether a table, a column, a function or the schema is not there.
fn says_missing(reply: &Result<Rows, Failure>) -> bool {
    matches!(reply, Err(Failure::Refused(refused)) if refused.is_missing())
}
