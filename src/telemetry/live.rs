//! One live line while standing by on a terminal: who holds the lease, for
//! how long, when it could be free. It is not in the log: it is drawn by the
//! log's own thread, below the log's lines, and gone without a trace when the
//! standing by ends.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use nix::unistd::{getpgrp, tcgetpgrp};
use unicode_width::UnicodeWidthChar as _;

use super::format::{one_line, span};
use super::transition::shown_label;
use super::writer::Queue;
use super::{Detail, Format, LogOptions};
use crate::lease::ids::LeaseName;
use crate::lease::keeper::{Keeper, Phase};
use crate::lease::time::BootInstant;
use crate::lease::watch::Reason;

/// What the line says. Ages are made when it is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    name: String,
    since: BootInstant,
    holder: Option<Holder>,
    /// Why the lease is not ours: ends with " in" or "for" where `until` says when.
    why: Option<String>,
    until: Option<BootInstant>,
    attempts: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    label: String,
    token: i64,
    since: BootInstant,
}

impl Standing {
    /// The line at `now`, in no more than `columns` columns: a line that
    /// fills the last one wraps.
    pub fn text(&self, now: BootInstant, columns: usize) -> String {
        let whole = |length: Duration| span(Duration::from_secs(length.as_secs()));
        let age = |since: BootInstant| whole(now.saturating_since(since));
        let mut text = format!("{}: standing by for {}", self.name, age(self.since));
        if let Some(holder) = &self.holder {
            let Holder {
                label,
                token,
                since,
            } = holder;
            text += &format!(
                "; {} has it (token {token}) for {}",
                shown_label(label),
                age(*since)
            );
        }
        if let Some(why) = &self.why {
            text += &format!("; {why}");
        }
        if let Some(until) = self.until {
            text += &format!(" {}", whole(until.saturating_since(now)));
        }
        text += &format!("; attempt {}", self.attempts);
        cut(&one_line(&text), columns.saturating_sub(1))
    }
}

/// As much of `text` as fits into `columns` columns.
fn cut(text: &str, columns: usize) -> String {
    let width = |c: char| c.width().unwrap_or(0);
    if text.chars().map(width).sum::<usize>() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let mut short: String = text
        .chars()
        .take_while(|c| {
            let fits = width(*c) <= left;
            left = left.saturating_sub(width(*c));
            fits
        })
        .collect();
    if columns > 0 {
        short.push('…');
    }
    short
}

/// Follows the keeper, and keeps the line.
#[derive(Debug)]
pub struct Live {
    /// `None`: no line is wanted here.
    queue: Option<Queue>,
    name: LeaseName,
    /// The last reason, and when it was first seen: its times count from then.
    reason: Option<(Reason, BootInstant)>,
}

impl Live {
    pub(super) fn new(queue: Option<Queue>, name: LeaseName) -> Self {
        Self {
            queue,
            name,
            reason: None,
        }
    }

    /// The keeper has made a step.
    pub fn stepped(&mut self, keeper: &Keeper, now: BootInstant) {
        let Some(queue) = &self.queue else {
            return;
        };
        match keeper.phase() {
            Phase::Standby => {}
            // The worker may start at any moment: the terminal is to be its
            // own by then.
            Phase::Acquiring => return queue.show(None),
            Phase::Starting
            | Phase::Holding
            | Phase::Stopping
            | Phase::Releasing
            | Phase::Ended => {
                self.reason = None;
                return queue.show(None);
            }
        }
        let Some(reason) = keeper.reason().filter(|reason| is_worth_a_line(reason)) else {
            return;
        };
        let reason_since = match &self.reason {
            Some((same, at)) if same == reason => *at,
            Some(_) | None => now,
        };
        self.reason = Some((reason.clone(), reason_since));
        let (why, left) = words(reason);
        queue.show(Some(Standing {
            name: self.name.as_str().to_owned(),
            since: keeper.since(),
            holder: holder(keeper),
            why,
            until: left.map(|left| reason_since + left),
            attempts: keeper.attempts(),
        }));
    }
}

/// Before the first answer there is nothing to say.
fn is_worth_a_line(reason: &Reason) -> bool {
    !matches!(reason, Reason::Starting | Reason::NoGuard)
}

fn holder(keeper: &Keeper) -> Option<Holder> {
    let (seen, observation) = keeper.observation()?;
    let record = observation.records.iter().find(|record| !record.released)?;
    Some(Holder {
        label: record.label.clone(),
        token: record.token.0,
        since: seen - record.held_for,
    })
}

/// Why it is not ours, and for how long yet.
fn words(reason: &Reason) -> (Option<String>, Option<Duration>) {
    let (why, left) = match reason {
        Reason::Held { expires_in, .. } => ("if not renewed, over in", *expires_in),
        Reason::Watching { left } => ("not renewed, free in", *left),
        Reason::Doubting { doubt, left } => {
            return (Some(format!("{doubt}: free in")), Some(*left));
        }
        Reason::HeldBack { left, .. } => ("kept taken for", *left),
        Reason::Reserved { label, left } => {
            let why = format!("left to {} for", shown_label(label));
            return (Some(why), Some(*left));
        }
        Reason::SteppedDown { left } => ("others go first for", *left),
        Reason::Starting
        | Reason::NoGuard
        | Reason::SlotAbove { .. }
        | Reason::Paused { .. }
        | Reason::Locked { .. }
        | Reason::Overtaken
        | Reason::Unfit
        | Reason::Unreachable { .. } => return (Some(reason.to_string()), None),
    };
    (Some(why.to_owned()), Some(left))
}

/// Whether a line is wanted: somebody looks at a terminal that can draw it,
/// the log is for people, and no service manager reads it.
pub(super) fn is_wanted(options: &LogOptions) -> bool {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let managed = ["NOTIFY_SOCKET", "JOURNAL_STREAM"];
    options.format == Format::Text
        && options.detail != Detail::Quiet
        && io::stderr().is_terminal()
        && variable("TERM").is_some_and(|term| term != "dumb")
        && managed.iter().all(|name| variable(name).is_none())
}

/// How many columns there are to draw in; `None` while this process is in
/// the background: the terminal is somebody else's then.
pub(super) fn columns() -> Option<usize> {
    let stderr = io::stderr();
    if tcgetpgrp(&stderr) != Ok(getpgrp()) {
        return None;
    }
    let (width, _) = terminal_size::terminal_size_of(&stderr)?;
    Some(usize::from(width.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootInstant {
        BootInstant::ZERO + Duration::from_secs(seconds)
    }

    fn standing() -> Standing {
        let (why, left) = words(&Reason::Held {
            label: "h/1".to_owned(),
            expires_in: Duration::from_secs(28),
        });
        Standing {
            name: "mailer".to_owned(),
            since: at(100),
            holder: Some(Holder {
                label: "h/\u{1b}1".to_owned(),
                token: 7,
                since: at(10),
            }),
            why,
            until: left.map(|left| at(100) + left),
            attempts: 4,
        }
    }

    #[test]
    fn it_says_who_and_for_how_long_and_when_and_how_often() {
        assert_eq!(
            standing().text(at(112), 200),
            "mailer: standing by for 12s; \"h/\\u{1b}1\" has it (token 7) for 1m 42s; \
             if not renewed, over in 16s; attempt 4"
        );
    }

    #[test]
    fn it_fits_into_any_width_and_never_fills_a_line() {
        let mut wide = standing();
        wide.name = "漢字の名前".to_owned();
        for columns in 0..140 {
            let text = wide.text(at(112), columns);
            let width: usize = text.chars().map(|c| c.width().unwrap_or(0)).sum();
            assert!(width <= columns.saturating_sub(1), "{columns}: {text:?}");
        }
        assert_eq!(cut("漢字", 3), "漢…");
        assert_eq!(cut("漢字", 4), "漢字");
    }
}
