//! The server (or the file), the schema, the rights and the fences.

use super::{Point, Verdict};
use crate::lease::record::{Fault, Unknown};
use crate::store::postgres::doctor::{FencedTable, SchemaFacts, SchemaThere, ServerFacts};

/// The oldest PostgreSQL that leasewrap works with.
const OLDEST: i64 = 130_000;

/// It was opened, which refuses network file systems and other hosts' files.
pub(super) fn file() -> Point {
    let found = "a SQLite file on a local file system, for the processes of this host alone";
    Point::new("server", Verdict::Holds, found)
}

pub(super) fn version(server: &ServerFacts) -> Point {
    let found = format!(
        "PostgreSQL {}, role {}, database {}",
        server.version_text, server.role, server.database
    );
    if server.version >= OLDEST {
        Point::new("server", Verdict::Holds, found)
    } else {
        Point::new("server", Verdict::Fails, found)
            .because("leasewrap needs PostgreSQL 13 or later")
            .remedy("upgrade the server")
    }
}

pub(super) fn writable(server: &ServerFacts) -> Point {
    match (server.in_recovery, server.read_only) {
        (false, false) => Point::new("writable", Verdict::Holds, "the server can be written to"),
        (true, _) => Point::new(
            "writable",
            Verdict::Fails,
            "a standby server, which cannot be written to",
        )
        .because("a lease is taken and renewed by writing")
        .remedy(
            "name the primary, or all hosts: postgres://…@h1,h2/…?target_session_attrs=read-write",
        ),
        (false, true) => Point::new(
            "writable",
            Verdict::Fails,
            "transactions are read-only by default",
        )
        .because("a lease is taken and renewed by writing")
        .remedy("set default_transaction_read_only = off for this role"),
    }
}

pub(super) fn incarnation(server: &ServerFacts) -> Point {
    if server.incarnation_readable {
        return Point::new(
            "incarnation",
            Verdict::Holds,
            "system identifier and timeline can be read",
        );
    }
    Point::new("incarnation", Verdict::Note, "system identifier and timeline cannot be read")
        .because("the server's start time stands in: after every restart nobody takes a lease before having watched it")
        .remedy(format!("grant execute on function pg_control_system() to {}", server.role))
}

pub(super) fn crash(server: &ServerFacts) -> Point {
    if !server.fsync {
        return Point::new("crash", Verdict::Fails, "fsync = off")
            .because("a crash of the server may lose an acquisition without anybody noticing: then two may hold one lease")
            .remedy("set fsync = on and restart the server");
    }
    if !server.full_page_writes {
        return Point::new("crash", Verdict::Note, "full_page_writes = off")
            .because("a crash may damage tables, unless the file system writes pages whole")
            .remedy("set full_page_writes = on");
    }
    Point::new("crash", Verdict::Holds, "fsync and full_page_writes are on")
}

pub(super) fn schema(facts: &Result<SchemaFacts, Unknown>, server: &ServerFacts) -> Vec<Point> {
    let facts = match facts {
        Ok(facts) => facts,
        // It answers, and has let us in.
        Err(unknown) if unknown.fault == Fault::Final => {
            return vec![no_rights(unknown.message.clone(), server)];
        }
        Err(unknown) => return vec![Point::unanswered("schema", unknown)],
    };
    let there = match (facts.there, facts.may_create) {
        (SchemaThere::Nothing, true) => Point::new(
            "schema",
            Verdict::Holds,
            "not there yet; the first run creates it",
        ),
        (SchemaThere::Nothing, false) => Point::new(
            "schema",
            Verdict::Fails,
            "not there, and this role may not create it",
        )
        .because("the leases are kept there")
        .remedy("have a DBA run what leasewrap init --print gives"),
        (SchemaThere::Foreign, _) => Point::new(
            "schema",
            Verdict::Fails,
            "holds a table \"lease\" that is not leasewrap's",
        )
        .because("leasewrap does not touch what is not its own")
        .remedy("name another schema with --schema"),
        (SchemaThere::Ours { usable: Some(true) }, _) => Point::new(
            "schema",
            Verdict::Holds,
            "there, and of a version that fits",
        ),
        (
            SchemaThere::Ours {
                usable: Some(false),
            },
            _,
        ) => Point::new("schema", Verdict::Fails, "of a version that does not fit")
            .because("this leasewrap and the schema are too far apart")
            .remedy("run leasewrap init, or the leasewrap that upgraded it"),
        (SchemaThere::Ours { usable: None }, _) => Point::new(
            "schema",
            Verdict::Unknown,
            "there; its version cannot be read",
        ),
    };
    let mut points = vec![there];
    if let SchemaThere::Ours { .. } = facts.there {
        points.push(rights(facts, server));
        if !facts.unlogged.is_empty() {
            points.push(
                Point::new(
                    "tables",
                    Verdict::Fails,
                    format!("unlogged: {}", facts.unlogged.join(", ")),
                )
                .because("a crash of the server empties them: tokens would repeat")
                .remedy("alter table … set logged"),
            );
        }
    }
    points
}

fn rights(facts: &SchemaFacts, server: &ServerFacts) -> Point {
    if facts.lacking.is_empty() {
        return Point::new("rights", Verdict::Holds, "all that a run needs");
    }
    let lacking = facts.lacking.join(", ");
    no_rights(format!("{} lacks {lacking}", server.role), server)
}

fn no_rights(found: String, server: &ServerFacts) -> Point {
    Point::new("rights", Verdict::Fails, found)
        .because("without them a run ends at once with 123")
        .remedy(format!(
            "grant usage on the schema, select, insert, update on its tables and delete on event to {}",
            server.role
        ))
}

pub(super) fn fences(tables: &Result<Vec<FencedTable>, Unknown>) -> Point {
    let tables = match tables {
        Ok(tables) => tables,
        Err(unknown) => return Point::unanswered("fences", unknown),
    };
    let open: Vec<&str> = tables
        .iter()
        .filter(|table| !table.fenced)
        .map(|table| table.name.as_str())
        .collect();
    if tables.is_empty() {
        return Point::new("fences", Verdict::Holds, "no table is fenced");
    }
    if open.is_empty() {
        return Point::new(
            "fences",
            Verdict::Holds,
            format!("{} tables are fenced", tables.len()),
        );
    }
    Point::new("fences", Verdict::Fails, format!("not fenced: {}", open.join(", ")))
        .because("partitions that came after leasewrap protect, or triggers that were disabled: anybody may write there")
        .remedy("run leasewrap protect TABLE --name NAME again")
}

pub(super) fn queue(server: &ServerFacts) -> Point {
    let found = format!(
        "{} % of the notification queue is full",
        server.queue_percent
    );
    if server.queue_percent < 50 {
        return Point::new("queue", Verdict::Holds, found);
    }
    Point::new("queue", Verdict::Note, found)
        .because("some session listens and sleeps in a transaction; when the queue is full, standbys are not woken and poll")
        .remedy("look for old transactions in pg_stat_activity and end them")
}
