//! Each rule of the lease, broken on purpose: the checker must notice. What
//! it has to notice, and in which world, is in the table.

use std::sync::Arc;
use std::time::Duration;

use leasewrap::lease::keeper::Takeover;
use leasewrap::lease::timing::TimingOptions;

use crate::check::check;
use crate::scenarios::{config, explore, failing_over, rejoining, setup, times, within};
use crate::world::calls::Mishap;
use crate::world::faults::Fault;
use crate::world::{Mutation, Setup};

const TWO_TREES: &str = "two trees at once";
const TOKEN_TWICE: &str = "a token is handed out twice";
const TOKENS_FALL: &str = "tokens do not increase";
const NOT_EMPTY: &str = "released before the tree was empty";

/// A world in which these faults may happen, so many in all.
fn world(hosts: u32, budget: u8, faults: &[Fault]) -> Setup {
    Setup {
        budget,
        faults: faults.to_vec(),
        ..setup(hosts)
    }
}

/// The rule holds, and its mutation is noticed.
fn is_noticed(setup: Setup, mutation: Mutation, as_what: &[&str]) {
    explore(setup.clone());
    breaks(setup, mutation, as_what);
}

/// The mutation is noticed, in a world that is a scenario of its own.
fn breaks(setup: Setup, mutation: Mutation, as_what: &[&str]) {
    let verdict = check(Setup {
        mutation: Some(mutation),
        ..setup
    });
    let Some((what, path)) = verdict.violation else {
        panic!("{mutation:?} passes unnoticed in {} states", verdict.states);
    };
    let path = path.join("\n");
    println!(
        "{mutation:?}: {what}, after {} states\n{path}",
        verdict.states
    );
    assert!(as_what.contains(&what), "{mutation:?}: {what}\n{path}");
}

#[test]
fn deadline_from_the_reply() {
    let setup = world(
        2,
        2,
        &[Fault::Call(0, Mishap::SlowAnswer), Fault::CutOff(0)],
    );
    is_noticed(
        slow_calls(setup),
        Mutation::DeadlineFromTheReply,
        &[TWO_TREES],
    );
}

/// Calls that may take as long as the times allow, and a standby whose clock
/// is as fast as may be.
fn slow_calls(mut setup: Setup) -> Setup {
    let times = TimingOptions {
        call_timeout: Some(Duration::from_secs(4)),
        ..times()
    };
    for (host, clock_rate) in setup.hosts.iter_mut().zip([1000, 1080]) {
        host.config = Arc::new(config(times));
        host.clock_rate = clock_rate;
        host.starts_after /= 10;
    }
    setup.horizon = Some(Duration::from_secs(9));
    setup
}

#[test]
fn unknown_is_success() {
    let setup = world(2, 1, &[Fault::CutOff(0)]);
    is_noticed(
        setup,
        Mutation::UnknownIsSuccess,
        &[TWO_TREES, "an unknown answer moves a deadline"],
    );
}

#[test]
fn late_renewal_revives() {
    let mut setup = world(2, 1, &[Fault::CutOff(0)]);
    setup.away_for = Duration::from_millis(4200);
    is_noticed(
        setup,
        Mutation::LateRenewalRevives,
        &["a worker that was told to stop is given more time"],
    );
}

#[test]
fn no_deadline_at_spawn() {
    let setup = world(2, 1, &[Fault::Suspend(0)]);
    is_noticed(
        setup,
        Mutation::NoDeadlineAtSpawn,
        &[TWO_TREES, TOKENS_FALL],
    );
}

#[test]
fn guard_keeps_no_deadline() {
    let setup = world(2, 1, &[Fault::StopKeeper(0)]);
    is_noticed(setup, Mutation::GuardKeepsNoDeadline, &[TWO_TREES]);
}

#[test]
fn release_before_empty() {
    let setup = world(2, 1, &[Fault::WorkerExits(0)]);
    is_noticed(setup, Mutation::ReleaseBeforeEmpty, &[NOT_EMPTY]);
}

#[test]
fn release_when_the_keeper_dies() {
    let setup = world(2, 1, &[Fault::KillKeeper(0)]);
    is_noticed(setup, Mutation::ReleaseWhenTheKeeperDies, &[NOT_EMPTY]);
}

#[test]
fn watch_from_the_send() {
    let faults = [
        Fault::Call(0, Mishap::SlowExecution),
        Fault::CutOff(0),
        Fault::ClockForward,
    ];
    let setup = slow_calls(world(2, 3, &faults));
    is_noticed(setup, Mutation::WatchFromTheSend, &[TWO_TREES]);
}

#[test]
fn short_watch() {
    let setup = world(2, 2, &[Fault::CutOff(0), Fault::ClockForward]);
    is_noticed(setup, Mutation::ShortWatch, &[TWO_TREES]);
}

#[test]
fn unanswered_is_forgotten() {
    let setup = world(2, 2, &[Fault::Call(0, Mishap::AnswerLost), Fault::Term(0)]);
    is_noticed(
        setup,
        Mutation::UnansweredIsForgotten,
        &["an acquisition is left unsettled"],
    );
}

#[test]
fn acquisition_compares_nothing() {
    let setup = world(
        2,
        2,
        &[Fault::WorkerExits(0), Fault::Call(0, Mishap::SlowExecution)],
    );
    is_noticed(setup, Mutation::AcquisitionComparesNothing, &[TWO_TREES]);
}

#[test]
fn incarnations_do_not_matter() {
    let faults = [Fault::WorkerExits(0), Fault::FailOver(0)];
    let mut setup = within(3, world(3, 2, &faults));
    setup.hosts[0].leaves_behind = false;
    let as_what = [TWO_TREES, TOKEN_TWICE];
    is_noticed(setup, Mutation::IncarnationsDoNotMatter, &as_what);
}

#[test]
fn release_stamps_the_new_incarnation() {
    let answer_lost = Fault::Call(0, Mishap::AnswerLost);
    let faults = [Fault::WorkerExits(0), Fault::FailOver(0), answer_lost];
    let mut setup = within(2, world(3, 3, &faults));
    // One that has not seen what was lost: it could know better.
    setup.hosts[2].starts_after = Duration::from_millis(1800);
    setup.hosts[0].leaves_behind = false;
    let as_what = [TWO_TREES, TOKEN_TWICE];
    is_noticed(setup, Mutation::ReleaseStampsTheNewIncarnation, &as_what);
}

#[test]
fn too_late_on_a_new_incarnation() {
    breaks(
        failing_over(),
        Mutation::TooLateOnANewIncarnation,
        &[TWO_TREES, TOKEN_TWICE],
    );
}

#[test]
fn fixed_token_jump() {
    let setup = within(16, rejoining(world(2, 2, &[Fault::FailOver(0)])));
    is_noticed(setup, Mutation::FixedTokenJump, &[TOKEN_TWICE, TOKENS_FALL]);
}

#[test]
fn missing_row_on_a_promoted_replica() {
    let setup = world(2, 1, &[Fault::FailOver(0)]);
    is_noticed(
        setup,
        Mutation::MissingRowOnPromotedReplica,
        &[TWO_TREES, TOKEN_TWICE],
    );
}

#[test]
fn requests_bump_the_revision() {
    let setup = Setup {
        requests_every: Some(Duration::from_secs(3)),
        ..world(2, 1, &[Fault::PowerOff(0)])
    };
    is_noticed(setup, Mutation::RequestsBumpTheRevision, &["nobody runs"]);
}

#[test]
fn notices_are_believed() {
    let setup = within(16, world(2, 1, &[Fault::Notice]));
    is_noticed(setup, Mutation::NoticesAreBelieved, &[TWO_TREES]);
}

/// A margin that a kill uses up leaves nothing for clocks that differ.
#[test]
fn margin_that_is_the_kill_time() {
    let with_margin = |margin: u64| {
        let mut setup = world(2, 1, &[Fault::CutOff(0)]);
        setup.horizon = Some(Duration::from_secs(30));
        let times = TimingOptions {
            margin: Some(Duration::from_millis(margin)),
            ..times()
        };
        for (host, clock_rate) in setup.hosts.iter_mut().zip([920, 1080]) {
            host.config = Arc::new(config(times));
            host.clock_rate = clock_rate;
        }
        setup
    };
    let kill_time = setup(2).kill_time.as_millis();
    explore(with_margin(1000));
    let verdict = check(with_margin(u64::try_from(kill_time).expect("a short time")));
    assert_eq!(verdict.violation.map(|(what, _)| what), Some(TWO_TREES));
}

/// What `--takeover clock` is said to risk, it does risk.
#[test]
fn takeover_by_a_clock_that_steps() {
    let mut setup = world(2, 1, &[Fault::ClockForward]);
    explore(setup.clone());
    for host in &mut setup.hosts {
        let config = leasewrap::lease::keeper::Config {
            takeover: Takeover::Clock,
            ..(*host.config).clone()
        };
        host.config = Arc::new(config);
    }
    let verdict = check(setup);
    assert_eq!(verdict.violation.map(|(what, _)| what), Some(TWO_TREES));
}
