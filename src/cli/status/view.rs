//! What `status` shows: the same as a table and as JSON.

use serde::Serialize;

use crate::cli::output::{Paint, Row, Tone, between, brief, instant, table};
use crate::lease::ids::LeaseName;
use crate::lease::record::RequestKind;
use crate::store::admin::{LeaseStatus, Seen, SlotState, SlotStatus};
use crate::telemetry::format::millis;

/// What is shown.
#[derive(Debug, Serialize)]
pub struct View {
    /// The database's clock; `null` where there is no schema yet.
    now: Option<String>,
    /// Of the server that answered.
    incarnation: Option<String>,
    /// It is a standby server, and may be behind.
    in_recovery: bool,
    leases: Vec<Lease>,
}

#[derive(Debug, Serialize)]
struct Lease {
    name: String,
    state: State,
    paused: Option<Paused>,
    slots: Vec<Slot>,
    standbys: Option<Vec<Standby>>,
}

#[derive(Debug, Serialize)]
struct Paused {
    reason: String,
    by: String,
    since: String,
    for_ms: u64,
}

#[derive(Debug, Serialize)]
struct Standby {
    from: String,
    since: String,
}

#[derive(Debug, Serialize)]
struct Slot {
    slot: u32,
    state: State,
    /// Of the present holder; of nobody when the slot is free.
    holder: Option<String>,
    label: Option<String>,
    value: Option<String>,
    /// Of whoever held it last, when it is free.
    last_label: Option<String>,
    token: i64,
    closed_token: Option<i64>,
    revision: i64,
    ttl_ms: u64,
    takeover_delay_ms: u64,
    /// Until it expired, where it has.
    held_for_ms: Option<u64>,
    expires_in_ms: Option<u64>,
    expired_for_ms: Option<u64>,
    changes: u64,
    acquired_at: String,
    renewed_at: String,
    expires_at: String,
    released_at: Option<String>,
    /// Given back, but kept taken by `--hold-at-least`.
    held_back_ms: Option<u64>,
    /// Given back, but kept for this standby by `step-down --to`.
    reserved_for: Option<String>,
    /// An operator's request that the holder has not yet done.
    step_down_requested: bool,
    incarnation: String,
}

/// What is shown of a slot or a lease. An expired one is never held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody holds it.
    Free,
    /// Nobody holds it, and nobody may take it.
    Paused,
    /// Neither renewed in time nor given back.
    Expired,
    /// Later writes may have been lost.
    InDoubt,
    /// Held, and renewed in time.
    Held,
}

impl State {
    fn of(slot: SlotState, paused: bool) -> Self {
        match slot {
            SlotState::Held => Self::Held,
            SlotState::Expired => Self::Expired,
            SlotState::InDoubt => Self::InDoubt,
            SlotState::HeldBack | SlotState::Free if paused => Self::Paused,
            SlotState::HeldBack | SlotState::Free => Self::Free,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Paused => "paused",
            Self::Expired => "expired",
            Self::InDoubt => "in doubt",
            Self::Held => "held",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Free => Tone::Faint,
            Self::Paused | Self::InDoubt => Tone::Odd,
            Self::Expired => Tone::Bad,
            Self::Held => Tone::Good,
        }
    }
}

impl View {
    /// Of what the store says; a lease that was asked for by name and never
    /// held is free.
    pub fn of(seen: &Seen<Vec<LeaseStatus>>, name: Option<&LeaseName>) -> Self {
        let mut leases: Vec<Lease> = seen
            .value
            .iter()
            .map(|lease| Lease::of(lease, seen))
            .collect();
        let schema = !seen.server.incarnation.0.is_empty();
        if let (Some(name), []) = (name, leases.as_slice()) {
            leases.push(Lease {
                name: name.as_str().to_owned(),
                state: State::Free,
                paused: None,
                slots: Vec::new(),
                standbys: None,
            });
        }
        Self {
            now: schema.then(|| instant(seen.now)),
            incarnation: schema.then(|| seen.server.incarnation.to_string()),
            in_recovery: seen.server.in_recovery,
            leases,
        }
    }

    /// 0 when something of it is held.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.leases.iter().any(|lease| lease.state == State::Held))
    }

    /// A table and what does not fit into it.
    pub fn text(&self, paint: Paint) -> String {
        if self.leases.is_empty() {
            return "no lease was ever taken here\n".to_owned();
        }
        let several = self
            .leases
            .iter()
            .any(|lease| lease.slots.iter().any(|slot| slot.slot > 0));
        let rows: Vec<Row> = self
            .leases
            .iter()
            .flat_map(|lease| lease.rows(several))
            .collect();
        let headings = [
            "NAME",
            "SLOT",
            "STATE",
            "HOLDER",
            "VALUE",
            "TOKEN",
            "HELD FOR",
            "EXPIRES IN",
            "CHANGES",
            "STANDBYS",
        ];
        let mut text = table(&headings, &rows, paint);
        let notes: Vec<String> = self
            .leases
            .iter()
            .flat_map(|lease| lease.notes(several))
            .collect();
        for note in notes {
            text.push_str(&note);
            text.push('\n');
        }
        if self.in_recovery {
            text.push_str("This is a standby server; it may be behind.\n");
        }
        text
    }
}

impl Lease {
    fn of(lease: &LeaseStatus, seen: &Seen<Vec<LeaseStatus>>) -> Self {
        let paused = lease.paused.is_some();
        let slots: Vec<Slot> = lease
            .slots
            .iter()
            .map(|slot| Slot::of(slot, seen, paused))
            .collect();
        let idle = if paused { State::Paused } else { State::Free };
        Self {
            name: lease.name.as_str().to_owned(),
            state: slots.iter().map(|slot| slot.state).max().unwrap_or(idle),
            paused: lease.paused.as_ref().map(|pause| Paused {
                reason: pause.reason.clone(),
                by: pause.by.clone(),
                since: instant(pause.since),
                for_ms: millis(between(pause.since, seen.now)),
            }),
            slots,
            standbys: lease.standbys.as_ref().map(|standbys| {
                standbys
                    .iter()
                    .map(|standby| Standby {
                        from: standby.from.clone(),
                        since: instant(standby.since),
                    })
                    .collect()
            }),
        }
    }

    fn rows(&self, several: bool) -> Vec<Row> {
        let standbys = self
            .standbys
            .as_ref()
            .map(|standbys| standbys.len().to_string());
        if self.slots.is_empty() {
            let mut cells = vec![String::new(); 10];
            cells[0].clone_from(&self.name);
            self.state.words().clone_into(&mut cells[2]);
            cells[9] = standbys.unwrap_or_default();
            return vec![Row {
                cells,
                tone: Some(self.state.tone()),
            }];
        }
        let row = |slot: &Slot| Row {
            cells: vec![
                self.name.clone(),
                if several {
                    slot.slot.to_string()
                } else {
                    String::new()
                },
                slot.state.words().to_owned(),
                slot.label.clone().unwrap_or_default(),
                slot.value.clone().unwrap_or_default(),
                slot.token.to_string(),
                slot.held_for_ms.map(ms).unwrap_or_default(),
                slot.expires_in_ms.map(ms).unwrap_or_default(),
                slot.changes.to_string(),
                standbys.clone().unwrap_or_default(),
            ],
            tone: Some(slot.state.tone()),
        };
        self.slots.iter().map(row).collect()
    }

    fn notes(&self, several: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(paused) = &self.paused {
            let reason = if paused.reason.is_empty() {
                "no reason given"
            } else {
                &paused.reason
            };
            notes.push(format!(
                "{}: paused by {} for {} now: {reason}",
                self.name,
                paused.by,
                ms(paused.for_ms)
            ));
        }
        for slot in &self.slots {
            let place = if several {
                format!("{} slot {}", self.name, slot.slot)
            } else {
                self.name.clone()
            };
            notes.extend(
                slot.notes()
                    .into_iter()
                    .map(|note| format!("{place}: {note}")),
            );
        }
        notes
            .iter()
            .map(|note| crate::telemetry::format::one_line(note))
            .collect()
    }
}

impl Slot {
    fn of(status: &SlotStatus, seen: &Seen<Vec<LeaseStatus>>, paused: bool) -> Self {
        let record = &status.record;
        let state = State::of(status.state(&seen.server), paused);
        let taken = !record.released;
        Self {
            slot: record.slot.0,
            state,
            holder: record
                .holder
                .filter(|_| taken)
                .map(|holder| holder.to_string()),
            label: taken.then(|| record.label.clone()),
            value: taken.then(|| record.value.clone()),
            last_label: record.released.then(|| record.label.clone()),
            token: record.token.0,
            closed_token: record.closed_token.map(|token| token.0),
            revision: record.revision.0,
            ttl_ms: millis(record.ttl),
            takeover_delay_ms: millis(record.takeover_delay),
            held_for_ms: taken.then(|| {
                // Nobody holds what has expired.
                millis(if record.expired {
                    between(status.acquired_at, status.expires_at)
                } else {
                    record.held_for
                })
            }),
            expires_in_ms: (taken && !record.expired).then(|| millis(record.expires_in)),
            expired_for_ms: (taken && record.expired)
                .then(|| millis(between(status.expires_at, seen.now))),
            changes: status.changes,
            acquired_at: instant(status.acquired_at),
            renewed_at: instant(status.renewed_at),
            expires_at: instant(status.expires_at),
            released_at: status.released_at.map(instant),
            held_back_ms: (record.released && !record.held_back().is_zero())
                .then(|| millis(record.held_back())),
            reserved_for: record
                .reserved
                .as_ref()
                .map(|reserved| reserved.label.clone()),
            step_down_requested: record.request.as_ref().is_some_and(|request| {
                let RequestKind::StepDown { .. } = request.kind;
                taken && request.token == record.token
            }),
            incarnation: record.incarnation.to_string(),
        }
    }

    fn closed(&self) -> bool {
        self.closed_token.is_some_and(|closed| closed >= self.token)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let taken = self.released_at.is_none();
        if self.state == State::InDoubt {
            notes.push(
                "in doubt: the database has failed over or was restored since this was written; \
                 it is free only when nobody has renewed it for more than its ttl"
                    .to_owned(),
            );
        }
        if let Some(expired) = self.expired_for_ms {
            notes.push(format!(
                "expired {} ago and not given back: its holder's host or network is lost, or it could not give it back; a standby takes over once it has watched it long enough",
                ms(expired)
            ));
        }
        if taken && self.closed() {
            notes.push(format!("its token {} was closed (break)", self.token));
        }
        if self.step_down_requested {
            notes.push("its holder was asked to step down".to_owned());
        }
        if let Some(left) = self.held_back_ms {
            notes.push(format!(
                "kept taken for {} more by its last holder's --hold-at-least",
                ms(left)
            ));
        }
        if let Some(label) = &self.reserved_for {
            notes.push(format!("kept for the standby \"{label}\" by a step-down"));
        }
        notes
    }
}

fn ms(millis: u64) -> String {
    brief(std::time::Duration::from_millis(millis))
}
