//! A primary and a streaming standby, and the fail-over from one to the other.

use std::time::Duration;

use crate::scene::Scene;
use crate::support::proxy::Proxy;
use crate::support::server::{Options, Server, Stop};
use crate::support::wait::{SOON, until_true};

const TTL: Duration = Duration::from_secs(4);
const TREE: [&str; 3] = ["daemon", "children=1", "ignore=15"];

/// What clients connect to, as behind a virtual address.
struct Pair {
    primary: Server,
    replica: Server,
    address: Proxy,
}

impl Pair {
    fn start() -> Self {
        let primary = Server::start();
        let replica = primary.replica(Options::default());
        let address = Proxy::to(primary.port());
        Self {
            primary,
            replica,
            address,
        }
    }

    fn url(&self) -> String {
        self.address.url("postgres")
    }

    /// Waits until the replica has all that the primary has.
    fn catch_up(&self) {
        let end = self.primary.psql("select pg_current_wal_lsn()");
        let ask = format!("select pg_last_wal_replay_lsn() >= '{end}'");
        until_true("the replica has caught up", SOON, || {
            self.replica.psql(&ask) == "t"
        });
    }

    /// The primary dies, the replica takes its place.
    fn fail_over(&self) {
        self.primary.stop(Stop::Kill);
        self.address.redirect(self.replica.port());
        self.address.reset();
        self.replica.promote();
    }

    /// From now on the replica gets nothing.
    fn cut_the_stream(&self) {
        self.replica.psql("alter system set primary_conninfo = ''");
        self.replica.psql("select pg_reload_conf()");
        until_true("the stream has ended", SOON, || {
            self.replica
                .psql("select count(*) from pg_stat_wal_receiver where status = 'streaming'")
                == "0"
        });
    }
}

#[test]
fn fail_over_without_a_loss() {
    let pair = Pair::start();
    let scene = Scene::new("fail-over", Duration::from_secs(30));
    let (holder, token) = scene.start(scene.eager(&pair.url()), &[]);
    let _standby = scene.stand_by(&pair.url());
    pair.catch_up();
    pair.fail_over();
    scene.is_renewed(&pair.replica, token, "a fail-over that lost nothing of it");
    scene.say("ridden out");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn fail_over_that_loses_renewals() {
    let pair = Pair::start();
    let scene = Scene::new("fail-over-lost-renewals", Duration::from_secs(30));
    let (holder, token) = scene.start(scene.eager(&pair.url()), &[]);
    let _standby = scene.stand_by(&pair.url());
    pair.catch_up();
    pair.cut_the_stream();
    scene.is_renewed(&pair.primary, token, "the end of the stream");
    pair.fail_over();
    scene.is_renewed(&pair.replica, token, "a fail-over that lost its renewals");
    scene.say("ridden out");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn fail_over_that_loses_the_acquisition() {
    let pair = Pair::start();
    let scene = Scene::new("fail-over-lost-acquisition", TTL);
    let (first, before) = scene.hold(&pair.url(), &["exit-after=50"]);
    first.end().code(0);
    pair.catch_up();
    pair.cut_the_stream();
    let (holder, token) = scene.hold(&pair.url(), &TREE);
    assert!(token > before);
    let _standby = scene.stand_by(&pair.url());
    pair.fail_over();
    // The row says: released long ago. The old worker may still be alive.
    let seen = scene.handed_over(token, SOON);
    assert!(
        seen.new > token + (1 << 32),
        "no token that may have been lost: {seen:?}"
    );
    holder.end().code(122);
}

#[test]
fn fail_over_that_loses_the_whole_lease() {
    let pair = Pair::start();
    let other = Scene::new("other", TTL);
    other
        .leasewrap(&pair.url(), &["exit-after=1"])
        .run()
        .code(0);
    pair.catch_up();
    pair.cut_the_stream();
    let scene = Scene::new("fail-over-lost-lease", TTL);
    let (holder, token) = scene.hold(&pair.url(), &TREE);
    let _standby = scene.stand_by(&pair.url());
    pair.fail_over();
    let seen = scene.handed_over(token, SOON);
    assert!(seen.new > token, "{seen:?}");
    holder.end().code(122);
}

#[test]
fn fail_over_while_the_holder_is_cut_off() {
    // The holder sees neither server; the standby sees a released row at once.
    let pair = Pair::start();
    let scene = Scene::new("fail-over-holder-cut-off", TTL);
    let (first, _) = scene.hold(&pair.url(), &["exit-after=50"]);
    first.end().code(0);
    pair.catch_up();
    pair.cut_the_stream();
    let own = Proxy::to(pair.primary.port());
    let (holder, token) = scene.hold(&own.url("postgres"), &TREE);
    own.cut();
    pair.fail_over();
    // One that has watched nothing so far, and knows nothing of the holder.
    let leasewrap = scene.leasewrap(&pair.url(), &[]).spawn();
    let seen = scene.handed_over(token, SOON);
    assert!(seen.gap_ms() > 0.0, "{seen:?}");
    holder.end().code(122);
    drop(leasewrap);
}
