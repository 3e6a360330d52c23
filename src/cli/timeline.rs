//! The time line of `history`: a bar for each slot, a letter for each holder.

use std::collections::BTreeMap;

use super::output::{Paint, Tone, between, brief, instant_short};
use super::terms::{End, Term};
use crate::store::admin::DbTime;
use crate::telemetry::format::one_line;

/// How wide to draw: as the terminal is, 80 columns elsewhere.
pub fn width() -> usize {
    let columns = terminal_size::terminal_size().map_or(80, |(columns, _)| usize::from(columns.0));
    columns.clamp(40, 200)
}

/// Draws `terms` from `begin` (or where they begin) until `now`.
pub fn draw(
    terms: &[Term],
    begin: Option<DbTime>,
    now: DbTime,
    paint: Paint,
    width: usize,
) -> String {
    let earliest = terms.iter().filter_map(|term| term.from.or(term.to)).min();
    let begin = begin.or(earliest).unwrap_or(now);
    let mut slots: BTreeMap<(&str, u32), Vec<&Term>> = BTreeMap::new();
    for term in terms {
        slots.entry((&term.name, term.slot)).or_default().push(term);
    }
    let holders = Holders::of(terms);
    let several = slots.keys().any(|(_, slot)| *slot > 0);
    let titles: Vec<String> = slots
        .keys()
        .map(|(name, slot)| title(name, *slot, several))
        .collect();
    let margin = titles
        .iter()
        .map(|title| title.chars().count())
        .max()
        .unwrap_or_default();
    let scale = Scale {
        begin,
        now,
        cells: width.saturating_sub(margin + 2).max(10),
    };
    let mut drawing = String::new();
    for (title, terms) in titles.iter().zip(slots.values()) {
        let bar = bar(terms, &scale, &holders, paint);
        drawing += &format!("{title:<margin$}  {bar}\n");
    }
    drawing += &format!(
        "{:margin$}  {}\n",
        "",
        paint.paint(Tone::Faint, &scale.axis())
    );
    drawing += &holders.legend(paint);
    drawing
}

fn title(name: &str, slot: u32, several: bool) -> String {
    let name: String = one_line(name).chars().take(24).collect();
    if several {
        format!("{name}/{slot}")
    } else {
        name
    }
}

/// From instants to cells.
struct Scale {
    begin: DbTime,
    now: DbTime,
    cells: usize,
}

impl Scale {
    fn cell(&self, at: DbTime) -> usize {
        let span = between(self.begin, self.now).as_millis().max(1);
        let since = between(self.begin, at).as_millis().min(span);
        let cells = u128::try_from(self.cells).unwrap_or(u128::MAX);
        usize::try_from(since * cells / span).unwrap_or(self.cells)
    }

    fn axis(&self) -> String {
        let (left, right) = (instant_short(self.begin), "now");
        let span = format!(" ({})", brief(between(self.begin, self.now)));
        let gap = self
            .cells
            .saturating_sub(left.len() + span.len() + right.len());
        format!("{left}{span}{}{right}", " ".repeat(gap))
    }
}

/// A letter for each label, in order of appearance.
struct Holders<'a>(Vec<&'a str>);

impl<'a> Holders<'a> {
    fn of(terms: &'a [Term]) -> Self {
        let mut labels: Vec<&str> = Vec::new();
        for term in terms {
            if !labels.contains(&term.label.as_str()) {
                labels.push(&term.label);
            }
        }
        Self(labels)
    }

    fn index(&self, label: &str) -> usize {
        self.0
            .iter()
            .position(|known| *known == label)
            .unwrap_or_default()
    }

    fn letter(index: usize) -> char {
        let letters = ('A'..='Z').chain('a'..='z').chain('0'..='9');
        letters.into_iter().nth(index).unwrap_or('#')
    }

    fn legend(&self, paint: Paint) -> String {
        let mut legend = String::new();
        for (index, label) in self.0.iter().enumerate().take(62) {
            let letter = paint.series(index, &Self::letter(index).to_string());
            legend += &format!("{letter} {}\n", one_line(label));
        }
        legend + "· nobody   × lost, not given back\n"
    }
}

fn bar(terms: &[&Term], scale: &Scale, holders: &Holders<'_>, paint: Paint) -> String {
    let mut cells: Vec<Option<(usize, char)>> = vec![None; scale.cells];
    for term in terms {
        let index = holders.index(&term.label);
        let first = term
            .from
            .map_or(0, |from| scale.cell(from))
            .min(scale.cells - 1);
        let end = term
            .to
            .map_or(scale.cells, |to| scale.cell(to))
            .max(first + 1);
        // A term shorter than a cell still shows, over whoever was before.
        for cell in &mut cells[first..end.min(scale.cells)] {
            *cell = Some((index, Holders::letter(index)));
        }
        if matches!(term.end, End::TakenOver | End::Expired) {
            let last = end.min(scale.cells) - 1;
            if last > first {
                cells[last] = Some((index, '×'));
            }
        }
    }
    let mut bar = String::new();
    for run in cells.chunk_by(|a, b| a == b) {
        match run.first().copied().flatten() {
            Some((index, letter)) => {
                bar += &paint.series(index, &letter.to_string().repeat(run.len()));
            }
            None => bar += &paint.paint(Tone::Faint, &"·".repeat(run.len())),
        }
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(label: &str, from: i64, to: Option<i64>, end: End) -> Term {
        Term {
            name: "job".to_owned(),
            slot: 0,
            token: from,
            label: label.to_owned(),
            from: Some(DbTime(from * 1000)),
            to: to.map(|to| DbTime(to * 1000)),
            end,
            why: String::new(),
        }
    }

    #[test]
    fn terms_gaps_and_losses_can_be_seen() {
        let terms = [
            term("a", 0, Some(10), End::Released),
            term("b", 12, Some(30), End::TakenOver),
            term("a", 30, None, End::Lasts),
        ];
        let drawing = draw(&terms, None, DbTime(40_000), Paint::none(), 45);
        assert_eq!(
            drawing,
            "job  AAAAAAAAAA··BBBBBBBBBBBBBBBBB×AAAAAAAAAA\n     1970-01-01 00:00:00Z (40s)           now\nA a\nB b\n· nobody   × lost, not given back\n"
        );
    }

    #[test]
    fn a_line_can_be_drawn_of_anything() {
        for (from, to) in [(0, Some(0)), (5, Some(5)), (0, None)] {
            let terms = [term("\x1b", from, to, End::Expired)];
            let drawing = draw(&terms, Some(DbTime(0)), DbTime(0), Paint::none(), 0);
            assert!(!drawing.contains('\x1b'));
        }
        assert_eq!(
            draw(&[], None, DbTime(0), Paint::none(), 80)
                .lines()
                .count(),
            2
        );
    }
}
