//! Whatever comes from outside is read, or refused in one clear line: never a
//! panic, never a hang, never a password in a message.
//!
//! Inputs are made from their grammar and then bent (proptest); a failure
//! prints the input that shows it, made as small as possible. Each test runs
//! as often as its name's constant says, and `LWTESTS_FUZZ=20` times that
//! with this variable. What holds of them is in `properties/`, and is asked of
//! the inputs that a fuzzer makes as well: `guided/run`.

#[path = "../support/mod.rs"]
mod support;

#[path = "../store/bench.rs"]
#[expect(dead_code, reason = "the store's tests use all of it")]
mod bench;
mod environment;
mod frames;
mod properties;
mod requests;
mod rows;
mod texts;
mod urls;

use proptest::test_runner::Config;

/// So many cases, or a multiple of them.
pub fn cases(count: u32) -> Config {
    let times = std::env::var("LWTESTS_FUZZ").ok();
    let times = times.map_or(1, |times| times.parse().expect("LWTESTS_FUZZ: a number"));
    Config {
        cases: count * times,
        // Whoever finds something writes a test of it.
        failure_persistence: None,
        ..Config::default()
    }
}
