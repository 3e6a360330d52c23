//! The lease rules: pure, so that production, property tests and the model
//! checker run the very same code. Nothing here reads a clock, does I/O or
//! draws a random number; `now` and jitter are arguments.

pub mod attach;
pub mod guard;
pub mod ids;
pub mod keeper;
pub mod record;
pub mod time;
pub mod timing;
pub mod watch;

use std::time::Duration;

/// `timeout` and `killall` deliver a signal twice at once; a further one that
/// comes so long after the first means hurry.
pub const HURRY_AFTER: Duration = Duration::from_millis(500);

/// `signal(7)`: the same numbers on every architecture.
const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;

/// What an orderly stop that `signal` asks for sends: INT and QUIT as they
/// are; `None` is `--stop-signal`.
pub fn stop_signal_of(signal: i32) -> Option<i32> {
    matches!(signal, SIGINT | SIGQUIT).then_some(signal)
}
