//! What operators ask.

use std::time::Duration;

use sqlx::sqlite::SqliteRow;

use super::failure::Failure;
use super::link::{Cells, Rows};
use super::{SqliteStore, sql};
use crate::lease::ids::{Label, LeaseName, Slot, Token};
use crate::lease::record::Unknown;
use crate::store::admin::{
    Admin, Closed, DbTime, HistoryEvent, LeaseStatus, ProtectError, Protection, Requested, Seen,
};
use crate::store::columns::{Columns, history, leases};
use crate::store::deadline::Deadline;

/// Every lease that has a row or is paused, or one.
const STATUS: &str = "
select :now / 1000 as now_ms, n.name as lease, coalesce(p.paused, 0) as paused,
    p.reason as pause_reason, p.role as pause_role, p.since / 1000 as pause_since_ms,
    l.changes, l.acquired_at / 1000 as acquired_ms, l.renewed_at / 1000 as renewed_ms,
    l.expires_at / 1000 as expires_ms, l.released_at / 1000 as released_ms,
    :row_columns
from (select 1) one
left join (select a.name from lease a union select b.name from lease_pause b where b.paused) n
    on :wanted
left join lease l on l.name = n.name
left join lease_pause p on p.name = n.name
order by n.name, l.slot
";

/// The history, oldest first; the first row has the time alone.
const HISTORY: &str = "
select :now / 1000 as now_ms;
select * from (
    select e.id, e.at / 1000 as at_ms, e.name as lease, e.slot, e.token, e.label, e.what, e.why
    from event e where :wanted and e.at >= :since order by e.id desc limit 10000)
order by id;
";

/// Asks every holder that has not given its slot back.
const STEP_DOWN: &str = "
begin immediate;
update lease set request_token = token, request_kind = 'step-down', request_to = :to,
    requested_at = :now
where name = :lease and released_at is null;
insert into event (at, name, slot, token, label, what, why)
select :now, name, slot, token, label, 'step-down', case when request_to is null then ''
    else 'to ''' || request_to || '''' end
from lease where name = :lease and released_at is null;
select slot, token, label, ttl from lease
where name = :lease and released_at is null order by slot;
commit;
";

/// Closes a token that is current and not given back.
const CLOSE: &str = "
begin immediate;
insert into event (at, name, slot, token, label, what, why)
select :now, name, slot, token, label, 'closed', :why from lease
where name = :lease and slot = :slot and token = :token and released_at is null
    and coalesce(closed_token < token, 1);
update lease set closed_token = token
where name = :lease and slot = :slot and token = :token and released_at is null;
select ttl from lease
where name = :lease and slot = :slot and token = :token and released_at is null;
commit;
";

/// Pauses or resumes; tells whether that changed something.
const PAUSE: &str = "
begin immediate;
insert into event (at, name, slot, token, label, what, why)
select :now, :lease, 0, 0, '', case when :paused then 'paused' else 'resumed' end, :reason
where coalesce((select paused from lease_pause where name = :lease), 0) <> :paused;
select coalesce((select paused from lease_pause where name = :lease), 0) <> :paused as changed;
insert into lease_pause (name, paused, reason, role, since)
values (:lease, :paused, :reason, :role, :now)
on conflict (name) do update set
    since = case when paused = excluded.paused then since else excluded.since end,
    paused = excluded.paused, reason = excluded.reason, role = excluded.role;
commit;
";

impl SqliteStore {
    async fn read(
        &mut self,
        limit: Duration,
        question: &str,
        values: &sql::Values<'_>,
    ) -> Result<Option<Rows>, Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        let answer = self
            .call(deadline, |store| store.message(question, values))
            .await;
        match answer.reply {
            Ok(rows) => Ok(Some(rows)),
            Err(Failure::Missing) => Ok(None),
            Err(failure) => Err(self.given_up(failure)),
        }
    }

    pub(super) async fn write(
        &mut self,
        limit: Duration,
        change: &str,
        values: &sql::Values<'_>,
    ) -> Result<Rows, Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        let answer = self
            .call_and_wake(deadline, |store| store.message(change, values))
            .await;
        self.unmerged |= answer.reply.is_ok();
        answer.reply.map_err(|failure| self.given_up(failure))
    }

    async fn set_pause(
        &mut self,
        name: &LeaseName,
        paused: &str,
        reason: &str,
        limit: Duration,
    ) -> Result<bool, Unknown> {
        let role = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .ok()
            .flatten();
        let role = role.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name);
        let values: &[(&str, &str)] = &[
            ("lease", &sql::text(name.as_str())),
            ("paused", paused),
            ("reason", &sql::text(reason)),
            ("role", &sql::text(&role)),
        ];
        let rows = self.write(limit, PAUSE, values).await?;
        let changed = super::link::last(&rows).and_then(|cells| cells.flag("changed"));
        changed.map_err(|failure| self.given_up(failure))
    }

    /// What was read of an answer whose first row tells the time; nothing
    /// where there is no file.
    fn seen<T>(
        &self,
        rows: Option<Rows>,
        read: impl FnOnce(&[SqliteRow]) -> Result<Vec<T>, Failure>,
    ) -> Result<Seen<Vec<T>>, Unknown> {
        let rows: Vec<_> = rows.into_iter().flatten().skip(1).flatten().collect();
        let server = self.server();
        let Some(first) = rows.first() else {
            let (now, value) = (DbTime(0), Vec::new());
            return Ok(Seen { now, server, value });
        };
        let now = Cells(first).time("now_ms");
        let seen = now.and_then(|now| {
            let value = read(&rows)?;
            Ok(Seen { now, server, value })
        });
        seen.map_err(|failure| self.given_up(failure))
    }
}

fn wanted(column: &str, name: Option<&LeaseName>) -> String {
    match name {
        Some(name) => format!("{column} = {}", sql::text(name.as_str())),
        None => "1".to_owned(),
    }
}

impl Admin for SqliteStore {
    async fn status(
        &mut self,
        name: Option<&LeaseName>,
        limit: Duration,
    ) -> Result<Seen<Vec<LeaseStatus>>, Unknown> {
        let wanted = wanted("n.name", name);
        let asked = self.read(limit, STATUS, &[("wanted", &wanted)]).await?;
        self.seen(asked, |rows| leases(rows.iter().map(Cells), |_| Ok(None)))
    }

    async fn history(
        &mut self,
        name: Option<&LeaseName>,
        since: Option<Duration>,
        limit: Duration,
    ) -> Result<Seen<Vec<HistoryEvent>>, Unknown> {
        let wanted = wanted("e.name", name);
        let since = since.map_or("0".to_owned(), |since| {
            format!("(:now - {})", sql::micros(since))
        });
        let sql = sql::fill(HISTORY, &[("since", &since)]);
        let asked = self.read(limit, &sql, &[("wanted", &wanted)]).await?;
        self.seen(asked, |rows| history(rows.iter().skip(1).map(Cells)))
    }

    async fn request_step_down(
        &mut self,
        name: &LeaseName,
        to: Option<&Label>,
        limit: Duration,
    ) -> Result<Vec<Requested>, Unknown> {
        let lease = sql::text(name.as_str());
        let label = to.map_or_else(|| "null".to_owned(), |to| sql::text(to.as_str()));
        let rows = self
            .write(limit, STEP_DOWN, &[("lease", &lease), ("to", &label)])
            .await?;
        let rows = rows.iter().skip(1).flatten();
        let requested: Result<_, _> = rows.map(|row| Cells(row).requested(to)).collect();
        requested.map_err(|failure| self.given_up(failure))
    }

    async fn close_token(
        &mut self,
        name: &LeaseName,
        slot: Slot,
        token: Token,
        limit: Duration,
    ) -> Result<Closed, Unknown> {
        let values: &[(&str, &str)] = &[
            ("lease", &sql::text(name.as_str())),
            ("slot", &slot.to_string()),
            ("token", &token.to_string()),
        ];
        let rows = self.write(limit, CLOSE, values).await?;
        match rows.iter().skip(1).flatten().map(Cells).next_back() {
            None => Ok(Closed::NotCurrent),
            Some(cells) => match cells.duration("ttl") {
                Ok(ttl) => Ok(Closed::Done { ttl }),
                Err(failure) => Err(self.given_up(failure)),
            },
        }
    }

    async fn pause(
        &mut self,
        name: &LeaseName,
        reason: &str,
        limit: Duration,
    ) -> Result<bool, Unknown> {
        self.set_pause(name, "1", reason, limit).await
    }

    async fn resume(&mut self, name: &LeaseName, limit: Duration) -> Result<bool, Unknown> {
        self.set_pause(name, "0", "", limit).await
    }

    fn schema_sql(&self) -> Option<String> {
        None
    }

    async fn drop_schema(&mut self, limit: Duration) -> Result<bool, Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        match self
            .call_and_wake(deadline, |store| store.message(sql::DROP, &[]))
            .await
            .reply
        {
            // What is open knows a file that is not ours any more.
            Ok(_) => {
                self.link.close(deadline).await;
                Ok(true)
            }
            Err(Failure::Missing) => Ok(false),
            Err(failure) => Err(self.given_up(failure)),
        }
    }

    async fn protect(
        &mut self,
        _protection: &Protection,
        _limit: Duration,
    ) -> Result<Vec<String>, ProtectError> {
        Err(ProtectError::Unsupported)
    }

    async fn unprotect(
        &mut self,
        _tables: &[String],
        _limit: Duration,
    ) -> Result<Vec<String>, ProtectError> {
        Err(ProtectError::Unsupported)
    }
}
