//! The last line: what happened, since when, and what to do.

use std::time::Duration;

use tracing::Level;

use crate::exit;
use crate::lease::ids::LeaseName;
use crate::lease::keeper::event::{Outcome, StopCause};
use crate::lease::record::Loss;
use crate::lease::stop_signal_of;
use crate::sys::signals;
use crate::wire::{NotStarted, WorkerEnd};

use super::format::{millis, span};
use super::transition::{Containment, cause_words, loss_words};

/// An end, and what is known beside it.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// How it ended.
    pub outcome: &'a Outcome,
    /// The lease.
    pub name: &'a LeaseName,
    /// The worker's program, as people may see it.
    pub program: &'a str,
    /// What leasewrap exits with.
    pub exit_code: u8,
    /// The orderly stop that preceded the end.
    pub stop: Option<&'a StopCause>,
    /// `--stop-signal`.
    pub stop_signal: i32,
    /// How long leasewrap stood by.
    pub waited: Duration,
    /// How long the lease was held, if it ever was.
    pub held: Option<Duration>,
    /// The lease could not be given back and runs out so much later.
    pub runs_out_in: Option<Duration>,
    /// The longest outage of the database that the times in use ride out.
    pub rides_out: Duration,
    /// No call to the database has succeeded since one failed.
    pub unanswered: bool,
    /// A worker that lost its lease was killed, and had not ended before.
    pub killed: bool,
    /// What would have ended the worker's tree without leasewrap.
    pub containment: Containment,
}

impl Ending<'_> {
    /// There is nothing to explain.
    pub(super) fn is_good(&self) -> bool {
        self.exit_code == 0 && self.level() == Level::INFO
    }

    /// Writes the line.
    pub(super) fn log(&self) {
        let text = self.text();
        macro_rules! say {
            ($level:expr) => {
                tracing::event!(
                    target: super::LAST,
                    $level,
                    event = "ended",
                    name = %self.name,
                    outcome = self.kind(),
                    exit_code = self.exit_code,
                    waited_ms = millis(self.waited),
                    held_ms = self.held.map(millis),
                    runs_out_in_ms = self.runs_out_in.map(millis),
                    containment = self.containment.name(),
                    "{text}"
                )
            };
        }
        match self.level() {
            Level::ERROR => say!(Level::ERROR),
            Level::WARN => say!(Level::WARN),
            _ => say!(Level::INFO),
        }
    }

    /// An end that somebody asked for is a good one, where the worker went as
    /// it was told, and so is a worker's own success, and whatever
    /// `--conflict-exit-code 0` says is none of anybody's business.
    fn level(&self) -> Level {
        match self.outcome {
            _ if self.runs_out_in.is_some() => Level::WARN,
            Outcome::Worker(WorkerEnd::Exited(0)) | Outcome::Signaled(_) => Level::INFO,
            Outcome::Worker(end) => match self.told_by() {
                Some(signal) if exit::is_as_told(*end, signal) => Level::INFO,
                Some(_) | None => Level::WARN,
            },
            Outcome::NotAcquired { why } if self.exit_code == 0 && !why.is_odd() => Level::INFO,
            Outcome::SteppedDown { .. } | Outcome::NotAcquired { .. } => Level::WARN,
            Outcome::Lost { .. }
            | Outcome::Database(_)
            | Outcome::NotStarted(_)
            | Outcome::GuardDied => Level::ERROR,
        }
    }

    /// The signal that a stop has sent that somebody asked for.
    fn told_by(&self) -> Option<i32> {
        match self.stop? {
            StopCause::Signal(signal) | StopCause::Attach(signal) => {
                Some(stop_signal_of(*signal).unwrap_or(self.stop_signal))
            }
            StopCause::StepDown => Some(self.stop_signal),
            StopCause::Unfit | StopCause::Watchdog => None,
        }
    }

    /// For machines.
    fn kind(&self) -> &'static str {
        match self.outcome {
            Outcome::Worker(_) => "worker",
            Outcome::SteppedDown { .. } => "stepped-down",
            Outcome::NotAcquired { .. } => "not-acquired",
            Outcome::Lost { .. } => "lost",
            Outcome::Database(_) => "database",
            Outcome::NotStarted(_) => "not-started",
            Outcome::GuardDied => "guard-died",
            Outcome::Signaled(_) => "signal",
        }
    }

    /// The sentence.
    pub fn text(&self) -> String {
        let what = match self.outcome {
            Outcome::Worker(end) => self.worker(*end),
            Outcome::SteppedDown { why } => {
                format!("stepped down{}: {}", self.after(), cause_words(why))
            }
            Outcome::NotAcquired { why } => format!(
                "lease not acquired within {}: {why}; leasewrap status --name {} tells more",
                span(self.waited),
                quoted(self.name.as_str())
            ),
            Outcome::Lost { loss } => self.lost(loss.as_ref()),
            Outcome::Database(unknown) => {
                format!("the database cannot be used: {}", unknown.message)
            }
            Outcome::NotStarted(not_started) => self.not_started(not_started),
            Outcome::GuardDied => format!(
                "the guard process died{}, so the worker was killed; look for who killed lw-guard (the kernel log, if memory ran out)",
                self.after()
            ),
            Outcome::Signaled(signal) => format!(
                "{} came after {} of standing by",
                signals::name(*signal),
                span(self.waited)
            ),
        };
        match self.runs_out_in {
            Some(left) => format!(
                "{what}; the lease could not be given back and runs out in {}",
                span(left)
            ),
            None => what,
        }
    }

    fn worker(&self, end: WorkerEnd) -> String {
        let how = match end {
            WorkerEnd::Exited(code) => format!("the worker ended with exit code {code}"),
            WorkerEnd::Signaled(signal) => {
                format!("the worker was ended by {}", signals::name(signal))
            }
        };
        let why = self.stop.map_or_else(String::new, |stop| {
            format!(", told to stop because {}", cause_words(stop))
        });
        format!("{how}{}{why}", self.after())
    }

    fn lost(&self, loss: Option<&Loss>) -> String {
        let remedy = match loss {
            None if self.unanswered => format!(
                "look at the database and the way to it, or give a longer --ttl: the times in use ride out {} at the most",
                span(self.rides_out)
            ),
            None => {
                "no call to the database had failed: did leasewrap or its host stand still (stopped, suspended, starved)?"
                    .to_owned()
            }
            Some(Loss::Missing) => {
                "was its table dropped, or the database replaced by another one?".to_owned()
            }
            Some(
                Loss::OtherHolder { .. } | Loss::OtherToken(_) | Loss::Closed | Loss::Released,
            ) => {
                format!(
                    "leasewrap history --name {} tells more",
                    quoted(self.name.as_str())
                )
            }
        };
        format!(
            "lease lost{}: {}; the worker was {}; {remedy}",
            self.after(),
            loss_words(loss),
            if self.killed {
                "killed"
            } else {
                "told to stop and ended"
            }
        )
    }

    fn not_started(&self, not_started: &NotStarted) -> String {
        let program = quoted(self.program);
        match not_started {
            NotStarted::Late => format!(
                "lease lost before {program} was started: this host was too slow; give a longer --ttl"
            ),
            NotStarted::Exec { errno } => {
                format!(
                    "cannot execute {program}: {}",
                    nix::Error::from_raw(*errno).desc()
                )
            }
            NotStarted::Failed { message } => format!("cannot start {program}: {message}"),
        }
    }

    fn after(&self) -> String {
        self.held
            .map_or_else(String::new, |held| format!(" after {}", span(held)))
    }
}

/// Quoted as a shell reads it, where it has to be.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::ids::Token;
    use crate::lease::record::{Fault, Unknown};
    use crate::lease::watch::Reason;

    fn end(outcome: &Outcome, stop: Option<&StopCause>) -> (Level, String) {
        end_with(outcome, stop, 1)
    }

    fn end_with(outcome: &Outcome, stop: Option<&StopCause>, exit_code: u8) -> (Level, String) {
        let name = LeaseName::new("the job").expect("a name");
        let ending = ending(outcome, &name, stop, exit_code);
        (ending.level(), ending.text())
    }

    fn ending<'a>(
        outcome: &'a Outcome,
        name: &'a LeaseName,
        stop: Option<&'a StopCause>,
        exit_code: u8,
    ) -> Ending<'a> {
        Ending {
            outcome,
            name,
            program: "./w",
            exit_code,
            stop,
            stop_signal: 15,
            waited: Duration::from_secs(5),
            held: Some(Duration::from_secs(90)),
            runs_out_in: None,
            rides_out: Duration::from_secs(11),
            unanswered: true,
            killed: true,
            containment: Containment::Tree,
        }
    }

    #[test]
    fn each_end_says_what_since_when_and_what_to_do() {
        let failed = Unknown {
            fault: Fault::Final,
            message: "no such role".to_owned(),
        };
        let loss = Some(Loss::OtherHolder {
            label: "h/1".to_owned(),
            token: Token(8),
        });
        for (outcome, level, words) in [
            (
                Outcome::Worker(WorkerEnd::Exited(0)),
                Level::INFO,
                vec!["exit code 0", "after 1m 30s"],
            ),
            (
                Outcome::Worker(WorkerEnd::Signaled(11)),
                Level::WARN,
                vec!["SIGSEGV", "after 1m 30s"],
            ),
            (
                Outcome::Lost { loss: None },
                Level::ERROR,
                vec!["after 1m 30s", "in time", "was killed", "--ttl", "11s"],
            ),
            (
                Outcome::Lost { loss },
                Level::ERROR,
                vec!["\"h/1\"", "token 8", "history --name 'the job'"],
            ),
            (
                Outcome::NotAcquired {
                    why: Reason::Overtaken,
                },
                Level::WARN,
                vec!["within 5s", "status"],
            ),
            (
                Outcome::Database(failed),
                Level::ERROR,
                vec!["no such role"],
            ),
            (
                Outcome::NotStarted(NotStarted::Exec { errno: 13 }),
                Level::ERROR,
                vec!["./w", "ermission denied"],
            ),
            (
                Outcome::GuardDied,
                Level::ERROR,
                vec!["guard", "after 1m 30s"],
            ),
            (Outcome::Signaled(15), Level::INFO, vec!["SIGTERM", "5s"]),
        ] {
            let (was, text) = end(&outcome, None);
            assert_eq!(was, level, "{text}");
            for word in words {
                assert!(text.contains(word), "{text:?} lacks {word:?}");
            }
        }
    }

    #[test]
    fn a_loss_is_blamed_on_the_database_only_where_a_call_has_failed() {
        let name = LeaseName::new("mailer").expect("a name");
        let outcome = Outcome::Lost { loss: None };
        let stalled = Ending {
            unanswered: false,
            ..ending(&outcome, &name, None, 122)
        };
        let text = stalled.text();
        assert!(text.contains("host stand still"), "{text}");
        assert!(!text.contains("look at the database"), "{text}");
    }

    #[test]
    fn a_worker_that_has_ended_in_time_was_not_killed() {
        let name = LeaseName::new("mailer").expect("a name");
        let outcome = Outcome::Lost { loss: None };
        let ended = Ending {
            killed: false,
            ..ending(&outcome, &name, None, 122)
        };
        let text = ended.text();
        assert!(text.contains("told to stop and ended"), "{text}");
        assert!(!text.contains("killed"), "{text}");
    }

    #[test]
    fn an_end_that_was_asked_for_is_a_good_one() {
        let outcome = Outcome::Worker(WorkerEnd::Signaled(15));
        let (level, text) = end(&outcome, Some(&StopCause::Signal(15)));
        assert_eq!(level, Level::INFO);
        assert!(text.contains("because SIGTERM came"), "{text}");
        assert_eq!(end(&outcome, Some(&StopCause::Watchdog)).0, Level::WARN);
        // It had to be killed, or has its own word to say.
        for outcome in [WorkerEnd::Signaled(9), WorkerEnd::Exited(9)].map(Outcome::Worker) {
            for stop in [StopCause::Signal(15), StopCause::StepDown] {
                assert_eq!(end(&outcome, Some(&stop)).0, Level::WARN, "{outcome:?}");
            }
        }
        // What is sent is not always --stop-signal.
        let outcome = Outcome::Worker(WorkerEnd::Signaled(2));
        assert_eq!(end(&outcome, Some(&StopCause::Signal(2))).0, Level::INFO);
        assert_eq!(end(&outcome, Some(&StopCause::Signal(15))).0, Level::WARN);
        // Else the crontabs of all hosts but one send a mail every night.
        let outcome = Outcome::NotAcquired {
            why: Reason::Overtaken,
        };
        assert_eq!(end_with(&outcome, None, 0).0, Level::INFO);
    }

    #[test]
    fn a_job_that_runs_nowhere_is_told_of_even_where_a_conflict_is_no_failure() {
        let name = LeaseName::new("nightly").expect("a name");
        for (clock_set_back, is_good) in [(None, true), (Some(Duration::from_secs(60)), false)] {
            let outcome = Outcome::NotAcquired {
                why: Reason::HeldBack {
                    left: Duration::from_secs(60),
                    clock_set_back,
                },
            };
            assert_eq!(ending(&outcome, &name, None, 0).is_good(), is_good);
        }
    }
}
