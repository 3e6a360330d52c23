//! Statements that a session prepares, and what may become of them.

use leasewrap::lease::record::{Observed, Renewed, Term};
use leasewrap::store::Store;

use super::bench_on;
use super::bouncer::Bouncer;
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

/// A holder and a standby that have both been at it for a while.
async fn ready(bench: &Bench) -> (Contender, Term, Contender) {
    let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
    let (term, _) = one.take(0).await;
    one.renewed(&term).await;
    two.observe().await;
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
        assert!(log.contains("\texecute leasewrap_1;"), "{log}");
        let (log, grant) = logged(&server, one.renewed(&term)).await;
        assert!(log.contains("\texecute leasewrap_1("), "{log}");
        // Now and then the trigger tells, by a statement of its own.
        let (mut released, mut taken) = (false, false);
        let (mut term, mut grant) = (term, grant);
        for _ in 0..20 {
            let (log, ()) = logged(&server, one.release(&term, &grant)).await;
            released |= log.contains("execute leasewrap_2(");
            let seen = two.observe().await;
            let request = two.request(&seen, 0);
            let (log, _) = logged(&server, two.store.acquire(&request, LIMIT)).await;
            taken |=
                log.contains("\texecute leasewrap_2(") && log.contains("\texecute leasewrap_3(");
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
