//! Rows that somebody else has written.

use std::time::Duration;

use leasewrap::cli::output::Paint;
use leasewrap::cli::status::view::View;
use leasewrap::cli::terms::terms;
use leasewrap::cli::timeline;
use leasewrap::http::metrics::Metrics;
use leasewrap::http::snapshot::{Other, Recent, Snapshot};
use leasewrap::lease::ids::{HolderId, Label, LeaseName, Slot, Token, Value};
use leasewrap::lease::keeper::Phase;
use leasewrap::lease::record::{Observation, Observed, Renewed, Term, Unknown};
use leasewrap::lease::time::BootInstant;
use leasewrap::lease::timing::Chance;
use leasewrap::lease::watch::{Contender, Takeover, Verdict, Watch};
use leasewrap::store::admin::{Admin, HistoryEvent, LeaseStatus, Seen};
use leasewrap::store::{AnyStore, Store};
use tokio::runtime::Runtime;

use super::{answers, one_line};

fn at(seconds: u64) -> BootInstant {
    BootInstant::from_nanos(seconds * 1_000_000_000)
}

/// What a poll has shown: rows, or one line that says what is wrong.
pub fn observed(observed: Observed) {
    match observed {
        Observed::Seen(observation) => {
            a_page_shows(&observation);
            a_standby_judges(observation);
        }
        Observed::Unknown(unknown) => unreadable(&unknown),
        Observed::NoSchema => {}
    }
}

/// What else is asked: one's own row, `status` and `history`.
pub fn asked(runtime: &Runtime, store: &mut AnyStore, limit: Duration) {
    let term = Term {
        slot: Slot(0),
        holder: HolderId(uuid::Uuid::nil()),
        token: Token(7),
    };
    renewed(&runtime.block_on(store.check(&term, limit)));
    let status = runtime.block_on(store.status(None, limit));
    shown(status, runtime.block_on(store.history(None, None, limit)));
}

/// What one's own row has shown.
fn renewed(renewed: &Renewed) {
    if let Renewed::Unknown(unknown) = renewed {
        unreadable(unknown);
    }
}

/// Why there is no answer.
pub fn unreadable(unknown: &Unknown) {
    one_line(&unknown.message);
}

/// Rows of any content free nothing before a contender has watched them.
fn a_standby_judges(observation: Observation) {
    let contender = Contender {
        takeover: Takeover::Observed,
        slots: 2,
        label: "me",
        ttl: Duration::from_secs(30),
        takeover_delay: Duration::ZERO,
    };
    let mut watch = Watch::default();
    let rows = observation.records.clone();
    // One that was not given back is watched for more than its ttl first.
    let held = |slot| {
        let mut of_slot = rows.iter().filter(|row| row.slot == slot).peekable();
        of_slot.peek().is_some()
            && of_slot.all(|row| !row.released && row.ttl >= Duration::from_secs(1))
    };
    let _new = watch.see(observation.clone(), at(100));
    for (seconds, chance) in [(100, 0), (101, 40_000), (200, 7), (40_000_000, 1)] {
        match watch.verdict(&contender, at(seconds), Chance(chance)) {
            Verdict::Taken { reason, .. } => {
                // As the log and the last line say it.
                let _words = reason.to_string();
            }
            Verdict::Free(candidate) => {
                assert!(seconds > 101 || !held(candidate.slot), "{candidate:?}");
            }
        }
        let _new = watch.see(observation.clone(), at(seconds));
    }
}

/// Every page can be shown.
fn a_page_shows(observation: &Observation) {
    for record in &observation.records {
        let mut recent = Recent::default();
        recent.begun(record.slot, record.token, &record.label, at(90));
        let snapshot = Snapshot {
            name: LeaseName::new("fuzzed").expect("a name"),
            slots: 1,
            label: Label::new(record.label.as_str()).unwrap_or(Label::new("").expect("a label")),
            value: Value::new("").expect("a value"),
            phase: Phase::Standby,
            since: at(10),
            term: None,
            worker: None,
            worker_status: Some(record.value.clone()),
            other: Some(Other {
                record: record.clone(),
                seen: at(95),
            }),
            reason: Some(record.label.clone()),
            reachable: true,
            failures: 0,
            attempts: 4,
            next_wakeup: Some(at(106)),
            lost: false,
            ending: false,
            recent,
        };
        let state = serde_json::to_string(&snapshot.view(at(100))).expect("plain data");
        let metrics = Metrics::new().text(&snapshot, at(100), 0);
        answers::pages(&state, &metrics);
    }
}

/// `status` and `history` show whatever stands there, in lines that move no
/// cursor.
fn shown(
    status: Result<Seen<Vec<LeaseStatus>>, Unknown>,
    history: Result<Seen<Vec<HistoryEvent>>, Unknown>,
) {
    let (status, history) = match (status, history) {
        (Ok(status), Ok(history)) => (status, history),
        (status, history) => {
            for unknown in [status.err(), history.err()].into_iter().flatten() {
                unreadable(&unknown);
            }
            return;
        }
    };
    let view = View::of(&status, None);
    let json = leasewrap::cli::output::json(&view);
    let _document: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let terms = terms(&history.value, &status);
    let drawing = timeline::draw(&terms, None, history.now, Paint::none(), 80);
    for line in view.text(Paint::none()).lines().chain(drawing.lines()) {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
