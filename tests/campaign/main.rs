//! Faults at random, many at a time, on many leases side by side; whoever
//! worked has witnessed it, and a judge reads that after every round.
//!
//! `cargo test --test campaign` runs a short campaign.
//! `LWTESTS_FAULTS=10000 LWTESTS_SEED=7 cargo test --test campaign -- --nocapture`
//! runs a long one; `LWTESTS_AT_ONCE` says how many worlds live at a time.
//! A failure names the world that repeats it: `LWTESTS_SEED=7 LWTESTS_WORLD=12`.

#[path = "../store/postgres/bouncer.rs"]
#[expect(dead_code, reason = "its console is not used here")]
mod bouncer;
#[path = "../support/mod.rs"]
mod support;

mod backend;
mod contender;
mod faults;
mod hosts;
mod judge;
mod plan;
mod strike;
mod tally;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use plan::{Means, Plan};
use tally::Tally;
use world::World;

/// Rounds of a world, before the next one comes.
const ROUNDS: usize = 24;
/// Rounds of a world in a short campaign.
const SHORT_ROUNDS: usize = 4;
/// Worlds of a short campaign: each kind of database once.
const SHORT_WORLDS: u32 = 6;
/// The seed of a short campaign.
const SEED: u64 = 6;
/// Worlds at a time.
const AT_ONCE: usize = 6;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not {value:?}")),
    )
}

/// How long a campaign is.
struct Campaign {
    seed: u64,
    faults: usize,
    rounds: usize,
    at_once: usize,
    worlds: std::ops::Range<u32>,
    means: Means,
}

impl Campaign {
    fn from_environment() -> Self {
        let number = |name| variable(name).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let world = variable("LWTESTS_WORLD").map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let faults = number("LWTESTS_FAULTS");
        let short = faults.is_none() && world.is_none();
        Self {
            seed: variable("LWTESTS_SEED").unwrap_or(SEED),
            faults: faults.unwrap_or(usize::MAX),
            rounds: if short { SHORT_ROUNDS } else { ROUNDS },
            worlds: match (world, short) {
                (Some(world), _) => world..world.saturating_add(1),
                (None, true) => 0..SHORT_WORLDS,
                (None, false) => 0..u32::MAX,
            },
            at_once: number("LWTESTS_AT_ONCE").unwrap_or(AT_ONCE),
            means: means(),
        }
    }
}

/// What this machine allows; what it does not is said, and left out.
fn means() -> Means {
    let root = nix::unistd::geteuid().is_root();
    let hosts = if root {
        hosts::Host::new().map(drop)
    } else {
        Err("not root".to_owned())
    };
    let root = root && hosts.is_ok();
    let mut unshare = std::process::Command::new("unshare");
    unshare.args([
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
        "true",
    ]);
    let namespaces = unshare.output().is_ok_and(|output| output.status.success());
    if let Err(why) = hosts {
        tally::say(&format!(
            "left out: hosts with a network of their own, small disks ({why})"
        ));
    }
    if !namespaces {
        tally::say("left out: --pid-namespace (no such namespaces here)");
    }
    Means { root, namespaces }
}

/// One world of it, whole; `Err` is what to print.
fn run_world(
    campaign: &Campaign,
    number: u32,
    done: &AtomicUsize,
    tally: &Tally,
) -> Result<(), String> {
    let mut plan = Plan::new(campaign.seed, number, campaign.means);
    let spec = plan.spec.clone();
    let mut history = Vec::new();
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::start(&spec)?;
        for _ in 0..campaign.rounds {
            if done.load(Ordering::Relaxed) >= campaign.faults {
                break;
            }
            let round = plan.round();
            history.push(round.to_string());
            let took = world.live_through(&round)?;
            tally.recovered(took, || format!("world {number}: {round}"));
            done.fetch_add(round.strikes.len(), Ordering::Relaxed);
            tally.count(round.strikes.iter().map(|strike| strike.fault));
        }
        world.end()
    }));
    let lived = lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("the kit failed: {}", text.unwrap_or("?")))
    });
    let lived = lived.map(|overlaps| tally.hand_overs(&overlaps));
    lived.map_err(|wrong| {
        let list = history.iter().enumerate();
        let list: String = list.map(|(at, round)| format!("  {:2}. {round}\n", at + 1)).collect();
        format!(
            "{wrong}\nworld: {spec:?}\nfaults so far:\n{list}repeat it: LWTESTS_SEED={} LWTESTS_WORLD={number} \
             cargo test --test campaign -- --nocapture",
            campaign.seed
        )
    })
}

#[test]
fn two_workers_never_live() {
    let campaign = Campaign::from_environment();
    let tally = Tally::new(campaign.seed);
    let (done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let next = AtomicU32::new(campaign.worlds.start);
    let one_after_the_other = || {
        while done.load(Ordering::Relaxed) < campaign.faults {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if !campaign.worlds.contains(&number) {
                break;
            }
            if let Err(wrong) = run_world(&campaign, number, &done, &tally) {
                failed.fetch_add(1, Ordering::Relaxed);
                tally::say(&format!("=== world {number} ===\n{wrong}"));
            }
            tally.report(done.load(Ordering::Relaxed));
        }
    };
    std::thread::scope(|scope| {
        (0..campaign.at_once).for_each(|_| _ = scope.spawn(one_after_the_other));
    });
    tally.kinds();
    let failed = failed.load(Ordering::Relaxed);
    assert_eq!(failed, 0, "worlds in which something was wrong, see above");
}
