//! SQL as it is sent: constants with named places, filled with literals.
//!
//! Every call is one message of the simple protocol, so that it works behind
//! PgBouncer in transaction pooling (which knows no prepared statements and
//! may run the two batches of the extended protocol on different servers).
//! Several statements in one message are one transaction.

use std::time::Duration;

pub(super) use crate::store::message::{Values, fill, fill_by};

/// The place of a value, and the value.
pub(super) type Owned = Vec<(&'static str, String)>;

/// The same, for [`fill`].
pub(super) fn borrowed(values: &Owned) -> Vec<(&str, &str)> {
    values
        .iter()
        .map(|(place, value)| (*place, value.as_str()))
        .collect()
}

/// A value as a literal. The `E''` form means the same whatever
/// `standard_conforming_strings` says; our types hold no NUL.
pub(super) fn text(value: &str) -> String {
    let mut literal = String::with_capacity(value.len() + 3);
    literal.push_str("E'");
    for c in value.chars() {
        if matches!(c, '\'' | '\\') {
            literal.push(c);
        }
        literal.push(c);
    }
    literal.push('\'');
    literal
}

/// A name as a quoted identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A duration as an interval, to the microsecond. Before PostgreSQL 15 the
/// number before a unit has 32 bits (`DecodeInterval` in datetime.c): so it is
/// seconds, and 68 years at the most.
pub(super) fn interval(duration: Duration) -> String {
    let duration = duration.min(Duration::from_secs(i32::MAX.unsigned_abs().into()));
    let (seconds, micros) = (duration.as_secs(), duration.subsec_micros());
    format!("interval '{seconds}.{micros:06} seconds'")
}

/// A duration as a time-out setting: whole milliseconds, and never 0, which
/// would mean none.
pub(super) fn timeout(duration: Duration) -> String {
    let millis = duration.as_millis().clamp(1, 2_147_483_647);
    format!("'{millis}ms'")
}

/// Begins every message that writes. `READ COMMITTED`, so that a statement
/// that comes after a lock sees what its holder has done, whatever the
/// default. The limits bind from the next statement on. Commits are durable
/// whatever the default; a stronger one (`remote_apply`) stays.
pub(super) const LIMITS: &str = "
set transaction isolation level read committed;
select set_config('statement_timeout', :statement_timeout, true),
    set_config('lock_timeout', :lock_timeout, true),
    set_config('synchronous_commit', case current_setting('synchronous_commit')
        when 'remote_apply' then 'remote_apply' else 'on' end, true),
    set_config('leasewrap.why', :why, true),
    set_config('leasewrap.quiet', :quiet, true),
    set_config('leasewrap.told', :told, true);
";

/// One acquisition of a lease at a time, whatever the slot: tokens of all
/// slots come from one row of numbers. Waits for acquisitions that still run.
pub(super) const ONE_AT_A_TIME: &str = "
select pg_advisory_xact_lock(:advisory_class, :advisory_key)::text;
";

/// Limits of their own for the statements that wait for the row. `lock_timeout`
/// counts each of its lockers anew; this `statement_timeout` does not.
pub(super) const ROW_LIMITS: &str = "
select set_config('lock_timeout', :row_lock_timeout, true),
    set_config('statement_timeout', :row_timeout, true);
";

/// Begins what only a standby sends: by it `status` tells who stands by. (The
/// statement that counts them holds it too, so it counts at the beginning only.)
pub(super) const POLL: &str = "/* leasewrap poll */";

/// Reads all of a lease. Always at least one row; without `slot` the lease
/// has no row. Compares nothing.
///
/// A start waits for it in a session that knows nothing yet: every table and
/// every function that it names costs there. So differences are made of
/// intervals and written as they are; all else is done where they are read.
pub(super) const OBSERVE: &str = "
select :identity as incarnation, extract(epoch from at.now - timestamptz 'epoch') as now,
    :session_mark, p.paused, p.reason as pause_reason,
    :row_columns
from (select clock_timestamp() as now offset 0) at
left join :schema.lease_pause p on p.name = :name
left join :schema.lease l on l.name = :name
order by l.slot
";

/// The columns of a row `l` at the database's time `at.now`.
pub(super) const ROW_COLUMNS: &str = "
    l.slot,
    l.holder,
    l.label,
    l.value,
    l.token,
    l.closed_token,
    l.revision,
    extract(epoch from l.ttl) as ttl,
    extract(epoch from l.takeover_delay) as takeover_delay,
    extract(epoch from l.hold_at_least) as hold_at_least,
    l.released_at is not null as released,
    extract(epoch from l.expires_at - at.now) as expires_in,
    extract(epoch from at.now - l.acquired_at) as held_for,
    l.reserved_for,
    extract(epoch from l.reserved_until - at.now) as reserved_in,
    l.incarnation as row_incarnation,
    l.request_token,
    l.request_kind,
    l.request_to
";

/// How long the schema has known an incarnation. No row: it does not yet.
pub(super) const KNOWN: &str = "
select extract(epoch from clock_timestamp() - k.since) as known
from :schema.lease_incarnation k where k.incarnation = :incarnation
";

/// Notes that the schema has met this incarnation. Zero rows: it had already.
pub(super) const NOTE_INCARNATION: &str = "
insert into :schema.lease_incarnation (incarnation) values (:identity)
on conflict (incarnation) do nothing;
";

/// Locks the row to take before it is compared: what stands in it cannot
/// change any more then. Fails with 55P03 where somebody else holds it. Rows
/// of other slots need no lock: one acquisition runs at a time.
pub(super) const LOCK_ROW: &str = "
select l.slot from :schema.lease l where l.name = :name and l.slot = :slot
for update :nowait;
";

/// Takes a row that is as it was watched: compares token, revision and
/// incarnation of the row, incarnation of the server, the rows above our
/// slots, the pause, and an instant of the database's own clock after which
/// the acquisition counts as given up. Always one row; without a token in
/// it, nothing was written.
pub(super) const ACQUIRE: &str = "
with at as materialized (
    select clock_timestamp() as now, :identity as incarnation
),
seen as materialized (
    select at.now, at.incarnation,
        coalesce((select p.paused from :schema.lease_pause p where p.name = :name), false)
            as paused,
        at.incarnation = :server_incarnation
            and not pg_is_in_recovery()
            and at.now < :not_after
            and coalesce(rows.above, 0) = :above_count and coalesce(rows.same, true)
            as as_watched,
        greatest(coalesce(rows.top, 0) + 1, :floor) + :jump as token
    from at cross join (
        select max(a.token) as top,
            sum(case when a.slot >= :slots and a.slot <> :slot then 1 else 0 end) as above,
            bool_and(case when a.slot >= :slots and a.slot <> :slot then :above_same else true end)
                as same
        from :schema.lease a where a.name = :name) rows
),
taken as (:take):note
select taken.token, taken.revision, taken.incarnation, seen.paused
from seen left join taken on true;
";

/// [`ACQUIRE`] where there is a row. The closed token stays: it is lower than
/// the new one.
pub(super) const TAKE_ROW: &str = "
    update :schema.lease l
    set holder = :holder, label = :label, value = :value, token = seen.token,
        ttl = :ttl, takeover_delay = :takeover_delay, hold_at_least = :hold_at_least,
        acquired_at = seen.now, changes = l.changes + 1, released_at = null,
        request_token = null, request_kind = null, request_to = null, requested_at = null,
        reserved_for = null, reserved_until = null,
        incarnation = seen.incarnation, revision = l.revision + 1,
        renewed_at = seen.now, expires_at = seen.now + :ttl
    from seen
    where seen.as_watched and not seen.paused
        and l.name = :name and l.slot = :slot
        and l.token = :token and l.revision = :revision
        and l.incarnation = :row_incarnation
        and (:from_unreleased or l.released_at is not null)
    returning l.token, l.revision, l.incarnation:tell";

/// [`ACQUIRE`] where there is none.
pub(super) const TAKE_NEW: &str = "
    insert into :schema.lease (name, slot, holder, label, value, token, ttl, takeover_delay,
        hold_at_least, acquired_at, changes, incarnation, revision, renewed_at, expires_at)
    select :name, :slot, :holder, :label, :value, seen.token, :ttl, :takeover_delay,
        :hold_at_least, seen.now, 1, seen.incarnation, 1, seen.now, seen.now + :ttl
    from seen
    where seen.as_watched and not seen.paused
    on conflict (name, slot) do nothing
    returning token, revision, incarnation:tell";

/// Tells listeners, as a column of what a change returns.
pub(super) const TELL: &str =
    ", pg_notify('leasewrap_' || md5(:schema_text || ' ' || :name), :slot::text)::text as told";

/// The same for a release. Whoever has seen the row need not look again: it
/// may try to take what it would see. Not where the row is kept for somebody.
pub(super) const TELL_GIVEN: &str =
    ", pg_notify('leasewrap_' || md5(:schema_text || ' ' || :name), :slot::text || case
        when l.reserved_for is null then ' ' || l.token || ' ' || l.revision else '' end)::text
        as told";

/// Tells the history of an acquisition.
pub(super) const NOTE_TAKEN: &str = ",
noted as (
    insert into :schema.event (name, slot, token, label, what, why)
    select :name, :slot, taken.token, :label, 'acquired', :why from taken
)";

/// Tells the history of a release.
pub(super) const NOTE_GIVEN: &str = ",
noted as (
    insert into :schema.event (name, slot, token, label, what, why)
    select :name, :slot, given.token, given.label, 'released', :why from given
)";

/// Closes the token of a row that is still as it was watched, so that no new
/// transaction passes the fence: no change of a key, so it passes beside
/// those that have. Then, and only then, ends the sessions that hold the row,
/// where we may.
/// The first statement has no row where nothing was closed.
pub(super) const CLOSE_WATCHED: &str = "
update :schema.lease l set closed_token = l.token
where l.name = :name and l.slot = :slot
    and l.token = :token and l.revision = :revision and l.released_at is null
    and :identity = :server_incarnation
returning l.token;
select e.who from :schema.lease l cross join lateral :schema.end_lockers(l.name, l.slot) e
where l.name = :name and l.slot = :slot
    and l.token = :token and l.revision = :revision and l.closed_token = l.token;
";

/// Which sessions hold the row, for people.
pub(super) const LOCKERS: &str = "select who from :schema.lockers(:name, :slot)";

/// `:same_row` of a term: the row has its token.
pub(super) const OF_TERM: &str = "l.token = :token";

/// `:same_row` of an acquisition without an answer: any token, but only where
/// it was to be.
pub(super) const OF_ATTEMPT: &str = "at.incarnation = :server_incarnation";

/// Renews: compares holder, token, not closed, not released. Always one row;
/// without `revision` nothing was renewed, and the `seen_` columns say why
/// (as of the statement's start).
pub(super) const RENEW: &str = "
with at as materialized (
    select clock_timestamp() as now, :identity as incarnation,
        set_config('lock_timeout', :lock_timeout, true),
        set_config('synchronous_commit', case current_setting('synchronous_commit')
            when 'remote_apply' then 'remote_apply' else 'on' end, true)
),
renewed as (
    update :schema.lease l
    set revision = l.revision + 1, renewed_at = at.now, expires_at = at.now + :ttl,
        ttl = :ttl, incarnation = at.incarnation
    from at
    where l.name = :name and l.slot = :slot and l.holder = :holder and :same_row
        and l.released_at is null and (l.closed_token is null or l.closed_token < l.token)
    returning l.token, l.revision, l.incarnation,
        l.request_token, l.request_kind, l.request_to
)
select renewed.token, renewed.revision, renewed.incarnation,
    renewed.request_token, renewed.request_kind, renewed.request_to,
    :session_mark, :seen_columns
from at left join renewed on true
left join :schema.lease seen on seen.name = :name and seen.slot = :slot
";

/// The incarnation (contract, section 4), asked in the plain way, which costs
/// a fresh session least. Refused to some roles, and on some servers.
pub(super) const IDENTITY: &str = "case when pg_is_in_recovery() then 'in recovery'
    else (pg_control_system()).system_identifier || '/'
        || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) end";

/// The same, for those.
pub(super) const IDENTITY_BY_FUNCTION: &str = ":schema.incarnation()";

/// The mark of the session, if it is ours, and its process.
pub(super) const SESSION_MARK: &str = "coalesce(current_setting('leasewrap.session', true), '')
        as session, pg_backend_pid()::text as process";

/// What tells why a row is not ours.
pub(super) const SEEN_COLUMNS: &str = "
    seen.holder as seen_holder,
    seen.token as seen_token,
    seen.label as seen_label,
    seen.released_at is not null as seen_released,
    coalesce(seen.closed_token >= seen.token, false) as seen_closed
";

/// Reads one's own row. Always one row; without `token` there is none.
pub(super) const CHECK: &str = "
select pg_is_in_recovery() as in_recovery,
    seen.token, seen.revision, seen.incarnation,
    seen.request_token, seen.request_kind, seen.request_to,
    :session_mark, :seen_columns
from (values (1)) one
left join :schema.lease seen on seen.name = :name and seen.slot = :slot
";

/// Gives back: compares holder and token, and that it was not given back
/// before (a repeated release must not stamp an incarnation that its holder
/// never knew). A step-down's wish for the next holder becomes a reservation.
/// Always one row: `given` now, or `before`, or `still` to be given (the
/// statement began before somebody else's change), or none of them.
pub(super) const RELEASE: &str = "
with at as materialized (select clock_timestamp() as now),
given as (
    update :schema.lease l
    set released_at = at.now, expires_at = at.now, revision = l.revision + 1,
        incarnation = :incarnation,
        reserved_for = case when l.request_token = l.token then l.request_to end,
        reserved_until = case when l.request_token = l.token and l.request_to is not null
            then at.now + l.ttl end
    from at
    where l.name = :name and l.slot = :slot and l.holder = :holder and :same_row
        and l.released_at is null
    returning l.token, l.label:tell
):note
select exists (select from given) as given,
    l.released_at is not null as before,
    l.token is not null and l.released_at is null as still
from (values (1)) one
left join :schema.lease l
    on l.name = :name and l.slot = :slot and l.holder = :holder and :same_row;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(text(r"a'b\c"), r"E'a''b\\c'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(timeout(Duration::ZERO), "'1ms'");
        assert_eq!(
            interval(Duration::from_micros(1_000_001)),
            "interval '1.000001 seconds'"
        );
        assert_eq!(
            interval(Duration::MAX),
            "interval '2147483647.000000 seconds'"
        );
    }
}
