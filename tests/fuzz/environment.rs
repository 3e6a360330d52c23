//! The environment of the program itself: any variable of ours with any value.

use std::process::{Command, Stdio};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::support::leasewrap::binary;
use crate::support::run::run;

/// Each one is a process.
const RUNS: u32 = 150;

const NAMES: [&str; 30] = [
    "CALL_TIMEOUT",
    "CONFLICT_EXIT_CODE",
    "GRACE",
    "HOLD_AT_LEAST",
    "HOOK_TIMEOUT",
    "JITTER",
    "LABEL",
    "LISTEN",
    "LOG",
    "LOG_FORMAT",
    "LOST_EXIT_CODE",
    "MARGIN",
    "NAME",
    "NO_WAIT",
    "PGOPTIONS",
    "POLL_EVERY",
    "REJOIN",
    "RENEW_EVERY",
    "SCHEMA",
    "SLOTS",
    "STOP_SIGNAL",
    "STOP_TIMEOUT",
    "STOP_TO",
    "TAKEOVER",
    "TAKEOVER_DELAY",
    "TTL",
    "VALUE",
    "WAIT",
    "WORKER_WATCHDOG",
    "PASS_NOTIFY",
];

fn value() -> impl Strategy<Value = String> {
    let words = [
        "",
        "0",
        "1",
        "-1",
        "1s",
        "0s",
        "1h 30m",
        "99999999999999999999s",
        "1.5",
        "1e400",
        "NaN",
        "true",
        "false",
        "yes",
        "TERM",
        "SIGKILL",
        "99",
        "tree",
        "worker",
        "text",
        "json",
        "observed",
        "clock",
        "127.0.0.1:0",
        "[::1]:0",
        "unix:",
        ":",
        "é",
        "\u{1b}[31m",
        "a\nb",
    ];
    prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => "[^\u{0}]{0,12}",
        1 => "[^\u{0}]{190,260}",
    ]
}

proptest! {
    #![proptest_config(Config { max_shrink_iters: 30, ..cases(RUNS) })]

    #[test]
    fn variables_are_taken_or_refused_in_one_line(
        set in vec((proptest::sample::select(NAMES.to_vec()), value()), 1..3)
    ) {
        let mut command = Command::new(binary());
        command.args(["--db", &format!("sqlite:{}", run().dir().join("fuzzed.db").display())]);
        command.args(["--wait", "10s", "--", "true"]).stdin(Stdio::null());
        for (name, value) in &set {
            command.env(format!("LEASEWRAP_{name}"), value);
        }
        let output = command.output().expect("run leasewrap");
        let code = output.status.code();
        let said = String::from_utf8_lossy(&output.stderr);
        prop_assert!(matches!(code, Some(0 | 2 | 120 | 125)), "{code:?}: {said}");
        prop_assert!(!said.contains("panicked"), "{said}");
        if code == Some(2) {
            // One line says what is wrong, another one where to read more.
            prop_assert!(said.lines().count() <= 3, "{said}");
        }
    }
}

use proptest::test_runner::Config;
