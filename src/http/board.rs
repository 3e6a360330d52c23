//! Keeps the snapshot and the metrics up to date with what the keeper does.

use tokio::sync::watch;

use super::metrics::{Metrics, Place};
use super::snapshot::{HeldTerm, Other, Recent, Snapshot};
use crate::keeper::Audience;
use crate::lease::ids::LeaseName;
use crate::lease::keeper::event::{GivenBack, Transition};
use crate::lease::keeper::{Config, Keeper, Phase};
use crate::lease::record::{Loss, Record};
use crate::lease::time::BootInstant;

/// Why a lease is lost when no renewal comes through.
const DEADLINE: &str = "deadline";

/// What the keeper tells, for whoever looks.
#[derive(Debug)]
pub struct Board {
    snapshot: watch::Sender<Snapshot>,
    metrics: Metrics,
    /// When the lease was lost, until the tree is gone.
    killing: Option<BootInstant>,
    /// When the tree was told to stop, and why, until it is gone.
    stopping: Option<(BootInstant, &'static str)>,
    /// The poll that was looked at last.
    looked: Option<BootInstant>,
}

impl Board {
    /// Nothing has happened yet.
    pub fn new(name: LeaseName, config: &Config, metrics: Metrics, now: BootInstant) -> Self {
        let snapshot = Snapshot {
            name,
            slots: config.slots,
            label: config.terms.label.clone(),
            value: config.terms.value.clone(),
            phase: Phase::Standby,
            since: now,
            term: None,
            worker: None,
            worker_status: None,
            other: None,
            reason: None,
            reachable: false,
            failures: 0,
            attempts: 0,
            next_wakeup: None,
            lost: false,
            ending: false,
            recent: Recent::default(),
        };
        Self {
            snapshot: watch::Sender::new(snapshot),
            metrics,
            killing: None,
            stopping: None,
            looked: None,
        }
    }

    /// Where the snapshot is read.
    pub fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    fn seen(&self, record: &Record, now: BootInstant) {
        let from = now - record.held_for;
        self.snapshot.send_if_modified(|snapshot| {
            snapshot
                .recent
                .begun(record.slot, record.token, &record.label, from);
            // The step that follows tells it.
            false
        });
    }

    fn note(&self, note: impl FnOnce(&mut Snapshot)) {
        self.snapshot.send_if_modified(|snapshot| {
            note(snapshot);
            false
        });
    }

    fn count(&self, count: impl FnOnce(&Metrics, &Place)) {
        let place = Place::of(&self.snapshot.borrow());
        count(&self.metrics, &place);
    }

    /// What a new poll tells of others' terms.
    fn look(&mut self, keeper: &Keeper) {
        let Some((seen, observation)) = keeper.observation() else {
            return;
        };
        if self.looked.replace(seen) == Some(seen) {
            return;
        }
        for record in &observation.records {
            if record.released {
                self.note(|snapshot| {
                    let recent = &mut snapshot.recent;
                    recent.ended(record.slot, record.token, seen, "released");
                });
            } else {
                self.seen(record, seen);
            }
        }
    }

    /// The tree is gone: how long that took.
    fn gone(&mut self, keeper: &Keeper, now: BootInstant) {
        let mut killing = self.killing.take();
        if let Some((since, cause)) = self.stopping.take() {
            let took = now.saturating_since(since);
            self.count(|metrics, place| metrics.stopped(place, cause, took));
            // Whoever was left then got SIGKILL.
            let patience = keeper.config().timing.stop_timeout();
            if cause != DEADLINE && took >= patience {
                killing = killing.or(Some(since + patience));
            }
        }
        if let Some(since) = killing {
            self.count(|metrics, place| metrics.killed(place, now.saturating_since(since)));
        }
    }

    fn acquired(&mut self, transition: &Transition, now: BootInstant) {
        let Transition::Acquired { term, .. } = transition else {
            return;
        };
        // It still shows the standing by.
        let waited = now.saturating_since(self.snapshot.borrow().since);
        self.note(|snapshot| {
            let label = snapshot.label.as_str().to_owned();
            snapshot.recent.begun(term.slot, term.token, &label, now);
            snapshot.lost = false;
        });
        self.count(|metrics, place| {
            metrics.waited(place, waited);
            metrics.holder_changed(place);
        });
    }
}

impl Audience for Board {
    fn told(&mut self, transition: &Transition, _: &Keeper, now: BootInstant) {
        match transition {
            Transition::Acquired { .. } => self.acquired(transition, now),
            Transition::HolderChanged { .. } => self.count(Metrics::holder_changed),
            Transition::Renewed { late: Some(_), .. } => self.count(Metrics::renewed_late),
            Transition::Stopping(cause) => {
                self.stopping.get_or_insert((now, cause.name()));
            }
            Transition::Losing { .. } => {
                self.stopping.get_or_insert((now, DEADLINE));
            }
            Transition::Lost { loss } => {
                self.killing = Some(now);
                let cause = loss.as_ref().map_or(DEADLINE, Loss::name);
                self.count(|metrics, place| metrics.lost(place, cause));
                self.note(|snapshot| {
                    snapshot.lost = true;
                    if let Some(term) = snapshot.term.clone() {
                        snapshot.recent.ended(term.slot, term.token, now, "lost");
                    }
                });
            }
            Transition::Released {
                result: GivenBack::Done,
                ..
            } => self.note(|snapshot| {
                if let Some(term) = snapshot.term.clone() {
                    snapshot
                        .recent
                        .ended(term.slot, term.token, now, "released");
                }
            }),
            Transition::Waiting { .. }
            | Transition::Renewed { late: None, .. }
            | Transition::CallFailed { .. }
            | Transition::IncarnationChanged { .. }
            | Transition::Released {
                result: GivenBack::NotOurs | GivenBack::RunsOut { .. },
                ..
            } => {}
        }
    }

    fn stepped(&mut self, keeper: &Keeper, now: BootInstant) {
        if self.snapshot.receiver_count() == 0 {
            return;
        }
        let phase = keeper.phase();
        if self.snapshot.borrow().phase != phase {
            let alive = matches!(phase, Phase::Starting | Phase::Holding | Phase::Stopping);
            if !alive {
                self.gone(keeper, now);
            }
        }
        self.look(keeper);
        self.snapshot
            .send_modify(|snapshot| follow(snapshot, keeper));
    }

    fn worker_status(&mut self, text: &str) {
        self.snapshot
            .send_modify(|snapshot| snapshot.worker_status = Some(text.to_owned()));
    }
}

fn follow(snapshot: &mut Snapshot, keeper: &Keeper) {
    snapshot.phase = keeper.phase();
    snapshot.since = keeper.since();
    snapshot.ending = keeper.will_end();
    snapshot.worker = keeper.worker();
    if snapshot.term.is_none() {
        snapshot.worker_status = None;
    }
    snapshot.failures = keeper.failures();
    snapshot.attempts = keeper.attempts();
    snapshot.next_wakeup = keeper.next_wakeup();
    snapshot.reason = keeper.reason().map(ToString::to_string);
    snapshot.term = match (keeper.term(), keeper.held_since(), keeper.deadline()) {
        (Some(term), Some(acquired), Some(deadline)) => Some(HeldTerm {
            slot: term.slot,
            holder: term.holder,
            token: term.token,
            acquired,
            deadline,
        }),
        _ => None,
    };
    let observation = keeper.observation();
    snapshot.reachable =
        snapshot.failures == 0 && (observation.is_some() || snapshot.term.is_some());
    snapshot.other = observation.and_then(|(seen, observation)| {
        let record = observation.records.iter().find(|record| !record.released)?;
        Some(Other {
            record: record.clone(),
            seen,
        })
    });
}
