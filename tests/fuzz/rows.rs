//! Rows that somebody else has written: read as they are, or refused in one
//! line.

use std::cell::{Cell, RefCell};

use leasewrap::lease::record::Observed;
use leasewrap::store::{AnyStore, Store};
use proptest::prelude::*;

use crate::bench::{LIMIT, clock, settings};
use crate::cases;
use crate::properties::rows;
use crate::support::server::Server;

/// Each one is some writes and a poll.
const RUNS: u32 = 400;

/// A column, and something for it that its type allows.
fn column() -> impl Strategy<Value = (&'static str, String)> {
    let text = prop_oneof![
        "[ -~]{0,20}",
        Just("\u{1b}[2J\u{202e}\n".to_owned()),
        "[^\u{0}']{0,300}",
    ];
    let text = text.prop_map(|text| format!("'{}'", text.replace('\'', "''")));
    let number = prop_oneof![
        any::<i64>().prop_map(|number| format!("'{number}'::bigint")),
        Just("'9223372036854775807'::bigint".to_owned()),
        Just("'-9223372036854775808'::bigint".to_owned()),
        Just("0".to_owned()),
    ];
    let interval = proptest::sample::select(
        [
            "'0'",
            "'-1 day'",
            "'178000000 years'",
            "'-178000000 years'",
            "'1 month'",
            "'0.000001 s'",
        ]
        .to_vec(),
    );
    let interval = interval.prop_map(|interval| format!("{interval}::interval"));
    let instant = proptest::sample::select(
        [
            "'infinity'",
            "'-infinity'",
            "'4714-11-24 00:00:00+00 BC'",
            "'294276-12-31'",
            "now()",
        ]
        .to_vec(),
    );
    let instant = instant.prop_map(str::to_owned);
    let null = Just("null".to_owned());
    prop_oneof![
        (
            proptest::sample::select(["label", "value", "incarnation"].to_vec()),
            text
        ),
        (
            proptest::sample::select(["token", "closed_token", "revision", "changes"].to_vec()),
            number
        ),
        (
            proptest::sample::select(["ttl", "takeover_delay", "hold_at_least"].to_vec()),
            interval
        ),
        (
            proptest::sample::select(
                [
                    "acquired_at",
                    "renewed_at",
                    "expires_at",
                    "released_at",
                    "reserved_until"
                ]
                .to_vec()
            ),
            instant
        ),
        (
            proptest::sample::select(
                [
                    "holder",
                    "released_at",
                    "closed_token",
                    "label",
                    "ttl",
                    "incarnation"
                ]
                .to_vec()
            ),
            null
        ),
    ]
}

#[test]
fn rows_of_others_are_read_or_refused() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let name = "fuzzed".parse().expect("a name");
    let mut store = AnyStore::new(settings(&server.url(), "leasewrap"), name, clock);
    runtime.block_on(store.init(LIMIT)).expect("set up");
    server.psql(
        "insert into leasewrap.lease (name, slot, token, revision, ttl, label, value, incarnation,
            holder, acquired_at, renewed_at, expires_at)
        values ('fuzzed', 0, 7, 1, '30 s', 'x', '', 'x', gen_random_uuid(), now(), now(), now())",
    );
    let mut runner = proptest::test_runner::TestRunner::new(cases(RUNS));
    let store = RefCell::new(store);
    let written = Cell::new(0_u32);
    let tried = runner.run(&proptest::collection::vec(column(), 1..4), |columns| {
        for (column, value) in columns {
            // What a constraint refuses is not there to be read.
            let sql =
                format!("update leasewrap.lease set {column} = {value} where name = 'fuzzed'");
            if server.try_psql("postgres", &sql).is_ok() {
                written.set(written.get() + 1);
            }
        }
        let mut store = store.borrow_mut();
        let observed = runtime.block_on(store.observe(LIMIT));
        match &observed {
            Observed::Seen(observation) => prop_assert_eq!(observation.records.len(), 1),
            Observed::Unknown(_) => {}
            Observed::NoSchema => prop_assert!(false, "{observed:?}"),
        }
        rows::observed(observed);
        rows::asked(&runtime, &mut store, LIMIT);
        Ok(())
    });
    tried.expect("read or refused");
    let written = written.get();
    assert!(written > RUNS / 4, "only {written} changes were allowed");
}
