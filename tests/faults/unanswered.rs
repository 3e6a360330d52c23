//! Calls whose answer never comes: they may have happened.

use std::time::Duration;

use crate::scene::Scene;
use crate::support::proxy::{Accept, Proxy};
use crate::support::server::shared;
use crate::support::wait::{SOON, until_true};

/// So long that waiting it out would fail the test.
const TTL: Duration = Duration::from_secs(40);
/// Of the acquisition of a lease that is there, and of nothing else.
const ACQUISITION: &str = "released_at = null";

/// A lease that exists and is free, and a proxy that will not give the answer
/// to its acquisition; and the token so far.
fn free_lease(fault: &str) -> (Scene, Proxy, i64) {
    free_lease_of(fault, TTL)
}

fn free_lease_of(fault: &str, ttl: Duration) -> (Scene, Proxy, i64) {
    let scene = Scene::new(fault, ttl);
    scene
        .leasewrap(&shared().url(), &["exit-after=1"])
        .run()
        .code(0);
    let proxy = Proxy::to(shared().port());
    proxy.hold_the_answer_to(ACQUISITION);
    let last = scene.log.wait_newer(0, SOON);
    (scene, proxy, last)
}

/// Somebody else can have the lease at once.
#[track_caller]
fn free(scene: &Scene) {
    let last = scene.log.spans().last().map_or(0, |(token, _, _)| *token);
    let next = scene
        .leasewrap(&shared().url(), &["exit-after=200"])
        .option("--wait", "15s");
    next.run().code(0);
    scene.log.wait_newer(last, SOON);
    assert!(
        scene
            .log
            .hand_overs()
            .iter()
            .all(|seen| seen.overlap_ms <= 0.0)
    );
}

#[test]
fn acquisition_unanswered_and_found() {
    let (scene, proxy, last) = free_lease("acquisition-unanswered");
    let holder = scene.leasewrap(&proxy.url("postgres"), &[]).spawn();
    until_true("the acquisition is on its way", SOON, || proxy.has_held());
    holder.wait_event("call-failed");
    proxy.mend();
    holder.wait_event("acquired");
    let token = scene.log.wait_newer(last, SOON);
    assert_eq!(
        scene.row(shared(), "token"),
        token.to_string(),
        "what it had taken, it has"
    );
    scene.say("found");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn acquisition_unanswered_and_then_a_stop() {
    let (scene, proxy, _) = free_lease("acquisition-unanswered-stop");
    let holder = scene.leasewrap(&proxy.url("postgres"), &[]).spawn();
    until_true("the acquisition is on its way", SOON, || proxy.has_held());
    holder.signal(libc::SIGTERM);
    let before = proxy.accepted();
    until_true("it has given that call up and asks anew", SOON, || {
        proxy.accepted() > before
    });
    proxy.mend();
    holder.end().code(143);
    free(&scene);
    scene.say("given back");
}

#[test]
fn keeper_sigkill_before_the_acquisition_is_answered() {
    let (scene, proxy, _) = free_lease("acquisition-unanswered-sigkill");
    let holder = scene.leasewrap(&proxy.url("postgres"), &[]).spawn();
    until_true("the acquisition is on its way", SOON, || proxy.has_held());
    holder.signal(libc::SIGKILL);
    proxy.mend();
    holder.end().code(137);
    free(&scene);
    scene.say("given back by the releaser");
}

/// It has the lease, and will not know it: its own timer ends it, and then it
/// is given back.
#[test]
fn keeper_sigstop_before_the_acquisition_is_answered() {
    let (scene, proxy, last) =
        free_lease_of("acquisition-unanswered-sigstop", Duration::from_secs(10));
    let holder = scene.leasewrap(&proxy.url("postgres"), &[]);
    // It must not have given that call up when it is stopped.
    let holder = holder.option("--call-timeout", "10s").spawn();
    until_true("the acquisition is on its way", SOON, || proxy.has_held());
    holder.signal(libc::SIGSTOP);
    proxy.mend();
    holder.end_within(Duration::from_secs(60)).code(137);
    let latest = scene.log.spans().last().map(|(token, _, _)| *token);
    assert_eq!(latest, Some(last), "no worker has run since");
    free(&scene);
    scene.say("given back by the releaser");
}

#[test]
fn guard_sigkill_before_the_acquisition_is_answered() {
    let (scene, proxy, _) = free_lease("acquisition-unanswered-guard-sigkill");
    let holder = scene.leasewrap(&proxy.url("postgres"), &[]).spawn();
    until_true("the acquisition is on its way", SOON, || proxy.has_held());
    crate::support::sys::kill(holder.guard(), libc::SIGKILL);
    proxy.mend();
    holder.end().code(125);
    free(&scene);
    scene.say("given back");
}

#[test]
fn release_unanswered() {
    let scene = Scene::new("release-unanswered", TTL);
    let proxy = Proxy::to(shared().port());
    let (holder, _) = scene.hold(&proxy.url("postgres"), &[]);
    // Of the release, and of nothing else.
    proxy.hold_the_answer_to("set released_at");
    holder.signal(libc::SIGTERM);
    until_true("the release is on its way", SOON, || proxy.has_held());
    free(&scene);
    proxy.mend();
    holder.end().code(143);
    scene.say("released twice");
}

/// The guard wakes it after the deadline, and ends it if need be: whoever
/// started it must see an end.
#[test]
fn keeper_sigstop_before_the_release_is_answered() {
    let scene = Scene::new("release-unanswered-sigstop", Duration::from_secs(3));
    let proxy = Proxy::to(shared().port());
    let (holder, _) = scene.hold(&proxy.url("postgres"), &[]);
    proxy.hold_the_answer_to("set released_at");
    holder.signal(libc::SIGTERM);
    until_true("the release is on its way", SOON, || proxy.has_held());
    holder.signal(libc::SIGSTOP);
    let _ended = holder.end();
    free(&scene);
    scene.say("ended");
}

#[test]
fn keeper_sigkill_while_the_line_is_cut() {
    let scene = Scene::new("sigkill-while-cut", TTL);
    let proxy = Proxy::to(shared().port());
    let (holder, token) = scene.hold(&proxy.url("postgres"), &["daemon"]);
    let _standby = scene.stand_by(&shared().url());
    proxy.accept(Accept::Reset);
    proxy.reset();
    holder.signal(libc::SIGKILL);
    holder.wait_dead();
    // The releaser tries again.
    proxy.mend();
    scene.handed_over(token, SOON);
}
