//! What is said on stderr: stable names, one line per transition, one last
//! line that explains the end.

use crate::leasewrap;
use crate::support::leasewrap::{Ended, events, holder, lease_name};
use crate::support::proxy::Proxy;
use crate::support::server::shared;
use crate::support::wait::{SOON, until_true};
use crate::support::witness::Log;

#[test]
fn json_lines_with_stable_names_and_fields() {
    let name = lease_name("json");
    let ended = holder(&shared().url(), &name)
        .ttl("9s")
        .sh("exit 0")
        .run()
        .code(0);
    for line in &ended.log {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "event", "message"] {
            assert!(
                line.get(field).is_some_and(serde_json::Value::is_string),
                "{field}: {line}"
            );
        }
    }
    let acquired = &events(&ended.log, "acquired")[0];
    assert_eq!(acquired["name"], name.as_str());
    assert_eq!(acquired["slot"], 0);
    let row = shared().psql(&format!(
        "select holder, token from leasewrap.lease where name = '{name}'"
    ));
    assert_eq!(
        format!(
            "{}|{}",
            acquired["holder"].as_str().unwrap(),
            acquired["token"]
        ),
        row
    );
    assert!(acquired["revision"].is_i64());
    let deadline = acquired["deadline_ms"].as_i64().unwrap();
    assert!(
        (5_000..=8_100).contains(&deadline),
        "ttl less the margin: {deadline}"
    );
    assert_eq!(events(&ended.log, "released").len(), 1, "{:?}", ended.log);
    assert!(
        events(&ended.log, "renewed").is_empty(),
        "renewals are at debug"
    );
}

#[test]
fn renewals_at_debug() {
    let holder = leasewrap()
        .ttl("20s")
        .option("--renew-every", "200ms")
        .switch("-v")
        .sh("sleep 1000")
        .spawn();
    holder.wait_events("renewed", 2);
    let renewed = events(&holder.log(), "renewed");
    assert_eq!(renewed[0]["level"], "DEBUG");
    let revision = |index: usize| renewed[index]["revision"].as_i64().unwrap();
    assert_eq!(revision(1), revision(0) + 1);
}

#[test]
fn a_filter_by_flag_and_variable() {
    let by_flag = leasewrap()
        .option("--log", "error")
        .sh("true")
        .run()
        .code(0);
    assert!(by_flag.log.is_empty(), "{:?}", by_flag.log);
    let by_variable = leasewrap()
        .env("LEASEWRAP_LOG", "error")
        .sh("true")
        .run()
        .code(0);
    assert!(by_variable.log.is_empty(), "{:?}", by_variable.log);
}

#[test]
fn a_filter_hides_no_end() {
    for (filter, good_ends) in [("leasewrap=debug", 1), ("info", 1), ("warn", 0), ("off", 0)] {
        let filtered = || leasewrap().env("LEASEWRAP_LOG", filter);
        let ended = filtered().sh("true").run().code(0);
        let last = events(&ended.log, "ended");
        assert_eq!(last.len(), good_ends, "{filter}: {:?}", ended.log);
        if let Some(last) = last.first() {
            assert_eq!(
                (&last["outcome"], &last["exit_code"]),
                (&"worker".into(), &0.into())
            );
        }
        let stopped = filtered().sh("echo runs; exec sleep 1000").spawn();
        stopped.wait_out("runs");
        stopped.signal(libc::SIGTERM);
        let ended = stopped.end().code(143);
        let last = events(&ended.log, "ended");
        assert_eq!(last.len(), 1, "{filter}: {:?}", ended.log);
        assert_eq!(last[0]["exit_code"], 143);
        assert!(ended.last_line().contains("SIGTERM"), "{:?}", ended.log);
    }
}

#[test]
fn quiet_is_silent_at_a_good_end() {
    for builder in [leasewrap(), leasewrap().text()] {
        let ended = builder.switch("-q").sh("echo worker").run().code(0);
        assert!(ended.log.is_empty(), "{:?}", ended.log);
        assert_eq!(ended.out, "worker\n");
    }
    let leasewrap = leasewrap().switch("-q").worker(&["sleep", "1000"]).spawn();
    leasewrap.worker();
    leasewrap.signal(libc::SIGTERM);
    let ended = leasewrap.end().code(143);
    assert!(
        ended.log.is_empty(),
        "what was asked for is a good end: {:?}",
        ended.log
    );
}

#[test]
fn quiet_still_says_what_went_wrong() {
    let name = lease_name("quiet");
    let first = holder(&shared().url(), &name)
        .switch("-q")
        .worker(&["sleep", "1000"])
        .spawn();
    first.worker();
    let ended = holder(&shared().url(), &name)
        .switch("-q")
        .switch("--no-wait")
        .sh("true")
        .run()
        .code(121);
    assert_eq!(ended.log.len(), 1, "{:?}", ended.log);
    shared().psql(&format!(
        "update leasewrap.lease set token = token + 1 where name = '{name}'"
    ));
    let ended = first.end().code(122);
    assert!(ended.last_line().contains("lost"), "{:?}", ended.log);
}

/// Nothing else says that an orderly stop was none.
#[test]
fn quiet_still_says_that_a_worker_did_not_go_as_told() {
    for (on_term, patience, code, words) in [
        ("exit 9", "1m", 9, "exit code 9"),
        ("", "200ms", 137, "SIGKILL"),
    ] {
        let run = leasewrap()
            .switch("-q")
            .option("--stop-timeout", patience)
            .option("--stop-to", "worker")
            .sh(&format!(
                "trap '{on_term}' TERM; echo ready; while :; do sleep 0.1; done"
            ))
            .spawn();
        run.wait_out("ready");
        run.signal(libc::SIGTERM);
        let ended = run.end().code(code);
        let last = ended.last_line();
        assert!(
            last.contains(words) && last.contains("SIGTERM"),
            "{:?}",
            ended.log
        );
    }
}

#[test]
fn a_loss_says_who_stood_still_and_whether_the_worker_was_killed() {
    let proxy = Proxy::to(shared().port());
    let cut = holder(&proxy.url("postgres"), &lease_name("cut"))
        .ttl("12s")
        .option("--grace", "4s")
        .sh("trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done")
        .spawn();
    cut.wait_out("ready");
    proxy.cut();
    let ended = cut.end_within(SOON * 2).code(122);
    let lost = &events(&ended.log, "lost")[0]["message"];
    assert!(lost.to_string().contains("has ended"), "{lost}");
    let last = ended.last_line();
    assert!(last.contains("told to stop and ended"), "{last}");
    assert!(last.contains("look at the database"), "{last}");

    let stopped = || {
        let stopped = holder(&shared().url(), &lease_name("stopped"))
            .ttl("2s")
            .worker(&["sleep", "1000"])
            .spawn();
        stopped.wait_event("acquired");
        // The guard wakes it, after the deadline.
        stopped.signal(libc::SIGSTOP);
        stopped.end()
    };
    // On a busy host its own timer may come first.
    let mut turns = (0..5).map(|_| stopped());
    let ended = turns.find(|ended| ended.code != 137);
    let ended = ended.expect("one that was woken in time").code(122);
    let last = ended.last_line();
    assert!(last.contains("the worker was killed"), "{last}");
    assert!(last.contains("host stand still"), "{last}");
}

#[test]
fn text_lines_for_people() {
    let ended = leasewrap().text().sh("exit 3").run().code(3);
    assert!(
        ended
            .log
            .iter()
            .all(|line| !line.starts_with('{') && !line.contains('\x1b')),
        "{:?}",
        ended.log
    );
    assert!(
        ended.says(&["acquired"]) && ended.says(&["released"]),
        "{:?}",
        ended.log
    );
    assert!(ended.last_line().contains("exit code 3"), "{:?}", ended.log);
}

#[test]
fn every_end_has_its_last_line() {
    let killed = leasewrap().sh("kill -SEGV $$").run().code(139);
    assert!(killed.last_line().contains("SIGSEGV"), "{:?}", killed.log);
    let missing = leasewrap().worker(&["no-such-program"]).run().code(127);
    assert!(
        missing.last_line().contains("no-such-program"),
        "{:?}",
        missing.log
    );
    let leasewrap = leasewrap().worker(&["sleep", "1000"]).spawn();
    leasewrap.worker();
    crate::support::sys::kill(leasewrap.guard(), libc::SIGKILL);
    let ended = leasewrap.end().code(125);
    assert!(ended.last_line().contains("guard"), "{:?}", ended.log);
}

#[test]
fn what_never_began_has_its_last_line_for_machines_too() {
    let bare = crate::support::leasewrap::leasewrap;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = bare().option("--db-file", "/no/such/file");
    let listens = leasewrap().option("--listen", &address);
    let notifies = leasewrap().env("NOTIFY_SOCKET", "relative");
    for (builder, code, outcome, words) in [
        (file, 123, "database", "/no/such/file"),
        (listens, 125, "failed", "cannot listen on"),
        (notifies, 2, "usage", "NOTIFY_SOCKET"),
    ] {
        let ended = builder.sh("true").run().code(code);
        only_says(&ended, code, outcome, words);
        let last = &events(&ended.log, "ended")[0];
        assert!(last["name"].is_string(), "which lease it was for: {last}");
    }
}

/// Where a job runs on no host, that is no conflict of this one's.
#[test]
fn quiet_says_that_a_clock_was_set_back() {
    let name = lease_name("set-back");
    let job = || {
        let builder = holder(&shared().url(), &name).switch("-q").sh("echo ran");
        let builder = builder.switch("--no-wait").option("--hold-at-least", "10m");
        builder.option("--conflict-exit-code", "0").run().code(0)
    };
    assert_eq!(job().out, "ran\n");
    let second = job();
    assert!(second.log.is_empty() && second.out.is_empty(), "{second:?}");
    shared().psql(&format!(
        "update leasewrap.lease set acquired_at = acquired_at + interval '1h', renewed_at = renewed_at + \
         interval '1h', expires_at = expires_at + interval '1h', released_at = released_at + interval '1h' \
         where name = '{name}'"
    ));
    let ended = job();
    assert!(ended.last_line().contains("was set back"), "{ended:?}");
}

/// What the guard says, since nobody else can, has the shape of the log.
#[test]
fn a_killed_leasewrap_has_its_last_line_too() {
    let name = lease_name("killed");
    let run = holder(&shared().url(), &name)
        .sh("echo works; sleep 600")
        .spawn();
    run.wait_out("works");
    run.signal(libc::SIGKILL);
    let last = run.wait_event("ended");
    assert_eq!(last["outcome"], "keeper-died", "{last}");
    assert_eq!(last["name"], name.as_str(), "{last}");
    assert_eq!(last["level"], "ERROR", "{last}");
    assert!(last["killed"].as_u64().is_some_and(|killed| killed >= 1));
    let message = last["message"].as_str().unwrap();
    assert!(message.contains(&format!("lease {name} was released")));
    assert!(last["timestamp"].is_string(), "{last}");
    let ended = run.end().code(137);
    for line in &ended.log {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("{error}: {line}"));
    }

    let run = holder(&shared().url(), &name)
        .text()
        .sh("echo works; sleep 600")
        .spawn();
    run.wait_out("works");
    run.signal(libc::SIGKILL);
    until_true("its guard says so", SOON, || {
        let log = run.log();
        log.iter().any(|line| {
            line.contains("ERROR leasewrap: the keeper process of leasewrap is gone")
                && line.contains("outcome=keeper-died")
        })
    });
    run.end().code(137);
}

#[test]
fn too_few_descriptors_are_told_before_anything_is_taken() {
    let limited = |limit: i32, inherited: &str| {
        let script = format!("ulimit -n {limit}; exec \"$@\" {inherited}");
        let builder = leasewrap().below(&["sh", "-c", &script, "sh"]);
        builder.sh("true").run()
    };
    for limit in [9, 10, 12, 16, 22] {
        only_says(&limited(limit, "").code(125), 125, "failed", "ulimit -n");
    }
    limited(24, "").code(0);
    let inherited = "3<&0 4<&0 5<&0 6<&0 7<&0 8<&0 9<&0";
    let ended = limited(24, inherited).code(125);
    only_says(&ended, 125, "failed", "ulimit -n");
}

/// That this is its one line.
#[track_caller]
fn only_says(ended: &Ended, code: i32, outcome: &str, words: &str) {
    let [last] = &events(&ended.log, "ended")[..] else {
        panic!("{:?}", ended.log);
    };
    assert_eq!(ended.log.len(), 1, "{:?}", ended.log);
    assert_eq!(
        (&last["outcome"], &last["exit_code"], &last["level"]),
        (&outcome.into(), &code.into(), &"ERROR".into())
    );
    let message = last["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
}

#[test]
fn a_late_renewal_is_a_warning() {
    let proxy = crate::support::proxy::Proxy::to(shared().port());
    let log = Log::new();
    let builder = holder(&proxy.url("postgres"), &lease_name("late"))
        .ttl("30s")
        .option("--renew-every", "1s")
        .option("--call-timeout", "1s");
    let leasewrap = builder.worker(&log.worker(&[])).spawn();
    log.wait_newer(0, SOON);
    // One may have failed before, on a busy host.
    let before = events(&leasewrap.log(), "call-failed").len();
    proxy.cut();
    leasewrap.wait_events("call-failed", before + 1);
    proxy.mend();
    let line = leasewrap.wait_event("renewed-late");
    assert_eq!(line["level"], "WARN");
}

#[test]
fn a_lost_lease_is_told_as_it_happens() {
    let proxy = crate::support::proxy::Proxy::to(shared().port());
    let log = Log::new();
    let builder = holder(&proxy.url("postgres"), &lease_name("lost"))
        .ttl("12s")
        .option("--grace", "4s");
    let leasewrap = builder.worker(&log.worker(&["ignore=15"])).spawn();
    log.wait_newer(0, SOON);
    proxy.cut();
    leasewrap.wait_event("losing");
    leasewrap.wait_event("lost");
    let ended = leasewrap.end().code(122);
    let kinds: Vec<&str> = ["losing", "lost"]
        .into_iter()
        .filter(|kind| events(&ended.log, kind).len() == 1)
        .collect();
    assert_eq!(kinds, ["losing", "lost"], "once each: {:?}", ended.log);
}
