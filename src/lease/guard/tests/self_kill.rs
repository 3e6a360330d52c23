//! When a guard that stands still is ended by its own timer.

use std::time::Duration;

use crate::lease::guard::{Limits, self_kill_at};
use crate::lease::time::BootInstant;
use crate::wire::StopTo;

#[test]
fn a_guard_that_stands_still_ends_well_within_the_margin() {
    for (ttl_ms, after_ms) in [(3_000, 150), (10_000, 500), (100_000, 750)] {
        let deadline = BootInstant::ZERO + Duration::from_secs(1);
        let limits = Limits {
            deadline,
            grace: Duration::ZERO,
            ttl: Duration::from_millis(ttl_ms),
            stop_signal: 15,
            stop_to: StopTo::Tree,
            stop_timeout: Duration::ZERO,
        };
        let after = Duration::from_millis(after_ms);
        assert_eq!(self_kill_at(&limits), deadline + after);
    }
}
