//! Standing by: how long, who is waited for, how fast it starts.

use std::time::{Duration, Instant};

use crate::row;
use crate::support::leasewrap::{Leasewrap, events, holder, lease_name, leasewrap};
use crate::support::server::shared;
use crate::support::wait::{SOON, until_true};
use crate::support::witness::Log;

/// A lease that is held, with a ttl too long for anybody to poll in time.
fn held() -> (Leasewrap, String) {
    let name = lease_name("held");
    let holder = holder(&shared().url(), &name)
        .ttl("60s")
        .option("--label", "the holder");
    let holder = holder.worker(&["sleep", "1000"]).spawn();
    holder.wait_event("acquired");
    (holder, name)
}

#[test]
fn no_wait_ends_at_once() {
    let (_holder, name) = held();
    for (flag, value) in [("--no-wait", None), ("--wait", Some("0s"))] {
        let builder = holder(&shared().url(), &name).switch(flag);
        let builder = value
            .into_iter()
            .fold(builder, |builder, value| builder.switch(value));
        let ended = builder.sh("echo never").run().code(121);
        assert!(
            ended.out.is_empty() && ended.last_line().contains("the holder"),
            "{ended:?}"
        );
    }
}

#[test]
fn wait_ends_when_it_is_over() {
    let (_holder, name) = held();
    for by_flag in [true, false] {
        let start = Instant::now();
        let builder = holder(&shared().url(), &name).ttl("60s");
        let builder = if by_flag {
            builder.option("--wait", "5s")
        } else {
            builder.env("LEASEWRAP_WAIT", "5s")
        };
        builder.sh("echo never").run().code(121);
        let took = start.elapsed();
        assert!(
            took >= Duration::from_secs(5) && took < Duration::from_secs(15),
            "{took:?}"
        );
    }
}

#[test]
fn no_wait_with_a_row_that_somebody_has_locked() {
    let (first, name) = held();
    first.signal(libc::SIGTERM);
    first.end().code(143);
    let mut session = shared().session("postgres");
    session.run("begin");
    session.run(&format!(
        "select from leasewrap.lease where name = '{name}' for update"
    ));
    let start = Instant::now();
    // A call may take a minute.
    holder(&shared().url(), &name)
        .ttl("5m")
        .switch("--no-wait")
        .sh("true")
        .run()
        .code(121);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    session.run("rollback");
    holder(&shared().url(), &name)
        .switch("--no-wait")
        .sh("true")
        .run()
        .code(0);
}

#[test]
fn no_wait_takes_what_is_free() {
    let name = lease_name("free");
    for _ in 0..3 {
        holder(&shared().url(), &name)
            .switch("--no-wait")
            .sh("true")
            .run()
            .code(0);
    }
}

#[test]
fn the_log_says_who_holds_it() {
    let (first, name) = held();
    let second = holder(&shared().url(), &name).sh("true").spawn();
    let line = second.wait_event("waiting");
    assert!(line.to_string().contains("the holder"), "{line}");
    assert_eq!(line["name"], name.as_str());
    assert_eq!(line["token"].to_string(), row(&name, "token"));
    drop(first);
}

#[test]
fn the_log_says_so_at_the_first_second_fourth_attempt() {
    let (_holder, name) = held();
    let second = holder(&shared().url(), &name)
        .option("--poll-every", "40ms")
        .ttl("60s")
        .sh("true")
        .spawn();
    for (count, attempt) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16)] {
        let told = second.wait_events("waiting", count)["attempts"].as_u64();
        // A notification makes it look once more before it says so.
        assert!(
            told.is_some_and(|told| (attempt..2 * attempt).contains(&told)),
            "{told:?} for {attempt}"
        );
    }
}

#[test]
fn it_starts_at_once_when_the_lease_is_released() {
    let (first, name) = held();
    let log = Log::new();
    let second = holder(&shared().url(), &name)
        .ttl("60s")
        .worker(&log.worker(&[]))
        .spawn();
    second.wait_event("waiting");
    let start = Instant::now();
    first.signal(libc::SIGTERM);
    log.wait_newer(0, SOON);
    // A poll would come after twelve seconds.
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_release_that_is_told_is_held_back_all_the_same() {
    let name = lease_name("held-back");
    let first = holder(&shared().url(), &name)
        .option("--hold-at-least", "1m")
        .worker(&["sleep", "1000"])
        .spawn();
    first.wait_event("acquired");
    let second = holder(&shared().url(), &name)
        .option("--wait", "12s")
        .sh("echo ran")
        .spawn();
    second.wait_event("waiting");
    first.signal(libc::SIGTERM);
    let ended = second.end().code(121);
    assert_eq!(ended.out, "");
    assert!(ended.says(&["keeps it taken"]), "{ended:?}");
}

#[test]
fn it_polls_where_no_notification_comes() {
    let (first, name) = held();
    let log = Log::new();
    let second = holder(&shared().url(), &name)
        .ttl("60s")
        .option("--poll-every", "300ms");
    let second = second.worker(&log.worker(&[])).spawn();
    second.wait_events("waiting", 2);
    // As a release that notifies nobody: no trigger runs.
    shared().psql(&format!(
        "set session_replication_role = replica;
         update leasewrap.lease set released_at = now(), revision = revision + 1 where name = '{name}'"
    ));
    log.wait_newer(0, SOON);
    drop(first);
}

#[test]
fn one_of_many_takes_over_and_then_the_next() {
    let name = lease_name("many");
    let log = Log::new();
    let all: Vec<Leasewrap> = (0..8)
        .map(|_| {
            let worker = log.worker(&["children=1", "exit-after=60"]);
            holder(&shared().url(), &name)
                .ttl("30s")
                .option("--stop-timeout", "50ms")
                .worker(&worker)
                .spawn()
        })
        .collect();
    all.into_iter()
        .for_each(|leasewrap| _ = leasewrap.end_within(Duration::from_secs(60)).code(0));
    assert_eq!(log.spans().len(), 8, "each had its turn");
    let seen = log.hand_overs();
    assert!(seen.iter().all(|seen| seen.overlap_ms <= 0.0), "{seen:?}");
}

#[test]
fn rejoin_stands_by_again_with_a_new_guard_and_a_new_holder() {
    for by_flag in [true, false] {
        let name = lease_name("rejoin");
        let log = Log::new();
        let builder = holder(&shared().url(), &name)
            .ttl("6s")
            .worker(&log.worker(&["daemon", "ignore=15"]));
        let builder = if by_flag {
            builder.switch("--rejoin")
        } else {
            builder.env("LEASEWRAP_REJOIN", "true")
        };
        let mut leasewrap = builder.spawn();
        let mut token = log.wait_newer(0, SOON);
        let pid = leasewrap.pid();
        for _ in 0..2 {
            let (guard, before) = (leasewrap.guard(), row(&name, "holder"));
            log.wait_processes(token, 2, SOON);
            shared().psql(&format!(
                "update leasewrap.lease set holder = gen_random_uuid(), token = token + 1, \
                 released_at = now(), revision = revision + 1 where name = '{name}'"
            ));
            token = log.wait_newer(token, SOON);
            assert_eq!(leasewrap.pid(), pid);
            until_true("another guard", SOON, || leasewrap.guard() != guard);
            assert_ne!(row(&name, "holder"), before);
        }
        assert!(log.hand_overs().iter().all(|seen| seen.overlap_ms <= 0.0));
        until_true("a signal cuts the stop short", SOON, || {
            leasewrap.signal(libc::SIGTERM);
            std::thread::sleep(Duration::from_millis(20));
            leasewrap.ended().is_some()
        });
        leasewrap.end().code(137);
    }
}

#[test]
fn rejoin_ends_with_its_worker() {
    let ended = crate::leasewrap()
        .switch("--rejoin")
        .sh("exit 4")
        .run()
        .code(4);
    assert!(ended.says(&["released"]), "{:?}", ended.log);
}

#[test]
fn rejoin_keeps_the_streams_for_the_next_worker() {
    let name = lease_name("rejoin");
    let script = "read line; echo \"$LEASEWRAP_TOKEN got $line\"; exec sleep 1000";
    let input = crate::support::run::run().file("input");
    std::fs::write(&input, "one\ntwo\n").unwrap();
    let builder = holder(&shared().url(), &name)
        .ttl("2s")
        .switch("--rejoin")
        .sh(script);
    let leasewrap = builder.stdin(std::fs::File::open(input).unwrap()).spawn();
    leasewrap.wait_out("got one");
    shared().psql(&format!(
        "update leasewrap.lease set token = token + 1, released_at = now() where name = '{name}'"
    ));
    leasewrap.wait_out("got two");
}

#[test]
fn after_a_term_the_last_line_counts_from_the_end_of_that_term() {
    let name = lease_name("again");
    let run = holder(&shared().url(), &name)
        .switch("--rejoin")
        .option("--wait", "10s")
        .sh("echo works; sleep 1000")
        .spawn();
    run.wait_out("works");
    let pause = leasewrap().text().switch("pause").switch("--step-down");
    let pause = pause
        .option("--db", &shared().url())
        .option("--name", &name);
    pause.run().code(0);
    let ended = run.end_within(SOON * 2).code(121);
    let last = &events(&ended.log, "ended")[0];
    // The first wait took milliseconds.
    let waited = last["waited_ms"].as_u64();
    assert!(waited.is_some_and(|waited| waited >= 10_000), "{last}");
}
