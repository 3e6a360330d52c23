//! `doctor`: looks at the user's own database, and says point by point what
//! holds and what does not.

mod gather;
pub mod judge;
mod measure;

use clap::Args;
use serde::Serialize;

use super::admin::{Admins, Failed, with_store};
use super::args::db::DbArgs;
use super::args::timing::TimingArgs;
use super::args::values;
use super::output::{Output, Paint, Tone, json};
use super::print;
use crate::exit;
use crate::lease::ids::LeaseName;
use crate::sys::namespace::{self, Way};
use judge::{Containment, Findings, Point, Verdict, judge};

/// Arguments of `leasewrap doctor`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Give it the options of your run: what is enough depends on the times. It writes
no row and disturbs nobody.

Exit code: 0 when all that safety needs holds, 1 when something does not or
could not be looked at, 123 when the database cannot be used.

Examples:
  leasewrap doctor --db postgres://app@db/app --ttl 15s")]
pub struct Doctor {
    /// The lease to look at as well
    #[arg(
        long,
        value_name = "NAME",
        env = "LEASEWRAP_NAME",
        hide_env_values = true
    )]
    #[arg(value_parser = values::lease_name)]
    name: Option<LeaseName>,
    /// Your run has --pid-namespace: it must be possible here
    #[arg(long, env = "LEASEWRAP_PID_NAMESPACE", hide_env_values = true)]
    pid_namespace: bool,
    /// For people or for machines
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    db: DbArgs,
    #[command(flatten)]
    timing: TimingArgs,
}

impl Doctor {
    /// Looks, measures, judges.
    pub fn perform(self) -> u8 {
        let timing = match self.timing.check() {
            Ok(timing) => timing,
            Err(error) => return Failed::from(error).tell(),
        };
        // Nothing is written under this name: it is for the notification.
        let probe = match LeaseName::new(format!("doctor {:016x}", rand::random::<u64>())) {
            Ok(probe) => probe,
            Err(error) => return Failed::usage(error.to_string()).tell(),
        };
        let limit = timing.call_timeout();
        let (name, output) = (self.name, self.output);
        let containment = Containment {
            wanted: self.pid_namespace,
            possible: pid_namespace(),
        };
        with_store(self.db, limit, Some(&probe), async |admins: &mut Admins| {
            let findings = gather::gather(admins, name.as_ref(), containment).await;
            let report = Report::of(judge(&findings, &timing), &findings);
            let text = match output {
                Output::Json => json(&report),
                Output::Text => report.text(Paint::stdout()),
            };
            Ok(match print(text.as_bytes()) {
                0 => report.exit_code,
                code => code,
            })
        })
    }
}

/// Whether the worker could have a PID namespace.
fn pid_namespace() -> Result<Way, String> {
    let probe = namespace::probe().map_err(|error| error.to_string())?;
    probe.answer().map_err(|refusal| refusal.why())
}

/// What is shown.
#[derive(Debug, Serialize)]
struct Report {
    /// All that safety needs holds.
    safe: bool,
    exit_code: u8,
    points: Vec<Point>,
}

impl Report {
    fn of(points: Vec<Point>, findings: &Findings) -> Self {
        let safe = points
            .iter()
            .all(|point| matches!(point.verdict, Verdict::Holds | Verdict::Note));
        let exit_code = match (safe, &findings.server) {
            (true, _) => 0,
            (false, Ok(_)) => 1,
            (false, Err(_)) => exit::DATABASE,
        };
        Self {
            safe,
            exit_code,
            points,
        }
    }

    fn text(&self, paint: Paint) -> String {
        let width = self
            .points
            .iter()
            .map(|point| point.id.len())
            .max()
            .unwrap_or_default();
        let mut text = String::new();
        for point in &self.points {
            let (word, tone) = match point.verdict {
                Verdict::Holds => ("ok   ", Tone::Good),
                Verdict::Note => ("note ", Tone::Odd),
                Verdict::Fails => ("FAILS", Tone::Bad),
                Verdict::Unknown => ("?    ", Tone::Odd),
            };
            let word = paint.paint(tone, word);
            text += &format!("{word}  {:<width$}  {}\n", point.id, point.found);
            if point.verdict == Verdict::Holds {
                continue;
            }
            let margin = " ".repeat(width + 9);
            if !point.reason.is_empty() {
                text += &format!("{margin}{}\n", paint.paint(Tone::Faint, &point.reason));
            }
            if !point.remedy.is_empty() {
                text += &format!("{margin}→ {}\n", point.remedy);
            }
        }
        text + "\n" + &self.sum() + "\n"
    }

    /// The last line.
    fn sum(&self) -> String {
        let count = |verdict| {
            let points = self.points.iter();
            points.filter(|point| point.verdict == verdict).count()
        };
        let all = self.points.len();
        match (
            count(Verdict::Fails),
            count(Verdict::Unknown),
            count(Verdict::Note),
        ) {
            (0, 0, 0) => "Everything holds.".to_owned(),
            (0, 0, _) => {
                "All that safety needs holds; the notes say what could be better.".to_owned()
            }
            (0, unknown, _) => format!("{unknown} of {all} points could not be looked at."),
            (failed, 0, _) => format!("{failed} of {all} points do not hold."),
            (failed, unknown, _) => {
                format!("{failed} of {all} points do not hold; {unknown} could not be looked at.")
            }
        }
    }
}

#[cfg(test)]
mod tests;
