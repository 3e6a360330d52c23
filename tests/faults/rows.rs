//! The lease's row: taken, deleted, set back, locked by somebody else.

use std::time::Duration;

use crate::kept::noticed;
use crate::scene::Scene;
use crate::support::server::{Server, shared};
use crate::support::sys::boot_ns;
use crate::support::wait::SOON;
use crate::support::witness::ms_between;

const TTL: Duration = Duration::from_secs(3);
const TREE: [&str; 4] = ["daemon", "children=2", "chains=1", "ignore=15"];
/// Seen by notification: far below the renewal interval of this ttl.
const LONG: Duration = Duration::from_secs(120);
/// For a holder that must keep its lease.
const KEPT: Duration = Duration::from_secs(8);

impl Scene {
    fn update(&self, set: &str) -> String {
        format!(
            "update leasewrap.lease set {set} where name = '{}'",
            self.name
        )
    }
}

/// The row changes by hand so that the holder must see another one: it kills
/// at once, with no grace. How long its workers lived after the change, in ms.
fn lost_at_once(fault: &str, ttl: Duration, change: impl FnOnce(&Scene)) -> (Scene, i64, f64) {
    let scene = Scene::new(fault, ttl);
    let (holder, token) = scene.hold(&shared().url(), &TREE);
    change(&scene);
    let changed = boot_ns();
    holder.end().code(122);
    let last = scene.log.wait_silence(SOON).expect("nobody works any more");
    let lived_ms = ms_between(changed, last);
    scene.say(&format!("lived_after_change_ms={lived_ms:.1}"));
    (scene, token, lived_ms)
}

#[test]
fn row_taken_by_sql() {
    let (scene, _, lived_ms) = lost_at_once("row-taken", LONG, |scene| {
        let set = "holder = gen_random_uuid(), token = token + 1, revision = revision + 1, label = 'thief'";
        shared().psql(&scene.update(set));
    });
    assert!(lived_ms < 15_000.0, "seen by a notification: {lived_ms}");
    assert_eq!(
        scene.row(shared(), "label, released_at is null"),
        "thief|t",
        "not ours: untouched"
    );
}

#[test]
fn row_taken_by_sql_without_a_notification() {
    let (scene, _, lived_ms) = lost_at_once("row-taken-silently", TTL, |scene| {
        let set = "holder = gen_random_uuid(), token = token + 1, revision = revision + 1, label = 'thief'";
        let quietly = format!(
            "set session_replication_role = replica; {}",
            scene.update(set)
        );
        shared().psql(&quietly);
    });
    assert!(
        lived_ms < TTL.as_secs_f64() * 1e3,
        "seen at the next renewal: {lived_ms}"
    );
    assert_eq!(
        scene.row(shared(), "label, released_at is null"),
        "thief|t",
        "not ours: untouched"
    );
}

#[test]
fn token_changed_by_sql() {
    let (_, _, lived_ms) = lost_at_once("token-changed", LONG, |scene| {
        shared().psql(&scene.update("token = token + 1"));
    });
    assert!(lived_ms < 15_000.0, "{lived_ms}");
}

#[test]
fn token_closed_by_sql() {
    let (scene, _, lived_ms) = lost_at_once("token-closed", LONG, |scene| {
        shared().psql(&scene.update("closed_token = token"));
    });
    assert!(lived_ms < 15_000.0, "{lived_ms}");
    assert_eq!(
        scene.row(shared(), "released_at is not null"),
        "t",
        "confirmed by releasing"
    );
}

#[test]
fn row_released_by_sql() {
    let (_, _, lived_ms) = lost_at_once("row-released", LONG, |scene| {
        shared().psql(&scene.update("released_at = now()"));
    });
    assert!(lived_ms < 15_000.0, "{lived_ms}");
}

#[test]
fn row_taken_and_the_taker_never_comes_back() {
    let scene = Scene::new("row-taken-with-standby", TTL);
    let (holder, token) = scene.hold(&shared().url(), &TREE);
    let _standby = scene.stand_by(&shared().url());
    shared().psql(
        &scene.update("holder = gen_random_uuid(), token = token + 1, revision = revision + 1"),
    );
    holder.end().code(122);
    scene.handed_over(token + 1, SOON);
}

#[test]
fn row_deleted_by_a_superuser() {
    let scene = Scene::new("row-deleted", KEPT);
    let (holder, token) = scene.hold(&shared().url(), &TREE);
    let _standby = scene.stand_by(&shared().url());
    let delete = format!("delete from leasewrap.lease where name = '{}'", scene.name);
    let refused = shared().try_psql("postgres", &delete);
    assert!(refused.is_err(), "a trigger refuses it");
    scene.goes_on(token, scene.ttl(0.5), "a refused deletion");
    shared().psql(&format!("set session_replication_role = replica; {delete}"));
    scene.handed_over(token, 2 * SOON);
    holder.end().code(122);
}

#[test]
fn row_set_back_to_an_earlier_holder() {
    let scene = Scene::new("row-set-back", TTL);
    let (first, before) = scene.hold(&shared().url(), &["exit-after=100"]);
    first.end().code(0);
    let keep = format!(
        "create table kept_{before} as select * from leasewrap.lease where name = '{}'",
        scene.name
    );
    shared().psql(&keep);
    let (holder, token) = scene.hold(&shared().url(), &TREE);
    let _standby = scene.stand_by(&shared().url());
    shared().psql(&format!(
        "set session_replication_role = replica;
         delete from leasewrap.lease where name = '{}';
         insert into leasewrap.lease select * from kept_{before}",
        scene.name
    ));
    scene.handed_over(token, SOON);
    holder.end().code(122);
}

#[test]
fn row_set_back_within_the_term() {
    // As on a promoted standby that had not yet got the last renewals: no loss.
    let scene = Scene::new("row-lagging", KEPT);
    let (holder, token) = scene.hold(&shared().url(), &[]);
    let _standby = scene.stand_by(&shared().url());
    scene.goes_on(token, scene.ttl(0.8), "some renewals");
    for _ in 0..3 {
        let set = "revision = revision - 2, renewed_at = renewed_at - interval '1 s', expires_at = expires_at - interval '1 s'";
        shared().psql(&format!(
            "set session_replication_role = replica; {}",
            scene.update(set)
        ));
        scene.goes_on(token, scene.ttl(0.5), "a revision that went back");
    }
    scene.say("ridden out");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn schema_dropped() {
    let server = Server::start();
    let scene = Scene::new("schema-dropped", TTL);
    let (holder, token) = scene.hold(&server.url(), &TREE);
    let _standby = scene.stand_by(&server.url());
    server.psql("drop schema leasewrap cascade");
    scene.handed_over(token, SOON);
    let ended = holder.end().code(122);
    assert!(ended.says(&["lost"]), "{:?}", ended.log);
}

#[test]
fn row_locked_by_another_session() {
    let scene = Scene::new("row-locked", TTL);
    let (holder, token) = scene.hold(&shared().url(), &TREE);
    let _standby = scene.stand_by(&shared().url());
    let mut session = shared().session("postgres");
    session.run("begin");
    session.run(&format!(
        "select from leasewrap.lease where name = '{}' for update",
        scene.name
    ));
    holder.end().code(122);
    assert!(scene.log.wait_silence(SOON).is_some(), "everybody is dead");
    session.run("rollback");
    scene.handed_over(token, SOON);
}

#[test]
fn row_locked_for_less_than_the_ttl() {
    let scene = Scene::new("row-locked-shortly", Duration::from_secs(30));
    let (holder, token) = scene.start(scene.eager(&shared().url()), &[]);
    let _standby = scene.stand_by(&shared().url());
    let mut session = shared().session("postgres");
    session.run("begin");
    let lock = format!(
        "select from leasewrap.lease where name = '{}' for update",
        scene.name
    );
    noticed(&holder, || _ = session.run(&lock));
    scene.goes_on(token, Duration::from_secs(1), "a locked row");
    session.run("rollback");
    scene.is_renewed(shared(), token, "a row that was locked");
    scene.say("ridden out");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn tokens_only_grow() {
    let scene = Scene::new("tokens", Duration::from_secs(20));
    for _ in 0..8 {
        let last = scene.log.spans().last().map_or(0, |(token, _, _)| *token);
        scene
            .leasewrap(&shared().url(), &["exit-after=5"])
            .run()
            .code(0);
        assert!(scene.log.wait_newer(last, SOON) > last);
    }
    assert_eq!(scene.log.spans().len(), 8, "a fresh token for each");
}
