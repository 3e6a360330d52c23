//! `history`: who held what, from when to when, and why each term ended.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::admin::{AdminArgs, Admins, Failed};
use super::args::values;
use super::output::{
    Output, Paint, Row, Tone, between, brief, instant, instant_short, json, table,
};
use super::print;
use super::terms::{End, Term, terms};
use super::timeline;
use crate::lease::ids::LeaseName;
use crate::store::admin::{Admin, DbTime, HistoryEvent};
use crate::telemetry::format::millis;

/// Arguments of `leasewrap history`.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  leasewrap history --name mailer --since 1day")]
pub struct History {
    /// This lease alone
    #[arg(
        long,
        value_name = "NAME",
        env = "LEASEWRAP_NAME",
        hide_env_values = true
    )]
    #[arg(value_parser = values::lease_name)]
    name: Option<LeaseName>,
    /// Only what happened since so long ago
    #[arg(long, value_name = "DURATION", value_parser = values::any_duration)]
    since: Option<Duration>,
    /// For people or for machines
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Output,
    #[command(flatten)]
    admin: AdminArgs,
}

impl History {
    /// Reads and shows.
    pub fn perform(self) -> u8 {
        let Self {
            admin,
            name,
            since,
            output,
        } = self;
        admin.perform(name.as_ref(), async |admins: &mut Admins| {
            admins.store.only_reads();
            // What lasts still is in the rows, not in the events.
            let status = admins.store.status(name.as_ref(), admins.limit).await;
            let status = status.map_err(|unknown| Failed::call("read the leases", &unknown))?;
            let events = admins
                .store
                .history(name.as_ref(), since, admins.limit)
                .await;
            let events = events.map_err(|unknown| Failed::call("read the history", &unknown))?;
            let terms = terms(&events.value, &status);
            let text = match output {
                Output::Json => json(&View::of(events.now, &terms, &events.value)),
                Output::Text => text(
                    events.now,
                    since,
                    &terms,
                    Paint::stdout(),
                    timeline::width(),
                ),
            };
            Ok(print(text.as_bytes()))
        })
    }
}

#[derive(Debug, Serialize)]
struct View<'a> {
    /// The database's clock; `null` where there is no schema yet.
    now: Option<String>,
    terms: Vec<TermView<'a>>,
    events: Vec<EventView<'a>>,
}

#[derive(Debug, Serialize)]
struct TermView<'a> {
    name: &'a str,
    slot: u32,
    token: i64,
    label: &'a str,
    /// `null`: before what the history reaches back to.
    from: Option<String>,
    /// `null`: it lasts still.
    to: Option<String>,
    for_ms: Option<u64>,
    end: &'static str,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct EventView<'a> {
    at: String,
    name: &'a str,
    slot: u32,
    token: i64,
    label: &'a str,
    what: &'a str,
    why: &'a str,
}

impl<'a> View<'a> {
    fn of(now: DbTime, terms: &'a [Term], events: &'a [HistoryEvent]) -> Self {
        let term = |term: &'a Term| TermView {
            name: &term.name,
            slot: term.slot,
            token: term.token,
            label: &term.label,
            from: term.from.map(instant),
            to: term.to.map(instant),
            for_ms: term
                .from
                .map(|from| millis(between(from, term.to.unwrap_or(now)))),
            end: term.end.name(),
            why: &term.why,
        };
        let event = |event: &'a HistoryEvent| EventView {
            at: instant(event.at),
            name: event.name.as_str(),
            slot: event.slot.0,
            token: event.token.0,
            label: &event.label,
            what: event.what.as_str(),
            why: &event.why,
        };
        Self {
            now: (now.0 != 0).then(|| instant(now)),
            terms: terms.iter().map(term).collect(),
            events: events.iter().map(event).collect(),
        }
    }
}

/// The table, and below it the time line.
fn text(
    now: DbTime,
    since: Option<Duration>,
    terms: &[Term],
    paint: Paint,
    width: usize,
) -> String {
    if terms.is_empty() {
        return "nothing happened\n".to_owned();
    }
    let several = terms.iter().any(|term| term.slot > 0);
    let rows: Vec<Row> = terms.iter().map(|term| row(term, now, several)).collect();
    let headings = [
        "NAME", "SLOT", "TOKEN", "HOLDER", "FROM", "TO", "FOR", "END", "WHY",
    ];
    let table = table(&headings, &rows, paint);
    // Of what lies before 1970 there is nothing to draw.
    let begin = since.map(|since| DbTime(now.0.saturating_sub_unsigned(millis(since)).max(0)));
    format!(
        "{table}\n{}",
        timeline::draw(terms, begin, now, paint, width)
    )
}

fn row(term: &Term, now: DbTime, several: bool) -> Row {
    Row {
        cells: vec![
            term.name.clone(),
            if several {
                term.slot.to_string()
            } else {
                String::new()
            },
            term.token.to_string(),
            term.label.clone(),
            term.from.map_or_else(|| "before".to_owned(), instant_short),
            term.to.map_or_else(|| "now".to_owned(), instant_short),
            term.from
                .map(|from| brief(between(from, term.to.unwrap_or(now))))
                .unwrap_or_default(),
            term.end.words().to_owned(),
            term.why.clone(),
        ],
        tone: match term.end {
            End::Lasts => Some(Tone::Good),
            End::Released => None,
            End::Closed | End::Unknown => Some(Tone::Odd),
            End::TakenOver | End::Expired => Some(Tone::Bad),
        },
    }
}
