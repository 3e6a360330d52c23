//! What happens to `attach`, in its log.

use std::path::Path;

use crate::lease::attach::{Away, Told};
use crate::sys::signals;
use crate::wire::attach::Peer;

/// Logs it.
pub(super) fn tell(told: &Told, socket: &Path, serve: Option<Peer>) {
    match told {
        Told::Waiting(why @ (Away::Unreachable(_) | Away::Gone)) => tracing::info!(
            event = "waiting",
            socket = %socket.display(),
            "waiting for serve: {why}"
        ),
        Told::Waiting(why @ (Away::Taken(_) | Away::Silent | Away::Malformed)) => tracing::warn!(
            event = "waiting",
            socket = %socket.display(),
            "waiting for serve: {why}"
        ),
        Told::Attached => tracing::info!(
            event = "attached",
            socket = %socket.display(),
            pid = serve.map(|serve| serve.pid),
            uid = serve.map(|serve| serve.uid),
            gid = serve.map(|serve| serve.gid),
            "attached to serve{}; waiting for the lease",
            serve.map_or_else(String::new, |serve| format!(" ({serve})"))
        ),
        Told::Starting(start) => tracing::info!(
            event = "acquired",
            name = %start.name,
            slot = start.slot.0,
            token = start.token.0,
            holder = %start.holder,
            "serve holds lease {} (token {}); starting the worker",
            start.name,
            start.token
        ),
        Told::Started { pid } => {
            tracing::info!(
                event = "started",
                worker_pid = pid,
                "the worker runs (pid {pid})"
            );
        }
        Told::Stopping {
            signal: Some(signal),
        } => tracing::info!(
            event = "stopping",
            reason = "signal",
            "stopping the worker, because {} came",
            signals::name(*signal)
        ),
        Told::Stopping { signal: None } => tracing::info!(
            event = "stopping",
            reason = "serve",
            "stopping the worker, because serve says so"
        ),
        Told::Losing => tracing::warn!(
            event = "losing",
            "serve has not extended the deadline in time: the worker is stopped, and killed at the deadline"
        ),
        Told::Killing { loss: Some(loss) } => {
            tracing::error!(event = "lost", "{loss}: the worker is killed");
        }
        Told::Killing { loss: None } => {
            tracing::warn!(event = "killing", "the worker is killed");
        }
        Told::GuardDied => tracing::error!(
            event = "guard-died",
            "the guard process died; what it leaves is killed"
        ),
    }
}

pub(super) fn left_behind(processes: &[String]) {
    let processes = processes.join(", ");
    tracing::warn!(
        event = "left-behind",
        processes,
        "the worker has ended and left processes behind, which are stopped: {processes}"
    );
}

pub(super) fn unkillable(process: &str) {
    tracing::error!(event = "unkillable", process, "cannot kill {process}");
}
