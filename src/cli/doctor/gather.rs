//! Asks everything that the judgement needs.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::judge::{Containment, Findings, Heard, Look};
use super::measure::Trips;
use crate::cli::admin::Admins;
use crate::lease::ids::LeaseName;
use crate::lease::record::Unknown;
use crate::store::admin::Admin;
use crate::store::postgres::PgStore;
use crate::store::{AnyStore, Notice, Store, Watch};
use crate::sys::clock;

/// How many round trips are measured, and how far apart: over two seconds a
/// clock's rate shows.
const TRIPS: usize = 11;
const APART: Duration = Duration::from_millis(200);

/// How long a notification may take.
const NOTIFICATION: Duration = Duration::from_secs(8);

/// Looks at everything, as far as the database answers.
pub async fn gather(
    admins: &mut Admins,
    name: Option<&LeaseName>,
    containment: Containment,
) -> Findings {
    let limit = admins.limit;
    // A file shows itself by being read.
    let seen = match (&mut admins.store, name) {
        (AnyStore::Postgres(_), None) => Ok(Vec::new()),
        (store, name) => store.status(name, limit).await.map(|seen| seen.value),
    };
    let watch = admins.store.watch();
    let server = match (&mut admins.store, &seen) {
        (AnyStore::Postgres(store), _) => store.server_facts(limit).await.map(Some),
        (AnyStore::Sqlite(_), Ok(_)) => Ok(None),
        (AnyStore::Sqlite(_), Err(unknown)) => Err(unknown.clone()),
    };
    let look = match (&mut admins.store, &server) {
        (AnyStore::Postgres(store), Ok(_)) => Some(look(store, watch, limit).await),
        (AnyStore::Postgres(_), Err(_)) | (AnyStore::Sqlite(_), _) => None,
    };
    Findings {
        server,
        look,
        leases: name.and(seen.ok()).unwrap_or_default(),
        containment,
    }
}

async fn look(store: &mut PgStore, watch: impl Watch, limit: Duration) -> Look {
    Look {
        schema: store.schema_facts(limit).await,
        replicas: store.replicas(limit).await,
        fences: store.fenced_tables(limit).await,
        commit: store.durable_commit(limit).await,
        heard: heard(store, watch, limit).await,
        trips: trips(store, limit).await,
    }
}

async fn trips(store: &mut PgStore, limit: Duration) -> Result<Trips, Unknown> {
    let mut ticks = interval(APART);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trips = Trips::default();
    for _ in 0..TRIPS {
        ticks.tick().await;
        let wall = clock::wall();
        trips.add(store.round_trip(limit).await?, wall);
    }
    Ok(trips)
}

/// Whether a notification arrives, and how soon.
async fn heard(store: &mut PgStore, mut watch: impl Watch, limit: Duration) -> Heard {
    let arrival = async {
        loop {
            match watch.next().await {
                Notice::Connected => break,
                Notice::Changed(_) => {}
                Notice::Unavailable(why) => return Heard::Not(why.message),
            }
        }
        let sent = clock::now();
        if let Err(unknown) = store.notify(limit).await {
            return Heard::Not(unknown.message);
        }
        loop {
            match watch.next().await {
                Notice::Changed(_) => return Heard::After(clock::now().saturating_since(sent)),
                Notice::Connected => {}
                Notice::Unavailable(why) => return Heard::Not(why.message),
            }
        }
    };
    let nothing = || Heard::Not(format!("nothing came within {} s", NOTIFICATION.as_secs()));
    timeout(NOTIFICATION, arrival)
        .await
        .unwrap_or_else(|_| nothing())
}
