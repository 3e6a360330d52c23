//! How hooks ended, for the log.

use std::time::Duration;

use super::command::Running;
use super::notice::Notice;
use crate::lease::ids::LeaseName;
use crate::lease::time::BootInstant;

/// A hook for an event has ended; what it said is in the log already.
pub fn event(hook: &Running, now: BootInstant) {
    let took_ms = millis(hook.took(now));
    match hook.complaint() {
        None => tracing::debug!(
            event = "hook-done",
            name = %hook.lease(),
            hook = hook.name(),
            trigger = hook.trigger(),
            took_ms,
            "the {hook} is done"
        ),
        Some(why) => tracing::warn!(
            event = "hook-failed",
            name = %hook.lease(),
            hook = hook.name(),
            trigger = hook.trigger(),
            took_ms,
            "the {hook} failed: {why}"
        ),
    }
}

/// A precheck has ended. It runs again and again: what it says is worth a
/// line only when it has changed. `before` is what was wrong until now; what
/// is wrong from now on comes back.
pub fn precheck(hook: &mut Running, before: Option<&str>, now: BootInstant) -> Option<String> {
    let lines = hook.take_kept();
    let took_ms = millis(hook.took(now));
    let complaint = hook.complaint();
    macro_rules! output {
        ($level:ident) => {
            for line in &lines {
                tracing::$level!(
                    event = "hook-output",
                    name = %hook.lease(),
                    hook = hook.name(),
                    "{hook}: {line}"
                );
            }
        };
    }
    macro_rules! failed {
        ($level:ident, $why:expr) => {
            tracing::$level!(
                event = "precheck-failed",
                name = %hook.lease(),
                took_ms,
                "the precheck does not pass: {}",
                $why
            )
        };
    }
    match &complaint {
        None if before.is_some() => {
            output!(info);
            tracing::info!(
                event = "precheck-passed",
                name = %hook.lease(),
                took_ms,
                "the precheck passes again"
            );
        }
        None => output!(debug),
        Some(why) if before == Some(why) => {
            output!(debug);
            failed!(debug, why);
        }
        Some(why) => {
            output!(warn);
            failed!(warn, why);
        }
    }
    complaint
}

/// A precheck could not be run.
pub fn unfit(lease: &LeaseName, before: Option<&str>, why: &str) {
    if before != Some(why) {
        tracing::warn!(
            event = "precheck-failed",
            name = %lease,
            "the precheck does not pass: {why}"
        );
    }
}

/// A hook could not be started.
pub fn not_started(lease: &LeaseName, notice: &'static str, why: &str) {
    tracing::warn!(
        event = "hook-failed",
        name = %lease,
        hook = "on-event",
        trigger = notice,
        "the hook for {notice} failed: {why}"
    );
}

/// An event gets no hook: too many wait.
pub fn dropped(lease: &LeaseName, notice: &Notice) {
    tracing::warn!(
        event = "hook-dropped",
        name = %lease,
        trigger = notice.event.name(),
        "too many events wait for their hooks: there is none for this {}",
        notice.event.name()
    );
}

/// leasewrap ends, and does not wait any longer.
pub fn cut_short(lease: &LeaseName, running: usize, waiting: usize) {
    tracing::warn!(
        event = "hooks-cut-short",
        name = %lease,
        running,
        waiting,
        "leasewrap ends, and its hooks with it: {running} are killed, {waiting} were never run"
    );
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
