//! What a guard has to say, as the loops hear it.

use crate::lease::keeper::event::GuardEvent;
use crate::wire::FromGuard;

/// What is heard of the guard.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// For the machine.
    Event(GuardEvent),
    /// A stop signal has stopped the worker.
    WorkerStopped(i32),
    /// A process has asked `attach` for an orderly stop by this signal.
    StopAsked(i32),
    /// For the log.
    LeftBehind(Vec<String>),
    /// For the log.
    Unkillable(String),
    /// Nothing for anybody else.
    Nothing,
}

impl News {
    /// What a frame says to the loop, whoever has sent it.
    pub fn of(frame: FromGuard) -> Self {
        Self::Event(match frame {
            FromGuard::Hello(_) => GuardEvent::Ready,
            FromGuard::Started { pid } => GuardEvent::Started { pid },
            FromGuard::NotStarted(why) => GuardEvent::NotStarted(why),
            FromGuard::WorkerEnded(end) => GuardEvent::WorkerEnded(end),
            FromGuard::Stopping(why) => GuardEvent::Stopping(why),
            FromGuard::Empty { .. } => GuardEvent::Empty,
            FromGuard::WorkerStopped { signal } => return Self::WorkerStopped(signal),
            FromGuard::LeftBehind { processes } => return Self::LeftBehind(processes),
            FromGuard::Unkillable { process } => return Self::Unkillable(process),
            FromGuard::Ack { .. } | FromGuard::WorkerContinued => return Self::Nothing,
        })
    }

    /// Whether there is anything to tell.
    pub(super) fn is_any(&self) -> bool {
        *self != Self::Nothing
    }
}
