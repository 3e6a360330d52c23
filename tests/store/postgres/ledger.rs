//! Workers that were paused across a take-over, again and again, and what
//! they have written to a protected table.

use std::time::Duration;

use leasewrap::lease::ids::Slot;
use leasewrap::lease::record::{Acquired, Grant, Refusal, Renewed, Term};
use leasewrap::store::admin::{Admin, Protection};
use tokio::time::sleep;

use super::bench_on;
use super::client::Client;
use crate::bench::{Bench, Contender, LIMIT, run};
use crate::support::server::Server;

/// Leases side by side.
const LEASES: u32 = 6;

/// Take-overs of each: thousands with `LWTESTS_ROUNDS=1000`, say.
fn rounds() -> usize {
    let given = std::env::var("LWTESTS_ROUNDS").ok();
    given.map_or(60, |rounds| {
        rounds.parse().expect("LWTESTS_ROUNDS: a number")
    })
}

/// A worker's session: what libpq makes of `PGOPTIONS` with `--pgoptions`.
async fn worker(server: &Server, bench: &Bench, token: i64) -> Client {
    let mut client = Client::new(server).await;
    let set = format!(
        "set leasewrap.name = '{}'; set leasewrap.token = '{token}'",
        bench.name
    );
    client.ok(&set).await;
    client
}

/// Where in its work a worker is paused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Paused {
    /// Between two transactions.
    Outside,
    /// Before the statement that the fence looks at.
    BeforeTheFence,
    /// It has passed the fence, and its transaction is open.
    PastTheFence,
}

/// Takes over. A renewal may come in between what it saw and what it does.
async fn take(next: &mut Contender) -> (Term, Grant) {
    loop {
        match next.try_take(0).await {
            Acquired::Granted(grant) => {
                let term = Term {
                    slot: Slot(0),
                    holder: next.holder,
                    token: grant.token,
                };
                return (term, grant);
            }
            Acquired::Refused(Refusal::Changed) => {}
            other => panic!("not granted: {other:?}"),
        }
    }
}

/// Renews until the lease is lost.
async fn renew(holder: &mut Contender, term: &Term) {
    while let Renewed::Granted { .. } = holder.renew(term).await {
        sleep(Duration::from_millis(5)).await;
    }
}

/// One worker after the other is paused, its lease is taken over, and it goes
/// on: not a row of it is committed once the next holder has begun.
async fn take_turns(server: &Server, bench: &Bench, table: &str) -> usize {
    let mut refused = 0;
    let insert = |token: i64| format!("insert into {table} values ({token})");
    let count = format!("select count(*) from {table}");
    let mut holder = bench.contender("holder");
    let (mut term, _) = holder.take(0).await;
    for round in 0..rounds() {
        let token = term.token.0;
        let mut old = worker(server, bench, token).await;
        old.ok(&insert(token)).await;
        let paused = [
            Paused::Outside,
            Paused::BeforeTheFence,
            Paused::PastTheFence,
        ][round % 3];
        match paused {
            Paused::Outside => {}
            Paused::BeforeTheFence => drop(old.ok("begin; select 1").await),
            Paused::PastTheFence => {
                old.ok("begin").await;
                old.ok(&insert(token)).await;
            }
        }
        let mut next = bench.contender("next");
        let (taken, ()) = tokio::join!(take(&mut next), renew(&mut holder, &term));
        assert!(taken.0.token > term.token);
        // The next worker's first look.
        let mut new = worker(server, bench, taken.0.token.0).await;
        new.ok(&insert(taken.0.token.0)).await;
        let seen = new.ok(&count).await;
        let mut went_through = Vec::new();
        for sql in [insert(token), "commit".to_owned()] {
            went_through.push(old.run(&sql).await.map_err(|(code, _)| code));
        }
        // Refused by the fence, or its session was ended; a commit of what was
        // refused is a rollback.
        let refusal = went_through[0]
            .as_ref()
            .expect_err("a row of an old holder");
        assert!(
            ["LW001", "57P01", ""].contains(&refusal.as_str()),
            "{paused:?}: {refusal}"
        );
        refused += 1;
        assert_eq!(new.ok(&count).await, seen, "{paused:?}: a row came later");
        (holder, term) = (next, taken.0);
    }
    refused
}

#[test]
fn a_worker_that_was_paused_across_a_take_over_commits_nothing() {
    let server = Server::start();
    let settings = bench_on(&server).settings;
    let leases: Vec<(Bench, String)> = (0..LEASES)
        .map(|number| (Bench::new(settings.clone()), format!("ledger{number}")))
        .collect();
    run(async {
        for (bench, table) in &leases {
            server.psql(&format!("create table {table} (token bigint)"));
            let protection = Protection {
                tables: vec![table.clone()],
                name: bench.name.clone(),
                allow_roles: Vec::new(),
            };
            let protected = bench.store().protect(&protection, LIMIT).await;
            protected.expect("protected");
        }
        let turns = leases
            .iter()
            .map(|(bench, table)| take_turns(&server, bench, table));
        let refused: usize = futures_util::future::join_all(turns)
            .await
            .into_iter()
            .sum();
        println!("{refused} take-overs, each with a worker paused across it; no late row");
        assert_eq!(refused, rounds() * leases.len());
    });
}
