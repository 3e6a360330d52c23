//! The releaser: what a guard turns into when its keeper cannot give the
//! lease back. It does that, bounded in time, and ends.

use std::time::Duration;

use super::calls::CLOSING;
use super::claim::{Claim, Release};
use crate::exit::{self, End};
use crate::lease::guard::Keeper;
use crate::lease::record::Released;
use crate::lease::time::BootInstant;
use crate::lease::timing::Shown;
use crate::store::{AnyStore, Store as _};
use crate::sys::release::ReleaseTask;
use crate::sys::timer::SelfKill;
use crate::sys::{clock, environment, notify_socket};

/// What it takes beside the release: a keeper that stands still is given time.
const REST: Duration = Duration::from_secs(5);

/// Between two attempts at a database that does not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives back what `task` names, then sees to a keeper that stands still.
pub fn run(task: &ReleaseTask) -> End {
    let release = task
        .file
        .read()
        .and_then(|bytes| postcard::from_bytes::<Release>(&bytes).ok());
    let longest = release.as_ref().map_or(Duration::ZERO, |release| {
        release.patience + release.call_limit
    });
    let _limit = end_at_last(longest + REST);
    let json = release.as_ref().is_some_and(|release| release.json_log);
    let name = release.as_ref().map(|release| release.name.clone());
    // It is granted before there is a worker.
    let granted = release
        .as_ref()
        .is_none_or(|release| matches!(release.claim, Claim::Term { .. }));
    let said = match release {
        Some(release) => {
            let said = give_back(&release);
            if let Some(path) = &release.notify_socket {
                notify_socket::remove(path);
            }
            said
        }
        None => Err("the keeper has left no record of what to release".to_owned()),
    };
    task.see_to_keeper();
    let (code, then) = match said {
        Ok(then) => (exit::LOST, then),
        Err(why) => (exit::FAILED, format!("the lease runs out by itself: {why}")),
    };
    let message = format!(
        "{}; {then}; \
         look for who killed or stopped leasewrap (the kernel log, if memory ran out)",
        what(task.keeper, task.killed, granted)
    );
    End::without_keeper(code, json, name, task.killed, message)
}

/// What became of the keeper and of the worker; a standby has none.
fn what(keeper: Keeper, killed: u32, granted: bool) -> String {
    let keeper = match keeper {
        Keeper::Lost(_) => "the keeper process of leasewrap is gone",
        Keeper::StandsStill => "the keeper process of leasewrap stood still until its deadline",
    };
    if killed == 0 && !granted {
        format!("{keeper}; there was no worker")
    } else {
        format!("{keeper}, so the worker was killed ({killed} processes)")
    }
}

/// Somebody may stop this process too, and the guard's timers have not come
/// through its exec: one of its own ends it, so that it never stays for good.
fn end_at_last(after: Duration) -> Option<SelfKill> {
    let mut timer = SelfKill::new().ok()?;
    timer.set(Some(clock::now() + after)).ok()?;
    Some(timer)
}

fn give_back(release: &Release) -> Result<String, String> {
    if release.claim == Claim::Nothing {
        return Ok(format!("lease {} was not held", release.name));
    }
    if release.settings.trusts_own_roots_only() {
        environment::distrust_system_roots();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    let given_back = runtime.block_on(async {
        let begun = clock::now();
        let mut store = AnyStore::new(release.settings.clone(), release.name.clone(), clock::now);
        store.because("the keeper process was killed or stood still");
        let said = loop {
            let released = match &release.claim {
                Claim::Nothing => Released::NotOurs,
                Claim::Attempt(attempt) => store.release_attempt(attempt, release.call_limit).await,
                Claim::Term { term, incarnation } => {
                    store.release(term, incarnation, release.call_limit).await
                }
            };
            match released {
                Released::Done => break Ok(format!("lease {} was released", release.name)),
                Released::NotOurs => {
                    break Ok(format!("lease {} was no longer held", release.name));
                }
                Released::Unknown(unknown) if is_over(begun, release.patience) => {
                    break Err(format!(
                        "no release within {}: {}",
                        Shown(release.patience),
                        unknown.message
                    ));
                }
                Released::Unknown(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        store.close(CLOSING).await;
        said
    });
    // A look-up of a host's name that hangs is not waited for.
    runtime.shutdown_background();
    given_back
}

fn is_over(begun: BootInstant, patience: Duration) -> bool {
    clock::now().saturating_since(begun) >= patience
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::guard::KeeperLoss;

    #[test]
    fn only_a_worker_that_was_there_was_killed() {
        let gone = Keeper::Lost(KeeperLoss::Closed);
        assert!(what(gone, 0, false).ends_with("there was no worker"));
        assert!(what(gone, 2, true).ends_with("was killed (2 processes)"));
        // It may have ended right before.
        assert!(what(gone, 0, true).ends_with("was killed (0 processes)"));
    }
}
