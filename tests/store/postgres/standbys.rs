//! Who is seen standing by.

use leasewrap::store::admin::Admin;

use super::bench_on;
use crate::bench::{LIMIT, run};
use crate::support::server::{Options, Server};

#[test]
fn every_standby_is_seen_from_its_first_poll_on_and_nobody_else() {
    // As many servers have it, so that all of a statement is seen.
    let options = Options::default().set("track_activity_query_size", "16kB");
    let server = Server::with(options);
    let bench = bench_on(&server);
    run(async {
        let (mut one, mut two) = (bench.contender("one"), bench.contender("two"));
        let mut operator = bench.store();
        let mut seen = async || {
            let status = operator.status(Some(&bench.name), LIMIT).await;
            let leases = status.expect("status").value;
            leases[0].standbys.as_ref().map(Vec::len)
        };
        let (term, _) = one.take(0).await;
        one.renewed(&term).await;
        assert_eq!(seen().await, Some(0));
        two.observe().await;
        assert_eq!(seen().await, Some(1));
        drop(two);
    });
}
