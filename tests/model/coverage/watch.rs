//! A standby's watch: what a slot has looked like, and how the next look
//! differs; and what is concluded from it.

use leasewrap::lease::ids::Slot;
use leasewrap::lease::record::{Observation, Record};
use leasewrap::lease::watch::{Basis, Doubt, Reason};

use super::{Impossible, Table};

/// How a look differs on the server of the one before, and on another one.
const SAME_SERVER: &[&str] = &[
    "no row",
    "the same",
    "renewed",
    "given back",
    "another holder",
    "older",
];
const NEW_SERVER: &[&str] = &[
    "no row, new server",
    "the same, new server",
    "renewed, new server",
    "given back, new server",
    "another holder, new server",
    "older, new server",
];

pub const TABLE: Table = Table {
    machine: "watch",
    states: &["unseen", "no row", "held", "expired", "released"],
    events: &[SAME_SERVER, NEW_SERVER, &["in recovery"]],
    impossible: &[
        Impossible {
            states: &["unseen", "no row"],
            events: &[&[
                "the same",
                "renewed",
                "older",
                "the same, new server",
                "renewed, new server",
                "older, new server",
            ]],
            why: "there was no row to compare with",
        },
        Impossible {
            states: &["unseen"],
            events: &[&[
                "no row, new server",
                "given back, new server",
                "another holder, new server",
            ]],
            why: "there was no other server",
        },
        Impossible {
            states: &["released"],
            events: &[&["renewed", "renewed, new server"]],
            why: "what was given back is not renewed",
        },
        Impossible {
            states: &["held", "expired", "released"],
            events: &[&["no row", "older"]],
            why: "on one server rows vanish and go back by hand alone (a campaign does it)",
        },
    ],
};

pub const CONCLUSIONS: Table = Table {
    machine: "watch, concluded",
    states: &["times"],
    events: &[&[
        "take: new",
        "take: released",
        "take: silent",
        "take: expired",
        "take: other incarnation",
        "take: gone",
        "take: gone back",
        "take: young timeline",
        "wait: held",
        "wait: watching",
        "wait: other incarnation",
        "wait: gone",
        "wait: gone back",
        "wait: young timeline",
        "wait: held back",
        "wait: reserved",
        "wait: slot above",
        "wait: paused",
    ]],
    impossible: &[
        Impossible {
            states: &[],
            events: &[&["take: expired"]],
            why: "no --takeover clock here: what it risks, it does risk (mutations)",
        },
        Impossible {
            states: &[],
            events: &[&["wait: held back", "wait: reserved"]],
            why: "the model's store keeps no row for anybody (unit tests do)",
        },
    ],
};

fn row(seen: &Observation, slot: Slot) -> Option<&Record> {
    seen.records.iter().find(|record| record.slot == slot)
}

pub fn state(seen: Option<&Observation>, slot: Slot) -> &'static str {
    let Some(seen) = seen else { return "unseen" };
    match row(seen, slot) {
        None => "no row",
        Some(record) if record.released => "released",
        Some(record) if record.expired => "expired",
        Some(_) => "held",
    }
}

pub fn event(before: Option<&Observation>, now: &Observation, slot: Slot) -> &'static str {
    if now.server.in_recovery {
        return "in recovery";
    }
    let shows = |record: &Record| (record.token, record.revision);
    let old = before.and_then(|seen| row(seen, slot)).map(shows);
    let kind = match (old, row(now, slot)) {
        (_, None) => 0,
        (Some(old), Some(new)) if shows(new) == old => 1,
        (Some(old), Some(new)) if shows(new) < old => 5,
        (_, Some(new)) if new.released => 3,
        (Some((token, _)), Some(new)) if token == new.token => 2,
        (_, Some(_)) => 4,
    };
    let new_server =
        before.is_some_and(|before| before.server.incarnation != now.server.incarnation);
    if new_server {
        NEW_SERVER[kind]
    } else {
        SAME_SERVER[kind]
    }
}

pub fn taken(basis: &Basis) -> &'static str {
    match basis {
        Basis::New => "take: new",
        Basis::Released => "take: released",
        Basis::Silent { .. } => "take: silent",
        Basis::Expired => "take: expired",
        Basis::Doubted { doubt, .. } => match doubt {
            Doubt::OtherIncarnation => "take: other incarnation",
            Doubt::Gone => "take: gone",
            Doubt::GoneBack => "take: gone back",
            Doubt::YoungTimeline => "take: young timeline",
        },
    }
}

/// Why a slot is not taken, where the watch says so.
pub fn waits(reason: &Reason) -> Option<&'static str> {
    match reason {
        Reason::Held { .. } => Some("wait: held"),
        Reason::Watching { .. } => Some("wait: watching"),
        Reason::Doubting { doubt, .. } => Some(match doubt {
            Doubt::OtherIncarnation => "wait: other incarnation",
            Doubt::Gone => "wait: gone",
            Doubt::GoneBack => "wait: gone back",
            Doubt::YoungTimeline => "wait: young timeline",
        }),
        Reason::HeldBack { .. } => Some("wait: held back"),
        Reason::Reserved { .. } => Some("wait: reserved"),
        Reason::SlotAbove { .. } => Some("wait: slot above"),
        Reason::Paused { .. } => Some("wait: paused"),
        Reason::Starting
        | Reason::NoGuard
        | Reason::Locked { .. }
        | Reason::Overtaken
        | Reason::Unfit
        | Reason::Unreachable { .. }
        | Reason::SteppedDown { .. } => None,
    }
}
