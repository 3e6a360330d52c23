//! What `doctor` asks: facts about the server, our rights and the line to
//! it. Nothing here writes a row; a message in the log of writes (WAL) is all
//! that the measured commits leave.

mod facts;

use std::time::Duration;

pub use self::facts::{FencedTable, Replica, RoundTrip, SchemaFacts, SchemaThere, ServerFacts};
use super::fault::{Failure, RIGHT_MISSING};
use super::link::Rows;
use super::row::{Cells, Columns, first};
use super::{PgStore, Tell, schema, sql};
use crate::lease::record::Unknown;
use crate::store::deadline::Deadline;

/// Readable by every role. One row.
const SERVER: &str = "
select current_setting('server_version_num')::bigint as version,
    current_setting('server_version') as version_text,
    pg_is_in_recovery() as in_recovery,
    current_setting('transaction_read_only') = 'on' as read_only,
    current_user::text as role,
    current_database()::text as database,
    :session_mark,
    current_setting('synchronous_commit') as synchronous_commit,
    current_setting('fsync') = 'on' as fsync,
    current_setting('full_page_writes') = 'on' as full_page_writes,
    current_setting('synchronous_standby_names') as synchronous_standby_names,
    (pg_notification_queue_usage() * 100)::bigint as queue_percent;
";

/// Whether the incarnation can be read; refused where it cannot. One row.
const INCARNATION: &str = "
select c.system_identifier::text as system, case when pg_is_in_recovery() then ''
    else pg_walfile_name(pg_current_wal_insert_lsn()) end as segment
from pg_control_system() c;
";

/// What is there of the schema, and whether we might make it. One row.
const SCHEMA: &str = "
select to_regnamespace(:schema_ident) is not null as schema,
    to_regclass(:lease_text) is not null as lease,
    to_regclass(:version_text) is not null as ours,
    has_database_privilege(current_database(), 'CREATE') as may_create,
    case when to_regnamespace(:schema_ident) is null then false
        else has_schema_privilege(to_regnamespace(:schema_ident), 'USAGE') end as may_use,
    case when to_regnamespace(:schema_ident) is null then false
        else has_schema_privilege(to_regnamespace(:schema_ident), 'CREATE') end as may_fill;
";

/// Refused where there is no right to read it. One row.
const VERSION: &str = "select v.version, v.compatible_from from :schema.lease_schema v;";

/// The rights of contract's minimum that we lack.
const RIGHTS: &str = "
select needed.tab || ': ' || needed.privilege as lacking
from (values
    ('lease', 'SELECT'), ('lease', 'INSERT'), ('lease', 'UPDATE'),
    ('lease_incarnation', 'SELECT'), ('lease_incarnation', 'INSERT'),
    ('lease_pause', 'SELECT'), ('lease_schema', 'SELECT'),
    ('event', 'SELECT'), ('event', 'INSERT'), ('event', 'DELETE')
) needed(tab, privilege)
join pg_class c on c.relname = needed.tab and c.relkind in ('r', 'p')
    and c.relnamespace = to_regnamespace(:schema_ident)
where not has_table_privilege(c.oid, needed.privilege)
order by 1;
";

/// Our tables that a crash empties.
const UNLOGGED: &str = "
select c.relname::text as name from pg_class c
where c.relnamespace = to_regnamespace(:schema_ident) and c.relkind = 'r'
    and c.relpersistence <> 'p' and to_regclass(:version_text) is not null
order by 1;
";

/// The servers that follow this one; empty columns where we may not see.
const REPLICAS: &str = "
select coalesce(nullif(r.application_name, ''), host(r.client_addr), 'a standby') as name,
    r.state::text as state, r.sync_state::text as sync_state
from pg_stat_replication r order by 1;
";

/// Tables that are fenced, and partitions of theirs that are not: they came
/// later, or their trigger was disabled.
const FENCES: &str = "
with fenced as (
    select t.tgrelid, t.tgenabled in ('O', 'A') as enabled from pg_trigger t
    where t.tgfoid = to_regproc(:fence_text) and not t.tgisinternal
),
family as (
    select f.tgrelid as relid from fenced f
    union select p.relid::oid from fenced f cross join lateral pg_partition_tree(f.tgrelid) p
)
select format('%I.%I', s.nspname, c.relname) as name,
    exists (select from fenced f where f.tgrelid = a.relid and f.enabled) as fenced
from family a join pg_class c on c.oid = a.relid join pg_namespace s on s.oid = c.relnamespace
order by 1;
";

/// The database's clock, and nothing else.
const CLOCK: &str = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now_us;";

/// Commits something that is no row: the commit waits for the disk, and for
/// synchronous standbys, as that of a renewal does.
const COMMIT: &str = "select pg_logical_emit_message(true, 'leasewrap', 'doctor')::text;";

/// A notification for whoever watches the lease of this store.
const NOTIFY: &str = "select pg_notify('leasewrap_' || md5(:schema_text || ' ' || :name), '');";

impl PgStore {
    /// Connects and looks at the server.
    ///
    /// # Errors
    /// It does not answer, or says no.
    pub async fn server_facts(&mut self, limit: Duration) -> Result<ServerFacts, Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        let rows = self.doctor(SERVER, deadline).await;
        let facts = rows.and_then(|rows| server(&rows));
        let mut facts = self.read(facts)?;
        facts.pooled = self.link.is_pooled();
        facts.incarnation_readable = match self.doctor(INCARNATION, deadline).await {
            Ok(_) => true,
            Err(Failure::Refused(_)) => false,
            Err(failure) => return Err(self.given_up(failure)),
        };
        Ok(facts)
    }

    /// Looks at the schema and at our rights.
    ///
    /// # Errors
    /// The server does not answer, or says no.
    pub async fn schema_facts(&mut self, limit: Duration) -> Result<SchemaFacts, Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        let facts = self.schema_facts_by(deadline).await;
        self.read(facts)
    }

    async fn schema_facts_by(&mut self, deadline: Deadline) -> Result<SchemaFacts, Failure> {
        let rows = self.doctor(SCHEMA, deadline).await?;
        let cells = first(&rows)?;
        let (lease, ours) = (cells.flag("lease")?, cells.flag("ours")?);
        let (schema, may_use) = (cells.flag("schema")?, cells.flag("may_use")?);
        let may_create = if schema {
            cells.flag("may_fill")?
        } else {
            cells.flag("may_create")?
        };
        let mut facts = SchemaFacts {
            there: match (lease, ours) {
                (_, true) => SchemaThere::Ours { usable: None },
                (true, false) => SchemaThere::Foreign,
                (false, false) => SchemaThere::Nothing,
            },
            may_create,
            lacking: Vec::new(),
            unlogged: Vec::new(),
        };
        if !ours {
            return Ok(facts);
        }
        if !may_use {
            facts.lacking.push("the schema: USAGE".to_owned());
        }
        let rows = self.doctor(RIGHTS, deadline).await?;
        facts.lacking.extend(words(&rows, "lacking")?);
        let rows = self.doctor(UNLOGGED, deadline).await?;
        facts.unlogged = words(&rows, "name")?;
        facts.there = SchemaThere::Ours {
            usable: self.usable(deadline).await?,
        };
        Ok(facts)
    }

    async fn usable(&mut self, deadline: Deadline) -> Result<Option<bool>, Failure> {
        match self.doctor(VERSION, deadline).await {
            Ok(rows) => {
                let cells = first(&rows)?;
                let (version, from) = (cells.number("version")?, cells.number("compatible_from")?);
                let usable = version.is_some_and(|version| version >= schema::VERSION)
                    && from.is_some_and(|from| from <= schema::VERSION);
                Ok(Some(usable))
            }
            Err(Failure::Refused(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The servers that follow this one.
    ///
    /// # Errors
    /// The server does not answer, or says no.
    pub async fn replicas(&mut self, limit: Duration) -> Result<Vec<Replica>, Unknown> {
        let rows = self
            .doctor(REPLICAS, Deadline::new(self.clock, limit))
            .await;
        let replicas = rows.and_then(|rows| {
            let of = |cells: Cells<'_>| {
                Ok(Replica {
                    name: cells.words("name")?,
                    sync_state: cells.text("sync_state")?,
                    state: cells.text("state")?,
                })
            };
            rows.iter().flatten().map(Cells).map(of).collect()
        });
        self.read(replicas)
    }

    /// Tables that are fenced, and their partitions.
    ///
    /// # Errors
    /// The server does not answer, or says no.
    pub async fn fenced_tables(&mut self, limit: Duration) -> Result<Vec<FencedTable>, Unknown> {
        let rows = self.doctor(FENCES, Deadline::new(self.clock, limit)).await;
        let tables = rows.and_then(|rows| {
            let of = |cells: Cells<'_>| {
                Ok(FencedTable {
                    name: cells.words("name")?,
                    fenced: cells.flag("fenced")?,
                })
            };
            rows.iter().flatten().map(Cells).map(of).collect()
        });
        self.read(tables)
    }

    /// One round trip.
    ///
    /// # Errors
    /// The server does not answer, or says no.
    pub async fn round_trip(&mut self, limit: Duration) -> Result<RoundTrip, Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        let build = |store: &Self, left| store.message(&[CLOCK], &[], left);
        let answer = self.call(deadline, build).await;
        let took = (self.clock)().saturating_since(answer.sent_at);
        let now = answer.reply.and_then(|rows| first(&rows)?.there("now_us"));
        let database_us = self.read(now)?;
        Ok(RoundTrip {
            sent_at: answer.sent_at,
            took,
            database_us,
        })
    }

    /// How long a durable commit takes; `None` where we may not measure it.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn durable_commit(&mut self, limit: Duration) -> Result<Option<Duration>, Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        let build = |store: &Self, left| {
            store.message(&[sql::LIMITS, COMMIT], &Tell::Nobody.values(), left)
        };
        let answer = self.call(deadline, build).await;
        let took = (self.clock)().saturating_since(answer.sent_at);
        match answer.reply {
            Ok(_) => Ok(Some(took)),
            Err(Failure::Refused(refused)) if refused.code == RIGHT_MISSING => Ok(None),
            Err(failure) => Err(self.given_up(failure)),
        }
    }

    /// Notifies whoever watches the lease of this store.
    ///
    /// # Errors
    /// The server does not answer, or says no.
    pub async fn notify(&mut self, limit: Duration) -> Result<(), Unknown> {
        let sent = self.doctor(NOTIFY, Deadline::new(self.clock, limit)).await;
        self.read(sent).map(drop)
    }

    async fn doctor(&mut self, sql: &str, deadline: Deadline) -> Result<Rows, Failure> {
        let build = |store: &Self, left| store.message(&[sql], &[], left);
        self.call(deadline, build).await.reply
    }
}

fn words(rows: &Rows, column: &str) -> Result<Vec<String>, Failure> {
    rows.iter()
        .flatten()
        .map(|row| Cells(row).words(column))
        .collect()
}

/// The facts; what other messages tell is left open.
fn server(rows: &Rows) -> Result<ServerFacts, Failure> {
    let cells = first(rows)?;
    Ok(ServerFacts {
        version: cells.there("version")?,
        version_text: cells.words("version_text")?,
        in_recovery: cells.flag("in_recovery")?,
        read_only: cells.flag("read_only")?,
        role: cells.words("role")?,
        database: cells.words("database")?,
        pooled: false,
        synchronous_commit: cells.words("synchronous_commit")?,
        fsync: cells.flag("fsync")?,
        full_page_writes: cells.flag("full_page_writes")?,
        synchronous_standby_names: cells.words("synchronous_standby_names")?,
        queue_percent: cells.there("queue_percent")?,
        incarnation_readable: false,
    })
}
