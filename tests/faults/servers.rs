//! The server: hung, stopped, its clock stepped.

use std::time::Duration;

use crate::kept::noticed;
use crate::scene::Scene;
use crate::support::server::{Options, Server, Stop};
use crate::support::wait::{SOON, until_true};
use crate::support::{proc, sys};

const TTL: Duration = Duration::from_secs(3);
const TREE: [&str; 3] = ["daemon", "children=1", "ignore=15"];
/// What a busy host may take longer than it has to.
const SLACK: Duration = Duration::from_secs(10);

#[test]
fn server_hung() {
    let server = Server::start();
    let scene = Scene::new("server-hung", TTL);
    let (holder, token) = scene.hold(&server.url(), &TREE);
    let _standby = scene.stand_by(&server.url());
    server.freeze();
    holder.end().code(122);
    assert!(scene.log.wait_silence(SOON).is_some(), "everybody is dead");
    server.thaw();
    scene.handed_over(token, SOON);
}

#[test]
fn server_hung_for_less_than_the_ttl() {
    let server = Server::start();
    let scene = Scene::new("server-hung-shortly", Duration::from_secs(30));
    let (holder, token) = scene.start(scene.eager(&server.url()), &[]);
    let _standby = scene.stand_by(&server.url());
    noticed(&holder, || server.freeze());
    scene.goes_on(token, Duration::from_secs(1), "a hung server");
    server.thaw();
    scene.is_renewed(&server, token, "a server that has thawed");
    scene.say("ridden out");
}

#[test]
fn server_restarted_within_the_ttl() {
    for how in [Stop::Immediate, Stop::Fast, Stop::Kill] {
        let server = Server::start();
        let scene = Scene::new(&format!("restart-{how:?}"), Duration::from_secs(30));
        let (_holder, token) = scene.start(scene.eager(&server.url()), &[]);
        let _standby = scene.stand_by(&server.url());
        server.restart(how);
        scene.is_renewed(&server, token, "a restart");
        scene.say("ridden out");
    }
}

#[test]
fn server_stopped_beyond_the_ttl() {
    let server = Server::start();
    let scene = Scene::new("stopped-beyond-the-ttl", TTL);
    let (holder, token) = scene.hold(&server.url(), &TREE);
    let _standby = scene.stand_by(&server.url());
    server.stop(Stop::Immediate);
    holder.end().code(122);
    assert!(scene.log.wait_silence(SOON).is_some(), "everybody is dead");
    server.start_again();
    scene.handed_over(token, SOON);
}

#[test]
fn server_clock_steps_while_held() {
    let server = Server::with(Options {
        faketime: true,
        ..Options::default()
    });
    let scene = Scene::new("clock-steps-while-held", Duration::from_secs(8));
    let (holder, token) = scene.hold(&server.url(), &[]);
    let _standby = scene.stand_by(&server.url());
    for seconds in [3600, -3600, 0] {
        server.step_clock(seconds);
        scene.goes_on(
            token,
            scene.ttl(1.0),
            &format!("a clock that is {seconds} s off"),
        );
    }
    scene.say("ridden out");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

/// Both processes are gone, as with a lost host, while the clock steps.
fn lost_host(fault: &str, seconds: i64, limit: f64) {
    let server = Server::with(Options {
        faketime: true,
        ..Options::default()
    });
    let scene = Scene::new(fault, TTL);
    let proxy = crate::support::proxy::Proxy::to(server.port());
    let (holder, token) = scene.hold(&proxy.url("postgres"), &TREE);
    let _standby = scene.stand_by(&server.url());
    server.step_clock(seconds);
    // For the database, the host is lost; its worker lives until its deadline.
    proxy.cut();
    let seen = scene.handed_over(token, scene.ttl(limit) + SOON);
    assert!(
        seen.gap_ms() < (scene.ttl(limit) + SLACK).as_secs_f64() * 1e3,
        "{seen:?}"
    );
    holder.end().code(122);
}

#[test]
fn host_lost_and_the_clock_an_hour_ahead() {
    lost_host("lost-host-clock-ahead", 3600, 2.0);
}

#[test]
fn host_lost_and_the_clock_an_hour_back() {
    // The row has not expired for an hour: twice the watching has to do.
    lost_host("lost-host-clock-back", -3600, 3.0);
}

#[test]
fn wall_clock_of_the_host_steps() {
    // The holder's own wall clock, by the same means as the server's.
    let scene = Scene::new("host-clock-steps", 2 * TTL);
    let server = Server::start();
    let clock = crate::support::leasewrap::file_with("+0");
    let leasewrap = scene
        .leasewrap(&server.url(), &[])
        .env(
            "LD_PRELOAD",
            &crate::support::installation::faketime()
                .display()
                .to_string(),
        )
        .env("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_RESET", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let (holder, token) = scene.start(leasewrap, &[]);
    let _standby = scene.stand_by(&server.url());
    for offset in ["+3600", "-3600", "+0"] {
        std::fs::write(&clock, offset).unwrap();
        scene.goes_on(token, scene.ttl(0.8), "a wall clock that steps");
    }
    scene.say("ridden out");
    holder.signal(libc::SIGTERM);
    holder.end().code(143);
}

#[test]
fn a_standby_rides_out_what_the_holder_did_not() {
    let server = Server::start();
    let scene = Scene::new("standby-rides-out", Duration::from_secs(8));
    let (holder, token) = scene.hold(&server.url(), &[]);
    let standby = scene.stand_by(&server.url());
    let (worker, guard) = (holder.worker(), holder.guard());
    server.freeze();
    sys::kill(guard, libc::SIGKILL);
    until_true("the worker is dead", SOON, || !proc::alive(worker));
    holder.end().code(125);
    server.stop(Stop::Kill);
    server.start_again();
    // It could not release: the row has to be watched.
    scene.handed_over(token, 2 * SOON);
    drop(standby);
}
