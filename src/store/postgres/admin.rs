//! What operators ask. Each is one message; what writes is durable and
//! limited like every other.

use std::time::Duration;

use super::fault::Failure;
use super::link::Rows;
use super::row::{self, Cells, Columns};
use super::schema::Missing;
use super::{PgStore, Tell, poll, schema, sql};
use crate::lease::ids::{Label, LeaseName, Slot, Token};
use crate::lease::record::Unknown;
use crate::store::admin::{
    Admin, Closed, DbTime, HistoryEvent, LeaseStatus, ProtectError, Protection, Requested, Seen,
    Standby,
};
use crate::store::columns::{history, leases};
use crate::store::deadline::Deadline;

/// Every lease that has a row or is paused, or one. Always at least one row;
/// without `lease` there is none.
const STATUS: &str = "
with at as materialized (select clock_timestamp() as now)
select pg_is_in_recovery() as in_recovery, :identity as incarnation,
    (extract(epoch from at.now) * 1000)::bigint as now_ms,
    n.name as lease,
    coalesce(p.paused, false) as paused,
    p.reason as pause_reason,
    p.role as pause_role,
    (extract(epoch from p.since) * 1000)::bigint as pause_since_ms,
    l.changes,
    (extract(epoch from l.acquired_at) * 1000)::bigint as acquired_ms,
    (extract(epoch from l.renewed_at) * 1000)::bigint as renewed_ms,
    (extract(epoch from l.expires_at) * 1000)::bigint as expires_ms,
    (extract(epoch from l.released_at) * 1000)::bigint as released_ms,
    :row_columns
from at
left join (
    select a.name from :schema.lease a
    union select b.name from :schema.lease_pause b where b.paused
) n on :wanted
left join :schema.lease l on l.name = n.name
left join :schema.lease_pause p on p.name = n.name
order by n.name, l.slot;
select :session_mark, a.application_name as application,
    coalesce(host(a.client_addr), 'local') as client,
    (extract(epoch from a.backend_start) * 1000)::bigint as since_ms,
    a.query = '<insufficient privilege>' as hidden
from (values (1)) one left join pg_stat_activity a
on a.application_name like 'leasewrap %' and a.datname = current_database()
    and (starts_with(a.query, :poll) or a.query = '<insufficient privilege>')
order by a.backend_start;
";

/// The history, oldest first. The first row says what the server is.
const HISTORY: &str = "
select pg_is_in_recovery() as in_recovery, :identity as incarnation,
    (extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms;
select * from (
    select e.id, (extract(epoch from e.at) * 1000)::bigint as at_ms, e.name as lease, e.slot,
        e.token, e.label, e.what, e.why
    from :schema.event e
    where :wanted and e.at >= :since
    order by e.id desc limit 10000
) newest order by id;
";

/// Asks every holder that has not given its slot back. Touches neither
/// revision nor incarnation: a watcher must not take it for a renewal.
const STEP_DOWN: &str = "
update :schema.lease l
set request_token = l.token, request_kind = 'step-down', request_to = :to,
    requested_at = clock_timestamp()
where l.name = :lease and l.released_at is null
returning l.slot, l.token, l.label, extract(epoch from l.ttl) as ttl;
";

/// Closes a token that is current and not given back. Zero rows: it is not.
const CLOSE: &str = "
update :schema.lease l set closed_token = l.token
where l.name = :lease and l.slot = :slot and l.token = :token and l.released_at is null
returning extract(epoch from l.ttl) as ttl;
";

/// Pauses or resumes. One row where that changed something; the reason is
/// replaced in any case.
const PAUSE: &str = "
with before as materialized (
    select coalesce((select p.paused from :schema.lease_pause p where p.name = :lease), false)
        as paused
),
done as (
    insert into :schema.lease_pause as p (name, paused, reason)
    select :lease, :paused, :reason where :paused or (select b.paused from before b)
    on conflict (name) do update set paused = excluded.paused, reason = excluded.reason,
        role = excluded.role,
        since = case when p.paused = excluded.paused then p.since else excluded.since end
    returning 1
),
told as (
    insert into :schema.event (name, slot, token, label, what, why)
    select :lease, 0, 0, '', case when :paused then 'paused' else 'resumed' end, :reason
    from before b where b.paused <> :paused
    returning 1
)
select 1 as changed
from told,
    (select case when :quiet = 'on' then null
        else pg_notify('leasewrap_' || md5(:schema_text || ' ' || :lease), '') end) notified;
";

impl PgStore {
    /// Sends a message of reading or writing; an empty answer where there is
    /// no schema and `missing_is_empty`.
    async fn ask(
        &mut self,
        limit: Duration,
        missing_is_empty: bool,
        build: impl Fn(&Self, Duration, Tell) -> String,
    ) -> Result<Option<Rows>, Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        let answer = self.call_telling(deadline, Tell::Trigger, build).await;
        match answer.reply {
            Ok(rows) => Ok(Some(rows)),
            Err(Failure::Refused(refused)) if refused.is_missing() => {
                match self.missing(deadline).await {
                    Missing::Schema if missing_is_empty => Ok(None),
                    Missing::Schema => Err(schema::no_schema(self.link.settings().schema())),
                    Missing::Nothing => Err(self.damaged(&refused.message)),
                    Missing::Unknown(unknown) => Err(unknown),
                }
            }
            Err(failure) => Err(self.given_up(failure)),
        }
    }

    /// As [`Self::ask`], for a single statement that writes; its rows.
    pub(super) async fn write(
        &mut self,
        limit: Duration,
        sql: &str,
        values: &sql::Values<'_>,
    ) -> Result<Vec<sqlx::postgres::PgRow>, Unknown> {
        let rows = self
            .ask(limit, false, |store, left, tell| {
                let all: Vec<(&str, &str)> = values.iter().chain(&tell.values()).copied().collect();
                store.message(&[sql::LIMITS, sql], &all, left)
            })
            .await?;
        Ok(rows.and_then(|mut rows| rows.pop()).unwrap_or_default())
    }
}

fn wanted(column: &str, name: Option<&LeaseName>) -> String {
    match name {
        Some(name) => format!("{column} = {}", sql::text(name.as_str())),
        None => "true".to_owned(),
    }
}

impl Admin for PgStore {
    async fn status(
        &mut self,
        name: Option<&LeaseName>,
        limit: Duration,
    ) -> Result<Seen<Vec<LeaseStatus>>, Unknown> {
        let (wanted, poll) = (wanted("n.name", name), sql::text(sql::POLL));
        let rows = self
            .ask(limit, true, |store, left, _| {
                let values = [("wanted", wanted.as_str()), ("poll", &poll)];
                store.message(&[STATUS], &values, left)
            })
            .await?;
        let pooled = self.link.is_pooled();
        let seen = match rows {
            Some(rows) => statuses(&rows, pooled),
            None => Ok(nothing()),
        };
        self.read(seen)
    }

    async fn history(
        &mut self,
        name: Option<&LeaseName>,
        since: Option<Duration>,
        limit: Duration,
    ) -> Result<Seen<Vec<HistoryEvent>>, Unknown> {
        let wanted = wanted("e.name", name);
        let since = match since {
            Some(since) => format!("clock_timestamp() - {}", sql::interval(since)),
            None => "timestamptz '-infinity'".to_owned(),
        };
        let rows = self
            .ask(limit, true, |store, left, _| {
                store.message(&[HISTORY], &[("wanted", &wanted), ("since", &since)], left)
            })
            .await?;
        let seen = match rows {
            Some(rows) => history(of_statement(&rows, 1)).and_then(|events| seen(&rows, events)),
            None => Ok(nothing()),
        };
        self.read(seen)
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
        let read = rows.iter().map(|row| Cells(row).requested(to)).collect();
        self.read(read)
    }

    async fn close_token(
        &mut self,
        name: &LeaseName,
        slot: Slot,
        token: Token,
        limit: Duration,
    ) -> Result<Closed, Unknown> {
        let (lease, slot, token) = (
            sql::text(name.as_str()),
            slot.to_string(),
            token.to_string(),
        );
        let values = [
            ("lease", lease.as_str()),
            ("slot", &slot),
            ("token", &token),
        ];
        let rows = self.write(limit, CLOSE, &values).await?;
        match rows.first().map(|row| Cells(row).duration("ttl")) {
            None => Ok(Closed::NotCurrent),
            Some(ttl) => self.read(ttl).map(|ttl| Closed::Done { ttl }),
        }
    }

    async fn pause(
        &mut self,
        name: &LeaseName,
        reason: &str,
        limit: Duration,
    ) -> Result<bool, Unknown> {
        let (lease, reason) = (sql::text(name.as_str()), sql::text(reason));
        let values = [
            ("lease", lease.as_str()),
            ("paused", "true"),
            ("reason", &reason),
        ];
        Ok(!self.write(limit, PAUSE, &values).await?.is_empty())
    }

    async fn resume(&mut self, name: &LeaseName, limit: Duration) -> Result<bool, Unknown> {
        let lease = sql::text(name.as_str());
        let values = [
            ("lease", lease.as_str()),
            ("paused", "false"),
            ("reason", "''"),
        ];
        Ok(!self.write(limit, PAUSE, &values).await?.is_empty())
    }

    fn schema_sql(&self) -> Option<String> {
        Some(schema::creation(self.link.settings().schema()))
    }

    async fn drop_schema(&mut self, limit: Duration) -> Result<bool, Unknown> {
        self.drop_call(limit).await
    }

    async fn protect(
        &mut self,
        protection: &Protection,
        limit: Duration,
    ) -> Result<Vec<String>, ProtectError> {
        self.protect_call(protection, limit).await
    }

    async fn unprotect(
        &mut self,
        tables: &[String],
        limit: Duration,
    ) -> Result<Vec<String>, ProtectError> {
        self.unprotect_call(tables, limit).await
    }
}

/// What there is where there is no schema.
fn nothing<T>() -> Seen<Vec<T>> {
    Seen {
        now: DbTime(0),
        server: crate::lease::record::Server {
            incarnation: crate::lease::ids::Incarnation(String::new()),
            in_recovery: false,
            timeline: None,
            known_for: None,
        },
        value: Vec::new(),
    }
}

/// When it was read and from whom, and what.
fn seen<T>(rows: &Rows, value: T) -> Result<Seen<T>, Failure> {
    let first = row::first(rows)?;
    Ok(Seen {
        now: first.time("now_ms")?,
        server: poll::server(&first)?,
        value,
    })
}

/// The rows of the statement with this number.
fn of_statement(rows: &Rows, number: usize) -> impl Iterator<Item = Cells<'_>> {
    rows.get(number).into_iter().flatten().map(Cells)
}

fn statuses(rows: &Rows, pooled: bool) -> Result<Seen<Vec<LeaseStatus>>, Failure> {
    let standbys = |name: &LeaseName| {
        if pooled {
            Ok(None)
        } else {
            standbys(rows, name)
        }
    };
    seen(rows, leases(of_statement(rows, 0), standbys)?)
}

/// Sessions by their `application_name`, which Postgres cuts at 63 bytes and
/// keeps in ASCII: for other names it is not known, nor where one of them is
/// another role's, of which we may not see what it does (`pg_read_all_stats`).
fn standbys(rows: &Rows, name: &LeaseName) -> Result<Option<Vec<Standby>>, Failure> {
    let application = format!("leasewrap {name}");
    if application.len() > 63 || !application.is_ascii() {
        return Ok(None);
    }
    let mut standbys = Vec::new();
    for cells in of_statement(rows, 1) {
        if cells.text("application")?.as_deref() == Some(&application) {
            if cells.flag("hidden")? {
                return Ok(None);
            }
            standbys.push(Standby {
                from: cells.words("client")?,
                since: cells.time("since_ms")?,
            });
        }
    }
    Ok(Some(standbys))
}
