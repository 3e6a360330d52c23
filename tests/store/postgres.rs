//! What concerns PostgreSQL alone.

use super::bench::{self, Bench, LIMIT, run};
use super::conformance;
use super::support::server;
use leasewrap::store::{Store, StoreSettings};

/// A database that is set up, on the shared server.
fn bench() -> Bench {
    let bench = Bench::new(settings());
    run(async { bench.store().init(LIMIT).await }).expect("set up");
    bench
}

fn settings() -> StoreSettings {
    bench::settings(&server::shared().url(), "leasewrap")
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
            let bench = if stringify!($test).contains("missing_schema") { empty() } else { bench() };
            run(conformance::$test(bench));
        }
    )*};
}

mod suite {
    use super::*;
    conformance::every_test!(tests);
}
