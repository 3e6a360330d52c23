//! The environment of the program itself: any variable of ours with any value.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use leasewrap::sys::environment::OPTIONS;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::properties::{SECRET, options};
use crate::support::leasewrap::binary;
use crate::support::run::run;

/// Each one is a process.
const RUNS: u32 = 150;

/// Each one is read by this process.
const READ: u32 = 1_000;

/// What would run a command, or name another database than the test's.
const LEFT_OUT: [&str; 4] = [
    "LEASEWRAP_DB",
    "LEASEWRAP_DB_FILE",
    "LEASEWRAP_ON_EVENT",
    "LEASEWRAP_PRECHECK",
];

fn name() -> impl Strategy<Value = &'static str> {
    let mut names = OPTIONS.to_vec();
    names.retain(|name| !LEFT_OUT.contains(name));
    proptest::sample::select(names)
}

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

/// Options as they are written, with a database that has a password.
fn words() -> impl Strategy<Value = Vec<OsString>> {
    let option = (name(), value(), 0_u8..6).prop_map(|(name, value, how)| {
        let option = name.trim_start_matches("LEASEWRAP_").to_lowercase();
        let option = option.replace('_', "-");
        let url = format!("postgres://u:{SECRET}@h/{value}");
        match how {
            0 => vec![format!("--{option}")],
            1 => vec![format!("--{option}={url}")],
            2 => vec!["--db".to_owned(), url],
            3 => vec![value],
            _ => vec![format!("--{option}={value}")],
        }
    });
    vec(option, 0..5).prop_map(|options| {
        let words = options
            .into_iter()
            .flatten()
            .chain(["--".to_owned(), "true".to_owned()]);
        words.map(OsString::from).collect()
    })
}

proptest! {
    #![proptest_config(cases(READ))]

    #[test]
    fn words_and_variables_are_read_or_refused(words in words(), set in vec((name(), value()), 0..3)) {
        let set = set.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        options::read_or_refused(&words, &set.collect());
    }
}

proptest! {
    #![proptest_config(Config { max_shrink_iters: 30, ..cases(RUNS) })]

    #[test]
    fn variables_are_taken_or_refused_in_one_line(
        set in vec((name(), value()), 1..3)
    ) {
        let mut command = Command::new(binary());
        // Of its own: one of the variables keeps a lease taken for hours.
        let file = run().file("fuzzed").with_extension("db");
        command.args(["--db", &format!("sqlite:{}", file.display())]);
        command.args(["--wait", "10s", "--", "true"]).stdin(Stdio::null());
        for (name, value) in &set {
            command.env(name, value);
        }
        let output = command.output().expect("run leasewrap");
        let code = output.status.code();
        let said = String::from_utf8_lossy(&output.stderr);
        // 122: a busy host is too slow for a ttl of a second.
        prop_assert!(matches!(code, Some(0 | 2 | 120 | 122 | 125)), "{code:?}: {said}");
        prop_assert!(!said.contains("panicked"), "{said}");
        if code == Some(2) {
            // One line says what is wrong, another one where to read more.
            prop_assert!(said.lines().count() <= 3, "{said}");
        }
    }
}

use proptest::test_runner::Config;
