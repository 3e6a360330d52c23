//! Long runs of worlds that are drawn from a seed: any times that fit, clocks
//! of any rates that the margin allows for, and one fault after the other,
//! far beyond what can be explored in full. A host whose leasewrap has ended
//! starts it again.

use std::sync::Arc;
use std::time::Duration;

use leasewrap::lease::keeper::{Config, Phase};
use leasewrap::lease::timing::{Chance, TimingOptions};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::coverage::Pairs;
use crate::scenarios::{ALL, config};
use crate::world::calls::Mishap;
use crate::world::faults::Fault;
use crate::world::mischief;
use crate::world::{Choice, HostSetup, Setup, World};

/// How long each lasts at most, by its own clock.
const LENGTH: Duration = Duration::from_secs(300);

fn millis(rng: &mut StdRng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.random_range(least..=most))
}

/// Times that fit into a ttl.
fn times(rng: &mut StdRng) -> TimingOptions {
    let ttl = rng.random_range(2_000..20_000_u64);
    let jitter = f64::from(rng.random_range(0..50_u32)) / 100.0;
    // The margin has to be more than the clocks differ by, and the kill.
    let margin = ttl / 10 + rng.random_range(0..ttl / 20);
    let grace = rng.random_range(0..ttl / 5);
    let renewals = f64::from(u32::try_from(ttl - margin - grace).expect("small"));
    let longest = (renewals / 2.0 / (1.0 + jitter)).floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small"
    )]
    let renew_interval = rng.random_range(longest as u64 / 4..longest as u64);
    TimingOptions {
        ttl: Some(Duration::from_millis(ttl)),
        renew_interval: Some(Duration::from_millis(renew_interval)),
        jitter: Some(jitter),
        grace: Some(Duration::from_millis(grace)),
        margin: Some(Duration::from_millis(margin)),
        stop_timeout: Some(millis(rng, 0, 10_000)),
        poll_interval: Some(millis(rng, 100, ttl)),
        call_timeout: Some(millis(rng, 50, ttl)),
    }
}

fn setup(rng: &mut StdRng, driven: &Arc<Pairs>) -> Setup {
    let times = times(rng);
    let ttl = times.ttl.expect("given");
    let hosts = (0..rng.random_range(2..=3_u64)).map(|_| HostSetup {
        config: Arc::new(Config {
            rejoin: rng.random(),
            slots: rng.random_range(1..=2),
            precheck: rng.random(),
            // A shorter one ends before anything was watched for long enough.
            wait: rng
                .random_ratio(1, 4)
                .then(|| ttl * 3 + millis(rng, 0, 30_000)),
            ..config(times)
        }),
        starts_after: millis(rng, 0, 1_000),
        // chrony slews by up to 8.3 %; both ways here.
        clock_rate: rng.random_range(960..=1040),
        obeys: rng.random(),
        leaves_behind: rng.random(),
    });
    Setup {
        hosts: hosts.collect(),
        kill_time: ttl / 100,
        fork_time: millis(rng, 0, 500),
        stop_time: millis(rng, 1, 1_000),
        late_by: millis(rng, 1, 10_000),
        away_for: millis(rng, 1, 15_000),
        requests_every: None,
        faults: faults(),
        budget: u8::MAX,
        // One watch, and most of another one that the end of `wait` cuts off.
        longest_gap: ttl * 7 + Duration::from_secs(15),
        // What happens to a lease's first holders happens early.
        horizon: Some(if rng.random() { LENGTH } else { LENGTH / 10 }),
        mutation: None,
        driven: Arc::clone(driven),
    }
}

/// Every kind of fault, and what else can come to a host.
fn faults() -> Vec<Fault> {
    let mut faults = ALL.to_vec();
    faults.extend([Fault::Pause, Fault::Recovery, Fault::Notice]);
    faults.push(Fault::Call(0, Mishap::Denied));
    faults.extend(mischief::ALL.map(|mischief| Fault::Of(0, mischief)));
    faults
}

/// Draws a world and lets it run. Returns what it was like.
fn run(seed: u64, driven: &Arc<Pairs>) -> Run {
    let mut rng = StdRng::seed_from_u64(seed);
    let setup = setup(&mut rng, driven);
    let mut world = World::new(&setup);
    world.store.schema = rng.random();
    let mut run = Run::default();
    let mut last = Vec::new();
    let length = setup.horizon.unwrap_or(LENGTH);
    while world.passed() < length && world.left > 0 {
        world.chance = Chance(rng.random());
        let faulty = rng.random_ratio(1, if is_delicate(&world) { 6 } else { 40 });
        let choice = draw(&mut rng, &setup, &world, faulty);
        let Some(choice) = choice else { break };
        if last.len() == 80 {
            last.remove(0);
        }
        last.push(format!(
            "{:>7} {}",
            world.passed().as_millis(),
            world.describe(&choice)
        ));
        let terms = world.terms;
        world.apply(&setup, &choice);
        run.faults += u64::from(matches!(choice, Choice::Fault(_)));
        run.terms += world.terms - terms;
        if let Some(what) = world.violation {
            panic!("seed {seed}: {what}\n{setup:?}\n{}", last.join("\n"));
        }
        for host in 0..world.hosts.len() {
            if world.hosts[host].is_over() {
                world.restart(&setup, host);
            }
        }
    }
    run
}

/// A moment that is short, and in which little may go wrong by chance.
fn is_delicate(world: &World) -> bool {
    world.hosts.iter().any(|host| {
        let rests = match host.keeper.phase() {
            Phase::Standby | Phase::Holding | Phase::Ended => true,
            Phase::Acquiring | Phase::Starting | Phase::Stopping | Phase::Releasing => false,
        };
        !rests && host.keeper_runs()
    })
}

fn draw(rng: &mut StdRng, setup: &Setup, world: &World, faulty: bool) -> Option<Choice> {
    if faulty {
        let kind = setup.faults[rng.random_range(0..setup.faults.len())];
        let faults: Vec<Fault> = world.possible(kind);
        if !faults.is_empty() {
            return Some(Choice::Fault(faults[rng.random_range(0..faults.len())]));
        }
    }
    let next = world.next(setup);
    (!next.is_empty()).then(|| Choice::Happens(next[rng.random_range(0..next.len())]))
}

#[derive(Default)]
pub struct Run {
    pub faults: u64,
    pub terms: u64,
}

/// Lets these worlds run.
pub fn drawn(seeds: impl IntoIterator<Item = u64>, driven: &Arc<Pairs>) -> Run {
    let mut total = Run::default();
    for seed in seeds {
        let run = run(seed, driven);
        total.faults += run.faults;
        total.terms += run.terms;
    }
    total
}

/// What is drawn must be able to end: nobody is left in a state for ever.
#[test]
fn a_world_without_faults_goes_on() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut setup = Setup {
        budget: 0,
        ..setup(&mut rng, &Arc::default())
    };
    for host in &mut setup.hosts {
        host.config = Arc::new(Config {
            slots: 2,
            wait: None,
            ..(*host.config).clone()
        });
    }
    let mut world = World::new(&setup);
    while world.passed() < LENGTH {
        let Some(choice) = draw(&mut rng, &setup, &world, false) else {
            break;
        };
        world.apply(&setup, &choice);
    }
    assert_eq!(world.violation, None);
    let holding = world
        .hosts
        .iter()
        .filter(|host| host.keeper.phase() == Phase::Holding);
    assert_eq!(holding.count(), 2);
}
