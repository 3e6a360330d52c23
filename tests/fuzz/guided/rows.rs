//! The cells of a SQLite file whose tables somebody has made again without
//! any rule: a row of each table that is right, and changes to its cells.
//! A change is the number of a cell, a kind, and a value.
//!
//! words: src/store/columns.rs

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

use std::cell::RefCell;
use std::time::Duration;

use leasewrap::lease::ids::LeaseName;
use leasewrap::lease::time::BootInstant;
use leasewrap::store::settings::{Given, Surroundings};
use leasewrap::store::{AnyStore, Store, StoreSettings};
use properties::{rows, take};
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection};

const LIMIT: Duration = Duration::from_secs(10);

/// A column, and what is right there.
const LEASE: [(&str, &str); 23] = [
    ("name", "'fuzzed'"),
    ("slot", "0"),
    ("holder", "'5e0a2c1e-0a4e-4a9b-8d7c-1f2e3d4c5b6a'"),
    ("label", "'x'"),
    ("value", "''"),
    ("token", "7"),
    ("closed_token", "null"),
    ("revision", "1"),
    ("ttl", "30000000"),
    ("takeover_delay", "0"),
    ("hold_at_least", "0"),
    ("acquired_at", "1700000000000000"),
    ("changes", "1"),
    ("released_at", "null"),
    ("request_token", "null"),
    ("request_kind", "null"),
    ("request_to", "null"),
    ("requested_at", "null"),
    ("reserved_for", "null"),
    ("reserved_until", "null"),
    ("incarnation", "''"),
    ("renewed_at", "1700000000000000"),
    ("expires_at", "1700000030000000"),
];
const EVENT: [(&str, &str); 7] = [
    ("at", "1700000000000000"),
    ("name", "'fuzzed'"),
    ("slot", "0"),
    ("token", "7"),
    ("label", "'x'"),
    ("what", "'acquired'"),
    ("why", "''"),
];
const PAUSE: [(&str, &str); 5] = [
    ("name", "'fuzzed'"),
    ("paused", "0"),
    ("reason", "''"),
    ("role", "'me'"),
    ("since", "1700000000000000"),
];

struct Scene {
    runtime: tokio::runtime::Runtime,
    /// Of somebody else.
    writer: SqliteConnection,
    store: AnyStore,
}

impl Scene {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let name = format!("leasewrap-guided-{}.db", std::process::id());
        let path = std::env::temp_dir().join(name);
        let urls = [format!("sqlite:{}", path.display())];
        let surroundings = Surroundings::new([], None, "/".into());
        let settings = StoreSettings::new(Given::Urls(&urls), "leasewrap", surroundings);
        let name = LeaseName::new("fuzzed").expect("a name");
        let clock = || BootInstant::from_nanos(1_000_000_000_000);
        let mut store = AnyStore::new(settings.expect("a path"), name, clock);
        runtime.block_on(store.init(LIMIT)).expect("set up");
        let options = sqlx::sqlite::SqliteConnectOptions::new();
        let options = options.filename(&path).disable_statement_logging();
        let writer = runtime.block_on(options.connect()).expect("open");
        let mut scene = Self {
            runtime,
            writer,
            store,
        };
        let columns = |columns: &[(&str, &str)]| {
            let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
            names.join(", ")
        };
        scene.write(format!(
            "pragma synchronous = off; drop table lease; drop table event; drop table lease_pause;
            create table lease ({}); create table event ({}, id integer primary key);
            create table lease_pause ({})",
            columns(&LEASE),
            columns(&EVENT),
            columns(&PAUSE)
        ));
        scene
    }

    fn write(&mut self, sql: String) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        let written = self.runtime.block_on(sql.execute(&mut self.writer));
        written.expect("write");
    }
}

fn byte(data: &mut &[u8]) -> Option<u8> {
    take(data, 1).first().copied()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as SQL.
fn value(data: &mut &[u8]) -> Option<String> {
    Some(match byte(data)? % 6 {
        0 => "null".to_owned(),
        1 => {
            let mut bytes = [0; 8];
            let given = take(data, 8);
            bytes[..given.len()].copy_from_slice(given);
            i64::from_le_bytes(bytes).to_string()
        }
        2 => byte(data)?.to_string(),
        3 => {
            let length = usize::from(byte(data)?);
            format!("cast(x'{}' as text)", hex(take(data, length)))
        }
        4 => format!("{}e{}", byte(data)?, byte(data)?),
        _ => {
            let length = usize::from(byte(data)?);
            format!("x'{}'", hex(take(data, length)))
        }
    })
}

fn statements(mut data: &[u8]) -> String {
    let right = || -> Vec<String> {
        let columns = LEASE.iter().chain(&EVENT).chain(&PAUSE);
        columns.map(|(_, value)| (*value).to_owned()).collect()
    };
    let mut rows = vec![right()];
    while let Some(number) = byte(&mut data) {
        let number = usize::from(number);
        if number >= LEASE.len() + EVENT.len() + PAUSE.len() {
            if rows.len() < 4 {
                rows.push(right());
            }
        } else if let (Some(value), Some(row)) = (value(&mut data), rows.last_mut()) {
            row[number] = value;
        }
    }
    let mut sql =
        "begin; delete from lease; delete from event; delete from lease_pause;".to_owned();
    for row in rows {
        let (lease, row) = row.split_at(LEASE.len());
        let (event, pause) = row.split_at(EVENT.len());
        sql += &format!(
            "insert into lease values ({}); insert into event values ({}, null);
            insert into lease_pause values ({});",
            lease.join(", "),
            event.join(", "),
            pause.join(", ")
        );
    }
    sql + "commit"
}

thread_local! {
    static SCENE: RefCell<Scene> = RefCell::new(Scene::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let sql = statements(data);
    SCENE.with_borrow_mut(|scene| {
        scene.write(sql);
        let Scene { runtime, store, .. } = scene;
        rows::observed(runtime.block_on(store.observe(LIMIT)));
        rows::asked(runtime, store, LIMIT);
    });
});
