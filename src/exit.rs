//! The exit codes: what a caller can branch on (contract, section 6).

use crate::lease::ids::LeaseName;
use crate::lease::keeper::event::Outcome;
use crate::wire::{NotStarted, WorkerEnd};

/// Usage error.
pub const USAGE: u8 = 2;
/// Stepped down: the precheck failed or the worker's watchdog ran out.
pub const STEPPED_DOWN: u8 = 120;
/// Not acquired within `--wait` (default; `--conflict-exit-code` changes it).
pub const NOT_ACQUIRED: u8 = 121;
/// The lease was lost (default; `--lost-exit-code` changes it).
pub const LOST: u8 = 122;
/// The database cannot be used.
pub const DATABASE: u8 = 123;
/// leasewrap itself failed.
pub const FAILED: u8 = 125;
/// The command cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// The command is not found.
pub const NOT_FOUND: u8 = 127;

/// How a guard or a releaser ends: they have no log of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What the process exits with.
    pub code: u8,
    /// What there is to say.
    pub last: Option<LastLine>,
}

impl End {
    /// In place of a keeper that is gone, or stands still.
    pub fn without_keeper(
        code: u8,
        json: bool,
        name: Option<LeaseName>,
        killed: u32,
        message: String,
    ) -> Self {
        Self {
            code,
            last: Some(LastLine {
                json,
                name,
                outcome: "keeper-died",
                killed: Some(killed),
                message,
            }),
        }
    }
}

/// The last line of a guard or a releaser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLine {
    /// `--log-format json`, as far as this process knows.
    pub json: bool,
    /// The lease, as far as this process knows. (What the keeper has ended
    /// with, and its caller sees, it does not.)
    pub name: Option<LeaseName>,
    /// For machines.
    pub outcome: &'static str,
    /// How many processes of the tree got SIGKILL, where there was one.
    pub killed: Option<u32>,
    /// For people.
    pub message: String,
}

/// What a shell reports for an end by signal `signal`: 128 + N.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(signal.saturating_add(128)).unwrap_or(u8::MAX)
}

/// Whether a worker that got the signal of an orderly stop has ended as it was
/// told: with success, by that signal, or with what a shell reports for it.
pub fn is_as_told(end: WorkerEnd, stop_signal: i32) -> bool {
    let code = match end {
        WorkerEnd::Exited(code) => code,
        WorkerEnd::Signaled(signal) => of_signal(signal),
    };
    code == 0 || code == of_signal(stop_signal)
}

/// What `execve(2)` answers when there is no such file.
const ENOENT: i32 = 2;

/// The exit codes that the user may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExitCodes {
    /// `--lost-exit-code`.
    pub lost: u8,
    /// `--conflict-exit-code`.
    pub conflict: u8,
}

impl Default for ExitCodes {
    fn default() -> Self {
        Self {
            lost: LOST,
            conflict: NOT_ACQUIRED,
        }
    }
}

impl ExitCodes {
    /// The exit code of a run that ended so.
    pub fn of(self, outcome: &Outcome) -> u8 {
        match outcome {
            Outcome::Worker(WorkerEnd::Exited(code)) => *code,
            Outcome::Worker(WorkerEnd::Signaled(signal)) | Outcome::Signaled(signal) => {
                of_signal(*signal)
            }
            Outcome::SteppedDown { .. } => STEPPED_DOWN,
            Outcome::NotAcquired { .. } => self.conflict,
            // The right had run out before there was a worker.
            Outcome::Lost { .. } | Outcome::NotStarted(NotStarted::Late) => self.lost,
            Outcome::Database(_) => DATABASE,
            Outcome::NotStarted(NotStarted::Exec { errno: ENOENT }) => NOT_FOUND,
            Outcome::NotStarted(NotStarted::Exec { .. }) => CANNOT_EXECUTE,
            Outcome::NotStarted(NotStarted::Failed { .. }) | Outcome::GuardDied => FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_worker_goes_as_told_by_the_signal_or_with_its_code_or_with_success() {
        use WorkerEnd::{Exited, Signaled};
        for (end, is) in [
            (Exited(0), true),
            (Exited(130), true),
            (Signaled(2), true),
            (Exited(143), false),
            (Exited(9), false),
            (Signaled(9), false),
        ] {
            assert_eq!(is_as_told(end, 2), is, "{end:?}");
        }
    }

    #[test]
    fn a_loss_is_never_zero_and_a_worker_keeps_its_own_code() {
        let codes = ExitCodes {
            lost: 9,
            conflict: 0,
        };
        assert_eq!(codes.of(&Outcome::Lost { loss: None }), 9);
        assert_eq!(codes.of(&Outcome::NotStarted(NotStarted::Late)), 9);
        assert_eq!(codes.of(&Outcome::Worker(WorkerEnd::Exited(122))), 122);
        assert_eq!(codes.of(&Outcome::Worker(WorkerEnd::Signaled(9))), 137);
        assert_eq!(codes.of(&Outcome::Signaled(15)), 143);
        assert_eq!(
            codes.of(&Outcome::NotStarted(NotStarted::Exec { errno: 2 })),
            127
        );
        assert_eq!(
            codes.of(&Outcome::NotStarted(NotStarted::Exec { errno: 13 })),
            126
        );
        assert_eq!(codes.of(&Outcome::GuardDied), 125);
    }
}
