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
        stop_time: Duration::from_millis(100),
        late_by: SECOND,
        away_for: 8 * SECOND,
        requests_every: None,
        faults: Vec::new(),
        budget: 0,
        longest_gap: 20 * SECOND,
        horizon: None,
        mutation: None,
    }
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

pub fn explore(setup: Setup) {
    let verdict = check(setup);
    println!("{} states in {:?}", verdict.states, verdict.took);
    if let Some((what, path)) = verdict.violation {
        panic!("{what}\n{}", path.join("\n"));
    }
}

#[test]
fn calls() {
    let mut setup = setup(2);
    setup.faults = MISHAPS.to_vec();
    setup.budget = 2;
    explore(setup);
}

#[test]
fn processes() {
    let mut setup = setup(2);
    setup.faults = vec![
        Fault::KillKeeper(0),
        Fault::KillGuard(0),
        Fault::StopKeeper(0),
        Fault::StopGuard(0),
        Fault::Suspend(0),
        Fault::PowerOff(0),
        Fault::Term(0),
        Fault::WorkerExits(0),
        Fault::CutOff(0),
    ];
    setup.budget = 2;
    explore(setup);
}

#[test]
fn database() {
    let mut setup = setup(2);
    setup.faults = vec![
        Fault::FailOver(0),
        Fault::ClockBack,
        Fault::ClockForward,
        Fault::Outage,
        Fault::CutOff(0),
        Fault::PowerOff(0),
        Fault::Term(0),
    ];
    setup.budget = 2;
    explore(setup);
}

#[test]
fn operators() {
    let mut setup = setup(2);
    setup.faults = vec![
        Fault::Steal,
        Fault::Break,
        Fault::StepDown,
        Fault::CutOff(0),
        Fault::PowerOff(0),
        Fault::Term(0),
        Fault::WorkerExits(0),
    ];
    setup.budget = 2;
    explore(setup);
}
