//! The worlds that are tried.

use std::sync::Arc;
use std::time::Duration;

use leasewrap::lease::ids::{Label, Value};
use leasewrap::lease::keeper::{Config, Takeover};
use leasewrap::lease::record::Terms;
use leasewrap::lease::timing::{Timing, TimingOptions};

use crate::check::check;
use crate::world::calls::Mishap;
use crate::world::faults::Fault;
use crate::world::mischief;
use crate::world::{HostSetup, Setup};

const SECOND: Duration = Duration::from_secs(1);

/// Six seconds of ttl: renewals every 2 s, a stop 4 s and a kill 5 s after
/// the last.
pub fn times() -> TimingOptions {
    TimingOptions {
        ttl: Some(6 * SECOND),
        renew_interval: Some(2 * SECOND),
        jitter: Some(0.0),
        grace: Some(SECOND),
        margin: Some(SECOND),
        stop_timeout: Some(2 * SECOND),
        poll_interval: Some(2 * SECOND),
        call_timeout: Some(SECOND),
    }
}

pub fn config(times: TimingOptions) -> Config {
    let timing = Timing::new(times).expect("times that fit");
    let terms = Terms {
        ttl: timing.ttl(),
        takeover_delay: Duration::ZERO,
        hold_at_least: Duration::ZERO,
        label: Label::new("model").expect("a label"),
        value: Value::new("").expect("a value"),
    };
    Config {
        timing,
        slots: 1,
        terms,
        takeover: Takeover::Observed,
        wait: None,
        rejoin: false,
        precheck: false,
        attached: false,
    }
}

pub fn setup(hosts: u32) -> Setup {
    let config = Arc::new(config(times()));
    let host = |index: u32| HostSetup {
        config: Arc::clone(&config),
        starts_after: Duration::from_millis(300) * index,
        clock_rate: 1000,
        obeys: false,
        leaves_behind: true,
    };
    Setup {
        hosts: (0..hosts).map(host).collect(),
        kill_time: Duration::from_millis(100),
        fork_time: Duration::ZERO,
        stop_time: Duration::from_millis(100),
        late_by: SECOND,
        away_for: 8 * SECOND,
        requests_every: None,
        faults: Vec::new(),
        budget: 0,
        longest_gap: 20 * SECOND,
        horizon: None,
        mutation: None,
        driven: Arc::default(),
    }
}

/// The same, but no longer than so many seconds.
pub fn within(seconds: u64, setup: Setup) -> Setup {
    Setup {
        horizon: Some(Duration::from_secs(seconds)),
        ..setup
    }
}

/// The same with `--rejoin`.
pub fn rejoining(mut setup: Setup) -> Setup {
    for host in &mut setup.hosts {
        let config = (*host.config).clone();
        host.config = Arc::new(Config {
            rejoin: true,
            ..config
        });
    }
    setup
}

const MISHAPS: [Fault; 5] = [
    Fault::Call(0, Mishap::Lost),
    Fault::Call(0, Mishap::AnswerLost),
    Fault::Call(0, Mishap::SlowAnswer),
    Fault::Call(0, Mishap::SlowExecution),
    Fault::Call(0, Mishap::Late),
];

/// Every kind of fault.
pub const ALL: [Fault; 21] = [
    Fault::Call(0, Mishap::Lost),
    Fault::Call(0, Mishap::AnswerLost),
    Fault::Call(0, Mishap::SlowAnswer),
    Fault::Call(0, Mishap::SlowExecution),
    Fault::Call(0, Mishap::Late),
    Fault::KillKeeper(0),
    Fault::KillGuard(0),
    Fault::StopKeeper(0),
    Fault::StopGuard(0),
    Fault::PowerOff(0),
    Fault::Suspend(0),
    Fault::CutOff(0),
    Fault::Outage,
    Fault::FailOver(0),
    Fault::ClockForward,
    Fault::ClockBack,
    Fault::Term(0),
    Fault::WorkerExits(0),
    Fault::Steal,
    Fault::Break,
    Fault::StepDown,
];

/// Nothing must go wrong. `LEASEWRAP_MORE_FAULTS` adds to the budget, and to
/// the hours that it takes.
pub fn explore(mut setup: Setup) {
    let more = std::env::var("LEASEWRAP_MORE_FAULTS").ok();
    setup.budget += more.and_then(|more| more.parse::<u8>().ok()).unwrap_or(0);
    let verdict = check(setup);
    println!("{} states in {:?}", verdict.states, verdict.took);
    if let Some((what, path)) = verdict.violation {
        panic!("{what}\n{}", path.join("\n"));
    }
}

/// Two hosts and these faults, so many in all.
fn two(budget: u8, faults: &[Fault]) -> Setup {
    Setup {
        budget,
        faults: faults.to_vec(),
        ..setup(2)
    }
}

#[test]
fn calls_fail() {
    explore(calls_failing(3));
}

pub fn calls_failing(budget: u8) -> Setup {
    two(budget, &MISHAPS)
}

#[test]
fn processes_are_killed() {
    explore(processes_killed(3));
}

pub fn processes_killed(budget: u8) -> Setup {
    two(
        budget,
        &[
            Fault::KillKeeper(0),
            Fault::KillGuard(0),
            Fault::PowerOff(0),
            Fault::Call(0, Mishap::AnswerLost),
            Fault::Call(0, Mishap::Late),
        ],
    )
}

#[test]
fn processes_and_hosts_stand_still() {
    explore(standing_still(2));
}

pub fn standing_still(budget: u8) -> Setup {
    two(
        budget,
        &[Fault::StopKeeper(0), Fault::StopGuard(0), Fault::Suspend(0)],
    )
}

/// What else can come to a host that holds, to its worker and to its guard.
#[test]
fn mischief_of_every_kind() {
    let faults = mischief::ALL.map(|mischief| Fault::Of(0, mischief));
    explore(within(10, two(2, &faults)));
}

#[test]
fn workers_end_and_operators_act() {
    for leaves_behind in [false, true] {
        let mut setup = two(
            2,
            &[
                Fault::Term(0),
                Fault::WorkerExits(0),
                Fault::StepDown,
                Fault::Break,
                Fault::Steal,
            ],
        );
        for host in &mut setup.hosts {
            (host.obeys, host.leaves_behind) = (!leaves_behind, leaves_behind);
        }
        explore(setup);
    }
}

#[test]
fn the_database_fails_over() {
    explore(failing_over());
}

pub fn failing_over() -> Setup {
    let faults = [Fault::FailOver(0), Fault::Suspend(0)];
    within(14, rejoining(two(2, &faults)))
}

/// The first acquisition of all is lost, and its holder with it.
#[test]
fn rows_are_lost() {
    explore(losing_rows());
}

pub fn losing_rows() -> Setup {
    within(25, two(2, &[Fault::FailOver(0), Fault::PowerOff(0)]))
}

#[test]
fn the_clock_of_the_database_is_stepped() {
    explore(two(
        2,
        &[
            Fault::ClockForward,
            Fault::ClockBack,
            Fault::CutOff(0),
            Fault::PowerOff(0),
        ],
    ));
}

/// Clocks as different as two that are slewed by 8 % can be.
#[test]
fn clocks_run_at_different_rates() {
    for rates in [[920, 1080], [1080, 920]] {
        let mut setup = two(
            2,
            &[
                Fault::Call(0, Mishap::SlowAnswer),
                Fault::CutOff(0),
                Fault::StopKeeper(0),
            ],
        );
        for (host, rate) in setup.hosts.iter_mut().zip(rates) {
            host.clock_rate = rate;
        }
        explore(within(14, setup));
    }
}

#[test]
fn three_hosts_and_any_fault() {
    let faults = ALL.to_vec();
    let setup = Setup {
        budget: 1,
        faults,
        ..setup(3)
    };
    explore(within(12, setup));
}
