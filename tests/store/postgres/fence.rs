//! What the database refuses to those who have lost their lease.

use std::time::Duration;

use leasewrap::lease::ids::Token;
use leasewrap::lease::record::Acquired;
use leasewrap::store::Store;
use leasewrap::store::admin::{Admin, Closed, ProtectError, Protection};
use tokio::time::{Instant, sleep};

use super::client::{Client, Said};
use super::{bench_on, on_shared};
use crate::bench::{Bench, LIMIT, TTL, run};
use crate::support::server::{self, Server};
use crate::support::session::Session;
use crate::support::wait::{SOON, until_true};

const LEVELS: [&str; 3] = ["read committed", "repeatable read", "serializable"];

fn fence(bench: &Bench, token: i64) -> String {
    format!("select leasewrap.fence('{}', {token})", bench.name)
}

#[test]
fn a_stale_token_is_refused_and_a_current_one_is_not() {
    let bench = on_shared();
    run(async {
        let mut session = Client::new(server::shared()).await;
        let refused = |said: Said, why: &str| {
            let (code, message) = said.expect_err("it is refused");
            assert!(code == "LW001" && message.contains(why), "{code} {message}");
        };
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        for level in LEVELS {
            let begin = format!("begin isolation level {level}");
            session.ok(&begin).await;
            assert_eq!(session.ok(&fence(&bench, term.token.0)).await, "");
            session.ok("commit").await;
            session.ok(&begin).await;
            refused(
                session.run(&fence(&bench, term.token.0 - 1)).await,
                "held by 'one'",
            );
            session.ok("rollback").await;
        }
        one.release(&term, &grant).await;
        refused(
            session.run(&fence(&bench, term.token.0)).await,
            "given back",
        );
        let (term, _) = one.take(0).await;
        let closed = one
            .store
            .close_token(&bench.name, term.slot, term.token, LIMIT)
            .await;
        closed.expect("closed");
        refused(session.run(&fence(&bench, term.token.0)).await, "closed");
        refused(
            session.run("select leasewrap.fence('nobody''s', 1)").await,
            "no such lease",
        );
    });
}

#[test]
fn renewals_and_closing_pass_beside_a_fenced_transaction_and_a_take_over_waits() {
    let bench = on_shared();
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        for level in LEVELS {
            let (term, grant) = one.take(0).await;
            let mut session = server::shared().session("postgres");
            session.run(&format!("begin isolation level {level}"));
            session.run(&fence(&bench, term.token.0));
            for _ in 0..20 {
                one.renewed(&term).await;
            }
            // Not ended, since the row is given back: but waited for.
            one.release(&term, &grant).await;
            let seen = two.observe().await;
            let request = two.request(&seen, 0);
            let limit = Duration::from_millis(800);
            let taken = two.store.acquire(&request, limit).await.reply;
            assert!(!matches!(taken, Acquired::Granted(_)), "{level}: {taken:?}");
            let waiting = async { two.store.acquire(&request, LIMIT).await.reply };
            let commit = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert_eq!(session.run("commit"), "", "{level}");
            };
            let (taken, ()) = tokio::join!(waiting, commit);
            assert!(matches!(taken, Acquired::Granted(_)), "{level}: {taken:?}");
        }
    });
}

/// Clients in fenced transactions of some 5 ms, one after the other.
const CROWD: usize = 64;

/// At work under `token`. Nobody waits for anybody here: share locks are
/// compatible, so at any time some of them hold the row.
fn crowd(server: &Server, bench: &Bench, token: Token) -> Vec<Session> {
    let mut clients: Vec<Session> = (0..CROWD).map(|_| server.session("postgres")).collect();
    for client in &mut clients {
        client.send(&format!(
            "do $$ begin for n in 1..1000000 loop
                perform leasewrap.fence('{}', {token}); perform pg_sleep(0.005); commit;
            end loop; end $$;",
            bench.name
        ));
    }
    until_true("the crowd is at work", SOON, || fenced(server) > CROWD / 2);
    clients
}

/// How many have passed the fence and hold the row.
fn fenced(server: &Server) -> usize {
    let locks = "select count(*) from pg_locks where relation = 'leasewrap.lease'::regclass \
                 and mode = 'RowShareLock'";
    server.psql(locks).parse().expect("a number")
}

#[test]
fn neither_a_break_nor_a_take_over_is_starved_by_64_clients_in_fenced_transactions() {
    let server = Server::start();
    let bench = bench_on(&server);
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        let (term, _) = one.take(0).await;
        let clients = crowd(&server, &bench, term.token);
        one.renewed(&term).await;
        // A change of the key waits for a moment in which nobody holds the row.
        // On a host that stands still now and then such a moment may come.
        let key_lock = "set statement_timeout = '1s'; select from leasewrap.lease for update";
        until_true("a change of the key starves", SOON, || {
            match server.try_psql("postgres", key_lock) {
                Ok(_) => false,
                Err(said) => {
                    assert!(said.contains("statement timeout"), "{said}");
                    true
                }
            }
        });
        let start = Instant::now();
        let closed = one
            .store
            .close_token(&bench.name, term.slot, term.token, LIMIT)
            .await;
        // Whoever starves gets no answer within the limit of the call.
        assert_eq!(closed, Ok(Closed::Done { ttl: TTL }));
        let closing = start.elapsed();
        until_true("those that were at work have ended", SOON, || {
            fenced(&server) == 0
        });
        println!(
            "64 clients: token closed by a break after {closing:?}, the last one refused after {:?}",
            start.elapsed()
        );
        drop(clients);

        let (term, _) = two.take(0).await;
        let _clients = crowd(&server, &bench, term.token);
        two.renewed(&term).await;
        let start = Instant::now();
        let (next, _) = one.take(0).await;
        println!("64 clients: taken over after {:?}", start.elapsed());
        assert!(next.token > term.token);
        // Those that were not ended are refused from now on.
        until_true("nobody passes the fence any more", SOON, || {
            fenced(&server) == 0
        });
    });
}

#[test]
fn a_lost_client_holds_the_row_for_the_ttl_at_most() {
    let bench = on_shared();
    let mut session = server::shared().session("postgres");
    run(async {
        let mut one = bench.contender("one");
        one.terms.ttl = Duration::from_secs(7);
        let (term, _) = one.take(0).await;
        // The second one is there from PostgreSQL 14 on.
        let show = "select string_agg(current_setting(s, true), ' ') from unnest(array[
            'idle_in_transaction_session_timeout', 'client_connection_check_interval']) s";
        let outside = session.run(show);
        assert!(["0 0", "0"].contains(&outside.as_str()), "{outside}");
        session.run("begin");
        session.run(&fence(&bench, term.token.0));
        let inside = session.run(show);
        assert!(["7s 1750ms", "7s"].contains(&inside.as_str()), "{inside}");
        session.run("commit");
        assert_eq!(
            session.run(show),
            outside,
            "it is for that transaction alone"
        );
        session.run("begin; set local idle_in_transaction_session_timeout = '2s'");
        session.run(&fence(&bench, term.token.0));
        assert!(session.run(show).starts_with("2s"), "a stricter one stays");
        session.run("commit");
        // What is asked for stays, whoever asks again, and comes later too.
        let held = fence(&bench, term.token.0).replace(')', ", '9s')");
        for calls in [
            [&held, &fence(&bench, term.token.0)],
            [&fence(&bench, term.token.0), &held],
        ] {
            session.run("begin");
            for call in calls {
                session.run(call);
            }
            assert!(session.run(show).starts_with("9s "), "{calls:?}");
            session.run("commit");
        }
        let mut lost = Client::new(server::shared()).await;
        lost.ok("begin").await;
        lost.ok(&fence(&bench, term.token.0).replace(')', ", '100ms')"))
            .await;
        sleep(Duration::from_millis(500)).await;
        let said = lost.run("select 1").await;
        assert!(said.is_err(), "{said:?}");
    });
}

fn protection(bench: &Bench, table: &str) -> Protection {
    Protection {
        tables: vec![table.to_owned()],
        name: bench.name.clone(),
        allow_roles: vec!["allowed".to_owned()],
    }
}

#[test]
fn protected_tables_want_a_token() {
    let server = Server::start();
    let bench = bench_on(&server);
    server.psql(
        "create role allowed login; create role worker login; create schema shop;
        create table shop.\"Or'ders\" (id int, part int) partition by list (part);
        create table shop.p1 partition of shop.\"Or'ders\" for values in (1);
        create view shop.v as select 1;
        grant usage on schema shop to public; grant all on all tables in schema shop to public;
        grant usage on schema leasewrap to worker;",
    );
    let insert = "insert into shop.\"Or'ders\" values (1, 1)";
    let as_role = |role: &str, settings: &str, sql: &str| {
        let sql = format!("set role {role}; {settings}; {sql}");
        server.try_psql("postgres", &sql)
    };
    run(async {
        let mut one = bench.contender("one");
        let wrong = [
            (
                "shop.nothing",
                ProtectError::NoSuchTable("shop.nothing".to_owned()),
            ),
            (
                "it's no name",
                ProtectError::NoSuchTable("it's no name".to_owned()),
            ),
            ("shop.v", ProtectError::NotProtectable("shop.v".to_owned())),
            (
                "leasewrap.event",
                ProtectError::Own("leasewrap.event".to_owned()),
            ),
        ];
        for (table, error) in wrong {
            let said = one.store.protect(&protection(&bench, table), LIMIT).await;
            assert_eq!(said, Err(error));
        }
        let all = ["shop.\"Or'ders\"".to_owned(), "shop.p1".to_owned()];
        let mut wanted = protection(&bench, "shop.\"Or'ders\"");
        for _ in 0..2 {
            assert_eq!(one.store.protect(&wanted, LIMIT).await, Ok(all.to_vec()));
        }
        wanted.allow_roles = vec!["nobody".to_owned()];
        let said = one.store.protect(&wanted, LIMIT).await;
        assert_eq!(said, Err(ProtectError::NoSuchRole("nobody".to_owned())));

        let (term, grant) = one.take(0).await;
        let with = |name: &str, token: i64| {
            format!("set leasewrap.name = '{name}'; set leasewrap.token = '{token}'")
        };
        let good = with(bench.name.as_str(), term.token.0);
        for sql in [
            insert,
            "insert into shop.p1 values (1, 1)",
            "truncate shop.p1",
            "delete from shop.p1",
        ] {
            assert_eq!(as_role("worker", &good, sql), Ok(String::new()), "{sql}");
            assert_eq!(
                as_role("allowed", "select", sql),
                Ok(String::new()),
                "{sql}"
            );
            for settings in [
                "select".to_owned(),
                with("other", term.token.0),
                with(bench.name.as_str(), 1),
            ] {
                let said = as_role("worker", &settings, sql).expect_err("it is refused");
                assert!(said.contains("lease"), "{said}");
            }
        }
        one.release(&term, &grant).await;
        assert!(as_role("worker", &good, insert).is_err(), "given back");
        assert_eq!(
            one.store.unprotect(&["shop.p1".to_owned()], LIMIT).await,
            Ok(vec![all[1].clone()])
        );
        assert_eq!(
            one.store.unprotect(&[], LIMIT).await,
            Ok(vec![all[0].clone()])
        );
        assert_eq!(as_role("worker", "select", insert), Ok(String::new()));
        // And with everything else they go by `init --drop`.
        wanted.allow_roles.clear();
        assert_eq!(one.store.protect(&wanted, LIMIT).await, Ok(all.to_vec()));
        assert_eq!(one.store.drop_schema(LIMIT).await, Ok(true));
        assert_eq!(as_role("worker", "select", insert), Ok(String::new()));
    });
}

#[test]
fn a_broken_token_is_closed_beside_fenced_transactions() {
    let bench = on_shared();
    let mut session = server::shared().session("postgres");
    run(async {
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        session.run("begin");
        session.run(&fence(&bench, term.token.0));
        let closed = one
            .store
            .close_token(&bench.name, term.slot, term.token, LIMIT)
            .await;
        assert_eq!(closed, Ok(Closed::Done { ttl: TTL }));
        assert_eq!(session.run("commit"), "", "it had passed before");
    });
}
