//! Statements that a session prepares, and what may become of them.

use std::time::Duration;

use leasewrap::lease::record::{Acquired, Expected, Observed, Released, Renewed, Term};
use leasewrap::store::Store;

use super::bouncer::Bouncer;
use super::{bench_on, multiplexer};
use crate::bench::{self, Bench, Contender, LIMIT, run};
use crate::support::server::{Options, Server};

/// One whose log shows every statement.
fn server() -> Server {
    Server::with(Options::default().set("log_statement", "all"))
}

/// What `doing` has made the server log.
async fn logged<T>(server: &Server, doing: impl Future<Output = T>) -> (String, T) {
    let before = server.log().len();
    let done = doing.await;
    (server.log().split_off(before), done)
}

/// Whether what was prepared as the `number`th is executed.
fn executes(log: &str, number: u32) -> bool {
    log.match_indices("\texecute leasewrap_")
        .any(|(at, words)| {
            let name = &log[at + words.len()..];
            let after = name.get(16..).unwrap_or_default();
            after.starts_with(&format!("_{number}(")) || after.starts_with(&format!("_{number};"))
        })
}

/// A holder and a standby that have both been at it for a while.
async fn ready(bench: &Bench) -> (Contender, Term, Contender) {
    let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
    let (term, _) = one.take(0).await;
    one.renewed(&term).await;
    one.store.get_ready(LIMIT).await;
    two.observe().await;
    two.store.get_ready(LIMIT).await;
    (one, term, two)
}

#[test]
fn a_hand_over_executes_what_both_have_prepared() {
    let server = server();
    let bench = bench_on(&server);
    run(async {
        let (mut one, term, mut two) = ready(&bench).await;
        let (log, _) = logged(&server, two.observe()).await;
        assert!(log.contains("statement: /* leasewrap poll */"), "{log}");
        assert!(executes(&log, 1), "{log}");
        let (log, grant) = logged(&server, one.renewed(&term)).await;
        assert!(executes(&log, 1), "{log}");
        // Now and then the trigger tells, by a statement of its own.
        let (mut released, mut taken) = (false, false);
        let (mut term, mut grant) = (term, grant);
        for _ in 0..20 {
            let (log, ()) = logged(&server, one.release(&term, &grant)).await;
            released |= executes(&log, 2);
            let seen = two.observe().await;
            let request = two.request(&seen, 0);
            let (log, _) = logged(&server, two.store.acquire(&request, LIMIT)).await;
            taken |= executes(&log, 2) && executes(&log, 3);
            // Back to the first.
            let row = two.record(0).await;
            assert_eq!(
                (row.holder, row.token.0 > term.token.0),
                (Some(two.holder), true)
            );
            two.release(
                &Term {
                    token: row.token,
                    holder: two.holder,
                    ..term
                },
                &grant,
            )
            .await;
            if released && taken {
                return;
            }
            (term, grant) = one.take(0).await;
        }
        panic!("released {released}, taken {taken}: {}", server.log());
    });
}

#[test]
fn what_was_prepared_may_vanish() {
    let server = server();
    let bench = bench_on(&server);
    run(async {
        let (mut one, term, mut two) = ready(&bench).await;
        // As a pooler's `DISCARD ALL`, from within.
        server.psql(
            "create function public.vanish() returns trigger language plpgsql as
             $$ begin execute 'deallocate all'; return new; end $$;
             create trigger vanish before update on leasewrap.lease
             for each row execute function public.vanish()",
        );
        let (log, _) = logged(&server, async {
            one.renewed(&term).await;
            one.renewed(&term).await
        })
        .await;
        assert!(log.contains("does not exist"), "{log}");
        let grant = one.renewed(&term).await;
        one.release(&term, &grant).await;
        let (second, _) = two.take(0).await;
        assert!(second.token > term.token);
        two.renewed(&second).await;
        assert!(matches!(one.renew(&term).await, Renewed::Lost(_)));
    });
}

#[test]
fn what_was_prepared_may_be_out_of_date() {
    let server = server();
    let bench = bench_on(&server);
    run(async {
        let (mut one, term, mut two) = ready(&bench).await;
        server.psql("alter table leasewrap.lease alter column label type varchar(300)");
        let (log, seen) = logged(&server, two.observe()).await;
        assert!(log.contains("must not change result type"), "{log}");
        assert_eq!(seen.records[0].token, term.token);
        assert!(!log.contains(".incarnation()"), "asked as before: {log}");
        let grant = one.renewed(&term).await;
        one.release(&term, &grant).await;
        two.take(0).await;
    });
}

#[test]
fn a_schema_that_is_dropped_is_missed_all_the_same() {
    let server = server();
    let bench = bench_on(&server);
    run(async {
        let (mut one, term, mut two) = ready(&bench).await;
        one.renewed(&term).await;
        server.psql("drop schema leasewrap cascade");
        assert!(matches!(one.renew(&term).await, Renewed::Lost(_)));
        let seen = two.store.observe(LIMIT).await;
        assert!(matches!(seen, Observed::NoSchema), "{seen:?}");
        two.store.init(LIMIT).await.expect("set up");
        two.take(0).await;
    });
}

#[test]
fn a_session_that_has_only_just_begun_is_not_made_ready() {
    let server = server();
    let bench = bench_on(&server);
    run(async {
        let mut one = bench.contender("one");
        let (term, _) = one.take(0).await;
        one.renewed(&term).await;
        server.psql(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name like 'leasewrap %'",
        );
        for prepares in [false, true] {
            let (log, ()) = logged(&server, async {
                one.renewed(&term).await;
                one.store.get_ready(LIMIT).await;
            })
            .await;
            assert_eq!(log.contains("prepare leasewrap_"), prepares, "{log}");
        }
    });
}

#[test]
fn who_changes_a_table_holds_a_preparation_up_for_a_moment_only() {
    let server = server();
    let bench = bench_on(&server);
    run(async {
        let mut one = bench.contender("one");
        let (term, grant) = one.take(0).await;
        one.renewed(&term).await;
        let mut builder = server.session("postgres");
        builder.run("begin; lock table leasewrap.event in share mode");
        let (log, ()) = logged(&server, one.store.get_ready(LIMIT)).await;
        assert!(log.contains("lock timeout"), "{log}");
        // In the same session, as before.
        let (log, _) = logged(&server, one.renewed(&term)).await;
        assert!(!log.contains("connection"), "{log}");
        builder.run("rollback");
        one.release(&term, &grant).await;
    });
}

#[test]
fn who_locks_the_history_stands_in_no_leases_way() {
    let server = server();
    let bench = bench_on(&server);
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        let mut builder = server.session("postgres");
        for _ in 0..3 {
            let (term, grant) = one.take(0).await;
            let seen = two.observe().await;
            // As an index of it that is being built.
            builder.run("begin; lock table leasewrap.event in share mode");
            let limit = Duration::from_secs(6);
            let released = one.store.release(&term, &grant.incarnation, limit).await;
            assert_eq!(released, Released::Done);
            let mut request = two.request(&seen, 0);
            let row = two.record(0).await;
            request.expected = Expected::Unchanged {
                token: row.token,
                revision: row.revision,
                incarnation: row.incarnation,
            };
            request.from_unreleased = false;
            let taken = two.store.acquire(&request, limit * 2).await.reply;
            let Acquired::Granted(grant) = taken else {
                panic!("{taken:?}")
            };
            builder.run("rollback");
            let term = Term {
                token: grant.token,
                holder: two.holder,
                ..term
            };
            two.release(&term, &grant).await;
        }
    });
}

#[test]
fn nothing_is_prepared_behind_a_pooler() {
    for mode in ["transaction", "session"] {
        let server = server();
        let bouncer = Bouncer::start(&server, mode, "");
        let bench = Bench::new(bench::settings(&bouncer.url("postgres"), "leasewrap"));
        super::set_up(&bench.settings);
        run(async {
            let (mut one, term, mut two) = ready(&bench).await;
            let grant = one.renewed(&term).await;
            two.observe().await;
            one.release(&term, &grant).await;
            two.take(0).await;
        });
        let log = server.log();
        assert!(!log.contains("prepare leasewrap_"), "{mode}: {log}");
        assert!(!log.contains("execute leasewrap_"), "{mode}: {log}");
    }
}

#[test]
fn a_session_that_only_looks_like_ones_own_does_nothing_for_anybody_else() {
    let server = server();
    let port = multiplexer::start(&server, 2);
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
    super::set_up(&bench::settings(&server.url(), "leasewrap"));
    let lease = || Bench::new(bench::settings(&url, "leasewrap"));
    run(async {
        let (a, b) = (lease(), lease());
        let (mut a, mut b) = (ready(&a).await, ready(&b).await);
        for _ in 0..10 {
            for (holder, term, standby) in [&mut a, &mut b] {
                let grant = holder.renewed(term).await;
                assert_eq!(grant.token, term.token);
                let seen = standby.observe().await;
                assert_eq!(seen.records[0].holder, Some(term.holder));
            }
        }
        // Each standby takes its own, though the other's is free, too.
        for (holder, term, _) in [&mut a, &mut b] {
            let grant = holder.renewed(term).await;
            holder.release(term, &grant).await;
        }
        for (_, term, standby) in [&mut a, &mut b] {
            let (next, _) = standby.take(0).await;
            assert!(next.token > term.token);
            let row = standby.record(0).await;
            assert_eq!(row.holder, Some(next.holder));
        }
    });
    let log = server.log();
    assert!(
        log.contains("prepare leasewrap_"),
        "it looked like one's own: {log}"
    );
}
