//! Who may do what, and what stands in the way.

use leasewrap::lease::ids::LeaseName;
use leasewrap::lease::record::{Fault, Observed};
use leasewrap::store::admin::Admin;
use leasewrap::store::{AnyStore, Store};

use super::set_up;
use crate::bench::{self, Bench, LIMIT, run};
use crate::support::server::{self, Options, Server};

#[test]
fn the_narrow_rights_are_enough_and_less_is_told() {
    let server = Server::start();
    server.psql("create role narrow login");
    server.psql("alter default privileges revoke execute on functions from public");
    let narrow = Bench::new(bench::settings(
        &server.url_of("narrow", "postgres"),
        "leasewrap",
    ));
    run(async {
        let mut one = narrow.contender("one");
        assert_eq!(one.store.observe(LIMIT).await, Observed::NoSchema);
        let said = one.store.init(LIMIT).await.expect_err("it may not");
        assert_eq!(said.fault, Fault::Final);
        assert!(said.message.contains("--print"), "{said:?}");
        // What a DBA runs.
        let sql = one.store.schema_sql().expect("there is SQL");
        server.psql(&sql);
        let Observed::Unknown(said) = one.store.observe(LIMIT).await else {
            panic!("it may")
        };
        assert_eq!(said.fault, Fault::Final, "{said:?}");
        server.psql(
            "grant usage on schema leasewrap to narrow;
            grant select, insert, update on all tables in schema leasewrap to narrow;
            grant delete on leasewrap.event to narrow;",
        );
        let (term, grant) = one.take(0).await;
        one.renewed(&term).await;
        one.release(&term, &grant).await;
        let name = narrow.name.clone();
        one.store.pause(&name, "", LIMIT).await.expect("paused");
        one.store.resume(&name, LIMIT).await.expect("resumed");
        one.store.init(LIMIT).await.expect("it is there");
        let AnyStore::Postgres(doctor) = &mut one.store else {
            panic!("another store")
        };
        let commit = doctor.durable_commit(LIMIT).await.expect("asked");
        assert!(commit.is_some(), "what a commit takes is measured");
        assert_eq!(
            one.store
                .history(Some(&name), None, LIMIT)
                .await
                .expect("history")
                .value
                .len(),
            4
        );
        let by_hand = "select count(time), count(*) filter (where time = at), \
            count(name || slot || token || label || what || why) from leasewrap.event";
        assert_eq!(server.psql(by_hand), "4|4|4");
        // Without the history a lease is a lease.
        server.psql("revoke all on leasewrap.event from narrow");
        let (term, grant) = one.take(0).await;
        one.release(&term, &grant).await;
        server.psql("revoke update on leasewrap.lease from narrow");
        let taken = one.try_take(0).await;
        let leasewrap::lease::record::Acquired::Unknown(said) = taken else {
            panic!("{taken:?}")
        };
        assert_eq!(said.fault, Fault::Final);
        assert!(said.message.contains("permission denied"), "{said:?}");
    });
}

#[test]
fn a_worker_needs_only_the_fence() {
    let server = Server::start();
    let bench = super::bench_on(&server);
    server.psql("create role worker login; grant usage on schema leasewrap to worker");
    run(async {
        let (term, _) = bench.contender("one").take(0).await;
        let fence = format!("select leasewrap.fence('{}', {})", bench.name, term.token);
        let as_worker = |sql: &str| server.try_psql("postgres", &format!("set role worker; {sql}"));
        assert_eq!(as_worker(&fence), Ok(String::new()));
        assert!(as_worker("select * from leasewrap.lease").is_err());
        // Nothing of his own comes before Postgres's functions.
        let shadowed = "create temp table lease as select 1; \
                        create function pg_temp.md5(text) returns text language sql as 'select $1';";
        assert_eq!(as_worker(&format!("{shadowed} {fence}")), Ok(String::new()));
    });
}

#[test]
fn a_foreign_table_in_the_way_is_told() {
    let server = Server::start();
    server.psql("create schema leasewrap; create table leasewrap.lease (id int, flat text)");
    let bench = Bench::new(bench::settings(&server.url(), "leasewrap"));
    run(async {
        let mut one = bench.contender("one");
        let Observed::Unknown(seen) = one.store.observe(LIMIT).await else {
            panic!("it was taken")
        };
        let init = one.store.init(LIMIT).await.expect_err("it must stay");
        let dropped = one
            .store
            .drop_schema(LIMIT)
            .await
            .expect_err("it must stay");
        for said in [seen, init, dropped] {
            assert_eq!(said.fault, Fault::Final);
            assert!(said.message.contains("not leasewrap's"), "{said:?}");
        }
    });
    assert_eq!(server.psql("select count(*) from leasewrap.lease"), "0");
}

#[test]
fn what_somebody_else_has_under_our_names_stays_as_it_is() {
    let server = Server::start();
    server.psql("create schema app; grant usage on schema app to public");
    let bench = Bench::new(bench::settings(&server.url(), "app"));
    let things = [
        ("table app.event", "(id int)"),
        ("table app.lease_pause", "(id int)"),
        ("table app.lease_incarnation", "(id int)"),
        (
            "function app.fence(text, bigint, interval)",
            "returns void language sql as ''",
        ),
        (
            "function app.incarnation()",
            "returns text language sql as $$select ''$$",
        ),
    ];
    run(async {
        let mut store = bench.store();
        for (thing, definition) in things {
            server.psql(&format!("create {thing} {definition}"));
            let before = server.psql("select oid from pg_class union select oid from pg_proc");
            let name = thing.split(['.', '(']).nth(1).expect("a name");
            let Observed::Unknown(seen) = store.observe(LIMIT).await else {
                panic!("{thing} was taken")
            };
            let init = store.init(LIMIT).await.expect_err("it must stay");
            let dropped = store.drop_schema(LIMIT).await.expect_err("it must stay");
            for said in [seen, init, dropped] {
                assert_eq!(said.fault, Fault::Final);
                let named = format!("\"{name}\" that is not leasewrap's");
                assert!(said.message.contains(&named), "{thing}: {said:?}");
            }
            let after = server.psql("select oid from pg_class union select oid from pg_proc");
            assert_eq!(after, before, "{thing}");
            server.psql(&format!("drop {thing}"));
        }
        store.init(LIMIT).await.expect("nothing is in the way");
        bench.contender("one").take(0).await;
        assert_eq!(store.drop_schema(LIMIT).await, Ok(true));
    });
    // The schema was there before, and what it allows.
    let usage = "select has_schema_privilege('public', 'app', 'usage')";
    assert_eq!(server.psql(usage), "t");
}

#[test]
fn a_part_of_the_schema_is_completed_and_newer_ones_are_respected() {
    let server = Server::start();
    let bench = super::bench_on(&server);
    run(async {
        let mut one = bench.contender("one");
        one.take(0).await;
        server.psql("drop table leasewrap.lease");
        assert_eq!(one.store.observe(LIMIT).await, Observed::NoSchema);
        one.store.init(LIMIT).await.expect("completed");
        one.take(0).await;
        // A newer one that we can work with, and one that we cannot.
        server.psql("update leasewrap.lease_schema set version = 7");
        one.store.init(LIMIT).await.expect("it stays as it is");
        assert!(matches!(one.store.observe(LIMIT).await, Observed::Seen(_)));
        server.psql(
            "update leasewrap.lease_schema set compatible_from = 7;
            alter table leasewrap.lease rename column revision to edition;",
        );
        let Observed::Unknown(said) = one.store.observe(LIMIT).await else {
            panic!("not seen")
        };
        assert!(
            said.fault == Fault::Final && said.message.contains("newer"),
            "{said:?}"
        );
        assert_eq!(one.store.init(LIMIT).await, Err(said));
    });
}

#[test]
fn rows_cannot_be_deleted_and_the_own_schema_is_all_that_is_touched() {
    let server = Server::start();
    server.psql("create table public._sqlx_migrations (version bigint)");
    let bench = Bench::new(bench::settings(&server.url(), "Odd \"one\""));
    set_up(&bench.settings);
    run(async {
        bench.contender("one").take(0).await;
        for sql in ["delete from", "truncate"] {
            let said = server.try_psql("postgres", &format!("{sql} \"Odd \"\"one\"\"\".lease"));
            assert!(said.expect_err("it is refused").contains("never deleted"));
        }
        let mut store = bench.store();
        assert_eq!(store.drop_schema(LIMIT).await, Ok(true));
    });
    let left = "select string_agg(nspname, ' ' order by nspname) from pg_namespace \
                where nspname not like 'pg_%'";
    assert_eq!(server.psql(left), "information_schema public");
    assert_eq!(
        server.psql("select relname from pg_class where relnamespace = 'public'::regnamespace"),
        "_sqlx_migrations"
    );
}

#[test]
fn a_read_only_default_is_a_read_only_server() {
    let server = Server::with(Options::default());
    let bench = super::bench_on(&server);
    server.psql("alter role postgres set default_transaction_read_only = on");
    run(async {
        let mut one = bench.contender("one");
        let taken = one.try_take(0).await;
        let leasewrap::lease::record::Acquired::Unknown(said) = taken else {
            panic!("{taken:?}")
        };
        assert_eq!(said.fault, Fault::ReadOnly, "{said:?}");
    });
}

#[test]
fn a_name_that_the_database_has_no_letters_for_is_told() {
    let server = server::shared();
    server.psql(
        "create database latin encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'",
    );
    let settings = bench::settings(&server.url_of("postgres", "latin"), "leasewrap");
    set_up(&settings);
    let mut bench = Bench::new(settings);
    bench.name = LeaseName::new("\u{96ea}").expect("a name");
    run(async {
        let Observed::Unknown(said) = bench.store().observe(LIMIT).await else {
            panic!("it was looked for")
        };
        assert_eq!(said.fault, Fault::Final, "{said:?}");
        assert!(said.message.contains("LATIN1"), "{said:?}");
    });
}
