//! Sets the schema up: safe when many start at once, and never in front of
//! renewals behind somebody's long transaction.

use std::time::Duration;

use tokio::time::sleep;

use super::fault::{Failure, RIGHT_MISSING, Refused};
use super::row::{self, Columns};
use super::{PgStore, sql};
use crate::lease::record::{Fault, Unknown};
use crate::store::deadline::Deadline;

/// The version that this leasewrap makes and needs.
pub(super) const VERSION: i64 = 1;

/// For advisory locks: of leasewrap.
pub(super) const ADVISORY_CLASS: &str = "1279611473";

const SCHEMA: &str = include_str!("schema.sql");

/// Sets up at most once at a time. Others pass whoever waits for a lock for
/// long.
pub(super) const BEGIN: &str = "
select set_config('lock_timeout', '200ms', true),
    set_config('statement_timeout', :statement_timeout, true),
    set_config('client_min_messages', 'warning', true);
select pg_advisory_xact_lock(:advisory_class, 0)::text;
";

/// Somebody else may have been faster since we looked: then what he has made
/// must stay.
const MUST_BE_MISSING: &str = "
do $leasewrap$
begin
    if to_regclass(:lease_text) is not null then
        raise exception 'somebody else has set it up' using errcode = 'duplicate_table';
    end if;
end
$leasewrap$;
";

/// The table that everything is about.
const LEASE: &str = "table \"lease\"";

/// What is there. One row. `other` is the first thing that has a name which
/// the set-up needs: ours, or somebody's who was there before.
const LOOK: &str = "
select to_regclass(:lease_text) is not null as lease,
    to_regclass(:version_text) is not null as version,
    (select what.name from (values
        ('table \"lease\"', to_regclass(:lease_text)::oid),
        ('table \"event\"', to_regclass(:schema_ident || '.event')::oid),
        ('table \"lease_pause\"', to_regclass(:schema_ident || '.lease_pause')::oid),
        ('table \"lease_incarnation\"', to_regclass(:schema_ident || '.lease_incarnation')::oid),
        ('function \"incarnation\"', to_regprocedure(:schema_ident || '.incarnation()')::oid),
        ('function \"lease_changed\"', to_regprocedure(:schema_ident || '.lease_changed()')::oid),
        ('function \"lease_kept\"', to_regprocedure(:schema_ident || '.lease_kept()')::oid),
        ('function \"lockers\"',
            to_regprocedure(:schema_ident || '.lockers(text, integer)')::oid),
        ('function \"end_lockers\"',
            to_regprocedure(:schema_ident || '.end_lockers(text, integer)')::oid),
        ('function \"forget_selftest\"',
            to_regprocedure(:schema_ident || '.forget_selftest(text)')::oid),
        ('function \"fence\"',
            to_regprocedure(:schema_ident || '.fence(text, bigint, interval)')::oid),
        ('function \"fence_table\"', to_regprocedure(:schema_ident || '.fence_table()')::oid)
    ) what (name, id) where what.id is not null limit 1) as other;
";

const VERSION_THERE: &str = "
select v.version, v.compatible_from from :schema.lease_schema v;
";

/// Removes the tables of a set-up of which only a part is left.
const DROP_TABLES: &str = "
drop table if exists :schema.lease, :schema.lease_incarnation, :schema.lease_pause,
    :schema.event, :schema.lease_schema;
";

/// Removes what else the set-up makes and nothing else; the schema itself
/// where the set-up has made it and nothing else is in it. Triggers of
/// protected tables go with their function.
const DROP_REST: &str = "
drop function if exists :schema.fence_table() cascade;
drop function if exists :schema.fence(text, bigint, interval),
    :schema.end_lockers(text, integer), :schema.lockers(text, integer),
    :schema.forget_selftest(text), :schema.lease_kept(), :schema.lease_changed(),
    :schema.incarnation();
do $leasewrap$
begin
    if obj_description(to_regnamespace(:schema_ident)::oid, 'pg_namespace')
        = 'made by leasewrap' then
        drop schema :schema;
    end if;
exception when dependent_objects_still_exist or insufficient_privilege then
    null;
end
$leasewrap$;
";

/// The key of a lease for advisory locks (FNV-1a, 32 bits). Two leases with
/// the same one wait for each other's acquisitions, no more.
pub(super) fn advisory_key(schema: &str, name: &str) -> String {
    let bytes = schema.bytes().chain([0]).chain(name.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.cast_signed().to_string()
}

/// The SQL that sets the schema up.
pub(super) fn creation(schema: &str) -> String {
    sql::fill(
        SCHEMA,
        &names(schema)
            .each_ref()
            .map(|(place, value)| (*place, value.as_str())),
    )
}

/// The schema is made for later leasewraps only.
pub(super) fn too_new(schema: &str) -> Unknown {
    Unknown {
        fault: Fault::Final,
        message: format!(
            "the schema {schema:?} was upgraded by a newer leasewrap that older ones cannot \
             work with; use that version"
        ),
    }
}

/// What `init` would make is not there.
pub(super) fn no_schema(schema: &str) -> Unknown {
    Unknown {
        fault: Fault::Final,
        message: format!("the schema {schema:?} is not there; run `leasewrap init`"),
    }
}

/// What the schema and the things in it are called.
pub(super) fn names(schema: &str) -> [(&'static str, String); 6] {
    let quoted = sql::identifier(schema);
    [
        ("schema_text", sql::text(schema)),
        ("schema_ident", sql::text(&quoted)),
        ("lease_text", sql::text(&format!("{quoted}.lease"))),
        ("version_text", sql::text(&format!("{quoted}.lease_schema"))),
        ("fence_text", sql::text(&format!("{quoted}.fence_table"))),
        ("schema", quoted),
    ]
}

/// What stands where the schema should be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum There {
    Nothing,
    /// Somebody has dropped a part.
    Part,
    /// This, which is not ours.
    Foreign(String),
    Ours,
}

/// What a call that found something missing has met.
pub(super) enum Missing {
    /// The schema as a whole, which `init` can make.
    Schema,
    /// Nothing any more: somebody may have made it in between.
    Nothing,
    /// That cannot be told, or is nothing that `init` could make.
    Unknown(Unknown),
}

/// Which version of the schema is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// It lacks something that we need.
    Older,
    /// Ours, or a later one that we can work with.
    Known,
}

impl PgStore {
    pub(super) async fn init_call(&mut self, limit: Duration) -> Result<(), Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        loop {
            match self.init_once(deadline).await {
                Ok(()) => return Ok(()),
                Err(failure) => before_next(failure, deadline)
                    .await
                    .map_err(|failure| self.not_set_up(failure))?,
            }
        }
    }

    async fn init_once(&mut self, deadline: Deadline) -> Result<(), Failure> {
        let clear = match self.there(deadline).await? {
            There::Foreign(what) => return Err(Failure::Unanswered(self.foreign(&what))),
            There::Ours => return self.version(deadline).await.map(drop),
            There::Nothing => "",
            There::Part => DROP_TABLES,
        };
        let parts = [BEGIN, MUST_BE_MISSING, clear, SCHEMA];
        let build = |store: &Self, left| store.message(&parts, &[], left);
        self.call(deadline, build).await.reply.map(drop)
    }

    /// Which version of our own is there.
    async fn version(&mut self, deadline: Deadline) -> Result<Version, Failure> {
        let build = |store: &Self, left| store.message(&[VERSION_THERE], &[], left);
        let rows = self.call(deadline, build).await.reply?;
        let cells = row::first(&rows).map_err(|_there_is_none| self.foreign(LEASE))?;
        if cells.there("compatible_from")? > VERSION {
            return Err(too_new(self.link.settings().schema()).into());
        }
        if cells.there("version")? < VERSION {
            return Ok(Version::Older);
        }
        Ok(Version::Known)
    }

    async fn there(&mut self, deadline: Deadline) -> Result<There, Failure> {
        match self.look_once(deadline).await? {
            // Or somebody has set it up while we looked at one name after the
            // other: then a second look sees all of it.
            There::Foreign(_) => self.look_once(deadline).await,
            there => Ok(there),
        }
    }

    async fn look_once(&mut self, deadline: Deadline) -> Result<There, Failure> {
        let build = |store: &Self, left| store.message(&[LOOK], &[], left);
        let rows = self.call(deadline, build).await.reply?;
        let cells = row::first(&rows)?;
        Ok(match (cells.flag("version")?, cells.text("other")?) {
            (true, _) if cells.flag("lease")? => There::Ours,
            (true, _) => There::Part,
            (false, Some(what)) => There::Foreign(what),
            (false, None) => There::Nothing,
        })
    }

    fn foreign(&self, what: &str) -> Unknown {
        let schema = self.link.settings().schema();
        Unknown {
            fault: Fault::Final,
            message: format!(
                "the schema {schema:?} holds a {what} that is not leasewrap's, or is left over \
                 from it; name another schema with --schema, or drop what is there"
            ),
        }
    }

    /// A call found something missing: what of the schema is there now.
    pub(super) async fn missing(&mut self, deadline: Deadline) -> Missing {
        match self.there(deadline).await {
            Ok(There::Nothing | There::Part) => Missing::Schema,
            Ok(There::Foreign(what)) => Missing::Unknown(self.foreign(&what)),
            Ok(There::Ours) => match self.version(deadline).await {
                Ok(Version::Known) => Missing::Nothing,
                Ok(Version::Older) => Missing::Schema,
                Err(failure) => Missing::Unknown(self.given_up(failure)),
            },
            Err(failure) => Missing::Unknown(self.given_up(failure)),
        }
    }

    /// Something stays missing although the schema is there.
    pub(super) fn damaged(&self, said: &str) -> Unknown {
        let schema = self.link.settings().schema();
        Unknown {
            fault: Fault::Final,
            message: format!("the schema {schema:?} is damaged: {said}"),
        }
    }

    fn not_set_up(&mut self, failure: Failure) -> Unknown {
        match failure {
            Failure::Refused(refused) if refused.code == RIGHT_MISSING => Unknown {
                fault: Fault::Final,
                message: format!(
                    "the schema {:?} is missing and this role may not create it ({}); have a DBA \
                     run what `leasewrap init --print` gives",
                    self.link.settings().schema(),
                    refused.message,
                ),
            },
            failure => self.given_up(failure),
        }
    }

    pub(super) async fn drop_call(&mut self, limit: Duration) -> Result<bool, Unknown> {
        let deadline = Deadline::new(self.clock, limit);
        loop {
            match self.drop_once(deadline).await {
                Ok(dropped) => return Ok(dropped),
                Err(failure) => {
                    let repeat = before_next(failure, deadline).await;
                    self.read(repeat)?;
                }
            }
        }
    }

    async fn drop_once(&mut self, deadline: Deadline) -> Result<bool, Failure> {
        match self.there(deadline).await? {
            There::Nothing => return Ok(false),
            There::Foreign(what) => return Err(Failure::Unanswered(self.foreign(&what))),
            There::Part | There::Ours => {}
        }
        let parts = [BEGIN, DROP_TABLES, DROP_REST];
        let build = |store: &Self, left| store.message(&parts, &[], left);
        self.call(deadline, build).await.reply.map(|_| true)
    }
}

/// Waits for a moment before a change of the schema is tried again, where
/// somebody else was in the way; gives the failure back where it is final.
pub(super) async fn before_next(failure: Failure, deadline: Deadline) -> Result<(), Failure> {
    let pause = Duration::from_millis(rand::random_range(25..=100));
    if !can_be_repeated(&failure) || pause >= deadline.left() {
        return Err(failure);
    }
    sleep(pause).await;
    Ok(())
}

fn can_be_repeated(failure: &Failure) -> bool {
    let Failure::Refused(Refused { code, .. }) = failure else {
        return false;
    };
    // A lock; a deadlock; a duplicate schema, table, function or object, or a
    // key of the catalog's (somebody else was faster); "tuple concurrently
    // updated", which Postgres gives no code of its own.
    let passing = [
        "55P03", "40P01", "42P06", "42P07", "42723", "42710", "23505", "XX000",
    ];
    passing.contains(&code.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_the_schema_is_filled() {
        let sql = creation("a \"b\" :schema");
        let left = [":schema.", ":schema_text", ":lease_text", ":schema;"];
        assert!(
            left.iter()
                .all(|place| !sql.replace("\"a \"\"b\"\" :schema\"", "").contains(place)),
            "{sql}"
        );
    }
}
