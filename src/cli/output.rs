//! How commands that read show what they read: tables for people, JSON for
//! machines (stable names, durations in `_ms`, instants as RFC 3339).

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::store::admin::DbTime;
use crate::telemetry::format::one_line;

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What stands out, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Odd,
    /// Something is wrong.
    Bad,
    /// Of little interest.
    Faint,
    /// A heading.
    Heading,
}

/// Paints, where colours help.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For standard output.
    pub fn stdout() -> Self {
        Self {
            on: crate::telemetry::colours(&io::stdout()),
        }
    }

    /// Never.
    pub const fn none() -> Self {
        Self { on: false }
    }

    /// `text` in that tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        let colour = match tone {
            Tone::Good => "32",
            Tone::Odd => "33",
            Tone::Bad => "1;31",
            Tone::Faint => "2",
            Tone::Heading => "1",
        };
        format!("\x1b[{colour}m{text}\x1b[0m")
    }

    /// The `index`th of a few colours that can be told apart.
    pub fn series(self, index: usize, text: &str) -> String {
        const COLOURS: [&str; 6] = ["36", "35", "32", "33", "34", "31"];
        if !self.on || text.is_empty() {
            return text.to_owned();
        }
        format!("\x1b[{}m{text}\x1b[0m", COLOURS[index % COLOURS.len()])
    }
}

/// A row: its cells, and the tone of all of it.
#[derive(Debug)]
pub struct Row {
    /// One for each column.
    pub cells: Vec<String>,
    /// How it stands out.
    pub tone: Option<Tone>,
}

/// An aligned table; columns in which no row has anything are left out.
pub fn table(headings: &[&str], rows: &[Row], paint: Paint) -> String {
    let used: Vec<bool> = (0..headings.len())
        .map(|column| {
            rows.iter()
                .any(|row| row.cells.get(column).is_some_and(|cell| !cell.is_empty()))
        })
        .collect();
    let pick = |cells: Vec<String>| -> Vec<String> {
        cells
            .into_iter()
            .zip(&used)
            .filter(|(_, used)| **used)
            .map(|(cell, _)| cell)
            .collect()
    };
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(pick(
        headings
            .iter()
            .map(|heading| (*heading).to_owned())
            .collect(),
    ));
    for row in rows {
        let last = row.cells.len().saturating_sub(1);
        let most = |column| if column == last { 160 } else { 48 };
        let cells = row.cells.iter().enumerate();
        table.add_row(pick(
            cells
                .map(|(column, cell)| short(cell, most(column)))
                .collect(),
        ));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let tones = std::iter::once(Some(Tone::Heading)).chain(rows.iter().map(|row| row.tone));
    table
        .lines()
        .zip(tones)
        .map(|(line, tone)| {
            let line = line.trim_end();
            tone.map_or_else(|| line.to_owned(), |tone| paint.paint(tone, line)) + "\n"
        })
        .collect()
}

/// One line of at most so many characters.
pub fn short(text: &str, most: usize) -> String {
    let line = one_line(text);
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A JSON document.
pub fn json(document: &impl Serialize) -> String {
    // Plain data with text keys: there is nothing that could fail.
    serde_json::to_string_pretty(document).unwrap_or_default() + "\n"
}

/// An instant of the database's clock for machines: RFC 3339, UTC.
pub fn instant(at: DbTime) -> String {
    humantime::format_rfc3339_millis(shown(at)).to_string()
}

/// RFC 3339 writes four digits of a year, humantime fails past those, and a
/// row that was written by hand may last for longer.
fn shown(at: DbTime) -> SystemTime {
    const LAST: Duration = Duration::from_millis(253_402_300_799_999);
    let since = u64::try_from(at.0).map(Duration::from_millis);
    UNIX_EPOCH + since.unwrap_or_default().min(LAST)
}

/// The same for people: to the second.
pub fn instant_short(at: DbTime) -> String {
    humantime::format_rfc3339_seconds(shown(at))
        .to_string()
        .replace('T', " ")
}

/// How far `later` lies after `earlier`.
pub fn between(earlier: DbTime, later: DbTime) -> Duration {
    Duration::from_millis(u64::try_from(later.0.saturating_sub(earlier.0)).unwrap_or_default())
}

/// A duration in a table: two units at the most.
pub fn brief(duration: Duration) -> String {
    let text = crate::telemetry::format::span(duration);
    let mut words = text.split(' ');
    match (words.next(), words.next()) {
        (Some(first), Some(second)) => format!("{first} {second}"),
        (Some(first), None) => first.to_owned(),
        (None, _) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Row {
        Row {
            cells: cells.iter().map(|cell| (*cell).to_owned()).collect(),
            tone: None,
        }
    }

    #[test]
    fn a_table_is_aligned_and_leaves_out_what_is_empty() {
        let rows = [
            row(&["a", "", "wide ü", "1"]),
            row(&["bbb", "", "x\ny", ""]),
        ];
        let text = table(&["NAME", "VALUE", "HOLDER", "N"], &rows, Paint::none());
        assert_eq!(text, "NAME  HOLDER  N\na     wide ü  1\nbbb   x\\ny\n");
    }

    #[test]
    fn instants_and_spans() {
        assert_eq!(instant(DbTime(1_500)), "1970-01-01T00:00:01.500Z");
        assert_eq!(instant_short(DbTime(1_500)), "1970-01-01 00:00:01Z");
        let never = DbTime(i64::MAX);
        assert_eq!(instant(never), "9999-12-31T23:59:59.999Z");
        assert_eq!(instant_short(never), "9999-12-31 23:59:59Z");
        assert_eq!(instant(DbTime(-1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(brief(Duration::from_secs(90_061)), "1day 1h");
        assert_eq!(between(DbTime(5), DbTime(3)), Duration::ZERO);
    }
}
