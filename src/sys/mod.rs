//! The kernel floor: clocks, timers, signals, descriptors, processes, the
//! process tree. All `unsafe`, every fork and every exec are below here.
//!
//! | module | for |
//! |---|---|
//! | [`entry`], [`inherited`] | the C `main`; what the caller gave us, recorded before anything changes it |
//! | [`role`] | whether this process is leasewrap, its guard or its releaser |
//! | [`clock`], [`timer`] | the boot clock; alarms on it; the timers that act on a stopped process |
//! | [`signals`], [`process`], [`tree`] | single processes and whole trees |
//! | [`socket`], [`memfd`], [`release`] | what keeper, guard and releaser share |
//! | [`listening`] | the socket of `serve` |
//! | [`notify_socket`] | what the worker says of itself |
//! | [`guard_process`], [`worker`], [`environment`], [`executable`] | starting guard and worker |
//! | [`namespace`] | the worker's tree in a PID namespace of its own |
//! | [`terminal`], [`stdio`] | job control; a last line that never blocks |
//! | [`readiness`] | descriptors as tokio watches them |

mod child;
pub mod clock;
pub mod entry;
pub mod environment;
pub mod executable;
pub mod guard_process;
pub mod inherited;
pub mod listening;
pub mod memfd;
pub mod namespace;
pub mod notify_socket;
pub mod process;
pub mod readiness;
pub mod release;
pub mod role;
pub mod signals;
pub mod socket;
pub mod stdio;
pub mod terminal;
pub mod timer;
pub mod tree;
pub mod worker;

use std::io;

/// A system call that failed where that can be a reason to end. Reads after
/// "cannot".
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct SysError {
    /// What could not be done, as in "fork a process".
    pub what: &'static str,
    /// The errno.
    pub source: io::Error,
}

impl SysError {
    /// For `map_err`.
    pub(crate) fn on<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self {
            what,
            source: error.into(),
        }
    }
}

/// The result of a call into this floor.
pub type Result<T> = std::result::Result<T, SysError>;
