//! The line to the database: cut, one way only, reset, slow.

use std::time::Duration;

use crate::kept::noticed;
use crate::scene::Scene;
use crate::support::proxy::{Accept, Flow, Proxy};
use crate::support::server::shared;
use crate::support::wait::{SOON, until};
use crate::support::witness::ms_between;

const TTL: Duration = Duration::from_secs(3);
/// Some of a worker's tree obeys TERM and some does not.
const TREE: [&str; 3] = ["daemon", "children=1", "ignore=15"];

/// The holder's line fails for good: it ends with 122, its worker is dead
/// before the standby's starts.
fn lost(fault: &str, fail: impl FnOnce(&Proxy)) {
    let scene = Scene::new(fault, TTL);
    let proxy = Proxy::to(shared().port());
    let (holder, token) = scene.hold(&proxy.url("postgres"), &TREE);
    let _standby = scene.stand_by(&shared().url());
    fail(&proxy);
    scene.handed_over(token, SOON);
    let ended = holder.end().code(122);
    assert!(ended.says(&["lost"]), "{:?}", ended.log);
}

#[test]
fn line_cut() {
    lost("line-cut", Proxy::cut);
}

#[test]
fn answers_lost() {
    // The renewals arrive: the row stays alive longer than the right to it.
    lost("answers-lost", |proxy| proxy.to_client(Flow::Swallow));
}

#[test]
fn requests_lost() {
    lost("requests-lost", |proxy| proxy.to_server(Flow::Swallow));
}

#[test]
fn connections_refused() {
    lost("connections-refused", |proxy| {
        proxy.accept(Accept::Reset);
        proxy.reset();
    });
}

#[test]
fn answers_slower_than_a_third_of_the_ttl() {
    lost("answers-slower-than-a-third-of-the-ttl", |proxy| {
        proxy.to_client(Flow::Delay(TTL.mul_f64(0.37)))
    });
}

#[test]
fn answers_slower_than_the_ttl() {
    lost("answers-slower-than-the-ttl", |proxy| {
        proxy.to_client(Flow::Delay(TTL.mul_f64(1.1)))
    });
}

#[test]
fn a_cut_shorter_than_the_ttl_is_ridden_out() {
    let scene = Scene::new("short-cut", Duration::from_secs(30));
    let proxy = Proxy::to(shared().port());
    let (holder, token) = scene.start(scene.eager(&proxy.url("postgres")), &[]);
    let _standby = scene.stand_by(&shared().url());
    for _ in 0..2 {
        noticed(&holder, || proxy.cut());
        scene.goes_on(token, Duration::from_secs(1), "a short cut");
        proxy.mend();
        scene.is_renewed(shared(), token, "a short cut");
    }
    scene.say("ridden out");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn a_reset_connection_is_replaced() {
    let scene = Scene::new("reset", Duration::from_secs(30));
    let proxy = Proxy::to(shared().port());
    let (holder, token) = scene.start(scene.eager(&proxy.url("postgres")), &[]);
    let _standby = scene.stand_by(&shared().url());
    for _ in 0..5 {
        let before = proxy.accepted();
        proxy.reset();
        until("it connects again", SOON, || {
            (proxy.accepted() > before).then_some(())
        });
    }
    scene.is_renewed(shared(), token, "resets");
    scene.say("ridden out");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn what_was_held_back_comes_too_late() {
    let scene = Scene::new("late-requests", Duration::from_secs(8));
    let proxy = Proxy::to(shared().port());
    let (holder, token) = scene.hold(&proxy.url("postgres"), &[]);
    let _standby = scene.stand_by(&shared().url());
    proxy.to_server(Flow::Hold);
    scene.handed_over(token, 2 * SOON);
    let new = scene.log.wait_newer(token, SOON);
    // The old holder's renewals arrive now, long after it has given them up.
    proxy.mend();
    scene.is_renewed(shared(), new, "the old holder's renewals");
    holder.end().code(122);
}

#[test]
fn the_worker_is_told_before_it_is_killed() {
    let scene = Scene::new("told-first", Duration::from_secs(12));
    let proxy = Proxy::to(shared().port());
    let script =
        "trap 'sleep 0.2; echo cleaned up; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let holder = scene
        .leasewrap(&proxy.url("postgres"), &[])
        .option("--grace", "4s")
        .sh(script)
        .spawn();
    holder.wait_out("ready");
    proxy.cut();
    let ended = holder.end_within(2 * SOON).code(122);
    assert!(
        ended.out.contains("cleaned up"),
        "the grace is the worker's: {ended:?}"
    );
}

#[test]
fn the_deadline_counts_from_the_last_renewal_that_was_sent() {
    let ttl = Duration::from_secs(20);
    let scene = Scene::new("deadline", ttl);
    let proxy = Proxy::to(shared().port());
    let (holder, _) = scene.hold(&proxy.url("postgres"), &TREE);
    let cut = crate::support::sys::boot_ns();
    proxy.cut();
    holder.end_within(2 * SOON).code(122);
    let last = scene.log.wait_silence(SOON).expect("nobody works any more");
    let lived_ms = ms_between(cut, last);
    scene.say(&format!("lived_after_cut_ms={lived_ms:.1}"));
    // The margin is a tenth of the ttl; the scheduler of a loaded machine gets it.
    assert!(
        lived_ms < ttl.as_secs_f64() * 1_000.0,
        "past the deadline: {lived_ms} ms"
    );
    assert!(
        lived_ms > ttl.as_secs_f64() * 300.0,
        "killed long before it had to be: {lived_ms} ms"
    );
}
