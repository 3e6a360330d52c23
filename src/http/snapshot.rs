//! What the keeper publishes of itself for whoever looks: the HTTP pages and
//! systemd. Instants are of the boot clock; ages are made when somebody
//! looks.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::lease::ids::{HolderId, Label, LeaseName, Slot, Token, Value};
use crate::lease::keeper::Phase;
use crate::lease::record::Record;
use crate::lease::time::BootInstant;
use crate::telemetry::format::millis;

/// How much later than planned the keeper may wake before it counts as
/// stuck, and how long past the deadline an end may take to show.
const SLACK: Duration = Duration::from_secs(2);

/// How many terms are remembered.
const RECENT: usize = 50;

/// The keeper, as it stands.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The lease.
    pub name: LeaseName,
    /// `--slots`.
    pub slots: u32,
    /// This leasewrap's label.
    pub label: Label,
    /// What it publishes.
    pub value: Value,
    /// Where the keeper stands.
    pub phase: Phase,
    /// Since when; it stands by while it tries to acquire, too.
    pub since: BootInstant,
    /// The term that it holds.
    pub term: Option<HeldTerm>,
    /// The worker's pid, once it runs.
    pub worker: Option<i32>,
    /// What it says of itself (`STATUS=` of `sd_notify(3)`).
    pub worker_status: Option<String>,
    /// While standing by: who was last seen to hold it.
    pub other: Option<Other>,
    /// While standing by: why it is not ours, in words.
    pub reason: Option<String>,
    /// The last call to the database was answered.
    pub reachable: bool,
    /// How many calls in a row were not.
    pub failures: u32,
    /// How many polls so far.
    pub attempts: u64,
    /// When the keeper means to wake next by itself.
    pub next_wakeup: Option<BootInstant>,
    /// The lease is lost, whatever is left of the worker's tree.
    pub lost: bool,
    /// leasewrap ends when this term has.
    pub ending: bool,
    /// The terms that it has seen, oldest first.
    pub recent: Recent,
}

/// A term of one's own.
#[derive(Debug, Clone)]
pub struct HeldTerm {
    /// Which place.
    pub slot: Slot,
    /// The term's identity.
    pub holder: HolderId,
    /// The fencing token.
    pub token: Token,
    /// When it began.
    pub acquired: BootInstant,
    /// When the worker's tree must be dead.
    pub deadline: BootInstant,
}

/// Another holder's row, and when it was seen.
#[derive(Debug, Clone)]
pub struct Other {
    /// As the reply carried it.
    pub record: Record,
    /// When the reply came.
    pub seen: BootInstant,
}

/// Terms seen by this leasewrap, its own and others'; a bounded number.
#[derive(Debug, Clone, Default)]
pub struct Recent(VecDeque<Seen>);

#[derive(Debug, Clone)]
struct Seen {
    slot: Slot,
    token: Token,
    label: String,
    from: BootInstant,
    to: Option<BootInstant>,
    how: &'static str,
}

impl Recent {
    /// A term is seen: it began at `from`, and whoever had the slot before
    /// has it no more.
    pub fn begun(&mut self, slot: Slot, token: Token, label: &str, from: BootInstant) {
        if self
            .0
            .iter()
            .any(|seen| seen.slot == slot && seen.token == token)
        {
            return;
        }
        for seen in self
            .0
            .iter_mut()
            .filter(|seen| seen.slot == slot && seen.to.is_none())
        {
            seen.to = Some(from.max(seen.from));
            seen.how = "replaced";
        }
        if self.0.len() == RECENT {
            self.0.pop_front();
        }
        self.0.push_back(Seen {
            slot,
            token,
            label: label.to_owned(),
            from,
            to: None,
            how: "lasts",
        });
    }

    /// It ended: `how` is `released` or `lost`.
    pub fn ended(&mut self, slot: Slot, token: Token, at: BootInstant, how: &'static str) {
        for seen in &mut self.0 {
            if seen.slot == slot && seen.token == token && seen.to.is_none() {
                seen.to = Some(at.max(seen.from));
                seen.how = how;
            }
        }
    }
}

impl Snapshot {
    /// The lease is held and its right has not run out.
    pub fn leads(&self, now: BootInstant) -> bool {
        !self.left(now).is_zero()
    }

    /// How much of its right is left.
    pub fn left(&self, now: BootInstant) -> Duration {
        match &self.term {
            Some(term) if self.holding() && !self.lost => term.deadline.saturating_since(now),
            _ => Duration::ZERO,
        }
    }

    fn holding(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::Holding | Phase::Stopping => true,
            Phase::Standby | Phase::Acquiring | Phase::Releasing | Phase::Ended => false,
        }
    }

    /// The keeper does what it should: it wakes when it means to, and no
    /// deadline has passed without an end.
    ///
    /// # Errors
    /// Why not.
    pub fn live(&self, now: BootInstant) -> Result<(), String> {
        if let Some(wakeup) = self.next_wakeup
            && now > wakeup + SLACK
        {
            return Err(format!(
                "the keeper is stuck: it should have woken {} ms ago",
                millis(now.saturating_since(wakeup))
            ));
        }
        if self.holding()
            && let Some(term) = &self.term
            && now > term.deadline + SLACK
        {
            return Err(format!(
                "the deadline passed {} ms ago, and the worker has not ended",
                millis(now.saturating_since(term.deadline))
            ));
        }
        Ok(())
    }

    /// It holds the lease, or stands by with a database that answers.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self, now: BootInstant) -> Result<(), String> {
        self.live(now)?;
        if self.leads(now) {
            return Ok(());
        }
        match self.phase {
            Phase::Standby | Phase::Acquiring if self.reachable => Ok(()),
            Phase::Standby | Phase::Acquiring => Err("the database does not answer".to_owned()),
            Phase::Starting | Phase::Holding | Phase::Stopping => {
                Err("the right to the lease has run out".to_owned())
            }
            Phase::Releasing | Phase::Ended => Err("it ends".to_owned()),
        }
    }

    /// The role for people and machines.
    pub fn role(&self) -> &'static str {
        match self.phase {
            Phase::Standby => "standby",
            Phase::Acquiring => "acquiring",
            Phase::Starting => "starting",
            Phase::Holding => "holding",
            Phase::Stopping => "stopping",
            Phase::Releasing => "releasing",
            Phase::Ended => "ended",
        }
    }

    /// The slot as a label of a metric: known while one is held, or where
    /// there is only one.
    pub fn slot_label(&self) -> String {
        match &self.term {
            Some(term) => term.slot.to_string(),
            None if self.slots == 1 => "0".to_owned(),
            None => String::new(),
        }
    }

    /// As JSON shows it.
    pub fn view(&self, now: BootInstant) -> View {
        let age = |at: BootInstant| millis(now.saturating_since(at));
        View {
            name: self.name.as_str().to_owned(),
            slots: self.slots,
            role: self.role(),
            role_for_ms: age(self.since),
            leader: self.leads(now),
            own_label: self.label.as_str().to_owned(),
            worker_pid: self.worker,
            worker_status: self.worker_status.clone(),
            holder: self.holder(now),
            reason: self.reason.clone(),
            database_reachable: self.reachable,
            failures: self.failures,
            attempts: self.attempts,
            version: env!("CARGO_PKG_VERSION"),
            recent: self
                .recent
                .0
                .iter()
                .map(|seen| RecentView {
                    slot: seen.slot.0,
                    token: seen.token.0,
                    label: seen.label.clone(),
                    from_ms_ago: age(seen.from),
                    to_ms_ago: seen.to.map(age),
                    how: seen.how,
                })
                .collect(),
        }
    }

    fn holder(&self, now: BootInstant) -> Option<HolderView> {
        if let Some(term) = &self.term {
            return Some(HolderView {
                own: true,
                holder: Some(term.holder.to_string()),
                label: self.label.as_str().to_owned(),
                value: self.value.as_str().to_owned(),
                slot: term.slot.0,
                token: term.token.0,
                age_ms: millis(now.saturating_since(term.acquired)),
                left_ms: millis(self.left(now)),
            });
        }
        let Other { record, seen } = self.other.as_ref()?;
        let since = now.saturating_since(*seen);
        (!record.released).then(|| HolderView {
            own: false,
            holder: record.holder.map(|holder| holder.to_string()),
            label: record.label.clone(),
            value: record.value.clone(),
            slot: record.slot.0,
            token: record.token.0,
            age_ms: millis(record.held_for.saturating_add(since)),
            left_ms: millis(record.expires_in.saturating_sub(since)),
        })
    }
}

/// A snapshot as JSON shows it, at one instant.
#[derive(Debug, Serialize)]
pub struct View {
    name: String,
    slots: u32,
    role: &'static str,
    role_for_ms: u64,
    leader: bool,
    own_label: String,
    worker_pid: Option<i32>,
    worker_status: Option<String>,
    holder: Option<HolderView>,
    reason: Option<String>,
    database_reachable: bool,
    failures: u32,
    attempts: u64,
    version: &'static str,
    recent: Vec<RecentView>,
}

#[derive(Debug, Serialize)]
struct HolderView {
    own: bool,
    holder: Option<String>,
    label: String,
    value: String,
    slot: u32,
    token: i64,
    age_ms: u64,
    left_ms: u64,
}

#[derive(Debug, Serialize)]
struct RecentView {
    slot: u32,
    token: i64,
    label: String,
    from_ms_ago: u64,
    to_ms_ago: Option<u64>,
    how: &'static str,
}

#[cfg(test)]
pub mod tests;
