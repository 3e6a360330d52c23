//! From events to terms: who held a slot from when to when.

use std::collections::BTreeMap;

use crate::store::admin::{DbTime, HistoryEvent, LeaseStatus, Seen, SlotState, SlotStatus, What};

/// One term of one holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The lease.
    pub name: String,
    /// The place.
    pub slot: u32,
    /// The fencing token.
    pub token: i64,
    /// The holder's label.
    pub label: String,
    /// When it began; `None`: before the history.
    pub from: Option<DbTime>,
    /// When it ended; `None`: not yet.
    pub to: Option<DbTime>,
    /// How it ended.
    pub end: End,
    /// Why, in words; may be empty.
    pub why: String,
}

/// How a term ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Not yet.
    Lasts,
    /// Given back.
    Released,
    /// Its token was closed.
    Closed,
    /// Another one took it, since it was not renewed.
    TakenOver,
    /// It was not renewed, and nobody has taken it yet.
    Expired,
    /// The history does not say.
    Unknown,
}

impl End {
    /// For machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lasts => "lasts",
            Self::Released => "released",
            Self::Closed => "closed",
            Self::TakenOver => "taken_over",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Lasts => "holds it",
            Self::Released => "released",
            Self::Closed => "broken",
            Self::TakenOver => "lost: taken over",
            Self::Expired => "lost: expired",
            Self::Unknown => "unknown",
        }
    }
}

/// The terms that `events` (oldest first) and the present rows tell of, by
/// lease, slot and time.
pub fn terms(events: &[HistoryEvent], status: &Seen<Vec<LeaseStatus>>) -> Vec<Term> {
    let mut slots: BTreeMap<(String, u32), Vec<Term>> = BTreeMap::new();
    for event in events {
        let key = (event.name.as_str().to_owned(), event.slot.0);
        match &event.what {
            What::Acquired => begin(slots.entry(key).or_default(), event),
            What::Released => end(slots.entry(key).or_default(), event, End::Released),
            What::Closed => end(slots.entry(key).or_default(), event, End::Closed),
            // These are about the lease, or end nothing by themselves.
            What::StepDown | What::Paused | What::Resumed | What::Other(_) => {}
        }
    }
    for lease in &status.value {
        for slot in &lease.slots {
            let key = (lease.name.as_str().to_owned(), slot.record.slot.0);
            present(slots.entry(key).or_default(), lease, slot, status);
        }
    }
    slots.into_values().flatten().collect()
}

fn of(event: &HistoryEvent, from: Option<DbTime>) -> Term {
    Term {
        name: event.name.as_str().to_owned(),
        slot: event.slot.0,
        token: event.token.0,
        label: event.label.clone(),
        from,
        to: None,
        end: End::Unknown,
        why: String::new(),
    }
}

fn begin(terms: &mut Vec<Term>, event: &HistoryEvent) {
    if let Some(open) = terms.last_mut().filter(|term| term.to.is_none()) {
        open.to = Some(event.at);
        open.end = End::TakenOver;
        open.why.clone_from(&event.why);
    }
    terms.push(of(event, Some(event.at)));
}

fn end(terms: &mut Vec<Term>, event: &HistoryEvent, end: End) {
    match terms.last_mut().filter(|term| term.token == event.token.0) {
        // The holder confirms a break by releasing: it ends there, and the
        // reason stays.
        Some(term) if term.end == End::Closed => term.to = Some(event.at),
        Some(term) => {
            term.to = Some(event.at);
            term.end = end;
            term.why.clone_from(&event.why);
        }
        None => terms.push(Term {
            to: Some(event.at),
            end,
            why: event.why.clone(),
            ..of(event, None)
        }),
    }
}

/// What lasts, and what has run out without an event.
fn present(
    terms: &mut Vec<Term>,
    lease: &LeaseStatus,
    slot: &SlotStatus,
    status: &Seen<Vec<LeaseStatus>>,
) {
    let record = &slot.record;
    if record.released {
        return;
    }
    if terms.last().is_none_or(|term| term.token != record.token.0) {
        terms.push(Term {
            name: lease.name.as_str().to_owned(),
            slot: record.slot.0,
            token: record.token.0,
            label: record.label.clone(),
            from: Some(slot.acquired_at),
            to: None,
            end: End::Unknown,
            why: String::new(),
        });
    }
    let Some(term) = terms.last_mut().filter(|term| term.to.is_none()) else {
        return;
    };
    match slot.state(&status.server) {
        SlotState::Held => term.end = End::Lasts,
        SlotState::Expired => {
            term.end = End::Expired;
            term.to = Some(slot.expires_at);
            term.why = "it was not renewed in time".to_owned();
        }
        SlotState::InDoubt => term.why = "the database has failed over or was restored".to_owned(),
        SlotState::HeldBack | SlotState::Free => {}
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::lease::ids::{LeaseName, Slot, Token};

    pub fn event(at: i64, token: i64, label: &str, what: What, why: &str) -> HistoryEvent {
        HistoryEvent {
            at: DbTime(at * 1000),
            name: LeaseName::new("job").expect("a name"),
            slot: Slot(0),
            token: Token(token),
            label: label.to_owned(),
            what,
            why: why.to_owned(),
        }
    }

    fn none() -> Seen<Vec<LeaseStatus>> {
        Seen {
            now: DbTime(100_000),
            server: crate::cli::status::tests::server(),
            value: Vec::new(),
        }
    }

    #[test]
    fn each_term_has_its_end_and_reason() {
        let events = [
            event(1, 4, "z", What::Released, "the worker ended"),
            event(10, 5, "a", What::Acquired, "it was released"),
            event(20, 5, "a", What::Released, "SIGTERM"),
            event(20, 6, "b", What::Acquired, "it was released"),
            event(60, 7, "c", What::Acquired, "its holder was silent"),
            event(70, 7, "c", What::Closed, "by app"),
            event(71, 7, "c", What::Released, "its token was closed"),
        ];
        let terms = terms(&events, &none());
        let told: Vec<_> = terms
            .iter()
            .map(|term| {
                (
                    term.label.as_str(),
                    term.from,
                    term.to.map(|to| to.0 / 1000),
                    term.end,
                    term.why.as_str(),
                )
            })
            .collect();
        let from = |at: i64| Some(DbTime(at * 1000));
        assert_eq!(
            told,
            [
                ("z", None, Some(1), End::Released, "the worker ended"),
                ("a", from(10), Some(20), End::Released, "SIGTERM"),
                (
                    "b",
                    from(20),
                    Some(60),
                    End::TakenOver,
                    "its holder was silent"
                ),
                ("c", from(60), Some(71), End::Closed, "by app"),
            ]
        );
    }

    #[test]
    fn what_lasts_and_what_has_expired_come_from_the_rows() {
        let events = [event(10, 5, "a", What::Acquired, "")];
        let mut status = none();
        status.value = vec![crate::cli::status::tests::lease(5, |_| {})];
        assert_eq!(terms(&events, &status)[0].end, End::Lasts);
        status.value = vec![crate::cli::status::tests::lease(5, |slot| {
            slot.record.expired = true
        })];
        let expired = terms(&events, &status);
        assert_eq!(
            (expired[0].end, expired[0].to),
            (End::Expired, Some(DbTime(130_000)))
        );
        // Acquired before what the history reaches back to.
        let old = terms(&[], &status);
        assert_eq!((old.len(), old[0].from), (1, Some(DbTime(10_000))));
    }
}
