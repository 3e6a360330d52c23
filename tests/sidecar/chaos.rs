//! Two pods with one lease, whose processes are killed, stopped and woken at
//! random, and started again as a kubelet does: never do two workers live.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::pod::{Pod, SHORT};
use crate::support::leasewrap::{Builder, Leasewrap, guard_of};
use crate::support::sys;
use crate::support::wait::{SOON, maybe, until};

/// How many faults; each takes a moment.
const FAULTS: usize = 60;

/// One container: what runs in it, and is started again.
struct Container<'a> {
    start: Box<dyn Fn() -> Builder + 'a>,
    running: Leasewrap,
}

impl<'a> Container<'a> {
    fn new(start: impl Fn() -> Builder + 'a) -> Self {
        let running = start().spawn();
        Self {
            start: Box::new(start),
            running,
        }
    }

    fn restart_if_ended(&mut self) {
        if self.running.ended().is_some() {
            self.running = (self.start)().spawn();
        }
    }
}

/// Who gets it, and what.
fn fault(random: &mut StdRng, pod: &Pod, serve: i32, attach: i32) -> String {
    let (name, victim) = match random.random_range(0..7) {
        0..2 => ("serve", serve),
        2..4 => ("attach", attach),
        4..6 => ("guard", guard_of(attach).unwrap_or(attach)),
        _ => {
            let _result = std::fs::remove_file(pod.socket());
            return "the socket is deleted".to_owned();
        }
    };
    let signals = [libc::SIGKILL, libc::SIGSTOP, libc::SIGCONT, libc::SIGTERM];
    let signal = signals[random.random_range(0..signals.len())];
    sys::kill(victim, signal);
    format!("{name} gets {signal}")
}

#[test]
fn two_pods_under_faults_at_random() {
    let seed = std::env::var("LEASEWRAP_TESTS_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| sys::boot_ns() % 1_000_000);
    let mut random = StdRng::seed_from_u64(seed);
    let one = Pod::new("sidecar-chaos", SHORT);
    let two = Pod::beside(&one);
    let pods = [&one, &two];
    let mut containers: Vec<[Container<'_>; 2]> = pods
        .iter()
        .map(|pod| {
            [
                Container::new(|| pod.serve()),
                Container::new(|| pod.attach().worker(&one.scene.log.worker(&[]))),
            ]
        })
        .collect();
    one.scene.log.wait_newer(0, SOON);
    let mut faults = Vec::new();
    for _ in 0..FAULTS {
        let at = random.random_range(0..pods.len());
        for container in containers.iter_mut().flatten() {
            container.restart_if_ended();
        }
        let [serve, attach] = &containers[at];
        let (serve, attach) = (serve.running.pid(), attach.running.pid());
        faults.push(format!(
            "{at}: {}",
            fault(&mut random, pods[at], serve, attach)
        ));
        let pause = Duration::from_millis(random.random_range(0..600));
        maybe(pause, || None::<()>);
    }
    // All of them go on, and one of them works.
    let last = one
        .scene
        .log
        .spans()
        .last()
        .map_or(0, |(token, _, _)| *token);
    until("somebody works", SOON * 2, || {
        for [serve, attach] in &mut containers {
            for container in [serve, attach] {
                container.restart_if_ended();
                sys::kill(container.running.pid(), libc::SIGCONT);
            }
        }
        let (token, _, at) = one.scene.log.spans().last().copied()?;
        (token > last || sys::boot_ns() - at.at_ns < 20_000_000).then_some(())
    });
    let seen = one.scene.log.hand_overs();
    let worst = seen
        .iter()
        .map(|seen| seen.overlap_ms)
        .fold(f64::NEG_INFINITY, f64::max);
    one.scene.say(&format!(
        "seed={seed} overlap_ms={worst:.1} terms={}",
        seen.len() + 1
    ));
    assert!(worst <= 0.0, "two workers lived: {seen:?}\n{faults:#?}");
}
