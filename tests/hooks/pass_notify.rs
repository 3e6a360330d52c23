//! `--pass-notify`: the worker speaks to the service manager itself.

use crate::leasewrap;
use crate::support::manager::Manager;
use crate::support::run::run;
use crate::support::wait::{SOON, until_true};

const SHOW: &str = "echo \"$NOTIFY_SOCKET|${WATCHDOG_USEC-none}|${WATCHDOG_PID-none}\"";

#[test]
fn the_worker_sees_the_managers_socket_and_nothing_of_its_watchdog() {
    for (switch, variable, shown) in [
        (Some("--pass-notify"), None, "/x y|none|none\n"),
        (None, Some("true"), "/x y|none|none\n"),
        (None, Some("false"), "|none|none\n"),
        (None, None, "|none|none\n"),
    ] {
        let mut builder = leasewrap()
            .env("NOTIFY_SOCKET", "/x y")
            .env("WATCHDOG_USEC", "90000000")
            .env("WATCHDOG_PID", "1")
            .sh(SHOW);
        if let Some(switch) = switch {
            builder = builder.switch(switch);
        }
        if let Some(value) = variable {
            builder = builder.env("LEASEWRAP_PASS_NOTIFY", value);
        }
        assert_eq!(builder.run().code(0).out, shown, "{switch:?} {variable:?}");
    }
    // Where there is no manager there is nothing to pass.
    let alone = leasewrap().switch("--pass-notify").sh(SHOW).run().code(0);
    assert_eq!(alone.out, "|none|none\n");
}

#[test]
fn what_the_worker_says_reaches_the_manager_beside_leasewrap() {
    let mut manager = Manager::new();
    let notify = run().program("notify").display().to_string();
    let leasewrap = leasewrap()
        .switch("--pass-notify")
        .env("NOTIFY_SOCKET", &manager.path().display().to_string())
        .worker(&[notify.as_str(), "STATUS=mine"]);
    leasewrap.run().code(0);
    until_true("both have spoken", SOON, || {
        let said = manager.said();
        said.contains("STATUS=mine") && said.contains("READY=1")
    });
}

#[test]
fn a_socket_that_can_be_none_is_one_clear_line() {
    let long = format!("/{}", "x".repeat(120));
    for (socket, words) in [("vsock:2", "neither a path nor"), (&long, "shorter")] {
        let builder = leasewrap().text().env("NOTIFY_SOCKET", socket);
        let ended = builder.sh("echo never").run().code(2);
        assert!(ended.out.is_empty() && ended.log.len() == 1, "{ended:?}");
        assert!(ended.says(&["NOTIFY_SOCKET", words]), "{ended:?}");
    }
}

#[test]
fn it_cannot_be_combined_with_the_workers_watchdog() {
    let ended = leasewrap()
        .switch("--pass-notify")
        .option("--worker-watchdog", "5s")
        .sh("true")
        .run()
        .code(2);
    let line = ended.last_line();
    assert!(
        line.contains("--pass-notify") && line.contains("--worker-watchdog"),
        "{line}"
    );
    let both = leasewrap()
        .env("LEASEWRAP_PASS_NOTIFY", "true")
        .env("LEASEWRAP_WORKER_WATCHDOG", "5s")
        .sh("true")
        .run()
        .code(2);
    assert!(both.last_line().contains("both set"), "{both:?}");
    let long = leasewrap()
        .switch("--pass-notify")
        .env("NOTIFY_SOCKET", &"x".repeat(200))
        .sh("true")
        .run()
        .code(2);
    assert!(long.last_line().contains("NOTIFY_SOCKET"), "{long:?}");
}
