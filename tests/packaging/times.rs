//! The numbers hang together by the rules of `lease::timing`.

use std::time::Duration;

use leasewrap::lease::timing::{Timing, TimingOptions};

use super::{command_lines, manifests, read};

/// `--hook-timeout` where none is given.
const HOOK_TIMEOUT: Duration = Duration::from_secs(5);

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// The times of a command line; whatever they are, they have to fit.
fn timing(words: &[String]) -> Timing {
    let given = |name: &str| {
        let value = words
            .iter()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.map(duration)
    };
    let options = TimingOptions {
        ttl: given("--ttl"),
        renew_interval: given("--renew-every"),
        jitter: None,
        grace: given("--grace"),
        margin: given("--margin"),
        stop_timeout: given("--stop-timeout"),
        poll_interval: given("--poll-every"),
        call_timeout: given("--call-timeout"),
    };
    Timing::new(options).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// How long a leasewrap that is told to stop may take, release and hooks and
/// all.
fn longest_stop(timing: &Timing) -> Duration {
    timing.stop_timeout() + HOOK_TIMEOUT + timing.call_timeout()
}

/// The value of the only line that sets `name` in a unit.
fn setting<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut values = unit
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {name}="));
    assert_eq!(values.next(), None, "{name}= twice");
    value
}

#[test]
fn the_unit_leaves_leasewrap_its_time_and_watches_within_the_ttl() {
    let unit = read("systemd/leasewrap@.service");
    let timing = timing(&[]);
    let stop = duration(setting(&unit, "TimeoutStopSec"));
    assert!(stop > longest_stop(&timing), "TimeoutStopSec={stop:?}");
    // The last renewal may be one interval older than the last sign of life.
    let watchdog = duration(setting(&unit, "WatchdogSec"));
    let renewal = timing.renew_interval() * 6 / 5;
    assert!(
        watchdog + renewal < timing.trust(),
        "WatchdogSec={watchdog:?}"
    );
    // A sign of life is given three times in this time; a renewal must not be
    // what it waits for.
    assert!(watchdog >= timing.ttl() / 3, "WatchdogSec={watchdog:?}");
    for (name, value) in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("KillMode", "mixed"),
        ("Restart", "always"),
        ("StartLimitIntervalSec", "0"),
        ("WatchdogSignal", "SIGKILL"),
    ] {
        assert_eq!(setting(&unit, name), value, "{name}");
    }
    // What the guard needs: its tree in /proc, its own user's processes.
    for line in unit.lines() {
        for breaks in [
            "ProtectProc=",
            "ProcSubset=",
            "PrivateUsers=",
            "RestrictRealtime=",
        ] {
            assert!(!line.starts_with(breaks), "{line}");
        }
    }
}

#[test]
fn every_pod_has_the_time_that_a_stop_takes() {
    let mut pods = 0;
    for (path, manifest) in manifests() {
        let numbers = |name: &str| -> Vec<u64> {
            let values = manifest.lines().filter_map(|line| {
                let rest = line.trim_start().strip_prefix(name)?.strip_prefix(':')?;
                rest.trim().parse().ok()
            });
            values.collect()
        };
        let grace = numbers("terminationGracePeriodSeconds");
        let lines = command_lines(&manifest);
        let leases = lines
            .iter()
            .filter(|words| words.iter().any(|word| word.starts_with("--db-file")));
        let timings: Vec<Timing> = leases.map(|words| timing(words)).collect();
        assert_eq!(grace.len(), timings.len(), "{}", path.display());
        let before = manifest
            .split_once("preStop: {sleep: {seconds: ")
            .and_then(|(_, rest)| rest.split('}').next()?.parse().ok())
            .unwrap_or(0);
        for (grace, timing) in grace.into_iter().zip(timings) {
            let needed = Duration::from_secs(before) + longest_stop(&timing);
            assert!(
                Duration::from_secs(grace) > needed,
                "{}: {grace} s for {needed:?}",
                path.display()
            );
            pods += 1;
        }
        // A standby is Ready, so nothing but this can dead-lock a rollout.
        assert!(!manifest.contains("path: /leader"), "{}", path.display());
    }
    assert_eq!(pods, 4);
}
