//! Waiting for something to become true, with a limit. A limit is for the
//! case of failure only: generous, since machines that run tests are loaded.

use std::time::{Duration, Instant};

/// The limit for what should take milliseconds.
pub const SOON: Duration = Duration::from_secs(20);

/// Asks until there is an answer; panics with `what` when there is none in time.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    match maybe(limit, &mut ask) {
        Some(answer) => answer,
        None => panic!("waited {limit:?} in vain: {what}"),
    }
}

/// Asks until it is so.
#[track_caller]
pub fn until_true(what: &str, limit: Duration, mut ask: impl FnMut() -> bool) {
    until(what, limit, || ask().then_some(()));
}

/// Asks until there is an answer or the time is over.
pub fn maybe<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        // Read before: the last question is then asked after the end, however
        // long we were kept from asking.
        let over = Instant::now() >= end;
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if over {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}
