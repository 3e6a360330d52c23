//! Usage errors: exit 2, and one line that names the flag, the value and
//! what would be right. Nothing is started, no server is asked.

use crate::support::leasewrap::{Ended, binary, leasewrap};

const URL: &str = "postgres://nobody@127.0.0.1:1/none";

#[track_caller]
fn refused(arguments: &[&str], words: &[&str]) -> Ended {
    let builder = arguments
        .iter()
        .fold(leasewrap().text(), |builder, argument| {
            builder.switch(argument)
        });
    let ended = builder.run().code(2);
    assert!(ended.out.is_empty(), "stdout is the worker's: {ended:?}");
    assert!(
        ended.says(words),
        "{arguments:?}: {words:?} are not all in one line of {:?}",
        ended.log
    );
    ended
}

#[test]
fn what_is_missing() {
    refused(&["--", "true"], &["--db"]);
    refused(&["--db", URL], &["command", "--"]);
    refused(&["--db", URL, "--"], &["command", "--"]);
    refused(&["--db"], &["--db"]);
    refused(&[], &["--db"]);
}

#[test]
fn values_that_cannot_be() {
    for (flag, value, words) in [
        ("--ttl", "soon", &["15s"][..]),
        ("--ttl", "500ms", &["at least 1s"]),
        ("--ttl", "30", &["30s"]),
        ("--margin", "0s", &[]),
        ("--renew-every", "0s", &[]),
        ("--jitter", "1.5", &["0", "1"]),
        ("--jitter", "NaN", &["0", "1"]),
        ("--slots", "0", &["1"]),
        ("--slots", "many", &["1"]),
        ("--name", "", &["1 to 200 bytes"]),
        ("--name", "a\tb", &["control character"]),
        ("--stop-signal", "NOPE", &["TERM"]),
        ("--stop-signal", "KILLER", &["TERM"]),
        ("--stop-to", "everybody", &["tree", "worker"]),
        ("--takeover", "now", &["observed", "clock"]),
        ("--lost-exit-code", "0", &["1 to 255"]),
        ("--lost-exit-code", "256", &["1 to 255"]),
        ("--conflict-exit-code", "256", &["0 to 255"]),
        ("--log-format", "xml", &["text", "json"]),
        ("--log", "a=b=c", &[]),
        ("--schema", "", &[]),
        ("--db", "mysql://h/d", &["postgres://"]),
        ("--wait", "forever", &[]),
    ] {
        let shown = value.replace('\t', "\\t");
        let words: Vec<&str> = [flag, shown.as_str()]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        let db: &[&str] = if flag == "--db" { &[] } else { &["--db", URL] };
        refused(&[db, &[flag, value, "--", "true"]].concat(), &words);
    }
}

#[test]
fn lengths() {
    let (name, label) = ("n".repeat(201), "l".repeat(201));
    refused(
        &["--db", URL, "--name", &name, "--", "true"],
        &["--name", "200"],
    );
    refused(
        &["--db", URL, "--label", &label, "--", "true"],
        &["--label", "200"],
    );
    let value = "v".repeat(4097);
    refused(
        &["--db", URL, "--value", &value, "--", "true"],
        &["--value", "4096"],
    );
}

#[test]
fn the_times_must_fit_and_a_set_that_works_is_named() {
    let times = [
        "--ttl",
        "10s",
        "--renew-every",
        "4s",
        "--grace",
        "2s",
        "--margin",
        "1s",
    ];
    let ended = refused(
        &[&["--db", URL][..], &times, &["--", "true"]].concat(),
        &["10s", "4s", "0.2", "2s", "1s"],
    );
    let line = ended
        .log
        .iter()
        .find(|line| line.contains("this works:"))
        .expect("a set that works");
    let works = line.split("this works:").nth(1).unwrap();
    let words: Vec<&str> = works
        .split_whitespace()
        .map(|word| word.trim_end_matches(['.', ',', ';']))
        .collect();
    let builder = words
        .iter()
        .fold(leasewrap().option("--db", URL), |builder, word| {
            builder.switch(word)
        });
    // It is accepted: what fails then is the database.
    builder.option("--wait", "100ms").sh("true").run().code(123);
}

#[test]
fn options_that_exclude_each_other() {
    refused(
        &["--db", URL, "--wait", "1s", "--no-wait", "--", "true"],
        &["--wait", "--no-wait"],
    );
    refused(
        &["--db", URL, "--db-file", "/x", "--", "true"],
        &["--db", "--db-file"],
    );
    refused(
        &["--db", URL, "-q", "-v", "--", "true"],
        &["-q", "-v"].map(|_| "-"),
    );
}

#[test]
fn words_in_the_wrong_place() {
    refused(
        &["--db", URL, "--nmae", "x", "--", "true"],
        &["--nmae", "--name"],
    );
    refused(&["--db", URL, "sleep", "1"], &["sleep", "--"]);
    refused(&[URL, "--", "true"], &["--db"]);
}

#[test]
fn a_variables_error_names_the_variable() {
    for (variable, value) in [
        ("LEASEWRAP_TTL", "soon"),
        ("LEASEWRAP_SLOTS", "0"),
        ("LEASEWRAP_REJOIN", "yes"),
    ] {
        let ended = leasewrap()
            .text()
            .option("--db", URL)
            .env(variable, value)
            .sh("true")
            .run()
            .code(2);
        assert!(ended.says(&[variable, value]), "{:?}", ended.log);
    }
}

#[test]
fn what_is_not_utf_8_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    let said = |change: &dyn Fn(&mut std::process::Command)| {
        let mut command = std::process::Command::new(binary());
        command.args(["--db", URL]).env_remove("LEASEWRAP_TTL");
        change(&mut command);
        let output = command.args(["--", "true"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let flag = said(&|command| _ = command.arg("--ttl").arg(odd));
    assert!(flag.contains("--ttl: '\u{fffd}' is not UTF-8"), "{flag}");
    let joined = std::ffi::OsStr::from_bytes(b"--ttl=\xff");
    let joined = said(&|command| _ = command.arg(joined));
    assert!(joined.contains("--ttl: '\u{fffd}'"), "{joined}");
    let variable = said(&|command| _ = command.env("LEASEWRAP_TTL", odd));
    assert!(variable.contains("LEASEWRAP_TTL: "), "{variable}");
}

#[test]
fn a_value_that_begins_with_a_dash() {
    let ended = refused(
        &["--db", URL, "--ttl", "-1s", "--", "true"],
        &["-1", "--OPTION="],
    );
    assert_eq!(ended.log.len(), 1);
    refused(
        &["--db", URL, "--ttl=-1s", "--", "true"],
        &["--ttl", "'-1s'"],
    );
}

#[test]
fn it_is_one_line_whatever_a_path_holds() {
    let builder = leasewrap().text().option("--db-file", "/no\n/such\u{1b}");
    let ended = builder.sh("true").run().code(123);
    assert_eq!(ended.log.len(), 1, "{ended:?}");
    assert!(ended.says(&["/no\\n/such\\u{1b}"]), "{ended:?}");
}

#[test]
fn help_and_version_go_to_stdout() {
    for (flag, word) in [
        ("--help", "--db"),
        ("-h", "--db"),
        ("--version", env!("CARGO_PKG_VERSION")),
        ("-V", "leasewrap"),
    ] {
        let ended = leasewrap().text().switch(flag).run().code(0);
        assert!(ended.out.contains(word), "{flag}: {ended:?}");
        assert!(ended.log.is_empty(), "{flag}: {ended:?}");
    }
}

#[test]
fn a_password_is_never_repeated() {
    for url in [
        "postgres//u:s3cret@h/d",
        "mysql://u:s3cret@h/d",
        "u:s3cret@h",
        "u:s3cret@h/d?application_name=a://b",
        "host=h user=u password = 'my s3cret'",
        "host=h dbname=x password 's3cret'",
    ] {
        let ended = leasewrap()
            .text()
            .option("--db", url)
            .sh("true")
            .run()
            .code(2);
        assert!(!ended.log.join("\n").contains("s3cret"), "{:?}", ended.log);
    }
}
