//! The statements. Each message is one transaction (`begin immediate`, so
//! that what is compared cannot change before it is written), or one
//! statement that reads.

use std::time::Duration;

use uuid::Uuid;

use super::host::Host;
pub(super) use crate::store::message::{Values, fill};

/// The version that this leasewrap makes and needs.
pub(super) const VERSION: i64 = 1;

const SCHEMA: &str = include_str!("schema.sql");

/// A value as a literal; our types hold no NUL.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A duration as a number of microseconds.
pub(super) fn micros(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    micros.min(i64::MAX.unsigned_abs() / 4).to_string()
}

/// This host's wall clock, the same in all of a statement.
const NOW: &str = "cast(unixepoch('subsec') * 1000000 as integer)";

/// How far the history has come: the number of its last event, which only
/// rises (sqlite.org, "SQLite Autoincrement").
const NEWEST: &str = "coalesce((select seq from sqlite_sequence where name = 'event'), 0)";

/// What the bell says from then on ([`super::bell`]).
const WORDS: &str = ":newest as newest, (select max(token) from lease) as highest";

/// Fills in the fragments, then the values.
pub(super) fn message(sql: &str, values: &Values<'_>) -> String {
    let composed = fill(
        sql,
        &[
            ("row_columns", ROW_COLUMNS),
            ("seen_columns", SEEN_COLUMNS),
            ("words", WORDS),
        ],
    );
    let composed = fill(
        &composed,
        &[("now", NOW), ("same_file", SAME_FILE), ("newest", NEWEST)],
    );
    fill(&composed, values)
}

/// Which file it is, and whose: one row.
pub(super) const IDENTIFY: &str = "
select version, compatible_from, file, machine, boot, page_size, :newest as newest
from lease_schema, pragma_page_size;
";

/// How much `-shm` says there is in `-wal`: one row, and nothing is done. It is
/// refused to who may only read.
pub(super) const LOG: &str = "pragma wal_checkpoint(noop)";

/// A row where somebody else's table is in the way.
pub(super) const FOREIGN: &str = "select name from sqlite_master where type = 'table' and name = 'lease' \
     and not exists (select 1 from sqlite_master where name = 'lease_schema')";

/// The host has booted since, or another one of its containers has come.
/// Nothing where somebody else was first, whom it would take out again.
pub(super) fn known(machines: &str, boot: &str, before: (&str, &str)) -> String {
    let (machines, boot) = (text(machines), text(boot));
    let (machines_before, boot_before) = (text(before.0), text(before.1));
    format!(
        "update lease_schema set machine = {machines}, boot = {boot} \
         where machine = {machines_before} and boot = {boot_before}"
    )
}

/// Makes what is missing, and takes the file for this host. The mode of the
/// journal stays with the file: readers never wait for a writer in this one.
pub(super) fn creation(host: &Host, newest: i64) -> String {
    let schema = fill(
        SCHEMA,
        &[
            ("file", &text(&Uuid::new_v4().to_string())),
            ("machine", &text(&host.machine)),
            ("boot", &text(&host.boot)),
        ],
    );
    let history = history_from(newest);
    format!("pragma journal_mode = wal;\nbegin immediate;\n{schema}\n{history}commit;\n{MERGE}")
}

/// Has a history that is new go on from there.
fn history_from(newest: i64) -> String {
    format!(
        "insert into sqlite_sequence (name, seq) select 'event', {newest} \
         where not exists (select 1 from sqlite_sequence where name = 'event');\n"
    )
}

/// Makes a database that was put in the place of a later one another one, so
/// that all in it is in doubt (contract, section 4). Its history goes on above
/// the later one's: nothing where somebody else was first.
pub(super) fn put_back(newest: i64) -> String {
    let file = text(&Uuid::new_v4().to_string());
    let history = history_from(0);
    format!(
        "begin immediate;\n{history}\
         update lease_schema set file = {file} where {NEWEST} < {newest};\n\
         update sqlite_sequence set seq = {newest} where name = 'event' and seq < {newest};\n\
         commit"
    )
}

/// Puts what was committed into the file itself, waiting for nobody: until
/// then it is beside it, in `-wal`, and gone when somebody removes that.
pub(super) const MERGE: &str = "pragma wal_checkpoint(passive)";

/// Removes the tables. Those that are made next go on above them.
pub(super) const DROP: &str = "
begin immediate;
select :words;
drop table lease;
drop table lease_pause;
drop table event;
drop table lease_schema;
commit;
";

/// The columns of a row `l`.
const ROW_COLUMNS: &str = "
    l.slot,
    l.holder,
    l.label,
    l.value,
    l.token,
    l.closed_token,
    l.revision,
    l.ttl,
    l.takeover_delay,
    l.hold_at_least,
    l.released_at is not null as released,
    l.expires_at - :now as expires_in,
    :now - l.acquired_at as held_for,
    l.reserved_for,
    l.reserved_until - :now as reserved_in,
    case when :same_file then :incarnation else l.incarnation end as row_incarnation,
    l.request_token,
    l.request_kind,
    l.request_to
";

/// A row that was released on this very file is in no doubt, whichever boot
/// it was: nothing of an earlier one lives.
const SAME_FILE: &str =
    "(l.released_at is not null and substr(l.incarnation, 1, length(:file) + 1) = :file || '/')";

/// What tells why a row is not ours.
const SEEN_COLUMNS: &str = "
    seen.holder as seen_holder,
    seen.token as seen_token,
    seen.label as seen_label,
    seen.released_at is not null as seen_released,
    coalesce(seen.closed_token >= seen.token, 0) as seen_closed
";

/// Reads all of a lease. Always at least one row; without `slot` the lease
/// has no row.
pub(super) const OBSERVE: &str = "
select :now as now_us, coalesce(p.paused, 0) as paused, p.reason as pause_reason, :row_columns,
    (select file from lease_schema) as drawn, :newest as newest
from (select 1) one
left join lease_pause p on p.name = :name
left join lease l on l.name = :name
order by l.slot
";

/// Takes a row that is as it was watched, compared as in PostgreSQL. The
/// second last statement tells whether the lease is paused.
pub(super) const TAKE_ROW: &str = "
begin immediate;
update lease as l
set holder = :holder, label = :label, value = :value, token = :new_token,
    ttl = :ttl, takeover_delay = :takeover_delay, hold_at_least = :hold_at_least,
    acquired_at = :now, changes = l.changes + 1, released_at = null,
    request_token = null, request_kind = null, request_to = null, requested_at = null,
    reserved_for = null, reserved_until = null,
    incarnation = :incarnation, revision = l.revision + 1,
    renewed_at = :now, expires_at = :now + :ttl
where :allowed and l.name = :name and l.slot = :slot
    and l.token = :token and l.revision = :revision
    and (:from_unreleased or l.released_at is not null)
    and case when :same_file then :incarnation else l.incarnation end = :row_incarnation;
:taken
commit;
";

/// The same where there is no row.
pub(super) const TAKE_NEW: &str = "
begin immediate;
insert into lease (name, slot, holder, label, value, token, ttl, takeover_delay, hold_at_least,
    acquired_at, changes, incarnation, revision, renewed_at, expires_at)
select :name, :slot, :holder, :label, :value, :new_token, :ttl, :takeover_delay, :hold_at_least,
    :now, 1, :incarnation, 1, :now, :now + :ttl
where :allowed and not exists (select 1 from lease where name = :name and slot = :slot);
:taken
commit;
";

/// What must hold beside the row itself: no pause, the rows above our slots
/// as they were watched, the database still the same, and the acquisition not
/// given up meanwhile.
pub(super) const ALLOWED: &str = "
    not coalesce((select p.paused from lease_pause p where p.name = :name), 0)
    and :now < :not_after
    and exists (select 1 from lease_schema where file = :drawn)
    and (select count(*) = :above_count and coalesce(min(:above_same), 1)
        from lease a where a.name = :name and a.slot >= :slots and a.slot <> :slot)";

/// One more than any token of the lease, or than `floor`, and a jump.
pub(super) const NEW_TOKEN: &str = "
    (max(coalesce((select max(a.token) from lease a where a.name = :name), 0) + 1, :floor)
        + :jump)";

/// The history of an acquisition that took effect (the holder's UUID is
/// fresh), and its answer. The history before says whether it was given back.
pub(super) const TAKEN: &str = "
insert into event (at, name, slot, token, label, what, why)
select :now, l.name, l.slot, l.token, l.label, 'acquired',
    case when e.what = 'acquired'
        then iif(:why = '', '', :why || '; ') || quote(e.label) || ' had not given it back'
        else :why end
from lease l left join (
    select e.what, e.label from event e
    where e.name = :name and e.slot = :slot and e.what in ('acquired', 'released')
    order by e.id desc limit 1) e on true
where l.name = :name and l.slot = :slot and l.holder = :holder;
delete from event where id in (
    select id from event where name = :name and at < :now - 2592000000000 limit 1000);
select coalesce((select p.paused from lease_pause p where p.name = :name), 0) as paused,
    l.token, l.revision, l.incarnation, :words
from (select 1) one left join lease l
on l.name = :name and l.slot = :slot and l.holder = :holder;";

/// Renews: compares holder, token (or any), not closed, not released.
/// Without `revision` nothing was renewed, and the `seen_` columns say why.
/// `told` is what the bell says of it, where it is rung.
pub(super) const RENEW: &str = "
begin immediate;
update lease
set revision = revision + 1, renewed_at = :now, expires_at = :now + :ttl, ttl = :ttl,
    incarnation = :incarnation
where name = :name and slot = :slot and holder = :holder and :same_token
    and released_at is null and (closed_token is null or closed_token < token);
select case when changes() = 1 then seen.revision end as revision,
    seen.token, seen.incarnation,
    seen.request_token, seen.request_kind, seen.request_to, :seen_columns,
    exists (select 1 from lease_schema where file = :drawn) as same_database:told
from (select 1) one left join lease seen on seen.name = :name and seen.slot = :slot;
commit;
";

/// Reads one's own row.
pub(super) const CHECK: &str = "
select seen.revision, seen.token, seen.incarnation,
    seen.request_token, seen.request_kind, seen.request_to, :seen_columns
from (select 1) one left join lease seen on seen.name = :name and seen.slot = :slot
";

/// Gives back, as in PostgreSQL. `given` now, or `before`, or neither.
pub(super) const RELEASE: &str = "
begin immediate;
insert into event (at, name, slot, token, label, what, why)
select :now, name, slot, token, label, 'released', :why from lease
where name = :name and slot = :slot and holder = :holder and :same_token and released_at is null;
update lease
set released_at = :now, expires_at = :now, revision = revision + 1, incarnation = :known,
    reserved_for = case when request_token = token then request_to end,
    reserved_until = case when request_token = token and request_to is not null
        then :now + ttl end
where name = :name and slot = :slot and holder = :holder and :same_token and released_at is null;
select changes() = 1 as given,
    exists (select 1 from lease where name = :name and slot = :slot and holder = :holder
        and :same_token and released_at is not null) as before,
    :words;
commit;
";

/// What a watcher compares: everything but renewals.
pub(super) const WATCHED: &str = "
select coalesce((select p.paused from lease_pause p where p.name = :name), 0) || ' ' ||
    coalesce((select group_concat(l.slot || ' ' || coalesce(l.holder, '') || ' ' || l.token
        || ' ' || coalesce(l.closed_token, '') || ' ' || coalesce(l.released_at, '')
        || ' ' || coalesce(l.request_token, '') || ' ' || coalesce(l.requested_at, ''), ',')
    from lease l where l.name = :name), '') as watched
";
