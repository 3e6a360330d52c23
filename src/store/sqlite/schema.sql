-- The tables of leasewrap in a SQLite file, version 1: the same columns as in
-- PostgreSQL. Instants are microseconds since the Unix epoch on this host's
-- wall clock, durations microseconds.

create table if not exists lease_schema (
    one integer primary key check (one = 1),
    version integer not null,
    compatible_from integer not null,
    -- Which file this is: drawn at random when it was made.
    file text not null,
    -- On which host it was used last (each of its containers may have a
    -- machine's id of its own), and since which boot.
    machine text not null,
    boot text not null
) strict;

create table if not exists lease (
    name text not null,
    slot integer not null check (slot >= 0),
    holder text,
    label text not null default '',
    value text not null default '',
    token integer not null,
    closed_token integer,
    ttl integer not null,
    takeover_delay integer not null default 0,
    hold_at_least integer not null default 0,
    acquired_at integer not null,
    changes integer not null default 1,
    released_at integer,
    request_token integer,
    request_kind text,
    request_to text,
    requested_at integer,
    reserved_for text,
    reserved_until integer,
    incarnation text not null default '',
    revision integer not null default 1,
    renewed_at integer not null,
    expires_at integer not null,
    primary key (name, slot),
    unique (name, token)
) strict;

create table if not exists lease_pause (
    name text primary key,
    paused integer not null,
    reason text not null default '',
    role text not null,
    since integer not null
) strict;

-- The history, kept for 30 days.
create table if not exists event (
    id integer primary key autoincrement,
    at integer not null,
    name text not null,
    slot integer not null,
    token integer not null,
    label text not null,
    what text not null,
    why text not null default '',
    -- The same instant, by the name that queries of people may rest on.
    time integer not null generated always as (at) virtual
) strict;

create index if not exists event_name on event (name, slot, id);

create trigger if not exists lease_kept before delete on lease
when substr(old.name, 1, 19) <> 'leasewrap-selftest-' begin
    select raise(abort, 'rows of lease are never deleted: they hold the tokens handed out so far');
end;

insert or ignore into lease_schema (one, version, compatible_from, file, machine, boot)
values (1, 1, 1, :file, :machine, :boot);
update lease_schema set machine = :machine, boot = :boot;
