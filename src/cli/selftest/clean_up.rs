//! Nothing of the self-test stays behind: first the processes, then the rows,
//! or somebody might make one anew.

use std::time::Duration;

use tokio::time::timeout;

use super::scene::ticks;
use super::{Bench, CALL_LIMIT};
use crate::store::AnyStore;
use crate::store::selftest::{SelfTest as _, TestLease};
use crate::sys::tree::{Round, Sweep, children_of_self};
use crate::sys::{clock, process};

/// How long leasewraps may take to end in order.
const ORDERLY: Duration = Duration::from_secs(5);

/// How long killing may take.
const KILLING: Duration = Duration::from_secs(10);

/// Ends every process that descends from this one.
pub async fn processes() -> Result<(), String> {
    let mut children = Vec::new();
    children_of_self(&mut children);
    for pid in children {
        for signal in [libc::SIGTERM, libc::SIGCONT] {
            // Not reaped in between: nothing else runs here meanwhile.
            drop(process::signal(pid, signal));
        }
    }
    let all_gone = async {
        let mut looks = ticks();
        while process::reap_any().is_some() || process::has_child() {
            looks.tick().await;
        }
    };
    if timeout(ORDERLY, all_gone).await.is_ok() {
        return Ok(());
    }
    let mut sweep = Sweep::new(&[]);
    let limit = clock::now() + KILLING;
    let mut looks = ticks();
    while sweep.step() != Round::Empty {
        if clock::now() >= limit {
            return Err(format!(
                "processes that do not end: {:?}",
                sweep.unkillable()
            ));
        }
        looks.tick().await;
    }
    Ok(())
}

/// Removes the rows and the history of these leases; what could not be
/// removed, and why.
pub async fn rows(bench: &Bench, leases: &[TestLease]) -> Vec<String> {
    let mut left = Vec::new();
    let Some(first) = leases.first() else {
        return left;
    };
    let mut store = AnyStore::new(bench.settings.clone(), first.name().clone(), clock::now);
    for lease in leases {
        let mut done = store.forget(lease, CALL_LIMIT).await;
        if done.is_err() {
            done = store.forget(lease, CALL_LIMIT).await;
        }
        if let Err(unknown) = done {
            left.push(format!("the lease {}: {}", lease.name(), unknown.message));
        }
    }
    left
}
