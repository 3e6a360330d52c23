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
