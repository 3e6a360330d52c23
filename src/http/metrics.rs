//! `/metrics`: what Prometheus collects, in the OpenMetrics text format.
//! `name` and `slot` are labels of each; the slot is empty while one of
//! several is not yet held.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::snapshot::Snapshot;
use crate::lease::time::BootInstant;

/// Which place of which lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Place {
    name: String,
    slot: String,
}

impl Place {
    /// A slot of a lease, where it is known.
    pub fn new(name: &str, slot: Option<u32>) -> Self {
        Self {
            name: name.to_owned(),
            slot: slot.map(|slot| slot.to_string()).unwrap_or_default(),
        }
    }

    /// Where the keeper stands.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            name: snapshot.name.as_str().to_owned(),
            slot: snapshot.slot_label(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LabelLabels {
    name: String,
    slot: String,
    label: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    name: String,
    slot: String,
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    name: String,
    slot: String,
    kind: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    name: String,
    slot: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    name: String,
    slot: String,
    cause: &'static str,
}

impl CauseLabels {
    fn new(place: &Place, cause: &'static str) -> Self {
        let Place { name, slot } = place.clone();
        Self { name, slot, cause }
    }
}

type Seconds = Gauge<f64, AtomicU64>;
type Counts = Family<Place, Counter>;

/// What is counted and measured; clones are the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    calls: Family<CallLabels, Counter>,
    latencies: Family<KindLabels, Histogram>,
    holder_changes: Counts,
    waits: Family<Place, Histogram>,
    kills: Family<Place, Histogram>,
    stops: Family<CauseLabels, Histogram>,
    losses: Family<CauseLabels, Counter>,
    late_renewals: Counts,
    /// These follow the snapshot when somebody looks.
    shown: Shown,
}

#[derive(Debug, Clone, Default)]
struct Shown {
    leader: Family<LabelLabels, Gauge>,
    token: Family<Place, Gauge>,
    time_left: Family<Place, Seconds>,
    failing: Family<Place, Gauge>,
    reachable: Family<Place, Gauge>,
    waiting: Family<Place, Seconds>,
    dropped_lines: Family<Place, Gauge>,
    build: Family<BuildLabels, Gauge>,
}

/// In seconds, from half a millisecond to half a minute.
fn short() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
    ])
}

/// In seconds, from one to a day.
fn long() -> Histogram {
    Histogram::new([1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            calls: Family::default(),
            latencies: Family::new_with_constructor(short),
            holder_changes: Family::default(),
            waits: Family::new_with_constructor(long),
            kills: Family::new_with_constructor(short),
            stops: Family::new_with_constructor(short),
            losses: Family::default(),
            late_renewals: Family::default(),
            shown: Shown::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }

    fn register(&self) -> Registry {
        let mut all = Registry::with_prefix("leasewrap");
        all.register(
            "database_calls",
            "Calls to the database, by kind and result",
            self.calls.clone(),
        );
        all.register(
            "database_call_seconds",
            "How long calls to the database took",
            self.latencies.clone(),
        );
        all.register(
            "holder_changes",
            "Changes of holder that were seen",
            self.holder_changes.clone(),
        );
        all.register(
            "waits_seconds",
            "How long it stood by before each acquisition",
            self.waits.clone(),
        );
        all.register(
            "kills_seconds",
            "How long it took to kill the worker's tree",
            self.kills.clone(),
        );
        all.register(
            "stops_seconds",
            "From the stop signal until the worker's tree was gone, by cause",
            self.stops.clone(),
        );
        all.register(
            "losses",
            "Leases that were lost, by cause",
            self.losses.clone(),
        );
        all.register(
            "late_renewals",
            "Renewals that came later than planned",
            self.late_renewals.clone(),
        );
        let shown = &self.shown;
        all.register(
            "leader",
            "1 while this leasewrap holds the lease",
            shown.leader.clone(),
        );
        all.register(
            "token",
            "The fencing token that it holds, else 0",
            shown.token.clone(),
        );
        all.register(
            "time_left_seconds",
            "Until the deadline of the term, else 0",
            shown.time_left.clone(),
        );
        all.register(
            "renewals_failing",
            "Calls to the database that have failed in a row",
            shown.failing.clone(),
        );
        all.register(
            "database_up",
            "1 while the database answers",
            shown.reachable.clone(),
        );
        all.register(
            "waiting_seconds",
            "How long it has been standing by, else 0",
            shown.waiting.clone(),
        );
        all.register(
            "log_lines_dropped",
            "Lines that standard error did not take",
            shown.dropped_lines.clone(),
        );
        all.register("build_info", "The leasewrap that runs", shown.build.clone());
        all
    }

    /// A call to the database was answered, or given up.
    pub fn call(&self, place: &Place, kind: &'static str, result: &'static str, took: Duration) {
        let Place { name, slot } = place.clone();
        self.calls
            .get_or_create(&CallLabels {
                name,
                slot,
                kind,
                result,
            })
            .inc();
        let Place { name, slot } = place.clone();
        self.latencies
            .get_or_create(&KindLabels { name, slot, kind })
            .observe(took.as_secs_f64());
    }

    /// Another holder than before is seen, or we have become it.
    pub fn holder_changed(&self, place: &Place) {
        self.holder_changes.get_or_create(place).inc();
    }

    /// The lease was acquired after standing by for so long.
    pub fn waited(&self, place: &Place, waited: Duration) {
        self.waits
            .get_or_create(place)
            .observe(waited.as_secs_f64());
    }

    /// The worker's tree was told to stop, and gone so long after.
    pub fn stopped(&self, place: &Place, cause: &'static str, took: Duration) {
        self.stops
            .get_or_create(&CauseLabels::new(place, cause))
            .observe(took.as_secs_f64());
    }

    /// The lease was lost.
    pub fn lost(&self, place: &Place, cause: &'static str) {
        self.losses
            .get_or_create(&CauseLabels::new(place, cause))
            .inc();
    }

    /// The tree got SIGKILL (the lease was lost, or it did not stop in time),
    /// and was gone so long after.
    pub fn killed(&self, place: &Place, took: Duration) {
        self.kills.get_or_create(place).observe(took.as_secs_f64());
    }

    /// A renewal came later than planned.
    pub fn renewed_late(&self, place: &Place) {
        self.late_renewals.get_or_create(place).inc();
    }

    /// Everything, as text.
    pub fn text(&self, snapshot: &Snapshot, now: BootInstant, dropped_lines: u64) -> String {
        self.shown.set(snapshot, now, dropped_lines);
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a String does not fail.
            Err(std::fmt::Error) => String::new(),
        }
    }
}

impl Shown {
    fn set(&self, snapshot: &Snapshot, now: BootInstant, dropped_lines: u64) {
        // The slot is another one after each acquisition: what was shown
        // under the old one must not stay behind.
        self.leader.clear();
        self.token.clear();
        self.time_left.clear();
        self.failing.clear();
        self.reachable.clear();
        self.waiting.clear();
        self.dropped_lines.clear();
        self.build.clear();
        let place = Place::of(snapshot);
        let Place { name, slot } = place.clone();
        let label = snapshot.label.as_str().to_owned();
        let leader = LabelLabels { name, slot, label };
        self.leader
            .get_or_create(&leader)
            .set(i64::from(snapshot.leads(now)));
        let term = snapshot.term.as_ref();
        self.token
            .get_or_create(&place)
            .set(term.map_or(0, |term| term.token.0));
        self.time_left
            .get_or_create(&place)
            .set(snapshot.left(now).as_secs_f64());
        self.failing
            .get_or_create(&place)
            .set(i64::from(snapshot.failures));
        self.reachable
            .get_or_create(&place)
            .set(i64::from(snapshot.reachable));
        let waiting = if snapshot.phase.stands_by() {
            now.saturating_since(snapshot.since)
        } else {
            Duration::ZERO
        };
        self.waiting
            .get_or_create(&place)
            .set(waiting.as_secs_f64());
        let dropped = i64::try_from(dropped_lines).unwrap_or(i64::MAX);
        self.dropped_lines.get_or_create(&place).set(dropped);
        let Place { name, slot } = place;
        let build = BuildLabels {
            name,
            slot,
            version: env!("CARGO_PKG_VERSION"),
        };
        self.build.get_or_create(&build).set(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::snapshot::tests::{at, holding, standby};

    #[test]
    fn everything_has_a_name_and_a_slot() {
        let metrics = Metrics::new();
        let snapshot = holding();
        let place = Place::of(&snapshot);
        metrics.call(&place, "renew", "granted", Duration::from_millis(3));
        metrics.holder_changed(&place);
        metrics.waited(&place, Duration::from_secs(40));
        metrics.killed(&place, Duration::from_millis(2));
        metrics.stopped(&place, "signal", Duration::from_millis(70));
        metrics.lost(&place, "deadline");
        metrics.renewed_late(&place);
        let text = metrics.text(&snapshot, at(100), 4);
        for line in [
            "leasewrap_leader{name=\"job\",slot=\"0\",label=\"me/1\"} 1",
            "leasewrap_token{name=\"job\",slot=\"0\"} 7",
            "leasewrap_time_left_seconds{name=\"job\",slot=\"0\"} 20.0",
            "leasewrap_database_calls_total{name=\"job\",slot=\"0\",kind=\"renew\",result=\"granted\"} 1",
            "leasewrap_database_call_seconds_count{name=\"job\",slot=\"0\",kind=\"renew\"} 1",
            "leasewrap_kills_seconds_count{name=\"job\",slot=\"0\"} 1",
            "leasewrap_stops_seconds_count{name=\"job\",slot=\"0\",cause=\"signal\"} 1",
            "leasewrap_losses_total{name=\"job\",slot=\"0\",cause=\"deadline\"} 1",
            "leasewrap_log_lines_dropped{name=\"job\",slot=\"0\"} 4",
            "# EOF",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line}\n{text}");
        }
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.contains("name=\"job\",slot=\"0\""), "{line}");
        }
    }

    #[test]
    fn a_standby_leads_nothing() {
        let text = Metrics::new().text(&standby(), at(100), 0);
        assert!(
            text.contains("leasewrap_leader{name=\"job\",slot=\"0\",label=\"me/1\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("leasewrap_waiting_seconds{name=\"job\",slot=\"0\"} 90.0"),
            "{text}"
        );
    }
}
