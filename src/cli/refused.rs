//! Why a run, `serve` or `attach` ends before it has begun, in its last line.

use super::admin::Failed;
use super::args::run::RunOptions;
use super::ending::Record;
use crate::exit;
use crate::lease::ids::LeaseName;
use crate::lease::keeper::event::Outcome;
use crate::sys::SysError;
use crate::sys::executable::Unusable;
use crate::sys::listening::SocketError;
use crate::telemetry::{LAST, Telemetry};
use crate::wire::NotStarted;

/// Why it ended before it began.
pub(super) enum Refused {
    /// 126 or 127.
    Command(Unusable),
    /// Everything else.
    Failed(Failed),
}

impl Refused {
    /// Says it in the log that the run would have had; the result is the exit
    /// code.
    pub(super) fn tell(&self, options: &RunOptions) -> u8 {
        let telemetry = Telemetry::start(&options.keep.log);
        match (self, telemetry) {
            (Self::Failed(failed), Ok(telemetry)) => {
                tell(failed, Some(&options.keep.name), &telemetry)
            }
            (Self::Failed(failed), Err(_)) => failed.tell(),
            (Self::Command(unusable), Ok(telemetry)) => {
                Record::new(options).end(&telemetry, options, &not_started(unusable))
            }
            (Self::Command(unusable), Err(_)) => {
                super::say(&format!("leasewrap: cannot {unusable}"));
                options.exit_codes.of(&not_started(unusable))
            }
        }
    }
}

fn not_started(unusable: &Unusable) -> Outcome {
    Outcome::NotStarted(NotStarted::Exec {
        errno: unusable.errno(),
    })
}

/// Says it as the last line of a log that there is; the result is the exit
/// code.
pub(super) fn tell(failed: &Failed, name: Option<&LeaseName>, telemetry: &Telemetry) -> u8 {
    let name = name.map(LeaseName::as_str);
    let (message, exit_code) = (&failed.message, failed.code);
    let outcome = match exit_code {
        exit::USAGE => "usage",
        exit::DATABASE => "database",
        _ => "failed",
    };
    telemetry.last(false, || {
        tracing::error!(target: LAST, event = "ended", name, outcome, exit_code, "{message}");
    });
    exit_code
}

impl From<Unusable> for Refused {
    fn from(unusable: Unusable) -> Self {
        Self::Command(unusable)
    }
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<SysError> for Refused {
    fn from(error: SysError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SocketError> for Refused {
    fn from(error: SocketError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SysError> for Failed {
    fn from(error: SysError) -> Self {
        Self::cannot(&error)
    }
}

impl From<SocketError> for Failed {
    fn from(error: SocketError) -> Self {
        let code = match error {
            SocketError::TooLong { .. } => exit::USAGE,
            SocketError::InUse { .. } | SocketError::Foreign { .. } | SocketError::Io { .. } => {
                exit::FAILED
            }
        };
        Self {
            code,
            ..Self::cannot(&error)
        }
    }
}
