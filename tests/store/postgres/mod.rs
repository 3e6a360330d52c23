//! What concerns PostgreSQL alone.

mod bouncer;
mod client;
mod durable;
mod fence;
mod hosts;
mod ledger;
mod limits;
mod login;
mod multiplexer;
mod pooled;
mod prepared;
mod rights;
mod standbys;
mod turns;

use std::sync::OnceLock;

use leasewrap::store::{Store, StoreSettings};

use crate::bench::{self, Bench, LIMIT, run};
use crate::conformance;
use crate::support::server::{self, Server};

/// A lease in a schema that is set up once, on the shared server.
fn on_shared() -> Bench {
    static SET_UP: OnceLock<StoreSettings> = OnceLock::new();
    let settings = SET_UP.get_or_init(|| {
        let settings = bench::settings(&server::shared().url(), "leasewrap");
        set_up(&settings);
        settings
    });
    Bench::new(settings.clone())
}

/// A lease in a schema that is set up, on a server of one's own.
fn bench_on(server: &Server) -> Bench {
    let settings = bench::settings(&server.url(), "leasewrap");
    set_up(&settings);
    Bench::new(settings)
}

fn set_up(settings: &StoreSettings) {
    let bench = Bench::new(settings.clone());
    run(async { bench.store().init(LIMIT).await }).expect("set up");
}

/// A database of one's own, with nothing in it.
fn empty() -> Bench {
    let server = server::shared();
    let url = server.url_of("postgres", &server.database());
    Bench::new(bench::settings(&url, "odd \"schema\""))
}

macro_rules! tests {
    ($($test:ident),* $(,)?) => {$(
        #[test]
        fn $test() {
            let bench = if stringify!($test).contains("missing_schema") { empty() } else { on_shared() };
            run(conformance::$test(bench));
        }
    )*};
}

mod suite {
    use super::*;
    conformance::every_test!(tests);
}
