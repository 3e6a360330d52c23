//! A store that counts and times its calls.

use std::time::Duration;

use super::metrics::{Metrics, Place};
use crate::lease::ids::Incarnation;
use crate::lease::record::{Acquire, Acquired, Observed, Released, Renewed, Term, Terms, Unknown};
use crate::lease::time::BootInstant;
use crate::store::{Attempt, Store, Timed};

/// Any store, with its calls in the metrics.
#[derive(Debug)]
pub struct Metered<S> {
    store: S,
    metrics: Metrics,
    /// The lease; its slot as far as a call tells it.
    name: String,
    single: bool,
    clock: fn() -> BootInstant,
}

impl<S> Metered<S> {
    /// `single`: the lease has one slot, so that the slot is always known.
    pub fn new(
        store: S,
        metrics: Metrics,
        name: &str,
        single: bool,
        clock: fn() -> BootInstant,
    ) -> Self {
        Self {
            store,
            metrics,
            name: name.to_owned(),
            single,
            clock,
        }
    }

    fn count(
        &self,
        slot: Option<u32>,
        kind: &'static str,
        result: &'static str,
        since: BootInstant,
    ) {
        let slot = slot.or(self.single.then_some(0));
        let place = Place::new(&self.name, slot);
        self.metrics
            .call(&place, kind, result, (self.clock)().saturating_since(since));
    }
}

impl<S: Store> Store for Metered<S> {
    type Watch = S::Watch;

    async fn observe(&mut self, limit: Duration) -> Observed {
        let since = (self.clock)();
        let reply = self.store.observe(limit).await;
        let result = match &reply {
            Observed::Seen(_) => "seen",
            Observed::NoSchema => "no-schema",
            Observed::Unknown(_) => "unknown",
        };
        self.count(None, "observe", result, since);
        reply
    }

    async fn init(&mut self, limit: Duration) -> Result<(), Unknown> {
        let since = (self.clock)();
        let reply = self.store.init(limit).await;
        self.count(
            None,
            "init",
            if reply.is_ok() { "done" } else { "unknown" },
            since,
        );
        reply
    }

    async fn acquire(&mut self, request: &Acquire, limit: Duration) -> Timed<Acquired> {
        let since = (self.clock)();
        let timed = self.store.acquire(request, limit).await;
        let result = match &timed.reply {
            Acquired::Granted(_) => "granted",
            Acquired::Refused(_) => "refused",
            Acquired::Unknown(_) => "unknown",
        };
        self.count(Some(request.slot.0), "acquire", result, since);
        timed
    }

    async fn renew(&mut self, term: &Term, terms: &Terms, limit: Duration) -> Timed<Renewed> {
        let since = (self.clock)();
        let timed = self.store.renew(term, terms, limit).await;
        self.count(Some(term.slot.0), "renew", renewed(&timed.reply), since);
        timed
    }

    async fn settle(&mut self, request: &Acquire, limit: Duration) -> Timed<Renewed> {
        let since = (self.clock)();
        let timed = self.store.settle(request, limit).await;
        self.count(Some(request.slot.0), "settle", renewed(&timed.reply), since);
        timed
    }

    async fn check(&mut self, term: &Term, limit: Duration) -> Renewed {
        let since = (self.clock)();
        let reply = self.store.check(term, limit).await;
        self.count(Some(term.slot.0), "check", renewed(&reply), since);
        reply
    }

    async fn release(
        &mut self,
        term: &Term,
        incarnation: &Incarnation,
        limit: Duration,
    ) -> Released {
        let since = (self.clock)();
        let reply = self.store.release(term, incarnation, limit).await;
        self.count(Some(term.slot.0), "release", released(&reply), since);
        reply
    }

    async fn release_attempt(&mut self, attempt: &Attempt, limit: Duration) -> Released {
        let since = (self.clock)();
        let reply = self.store.release_attempt(attempt, limit).await;
        self.count(Some(attempt.slot.0), "release", released(&reply), since);
        reply
    }

    async fn get_ready(&mut self, limit: Duration) {
        self.store.get_ready(limit).await;
    }

    async fn close(&mut self, limit: Duration) {
        self.store.close(limit).await;
    }

    fn because(&mut self, why: &str) {
        self.store.because(why);
    }

    fn finds_lost_clients(&self) -> bool {
        self.store.finds_lost_clients()
    }

    fn watch(&self) -> Self::Watch {
        self.store.watch()
    }
}

fn renewed(reply: &Renewed) -> &'static str {
    match reply {
        Renewed::Granted { .. } => "granted",
        Renewed::Lost(_) => "lost",
        Renewed::Unknown(_) => "unknown",
    }
}

fn released(reply: &Released) -> &'static str {
    match reply {
        Released::Done => "done",
        Released::NotOurs => "not-ours",
        Released::Unknown(_) => "unknown",
    }
}
