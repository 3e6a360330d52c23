//! The times of contract section 4: `--ttl` and what hangs on it.

use std::time::Duration;

use clap::Args;

use super::usage::UsageError;
use super::values::{duration, fraction};
use crate::lease::timing::{Timing, TimingOptions};

/// The times as they were given; what was not given follows from the ttl.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Times (such as 15s, 1m 30s, 500ms)")]
pub struct TimingArgs {
    /// How long the lease lasts from its last renewal
    ///
    /// At least 1s. Every end that the host can see hands over in
    /// milliseconds; the ttl is only what a lost host costs.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_TTL",
        hide_env_values = true
    )]
    #[arg(default_value = "30s", value_parser = duration)]
    ttl: Duration,

    /// Between two renewals [default: ttl/5]
    ///
    /// 2 × renew × (1 + jitter) + grace + margin ≤ ttl must hold.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_RENEW_EVERY",
        hide_env_values = true
    )]
    #[arg(value_parser = duration)]
    renew_every: Option<Duration>,

    /// Spread of the renewals, both ways, from 0 to 1
    #[arg(
        long,
        value_name = "FRACTION",
        env = "LEASEWRAP_JITTER",
        hide_env_values = true
    )]
    #[arg(default_value = "0.2", value_parser = fraction)]
    jitter: f64,

    /// From the stop signal to SIGKILL when the lease is being lost [default: ttl/5]
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_GRACE",
        hide_env_values = true
    )]
    #[arg(value_parser = duration)]
    grace: Option<Duration>,

    /// For the kill itself and for clocks of different rates [default: ttl/10]
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_MARGIN",
        hide_env_values = true
    )]
    #[arg(value_parser = duration)]
    margin: Option<Duration>,

    /// From the stop signal to SIGKILL in an orderly stop
    ///
    /// The lease is renewed all that time.
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_STOP_TIMEOUT",
        hide_env_values = true
    )]
    #[arg(default_value = "20s", value_parser = duration)]
    stop_timeout: Duration,

    /// How often a standby looks when nothing wakes it [default: the renewal interval]
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_POLL_EVERY",
        hide_env_values = true
    )]
    #[arg(value_parser = duration)]
    poll_every: Option<Duration>,

    /// Limit of every call to the database [default: ttl/5]
    #[arg(
        long,
        value_name = "DURATION",
        env = "LEASEWRAP_CALL_TIMEOUT",
        hide_env_values = true
    )]
    #[arg(value_parser = duration)]
    call_timeout: Option<Duration>,
}

impl TimingArgs {
    /// Checks the times together.
    ///
    /// # Errors
    /// They do not fit; says which would.
    pub fn check(self) -> Result<Timing, UsageError> {
        Timing::new(TimingOptions {
            ttl: Some(self.ttl),
            renew_interval: self.renew_every,
            jitter: Some(self.jitter),
            grace: self.grace,
            margin: self.margin,
            stop_timeout: Some(self.stop_timeout),
            poll_interval: self.poll_every,
            call_timeout: self.call_timeout,
        })
        .map_err(|error| UsageError::new(format!("{} {error}", error.flag())))
    }
}
