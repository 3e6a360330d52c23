//! What the tests of stores share: a store, contenders, what they ask.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use leasewrap::lease::ids::{HolderId, Label, LeaseName, Slot, Value};
use leasewrap::lease::record::{
    Acquire, Acquired, Expected, Grant, Observation, Observed, Record, Refusal, Released, Renewed,
    Term, Terms,
};
use leasewrap::lease::time::BootInstant;
use leasewrap::store::settings::{Given, Surroundings};
use leasewrap::store::{AnyStore, Store, StoreSettings, Timed};
use nix::time::{ClockId, clock_gettime};
use uuid::Uuid;

/// For calls that should take milliseconds.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The ttl of the contenders.
pub const TTL: Duration = Duration::from_secs(30);

/// The boot clock.
pub fn clock() -> BootInstant {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("read the boot clock");
    let (seconds, nanos) = (
        time.tv_sec().cast_unsigned(),
        time.tv_nsec().cast_unsigned(),
    );
    BootInstant::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// Settings for one URL, without an environment.
pub fn settings(url: &str, schema: &str) -> StoreSettings {
    let surroundings = Surroundings::new([], Some("postgres".to_owned()), "/".into());
    let urls = [url.to_owned()];
    StoreSettings::new(Given::Urls(&urls), schema, surroundings).expect("the URL is right")
}

/// A name that no other test uses.
pub fn name() -> LeaseName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    LeaseName::new(format!("lease-{}-{number}", std::process::id())).expect("it is a name")
}

/// Runs a test in a runtime as the keeper's.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test)
}

/// A lease in some store.
#[derive(Clone)]
pub struct Bench {
    /// Where it is.
    pub settings: StoreSettings,
    /// Its name.
    pub name: LeaseName,
}

impl Bench {
    /// A lease of its own, in a store that is set up.
    pub fn new(settings: StoreSettings) -> Self {
        Self {
            settings,
            name: name(),
        }
    }

    /// Another connection to the lease.
    pub fn store(&self) -> AnyStore {
        AnyStore::new(self.settings.clone(), self.name.clone(), clock)
    }

    /// A contender.
    pub fn contender(&self, label: &str) -> Contender {
        Contender {
            store: self.store(),
            terms: Terms {
                ttl: TTL,
                takeover_delay: Duration::ZERO,
                hold_at_least: Duration::ZERO,
                label: Label::new(label).expect("it is a label"),
                value: Value::new("").expect("it is a value"),
            },
            slots: 1,
            holder: HolderId(Uuid::new_v4()),
        }
    }
}

/// One that wants the lease: it takes what it sees at once, without watching.
pub struct Contender {
    pub store: AnyStore,
    pub terms: Terms,
    pub slots: u32,
    pub holder: HolderId,
}

impl Contender {
    /// What is there.
    #[track_caller]
    pub fn observe(&mut self) -> impl Future<Output = Observation> {
        let seen = self.store.observe(LIMIT);
        async {
            match seen.await {
                Observed::Seen(observation) => observation,
                other => panic!("not seen: {other:?}"),
            }
        }
    }

    /// The row of a slot.
    pub async fn record(&mut self, slot: u32) -> Record {
        let records = self.observe().await.records;
        let found = records.into_iter().find(|record| record.slot == Slot(slot));
        found.expect("there is a row")
    }

    /// The acquisition of `slot` as it is seen, for a fresh term.
    pub fn request(&mut self, seen: &Observation, slot: u32) -> Acquire {
        self.holder = HolderId(Uuid::new_v4());
        let row = seen.records.iter().find(|record| record.slot == Slot(slot));
        let above = seen
            .records
            .iter()
            .filter(|record| record.slot.0 >= self.slots);
        Acquire {
            slot: Slot(slot),
            slots: self.slots,
            above: above
                .map(|record| leasewrap::lease::record::Above {
                    slot: record.slot,
                    token: record.token,
                    revision: record.revision,
                })
                .collect(),
            holder: self.holder,
            expected: row.map_or(Expected::Missing, |row| Expected::Unchanged {
                token: row.token,
                revision: row.revision,
                incarnation: row.incarnation.clone(),
            }),
            server_incarnation: seen.server.incarnation.clone(),
            in_doubt: false,
            furthest: None,
            from_unreleased: row.is_some_and(|row| !row.released),
            terms: self.terms.clone(),
        }
    }

    /// Observes and takes.
    pub async fn try_take(&mut self, slot: u32) -> Acquired {
        let seen = self.observe().await;
        let request = self.request(&seen, slot);
        self.store.acquire(&request, LIMIT).await.reply
    }

    /// Observes and takes; it must be granted.
    pub async fn take(&mut self, slot: u32) -> (Term, Grant) {
        match self.try_take(slot).await {
            Acquired::Granted(grant) => (
                Term {
                    slot: Slot(slot),
                    holder: self.holder,
                    token: grant.token,
                },
                grant,
            ),
            other => panic!("not granted: {other:?}"),
        }
    }

    /// Renews; the answer alone.
    pub async fn renew(&mut self, term: &Term) -> Renewed {
        let terms = self.terms.clone();
        self.store.renew(term, &terms, LIMIT).await.reply
    }

    /// Renews; it must be granted.
    pub async fn renewed(&mut self, term: &Term) -> Grant {
        granted(self.renew(term).await)
    }

    /// Gives back; it must be done.
    pub async fn release(&mut self, term: &Term, grant: &Grant) {
        let released = self.store.release(term, &grant.incarnation, LIMIT).await;
        assert_eq!(released, Released::Done);
    }
}

/// The grant of a renewal.
#[track_caller]
pub fn granted(renewed: Renewed) -> Grant {
    match renewed {
        Renewed::Granted { grant, .. } => grant,
        other => panic!("not granted: {other:?}"),
    }
}

/// An acquisition that was refused because something had changed.
#[track_caller]
pub fn assert_changed(acquired: &Timed<Acquired>) {
    assert_eq!(acquired.reply, Acquired::Refused(Refusal::Changed));
}
