//! What is said: progress on standard error, the table or JSON on standard
//! output.

use std::time::Duration;

use serde::Serialize;

use super::faults::{Fault, Seen};
use super::judge::{Verdict, exit_code};
use super::{Trouble, judge};
use crate::cli::output::{Paint, Row, Tone, table};
use crate::exit;
use crate::telemetry::format::{millis, span};

/// One fault's line.
#[derive(Debug, Serialize)]
pub struct Line {
    fault: &'static str,
    what: &'static str,
    verdict: Verdict,
    /// How long the old worker outlived its right, by the new one's start.
    overlap_ms: Option<f64>,
    gap_ms: Option<f64>,
    basis: Option<String>,
    exit_code: Option<u8>,
    note: String,
}

impl Line {
    /// What came of a fault.
    pub fn of(fault: Fault, result: Result<Seen, Trouble>) -> Self {
        let line = Self {
            fault: fault.name(),
            what: fault.words(),
            verdict: Verdict::Failed,
            overlap_ms: None,
            gap_ms: None,
            basis: None,
            exit_code: None,
            note: String::new(),
        };
        match result {
            Ok(seen) => {
                let (verdict, note) = fault.judge(&seen);
                Self {
                    verdict,
                    overlap_ms: Some(seen.hand_over.overlap_ms),
                    gap_ms: Some(seen.hand_over.gap_ms),
                    exit_code: Some(seen.exit_code),
                    basis: Some(seen.basis),
                    note,
                    ..line
                }
            }
            Err(Trouble::NoSuchFault(why)) => Self {
                verdict: Verdict::NotRun,
                note: why,
                ..line
            },
            Err(trouble) => Self {
                note: trouble.to_string(),
                ..line
            },
        }
    }

    /// For the table and for progress.
    fn result(&self) -> &'static str {
        match self.verdict {
            Verdict::Holds => "ok",
            Verdict::Overlap => "TWO LIVED",
            Verdict::Failed => "FAILED",
            Verdict::NotRun => "not run",
        }
    }

    /// One line of progress.
    pub fn progress(&self, done: usize) -> String {
        let mut text = format!(
            "[{done:>2}/{}] {:<19}  {}",
            Fault::ALL.len(),
            self.fault,
            self.result()
        );
        if let (Some(overlap), Some(gap)) = (self.overlap_ms, self.gap_ms) {
            text += &format!(": overlap {overlap:.1} ms, gap {gap:.1} ms");
        }
        if !self.note.is_empty() {
            text += &format!(" ({})", self.note);
        }
        text
    }

    fn row(&self) -> Row {
        let figure = |figure: Option<f64>| figure.map(|ms| format!("{ms:.1}")).unwrap_or_default();
        Row {
            cells: vec![
                self.fault.to_owned(),
                self.what.to_owned(),
                figure(self.overlap_ms),
                figure(self.gap_ms),
                self.basis.clone().unwrap_or_default(),
                self.result().to_owned(),
                self.note.clone(),
            ],
            tone: match self.verdict {
                Verdict::Holds => None,
                Verdict::Overlap | Verdict::Failed => Some(Tone::Bad),
                Verdict::NotRun => Some(Tone::Faint),
            },
        }
    }
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// No overlap was positive, every fault was seen to its end, and nothing
    /// is left behind.
    safe: bool,
    /// The exit code.
    pub exit_code: u8,
    /// The signal that has ended the test early.
    ended_by: Option<i32>,
    ttl_ms: u64,
    took_ms: u64,
    faults: Vec<Line>,
    /// What could not be removed.
    left_behind: Vec<String>,
}

impl Report {
    /// Of these lines, in any order.
    pub fn new(
        mut lines: Vec<Line>,
        left_behind: Vec<String>,
        ended_by: Option<i32>,
        [ttl, took]: [Duration; 2],
    ) -> Self {
        let place = |line: &Line| {
            let mut shown = Fault::SHOWN.iter();
            shown.position(|fault| fault.name() == line.fault)
        };
        lines.sort_by_key(place);
        let judged = exit_code(lines.iter().map(|line| line.verdict));
        let exit_code = match (ended_by, judged) {
            (Some(signal), _) => exit::of_signal(signal),
            (None, 0) if !left_behind.is_empty() => judge::NOT_PROVEN,
            (None, code) => code,
        };
        Self {
            safe: exit_code == 0,
            exit_code,
            ended_by,
            ttl_ms: millis(ttl),
            took_ms: millis(took),
            faults: lines,
            left_behind,
        }
    }

    /// For people.
    pub fn text(&self, paint: Paint) -> String {
        let headings = [
            "FAULT",
            "WHAT WAS DONE",
            "OVERLAP MS",
            "GAP MS",
            "TAKEN BY",
            "RESULT",
            "NOTE",
        ];
        let rows: Vec<Row> = self.faults.iter().map(Line::row).collect();
        let mut text = table(&headings, &rows, paint);
        let count = |verdict| {
            let lines = self.faults.iter();
            lines.filter(|line| line.verdict == verdict).count()
        };
        let took = span(Duration::from_millis(self.took_ms));
        let (held, overlaps, failed) = (
            count(Verdict::Holds),
            count(Verdict::Overlap),
            count(Verdict::Failed),
        );
        text += &match (overlaps, failed) {
            (0, _) if self.ended_by.is_some() => format!(
                "\nIt was ended early, with {held} of {} faults seen to their end, which proves \
                 nothing ({took}).\n",
                Fault::ALL.len()
            ),
            (0, 0) => format!(
                "\nNever two: in {held} of {held} faults the old worker was dead before the new \
                 one started ({took}).\n"
            ),
            (0, failed) => format!(
                "\n{failed} of {} faults were not seen to their end, which proves nothing ({took}).\n",
                held + failed
            ),
            (overlaps, _) => {
                format!("\nTwo workers lived at the same time, under {overlaps} faults ({took}).\n")
            }
        };
        for left in &self.left_behind {
            text += &format!("Left behind: {left}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::selftest::judge::HandOver;

    fn seen(overlap_ms: f64, exit_code: u8) -> Seen {
        Seen {
            hand_over: HandOver {
                overlap_ms,
                gap_ms: (-overlap_ms).max(0.0),
            },
            exit_code,
            basis: "released".to_owned(),
            note: String::new(),
        }
    }

    fn report(lines: Vec<Line>, left: Vec<String>) -> Report {
        Report::new(lines, left, None, [3, 20].map(Duration::from_secs))
    }

    #[test]
    fn an_overlap_is_said_loudly_and_ends_with_1() {
        let lines = vec![
            Line::of(Fault::Term, Ok(seen(0.1, 143))),
            Line::of(Fault::CleanEnd, Ok(seen(-12.0, 0))),
        ];
        let report = report(lines, Vec::new());
        assert_eq!((report.safe, report.exit_code), (false, 1));
        let text = report.text(Paint::none());
        assert!(text.contains("TWO LIVED") && text.contains("Two workers lived"));
        let json = crate::cli::output::json(&report);
        assert!(json.contains("\"overlap\"") && json.contains("\"overlap_ms\": 0.1"));
    }

    #[test]
    fn what_was_not_run_is_named_and_what_is_left_behind_is_no_success() {
        let lines = || {
            let none = Trouble::NoSuchFault("there is no line to a file".to_owned());
            vec![
                Line::of(Fault::CutConnection, Err(none)),
                Line::of(Fault::CleanEnd, Ok(seen(-12.0, 0))),
            ]
        };
        let good = report(lines(), Vec::new());
        assert_eq!((good.safe, good.exit_code), (true, 0));
        let text = good.text(Paint::none());
        assert!(
            text.contains("not run") && text.contains("no line to a file"),
            "{text}"
        );
        assert!(text.starts_with("FAULT") && text.contains("clean-end"));
        assert_eq!(report(lines(), vec!["a row".to_owned()]).exit_code, 1);
        let early = Report::new(lines(), Vec::new(), Some(2), [Duration::ZERO; 2]);
        assert_eq!((early.safe, early.exit_code), (false, 130));
        assert!(
            early
                .text(Paint::none())
                .contains("ended early, with 1 of 12")
        );
    }

    #[test]
    fn another_end_than_is_due_is_a_failure() {
        let line = Line::of(Fault::GuardSigkill, Ok(seen(-3.0, 0)));
        assert_eq!(line.verdict, Verdict::Failed);
        assert!(line.note.contains("125"), "{}", line.note);
        let slow = Seen {
            basis: "silent".to_owned(),
            ..seen(-3300.0, 137)
        };
        let line = Line::of(Fault::KeeperSigkill, Ok(slow));
        assert_eq!(line.verdict, Verdict::Holds);
        assert!(line.note.contains("not given back"), "{}", line.note);
    }
}
