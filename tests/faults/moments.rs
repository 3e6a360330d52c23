//! A kill at any moment of leasewrap's life leaves nobody alive, and the
//! lease free for the next one at once.

use std::time::{Duration, Instant};

use crate::scene::Scene;
use crate::support::leasewrap::guard_of;
use crate::support::server::shared;
use crate::support::wait::{SOON, maybe, until_true};
use crate::support::{proc, sys};

/// So long that waiting it out would fail the test.
const TTL: Duration = Duration::from_secs(60);

/// Kills in each test.
const ROUNDS: u32 = 24;

/// Kills after more and more time: from before the guard is there until
/// after the worker runs.
fn killed_at_any_moment(fault: &str, kill: impl Fn(i32)) {
    let scene = Scene::new(fault, TTL);
    let tree = ["daemon", "ignore=15"];
    // How long it takes until the worker runs, on this host and today.
    let begun = Instant::now();
    let (first, _) = scene.hold(&shared().url(), &tree);
    let start = begun.elapsed();
    kill(first.pid());
    first.end();
    for round in 0..ROUNDS {
        let leasewrap = scene.leasewrap(&shared().url(), &tree).spawn();
        // Rounds differ in what has happened by then; each is as good as another.
        std::thread::sleep(start.mul_f64(1.5 * f64::from(round) / f64::from(ROUNDS)));
        kill(leasewrap.pid());
        until_true("nobody of it is alive", SOON, || {
            leasewrap.alive().is_empty()
        });
        leasewrap.end();
    }
    let last = scene.log.spans().last().map_or(0, |(token, _, _)| *token);
    let next = scene
        .leasewrap(&shared().url(), &[])
        .option("--wait", "30s");
    let next = next.spawn();
    scene.handed_over(last, 2 * SOON);
    next.signal(libc::SIGTERM);
    next.end().code(143);
    assert!(
        scene
            .log
            .hand_overs()
            .iter()
            .all(|seen| seen.overlap_ms <= 0.0)
    );
}

#[test]
fn keeper_killed_at_any_moment() {
    killed_at_any_moment("keeper-killed-at-any-moment", |keeper| {
        sys::kill(keeper, libc::SIGKILL);
    });
}

#[test]
fn keeper_terminated_at_any_moment() {
    killed_at_any_moment("keeper-terminated-at-any-moment", |keeper| {
        // The worker ignores TERM; a second one, late enough, cuts the wait short.
        until_true("it is cut short", SOON, || {
            sys::kill(keeper, libc::SIGTERM);
            std::thread::sleep(Duration::from_millis(20));
            !proc::alive(keeper)
        });
    });
}

#[test]
fn guard_killed_at_any_moment() {
    killed_at_any_moment("guard-killed-at-any-moment", |keeper| {
        match maybe(SOON, || guard_of(keeper)) {
            Some(guard) => sys::kill(guard, libc::SIGKILL),
            None => panic!("there never was a guard"),
        };
    });
}
