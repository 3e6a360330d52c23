//! The calls of the trait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::failure::Failure;
use super::link::{Cells, Rows, last};
use super::{SqliteStore, SqliteWatch, bell, sql};
use crate::lease::ids::{HolderId, Incarnation, Slot, Token};
use crate::lease::record::{
    Acquire, Acquired, Expected, Fault, Loss, Observation, Observed, Pause, Refusal, Released,
    Renewed, Server, Term, Terms, Unknown,
};
use crate::lease::time::BootInstant;
use crate::store::columns::Columns;
use crate::store::deadline::{Deadline, Looks, SeenTime};
use crate::store::message::above;
use crate::store::{Attempt, Store, Timed};

/// How long a start waits at most for those who read the file.
const READERS: Duration = Duration::from_millis(100);

impl Store for SqliteStore {
    type Watch = SqliteWatch;

    async fn observe(&mut self, limit: Duration) -> Observed {
        let deadline = Deadline::new(self.clock, limit);
        let mut seen = self.look(deadline).await;
        if matches!(seen, Err(Failure::Replaced)) {
            self.link.close(deadline).await;
            seen = self.look(deadline).await;
        }
        // It could never take anything, and keeps others from merging. (The
        // rights are looked at anew each time.)
        if self.link.is_read_only() {
            self.link.close(deadline).await;
            seen = Err(Failure::ReadOnly);
        }
        match seen {
            Ok(observation) => Observed::Seen(observation),
            Err(Failure::Missing) => Observed::NoSchema,
            Err(failure) => Observed::Unknown(self.given_up(failure)),
        }
    }

    async fn init(&mut self, limit: Duration) -> Result<(), Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        loop {
            let failure = match self.init_once(deadline).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            // Somebody else makes it at the same time.
            let pause = Duration::from_millis(rand::random_range(5..=50));
            if failure != Failure::Locked || pause >= deadline.left() {
                return Err(self.given_up(failure));
            }
            sleep(pause).await;
        }
    }

    async fn acquire(&mut self, request: &Acquire, limit: Duration) -> Timed<Acquired> {
        let deadline = Deadline::new(self.clock, limit);
        let answer = self
            .call_and_wake(deadline, |store| {
                store.acquisition(request, deadline.left())
            })
            .await;
        let mut acquired = answer.reply.and_then(|rows| acquired(&rows));
        if matches!(acquired, Ok(Acquired::Granted(_)))
            && let Err(failure) = self.keep(deadline).await
        {
            // It was taken all the same.
            acquired = Err(self.given_up(failure).into());
        }
        let reply = match acquired {
            Ok(acquired) => acquired,
            Err(Failure::Missing) => Acquired::Refused(Refusal::Changed),
            Err(Failure::Locked) => Acquired::Refused(Refusal::Locked {
                by: "another process, which keeps the whole file locked".to_owned(),
            }),
            Err(failure) => Acquired::Unknown(self.given_up(failure)),
        };
        let sent_at = answer.sent_at;
        Timed { sent_at, reply }
    }

    async fn renew(&mut self, term: &Term, terms: &Terms, limit: Duration) -> Timed<Renewed> {
        let same_token = format!("token = {}", term.token);
        let wanted = (term.slot, term.holder, Some(term.token));
        self.renewal(wanted, &same_token, terms, Deadline::new(self.clock, limit))
            .await
    }

    async fn settle(&mut self, request: &Acquire, limit: Duration) -> Timed<Renewed> {
        let deadline = Deadline::new(self.clock, limit);
        let wanted = (request.slot, request.holder, None);
        // Any token, but only where the acquisition was to be.
        let server = sql::text(&request.server_incarnation.0);
        let same_server = format!(":incarnation = {server}");
        let mut settled = self
            .renewal(wanted, &same_server, &request.terms, deadline)
            .await;
        if matches!(settled.reply, Renewed::Granted { .. })
            && let Err(failure) = self.keep(deadline).await
        {
            settled.reply = Renewed::Unknown(self.given_up(failure));
        }
        if settled.reply != Renewed::Lost(Loss::Closed) {
            return settled;
        }
        // Taken and broken before anybody knew: nothing runs under it.
        let incarnation = &request.server_incarnation;
        let released = self
            .give_back(request.slot, request.holder, "1", incarnation, deadline)
            .await;
        match released {
            Released::Unknown(unknown) => Timed {
                reply: Renewed::Unknown(unknown),
                ..settled
            },
            Released::Done | Released::NotOurs => settled,
        }
    }

    async fn check(&mut self, term: &Term, limit: Duration) -> Renewed {
        let deadline = Deadline::new(self.clock, limit);
        let slot = term.slot.to_string();
        let build = |store: &Self| store.message(sql::CHECK, &[("slot", &slot)]);
        let answer = self.call(deadline, build).await;
        self.held(answer.reply, term.holder, Some(term.token))
    }

    async fn release(
        &mut self,
        term: &Term,
        incarnation: &Incarnation,
        limit: Duration,
    ) -> Released {
        let same_token = format!("token = {}", term.token);
        let deadline = Deadline::new(self.clock, limit);
        self.give_back(term.slot, term.holder, &same_token, incarnation, deadline)
            .await
    }

    async fn release_attempt(&mut self, attempt: &Attempt, limit: Duration) -> Released {
        let Attempt { slot, holder, .. } = *attempt;
        let mut looks = Looks::new(self.clock, limit);
        let mut last = Released::NotOurs;
        while let Some(within) = looks.next().await {
            last = self
                .give_back(slot, holder, "1", &attempt.incarnation, within)
                .await;
            if last == Released::Done {
                break;
            }
        }
        last
    }

    /// What others keep from being merged at once, readers or somebody else
    /// who merges, is merged later.
    async fn get_ready(&mut self, limit: Duration) {
        if self.unmerged {
            let deadline = Deadline::new(self.clock, limit);
            self.unmerged = self.link.merge(deadline).await != Ok(true);
        }
    }

    /// So that what is beside the file is not left there: people delete that.
    async fn close(&mut self, limit: Duration) {
        self.get_ready(limit).await;
        self.link.close(Deadline::new(self.clock, limit)).await;
    }

    fn because(&mut self, why: &str) {
        why.clone_into(&mut self.why);
    }

    /// There is no server.
    fn finds_lost_clients(&self) -> bool {
        false
    }

    fn watch(&self) -> SqliteWatch {
        SqliteWatch::start(self.link.path(), &self.name, self.clock)
    }
}

impl SqliteStore {
    async fn look(&mut self, deadline: Deadline) -> Result<Observation, Failure> {
        // Before: what is committed is told afterwards.
        let files = self.link.files();
        let newest = files.and_then(|files| bell::words(&files.path).newest);
        let answer = self
            .call(deadline, |store| store.message(sql::OBSERVE, &[]))
            .await;
        self.observed(&answer.reply?, answer.sent_at, newest)
    }

    fn observed(
        &mut self,
        rows: &Rows,
        sent_at: BootInstant,
        newest: Option<i64>,
    ) -> Result<Observation, Failure> {
        let first = last(rows)?;
        // An earlier one was put back under this connection.
        let drawn = first.words("drawn")?;
        let is_same = self
            .link
            .identity()
            .is_some_and(|known| known.drawn == drawn);
        if !is_same || newest > Some(first.there("newest")?) {
            return Err(Failure::Replaced);
        }
        let database_us = first.there("now_us")?;
        self.seen_time = Some(SeenTime {
            sent_at,
            database_us,
        });
        let paused = first.flag("paused")?;
        let reason = first.text("pause_reason")?.unwrap_or_default();
        let mut records = Vec::new();
        for row in rows.iter().skip(1).flatten() {
            records.extend(Cells(row).record()?);
        }
        Ok(Observation {
            server: self.server(),
            paused: paused.then_some(Pause { reason }),
            records,
        })
    }

    pub(super) fn server(&self) -> Server {
        let incarnation = self
            .link
            .identity()
            .map(|identity| identity.incarnation.clone());
        Server {
            incarnation: Incarnation(incarnation.unwrap_or_default()),
            in_recovery: false,
            // A file has no replicas that could be promoted: one timeline.
            timeline: Some(1),
            known_for: None,
        }
    }

    fn acquisition(&self, request: &Acquire, left: Duration) -> String {
        let terms = &request.terms;
        let (take, token, revision, row_incarnation) = match &request.expected {
            Expected::Missing => (sql::TAKE_NEW, Token(0), 0, ""),
            Expected::Unchanged {
                token,
                revision,
                incarnation,
            } => (sql::TAKE_ROW, *token, revision.0, incarnation.0.as_str()),
        };
        let ours = self
            .link
            .identity()
            .map(|identity| identity.incarnation.as_str());
        let same_server = ours == Some(request.server_incarnation.0.as_str());
        let (above_count, above_same) = above(request);
        // An earlier database, or a new one, does not know what was handed out.
        let is_new = request.in_doubt || request.expected == Expected::Missing;
        let files = self.link.files().filter(|_| is_new);
        let told = files.and_then(|files| bell::words(&files.path).highest);
        let (floor, jump) = token_rule(request, told);
        let now = (self.clock)();
        let not_after = self
            .seen_time
            .map_or(i64::MAX, |seen| seen.given_up(now, left));
        let allowed = sql::fill(sql::ALLOWED, &[("above_same", &above_same)]);
        let allowed = if same_server { allowed } else { "0".to_owned() };
        let new_token = sql::fill(sql::NEW_TOKEN, &[("floor", &floor), ("jump", jump)]);
        let take = sql::fill(
            take,
            &[
                ("allowed", &allowed),
                ("new_token", &new_token),
                ("taken", sql::TAKEN),
            ],
        );
        let values: &[(&str, &str)] = &[
            ("slot", &request.slot.to_string()),
            ("slots", &request.slots.to_string()),
            ("holder", &sql::text(&request.holder.to_string())),
            ("label", &sql::text(terms.label.as_str())),
            ("value", &sql::text(terms.value.as_str())),
            ("ttl", &sql::micros(terms.ttl)),
            ("takeover_delay", &sql::micros(terms.takeover_delay)),
            ("hold_at_least", &sql::micros(terms.hold_at_least)),
            ("token", &token.to_string()),
            ("revision", &revision.to_string()),
            ("row_incarnation", &sql::text(row_incarnation)),
            ("above_count", &above_count),
            (
                "from_unreleased",
                if request.from_unreleased { "1" } else { "0" },
            ),
            ("not_after", &not_after.to_string()),
        ];
        self.message(&take, values)
    }

    /// Puts what was taken into the file itself before a worker starts:
    /// whoever comes after `-wal` was removed finds the holder there, and
    /// watches. Whoever reads keeps it from that for as long: leasewraps for
    /// milliseconds, a backup for hours. It is not waited for, and the holder
    /// is in `-wal` alone until then.
    async fn keep(&mut self, deadline: Deadline) -> Result<(), Failure> {
        static SAID: AtomicBool = AtomicBool::new(false);
        let wait = deadline.at_most(READERS.min(deadline.left() / 2));
        loop {
            self.unmerged = true;
            self.unmerged = !self.link.merge(deadline).await?;
            let pause = Duration::from_millis(rand::random_range(2..=10));
            if !self.unmerged || pause >= wait.left() {
                break;
            }
            sleep(pause).await;
        }
        if self.unmerged && !SAID.swap(true, Ordering::Relaxed) {
            let path = self.link.path().display();
            tracing::info!(
                event = "unmerged",
                "somebody reads {path} in a long transaction; until that ends, the lease that was \
                 taken is in {path}-wal alone, which must not be deleted"
            );
        }
        Ok(())
    }

    async fn renewal(
        &mut self,
        (slot, holder, token): (Slot, HolderId, Option<Token>),
        same_token: &str,
        terms: &Terms,
        deadline: Deadline,
    ) -> Timed<Renewed> {
        let values: &[(&str, &str)] = &[
            ("slot", &slot.to_string()),
            ("holder", &sql::text(&holder.to_string())),
            ("ttl", &sql::micros(terms.ttl)),
        ];
        // Of an acquisition nobody has said yet that it was made.
        let is_said = token.is_some();
        let told = if is_said { "" } else { ", :words" };
        let renew = sql::fill(sql::RENEW, &[("same_token", same_token), ("told", told)]);
        let mut answer = self.renewed(&renew, values, is_said, deadline).await;
        if matches!(answer.reply, Err(Failure::Replaced)) {
            // The row says from now on which database it was renewed in.
            self.link.close(deadline).await;
            answer = self.renewed(&renew, values, is_said, deadline).await;
        }
        let reply = self.held(answer.reply, holder, token);
        let sent_at = answer.sent_at;
        Timed { sent_at, reply }
    }

    async fn renewed(
        &mut self,
        renew: &str,
        values: &sql::Values<'_>,
        is_said: bool,
        deadline: Deadline,
    ) -> Timed<Result<Rows, Failure>> {
        let build = |store: &Self| store.message(renew, values);
        let mut answer = if is_said {
            self.call(deadline, build).await
        } else {
            self.call_and_wake(deadline, build).await
        };
        // An earlier one may have been put back under this connection.
        answer.reply = answer.reply.and_then(|rows| {
            let is_same = last(&rows)?.flag("same_database")?;
            is_same.then_some(rows).ok_or(Failure::Replaced)
        });
        answer
    }

    /// What a row that was renewed or looked at says to its holder.
    fn held(
        &self,
        reply: Result<Rows, Failure>,
        holder: HolderId,
        token: Option<Token>,
    ) -> Renewed {
        let read = |rows: Rows| {
            let cells = last(&rows)?;
            if let Some(loss) = cells.loss(holder, token)? {
                return Ok(Renewed::Lost(loss));
            }
            let grant = cells.grant()?.ok_or_else(elsewhere)?;
            let request = cells.request_for(grant.token)?;
            Ok(Renewed::Granted { grant, request })
        };
        match reply.and_then(read) {
            Ok(renewed) => renewed,
            Err(Failure::Missing) => Renewed::Lost(Loss::Missing),
            Err(failure) => Renewed::Unknown(self.given_up(failure)),
        }
    }

    async fn give_back(
        &mut self,
        slot: Slot,
        holder: HolderId,
        same_token: &str,
        incarnation: &Incarnation,
        deadline: Deadline,
    ) -> Released {
        let answer = self
            .call_and_wake(deadline, |store| {
                let values: &[(&str, &str)] = &[
                    ("slot", &slot.to_string()),
                    ("holder", &sql::text(&holder.to_string())),
                    ("same_token", same_token),
                    ("known", &sql::text(&incarnation.0)),
                ];
                store.message(sql::RELEASE, values)
            })
            .await;
        let read = |rows: Rows| {
            let cells = last(&rows)?;
            let done = cells.flag("given")? || cells.flag("before")?;
            Ok(if done {
                Released::Done
            } else {
                Released::NotOurs
            })
        };
        match answer.reply.and_then(read) {
            Ok(released) => released,
            Err(Failure::Missing) => Released::NotOurs,
            Err(failure) => Released::Unknown(self.given_up(failure)),
        }
    }
}

/// The row is as it was, but nothing was written: it is not where it should be.
fn elsewhere() -> Failure {
    Failure::Unanswered(Unknown {
        fault: Fault::Transient,
        message: "the file, or the boot, is another one than the acquisition was for".to_owned(),
    })
}

/// The least that a new token may be, and what is added (contract, section 4):
/// there are no timelines here, so in doubt it is as on the first one. In any
/// case it lies above what the contender itself has seen, and what it was told.
fn token_rule(request: &Acquire, told: Option<i64>) -> (String, &'static str) {
    let seen = request.furthest.map(|token| token.0).max(told);
    let seen = seen.map_or(0, |token| token.saturating_add(1));
    let (floor, jump) = match request.expected {
        _ if request.in_doubt => ("(1 << 40)", "abs(random() % 549755813888)"),
        // Seconds since 2026.
        Expected::Missing => ("(:now / 1000000 - 1767225600)", "0"),
        Expected::Unchanged { .. } => ("1", "0"),
    };
    (format!("max({floor}, {seen})"), jump)
}

fn acquired(rows: &Rows) -> Result<Acquired, Failure> {
    let cells = last(rows)?;
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
