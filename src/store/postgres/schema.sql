-- The schema of leasewrap, version 1. Run as the role that shall own it.
-- A role that runs leasewrap needs USAGE on the schema, SELECT, INSERT and
-- UPDATE on its tables and DELETE on `event`. A worker's role needs USAGE on
-- the schema, for the function `fence`.

do $leasewrap$
begin
    -- Not `if not exists`: that asks for the right to create even where there
    -- is nothing to create.
    if to_regnamespace(quote_ident(:schema_text)) is null then
        create schema :schema;
        -- `init --drop` removes it only then.
        comment on schema :schema is 'made by leasewrap';
    end if;
end
$leasewrap$;

-- What is here, and which leasewraps understand it. It is read at the set-up,
-- and where something is missing: so a version that earlier leasewraps cannot
-- work with renames something that they need.
create table :schema.lease_schema (
    one boolean primary key default true check (one),
    version integer not null,
    -- The oldest version whose leasewraps can work with this.
    compatible_from integer not null
);

-- One row per slot of a lease that was ever held. Names compare by bytes, so
-- that another server's collation cannot hide a row. A renewal changes the
-- last three columns: what stands before them is not logged again.
create table :schema.lease (
    name text collate "C" not null,
    slot integer not null check (slot >= 0),
    holder uuid,
    label text not null default '',
    value text not null default '',
    token bigint not null,
    closed_token bigint,
    ttl interval not null,
    takeover_delay interval not null default '0',
    hold_at_least interval not null default '0',
    acquired_at timestamptz not null default clock_timestamp(),
    changes bigint not null default 1,
    released_at timestamptz,
    -- What an operator asks of the holder of `request_token`.
    request_token bigint,
    request_kind text,
    request_to text,
    requested_at timestamptz,
    -- For whom a step-down keeps the released row.
    reserved_for text,
    reserved_until timestamptz,
    -- Of the server, when it was last acquired or renewed.
    incarnation text collate "C" not null default '',
    -- One more at every acquisition, renewal and release.
    revision bigint not null default 1,
    renewed_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    primary key (name, slot),
    -- This uniqueness is what fences: FOR KEY SHARE passes beside a change
    -- that leaves the columns of a unique key alone, and stops one of `token`.
    unique (name, token)
) with (fillfactor = 50);

-- Which servers this schema has lived on, and since when.
create table :schema.lease_incarnation (
    incarnation text collate "C" primary key,
    since timestamptz not null default clock_timestamp()
);

-- Leases that nobody may take for now.
create table :schema.lease_pause (
    name text collate "C" primary key,
    paused boolean not null,
    reason text not null default '',
    role text not null default current_user,
    since timestamptz not null default clock_timestamp()
);

-- The history, kept for 30 days.
create table :schema.event (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    name text collate "C" not null,
    slot integer not null,
    token bigint not null,
    label text not null,
    what text not null,
    why text not null default '',
    -- The same instant, by the name that queries of people may rest on.
    time timestamptz not null generated always as (at) stored
);
create index event_name_at on :schema.event (name, at);

-- Which database this is, as far as lost commits go, where the plain way to
-- ask is not open to the caller: the system's identifier and the timeline,
-- and else the postmaster's start. pg_control_checkpoint() would still show
-- the old timeline for minutes after a promotion.
create or replace function :schema.incarnation() returns text
language plpgsql volatile as $leasewrap$
begin
    if pg_is_in_recovery() then
        return 'in recovery';
    end if;
    return (pg_control_system()).system_identifier || '/'
        || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
exception when insufficient_privilege or feature_not_supported or undefined_function then
    return 'started ' || extract(epoch from pg_postmaster_start_time());
end
$leasewrap$;

-- Tells listeners, and the history, of every change of holder, token, closed
-- token or release and of every request, whoever makes it. A leasewrap that
-- takes or gives back tells it in the same statement itself (`leasewrap.told`):
-- a fresh session saves the loading of PL/pgSQL.
create or replace function :schema.lease_changed() returns trigger
language plpgsql as $leasewrap$
declare
    what text;
    why text := coalesce(current_setting('leasewrap.why', true), '');
begin
    if coalesce(current_setting('leasewrap.quiet', true), '') <> 'on' then
        perform pg_notify('leasewrap_' || md5(:schema_text || ' ' || new.name), new.slot::text);
    end if;
    if tg_op = 'INSERT' then
        what := 'acquired';
    elsif new.token <> old.token or new.holder is distinct from old.holder then
        what := 'acquired';
        if old.released_at is null then
            why := concat_ws('; ', nullif(why, ''), format('%L had not given it back', old.label));
        end if;
    elsif new.released_at is not null and old.released_at is null then
        what := 'released';
    elsif new.closed_token is distinct from old.closed_token then
        what := 'closed';
    elsif new.requested_at is distinct from old.requested_at then
        what := 'step-down';
        why := concat_ws('; ', nullif(why, ''), 'to ' || quote_literal(new.request_to));
    else
        return null;
    end if;
    begin
        insert into :schema.event (name, slot, token, label, what, why)
        values (new.name, new.slot, new.token, new.label, what, why);
        if what = 'acquired' then
            delete from :schema.event e where e.id in (
                select o.id from (select id, at from :schema.event order by id limit 1000) o
                where o.at < clock_timestamp() - interval '30 days');
        end if;
    exception when others then
        -- The history never stands in the way of a lease.
        null;
    end;
    return null;
end
$leasewrap$;

create trigger lease_inserted after insert on :schema.lease
for each row when (coalesce(current_setting('leasewrap.told', true), '') <> 'on')
execute function :schema.lease_changed();

create trigger lease_changed after update on :schema.lease
for each row when (
    (new.holder is distinct from old.holder
        or new.token is distinct from old.token
        or new.closed_token is distinct from old.closed_token
        or new.released_at is distinct from old.released_at
        or new.request_token is distinct from old.request_token
        or new.requested_at is distinct from old.requested_at)
    and coalesce(current_setting('leasewrap.told', true), '') <> 'on'
) execute function :schema.lease_changed();

-- Rows hold the tokens that must never be handed out again. Only those of the
-- self-test, whose names nobody uses twice, may go.
create or replace function :schema.lease_kept() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $leasewrap$
begin
    if tg_op = 'DELETE' then
        if not exists (select from gone g where not starts_with(g.name, 'leasewrap-selftest-')) then
            return null;
        end if;
    end if;
    raise exception 'rows of % are never deleted: they hold the tokens handed out so far',
        tg_relid::regclass
        using errcode = 'LW002', hint = '`leasewrap init --drop` removes everything properly.';
end
$leasewrap$;

create trigger lease_kept after delete on :schema.lease
referencing old table as gone
for each statement execute function :schema.lease_kept();

create trigger lease_not_emptied before truncate on :schema.lease
for each statement execute function :schema.lease_kept();

-- Removes a lease of `leasewrap selftest`, its rows and its history, and no
-- other one. A role that runs leasewrap may not delete rows itself.
create or replace function :schema.forget_selftest(lease_name text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $leasewrap$
begin
    if starts_with(lease_name, 'leasewrap-selftest-') then
        delete from :schema.lease l where l.name = lease_name;
        delete from :schema.event e where e.name = lease_name;
    end if;
end
$leasewrap$;

-- Which sessions hold the row of a slot by a lock. `who` is for people.
create or replace function :schema.lockers(lease_name text, lease_slot integer)
returns table (pid integer, who text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $leasewrap$
declare
    locker xid;
    members xid[];
    holders integer[];
begin
    select l.xmax into locker from :schema.lease l
    where l.name = lease_name and l.slot = lease_slot;
    -- Several lockers share the row by a multixact, which looks like a
    -- transaction's number: it is one when some of its members are alive.
    begin
        select array_agg(m.xid) into members from pg_get_multixact_members(locker) m;
    exception when others then
        members := null;
    end;
    select array_agg(t.pid) filter (where t.transactionid = any (members)) into holders
    from pg_locks t where t.locktype = 'transactionid' and t.granted;
    if holders is null then
        select array_agg(t.pid) into holders from pg_locks t
        where t.locktype = 'transactionid' and t.granted and t.transactionid = locker;
    end if;
    return query
    select a.pid, format('session %s of role %s%s%s%s', a.pid, a.usename,
        ' (' || nullif(a.application_name, '') || ')',
        coalesce(' from ' || host(a.client_addr), ''),
        ', in a transaction since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS TZ'))
    from pg_stat_activity a
    where a.pid = any (holders) and a.pid <> pg_backend_pid()
        -- Who holds a row of a table also holds a lock on the table.
        and exists (select from pg_locks r where r.pid = a.pid and r.locktype = 'relation'
            and r.relation = to_regclass(:lease_text)
            and r.database = (select d.oid from pg_database d where d.datname = current_database()));
end
$leasewrap$;

-- Ends those sessions, where the caller may. `who` also says what became of them.
create or replace function :schema.end_lockers(lease_name text, lease_slot integer)
returns table (who text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $leasewrap$
declare
    found record;
begin
    for found in select * from :schema.lockers(lease_name, lease_slot) loop
        begin
            perform pg_terminate_backend(found.pid);
            who := found.who || ' (ended)';
        exception when insufficient_privilege then
            who := found.who || ' (which we may not end)';
        end;
        return next;
    end loop;
end
$leasewrap$;

-- Refuses the transaction unless the token is the lease's current one, and
-- keeps it so until the transaction has ended: a take-over waits. Call it
-- outside savepoints, late in short transactions. `hold`: how long the
-- transaction may be idle at most before it is aborted (default: the ttl); it
-- stays, also where a protected table asks again.
create or replace function :schema.fence(lease text, token bigint, hold interval default null)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $leasewrap$
declare
    ttl interval;
    idle_ms bigint;
    own_ms bigint;
    -- What was done before in this transaction: milliseconds, and `held` where
    -- the caller has named them.
    fenced text := coalesce(current_setting('leasewrap.fenced', true), '');
begin
    select l.ttl into ttl from :schema.lease l
    where l.name = fence.lease and l.token = fence.token and l.released_at is null
        and (l.closed_token is null or l.closed_token < l.token)
    for key share;
    if not found then
        raise exception 'the token % of lease % is not (or no longer) current', token, lease
            using errcode = 'LW001',
            detail = coalesce((select string_agg(format('slot %s: token %s, %s', l.slot, l.token,
                    case when l.released_at is not null then 'given back'
                        when l.closed_token >= l.token then 'closed'
                        else format('held by %L', l.label) end), '; ' order by l.slot)
                from :schema.lease l where l.name = fence.lease), 'There is no such lease.'),
            hint = 'Another holder may be at work already: end.';
    end if;
    -- The lock must not outlive a lost client. Once per transaction.
    idle_ms := least(greatest(extract(epoch from coalesce(hold, ttl)) * 1000, 1), 2147483647);
    if hold is null and fenced in (idle_ms::text, split_part(fenced, ' ', 1) || ' held') then
        return;
    end if;
    perform set_config('leasewrap.fenced',
            idle_ms || case when hold is null then '' else ' held' end, true),
        set_config('tcp_user_timeout', idle_ms || 'ms', true),
        set_config('tcp_keepalives_idle', greatest(idle_ms / 2000, 1)::text, true),
        set_config('tcp_keepalives_interval', greatest(idle_ms / 8000, 1)::text, true),
        set_config('tcp_keepalives_count', '4', true);
    -- A shorter one of the worker's own stays; `hold` replaces ours.
    own_ms := extract(epoch from
        current_setting('idle_in_transaction_session_timeout')::interval) * 1000;
    if own_ms = 0 or own_ms > idle_ms
            or hold is not null and own_ms::text = split_part(fenced, ' ', 1) then
        perform set_config('idle_in_transaction_session_timeout', idle_ms || 'ms', true);
    end if;
    -- PostgreSQL 14 and later.
    if current_setting('client_connection_check_interval', true) is not null then
        perform set_config('client_connection_check_interval',
            greatest(idle_ms / 4, 100) || 'ms', true);
    end if;
end
$leasewrap$;

-- The trigger of protected tables: its first argument is the lease, the
-- others are roles that need no token.
create or replace function :schema.fence_table() returns trigger
language plpgsql volatile set search_path = pg_catalog, pg_temp as $leasewrap$
declare
    lease text := coalesce(current_setting('leasewrap.name', true), '');
    token text := coalesce(current_setting('leasewrap.token', true), '');
begin
    if lease = '' and token = '' and current_user = any (tg_argv[1 : array_upper(tg_argv, 1)]) then
        return null;
    end if;
    if lease <> tg_argv[0] or token = '' then
        raise exception '% may be written only under the lease %', tg_relid::regclass, tg_argv[0]
            using errcode = 'LW001',
            detail = case when token = '' then 'The session has no leasewrap.token.'
                else format('The session has a token of the lease %s.', lease) end,
            hint = 'Run the program under `leasewrap --pgoptions`, or set leasewrap.name and '
                'leasewrap.token in the session.';
    end if;
    perform :schema.fence(lease, token::bigint);
    return null;
end
$leasewrap$;

grant execute on function :schema.incarnation(), :schema.lockers(text, integer),
    :schema.end_lockers(text, integer), :schema.fence(text, bigint, interval),
    :schema.forget_selftest(text) to public;

insert into :schema.lease_schema (version, compatible_from) values (1, 1);
insert into :schema.lease_incarnation (incarnation) values (:schema.incarnation());
