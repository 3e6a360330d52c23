//! `--on-event`: what is told, in which order, and that nothing waits for it.

use std::time::Duration;

use crate::support::leasewrap::{events, holder, lease_name};
use crate::support::proxy::Proxy;
use crate::support::server::shared;
use crate::support::wait::{SOON, until_true};
use crate::{Notes, leasewrap, patient, row, terminate, wait_up};

/// A hook that notes its event and reason.
fn noting(notes: &Notes) -> String {
    format!(
        "echo \"$LEASEWRAP_EVENT $LEASEWRAP_REASON $LEASEWRAP_TOKEN\" >> {}",
        notes.word()
    )
}

/// The events alone.
fn told(notes: &Notes) -> Vec<String> {
    let first = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
    notes.lines().iter().map(first).collect()
}

#[test]
fn a_term_is_told_in_the_environment_and_as_json() {
    let notes = Notes::new();
    let name = lease_name("told");
    let command = format!(
        "{{ env -0 | sed -z 's/\\n/|/g' | tr '\\0' '\\n' | grep ^LEASEWRAP_ | sort; cat; echo end; }} >> {}",
        notes.word()
    );
    let ended = holder(&shared().url(), &name)
        .env("LEASEWRAP_ON_EVENT", &command)
        .option("--label", "host ü/7")
        .env("LEASEWRAP_VALUE", "a 'b'\n\"c\"")
        .sh("echo $LEASEWRAP_TOKEN $LEASEWRAP_HOLDER; exit 5")
        .run()
        .code(5);
    let (token, id) = ended.out.trim().split_once(' ').expect("two words");
    let text = notes.text();
    let told: Vec<&str> = text.split("end\n").collect();
    assert_eq!(told.len(), 3, "two events: {text}");
    for (told, event, reason, message) in [
        (told[0], "acquired", "new", "it was never held"),
        (
            told[1],
            "released",
            "worker",
            "the worker ended with exit code 5",
        ),
    ] {
        let (variables, json) = told.split_once('{').expect("JSON on stdin");
        let expected = format!(
            "LEASEWRAP_EVENT={event}\nLEASEWRAP_HOLDER={id}\nLEASEWRAP_HOLDER_LABEL=host ü/7\n\
             LEASEWRAP_HOLDER_VALUE=a 'b'|\"c\"\nLEASEWRAP_LEASE={name}\n\
             LEASEWRAP_MESSAGE={message}\nLEASEWRAP_REASON={reason}\nLEASEWRAP_SLOT=0\n\
             LEASEWRAP_TOKEN={token}\n"
        );
        assert_eq!(variables, expected);
        let json: serde_json::Value = serde_json::from_str(&format!("{{{json}")).expect("JSON");
        let token: i64 = token.parse().expect("a number");
        let expected = serde_json::json!({
            "event": event, "reason": reason, "message": message, "name": name, "slot": 0,
            "token": token, "holder": id, "label": "host ü/7", "value": "a 'b'\n\"c\"",
            "left_ms": null, "late_ms": null,
        });
        assert_eq!(json, expected);
    }
}

#[test]
fn what_a_hook_says_is_logged_and_stdout_is_the_workers() {
    let ended = leasewrap()
        .option(
            "--on-event",
            "echo said of $LEASEWRAP_EVENT; echo whispered >&2; test $LEASEWRAP_EVENT = acquired",
        )
        .sh("echo mine")
        .run()
        .code(0);
    assert_eq!(ended.out, "mine\n");
    for words in [
        ["hook-output", "acquired", "said of acquired"],
        ["hook-output", "released", "whispered"],
        ["hook-failed", "released", "exit code 1: whispered"],
    ] {
        assert!(ended.says(&words), "{words:?} in {:?}", ended.log);
    }
    assert_eq!(events(&ended.log, "hook-failed").len(), 1);
    assert!(ended.last_line().contains("\"ended\""), "{:?}", ended.log);
}

#[test]
fn one_at_a_time_and_in_order() {
    let notes = Notes::new();
    let command = format!(
        "echo begin $LEASEWRAP_EVENT >> {0}; sleep 0.3; echo end $LEASEWRAP_EVENT >> {0}",
        notes.word()
    );
    let ended = leasewrap().option("--on-event", &command).sh("true").run();
    assert_eq!(
        notes.lines(),
        [
            "begin acquired",
            "end acquired",
            "begin released",
            "end released"
        ],
        "{:?}",
        ended.log
    );
}

#[test]
fn a_loss_by_hand_is_told() {
    let notes = Notes::new();
    let name = lease_name("stolen");
    let holder = holder(&shared().url(), &name)
        .option("--on-event", &noting(&notes))
        .sh(&patient(0))
        .spawn();
    let token = holder.wait_event("acquired")["token"].to_string();
    shared().psql(&format!(
        "update leasewrap.lease set closed_token = token where name = '{name}'"
    ));
    holder.end().code(122);
    // Both are of the same end.
    assert_eq!(
        notes.lines(),
        [
            format!("acquired new {token}"),
            format!("lost closed {token}"),
            format!("released closed {token}")
        ]
    );
}

#[test]
fn late_renewals_and_the_nearing_deadline_are_told() {
    let notes = Notes::new();
    let proxy = Proxy::to(shared().port());
    let holder = holder(&proxy.url("postgres"), &lease_name("line"))
        .option("--on-event", &noting(&notes))
        .ttl("12s")
        .option("--grace", "4s")
        .option("--call-timeout", "1s")
        .sh(&patient(0))
        .spawn();
    holder.wait_event("acquired");
    // One may have failed before, on a busy host.
    let before = events(&holder.log(), "call-failed").len();
    proxy.cut();
    holder.wait_events("call-failed", before + 1);
    proxy.mend();
    notes.wait("renewed-late late ");
    proxy.cut();
    notes.wait("losing deadline ");
    // The patient worker has ended by then, in time; the lease is lost all the same.
    proxy.mend();
    holder.end().code(122);
    let told = told(&notes);
    let place = |event: &str| told.iter().position(|told| told == event);
    assert_eq!(place("acquired"), Some(0), "{told:?}");
    assert!(place("losing") < place("lost"), "{told:?}");
    assert_eq!(
        told.last().map(String::as_str),
        Some("released"),
        "{told:?}"
    );
    assert!(notes.text().contains("released deadline "));
}

#[test]
fn a_standby_is_told_of_another_holder() {
    let notes = Notes::new();
    let name = lease_name("changed");
    let first = holder(&shared().url(), &name).sh(&patient(0)).spawn();
    first.wait_event("acquired");
    let standby = holder(&shared().url(), &name)
        .option(
            "--on-event",
            &format!(
                "echo \"$LEASEWRAP_EVENT $LEASEWRAP_HOLDER_LABEL $LEASEWRAP_HOLDER_VALUE \
                 $LEASEWRAP_SLOT $LEASEWRAP_TOKEN\" >> {}",
                notes.word()
            ),
        )
        .sh("true")
        .spawn();
    standby.wait_event("waiting");
    shared().psql(&format!(
        "update leasewrap.lease set holder = gen_random_uuid(), label = 'by-hand', \
         value = 'elsewhere', token = token + 1 where name = '{name}'"
    ));
    let token = row(&name, "token");
    assert_eq!(
        notes.wait("holder-changed by-hand "),
        format!("holder-changed by-hand elsewhere 0 {token}")
    );
    standby.signal(libc::SIGTERM);
    standby.end().code(128 + libc::SIGTERM);
    first.end().code(122);
}

#[test]
fn a_hook_that_hangs_delays_no_hand_over() {
    let name = lease_name("hand-over");
    let notes = Notes::new();
    let holder_of = || holder(&shared().url(), &name).sh(&patient(3));
    let first = holder_of()
        .option(
            "--on-event",
            &format!("echo hung $$ >> {}; exec sleep 1000", notes.word()),
        )
        .option("--hook-timeout", "10m")
        .spawn();
    notes.wait("hung ");
    wait_up(&first, 1);
    let second = holder_of().spawn();
    second.wait_event("waiting");
    first.signal(libc::SIGTERM);
    second.wait_event("acquired");
    // Only the hooks hold it up by now, and a further signal cuts that short,
    // if it does not come at once.
    until_true("it ends after a further signal", SOON, || {
        first.signal(libc::SIGTERM);
        std::thread::sleep(Duration::from_millis(20));
        !events(&first.log(), "hooks-cut-short").is_empty()
    });
    let ended = first.end().code(3);
    assert!(ended.says(&["hook-failed", "acquired", "SIGKILL"]));
    terminate(second, 3);
}

#[test]
fn after_the_release_hooks_are_waited_for_but_not_for_ever() {
    let notes = Notes::new();
    let name = lease_name("bounded");
    let ended = holder(&shared().url(), &name)
        .option(
            "--on-event",
            &format!(
                "test $LEASEWRAP_EVENT = acquired || {{ echo hung $$ >> {}; sleep 1000; }}",
                notes.word()
            ),
        )
        .option("--hook-timeout", "10s")
        .sh("exit 7")
        .run()
        .code(7);
    assert!(ended.says(&["hooks-cut-short"]), "{:?}", ended.log);
    crate::wait_gone("the hook", crate::noted_pid(&notes, "hung"));
}
