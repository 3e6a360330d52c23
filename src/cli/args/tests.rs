mod environment;

use std::ffi::OsString;
use std::time::Duration;

use clap::CommandFactory;

use super::db::DbSource;
use super::run::RunOptions;
use super::{Cli, Parsed, Refused, definition, parse, parse_whole, plain_run};
use crate::cli::commands::Commands;
use crate::lease::keeper::Takeover;
use crate::sys::environment::OPTIONS;
use crate::telemetry::Detail;
use crate::wire::StopTo;

const DB: &str = "postgres://u:s3cret@h/db";

fn read(line: &[&str], environment: &[(&str, &str)]) -> Result<Parsed, Refused> {
    parse(&words(line), &|name| of(environment, name))
}

fn words(line: &[&str]) -> Vec<OsString> {
    let words = std::iter::once("leasewrap").chain(line.iter().copied());
    words.map(OsString::from).collect()
}

fn of(environment: &[(&str, &str)], name: &str) -> Option<OsString> {
    let known = environment.iter().find(|(known, _)| *known == name);
    known.map(|(_, value)| value.into())
}

fn run(line: &[&str], environment: &[(&str, &str)]) -> RunOptions {
    match read(line, environment) {
        Ok(Parsed::Run(options)) => *options,
        other => panic!("{line:?}: {other:?}"),
    }
}

fn usage(line: &[&str], environment: &[(&str, &str)]) -> String {
    match read(line, environment) {
        Err(Refused::Usage(error)) => {
            let said = error.to_string();
            assert!(!said.contains("s3cret"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            said
        }
        other => panic!("{line:?}: {other:?}"),
    }
}

fn help(line: &[&str]) -> String {
    match read(line, &[("LEASEWRAP_DB", DB), ("LEASEWRAP_TTL", "7s")]) {
        Err(Refused::Told(text)) => text.to_string(),
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    definition().debug_assert();
}

#[test]
fn the_run_form_has_no_subcommand_and_everything_after_the_dashes_is_the_workers() {
    let options = run(&["--db", DB, "--", "status", "--db", "x", "--", "-v"], &[]);
    assert_eq!(options.command, ["status", "--db", "x", "--", "-v"]);
    assert_eq!(options.keep.name.as_str(), "default");
    assert_eq!(options.wait, None);
    assert_eq!(options.keep.takeover, Takeover::Observed);
    assert_eq!(options.keep.stop_signal, 15);
    assert_eq!(options.keep.stop_to, StopTo::Tree);
    assert_eq!(
        (options.exit_codes.lost, options.exit_codes.conflict),
        (122, 121)
    );
    assert!(
        options
            .keep
            .terms
            .label
            .as_str()
            .ends_with(&format!("/{}", std::process::id()))
    );
    assert!(!format!("{options:?}").contains("s3cret"));
}

#[test]
fn a_plain_run_is_read_as_the_whole_definition_reads_it() {
    let lines: [&[&str]; 6] = [
        &["--db", DB, "--", "x"],
        &[
            "--db", DB, "--name", "a", "--name", "b", "--ttl=9s", "-v", "--", "x", "-q",
        ],
        &["--no-wait", "--slots", "3", "-q", "--", "status"],
        &["--db", DB, "--no-wait", "--wait", "3s", "--", "x"],
        &["--db", DB, "--ttl", "1s", "--grace", "2s", "--", "x"],
        &["--db", DB, "--help"],
    ];
    let environments: [&[(&str, &str)]; 3] = [
        &[("LEASEWRAP_DB", DB), ("LEASEWRAP_TTL", "7s")],
        &[("LEASEWRAP_REJOIN", "true"), ("LEASEWRAP_LABEL", "env")],
        &[("LEASEWRAP_WAIT", "never")],
    ];
    let mut plain = 0;
    for line in lines {
        for environment in environments {
            let arguments = words(line);
            let variables = |name: &str| of(environment, name);
            let whole = match parse_whole(&arguments, &variables) {
                Ok(Parsed::Run(options)) => Some(*options),
                Ok(Parsed::Command(_)) | Err(_) => None,
            };
            plain += usize::from(whole.is_some());
            assert_eq!(
                plain_run(&arguments, &variables),
                whole,
                "{line:?} {environment:?}"
            );
        }
    }
    assert_eq!(plain, 5);
}

#[test]
fn the_command_may_be_any_bytes() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(vec![b'a', 0xff]);
    let line = ["leasewrap", "--db", DB, "--", "x"].map(OsString::from);
    let line: Vec<_> = line.into_iter().chain([odd.clone()]).collect();
    match parse(&line, &|_| None) {
        Ok(Parsed::Run(options)) => assert_eq!(options.command, [OsString::from("x"), odd]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_url_that_is_not_utf_8_shows_no_password() {
    use std::os::unix::ffi::OsStringExt;
    let url = b"postgres://u:s3cr\xe9t@h/db?sslmode=require".to_vec();
    let line = ["leasewrap".into(), "--db".into(), OsString::from_vec(url)];
    let Err(Refused::Usage(error)) = parse(&line, &|_| None) else {
        panic!("it was read");
    };
    let said = error.to_string();
    let named = said.starts_with("--db: ") && said.contains("is not UTF-8");
    assert!(named && !said.contains("s3cr"), "{said}");
}

#[test]
fn a_subcommand_is_one_only_in_the_first_place() {
    assert!(matches!(
        read(&["completions", "bash"], &[]),
        Ok(Parsed::Command(_))
    ));
    let said = usage(&["--db", DB, "completions", "bash"], &[]);
    assert!(said.contains("-- completions"), "{said}");
}

#[test]
fn hints_fit_the_mistake() {
    for (line, hints) in [
        (
            vec!["--db", DB, "./worker"],
            vec!["'./worker'", "put -- before", "-- ./worker …"],
        ),
        (
            vec!["./worker", "--flag"],
            vec!["'./worker'", "-- ./worker"],
        ),
        (
            vec!["--db", DB, "--tll", "5s", "--", "w"],
            vec!["--tll", "did you mean --ttl?"],
        ),
        (
            vec!["--db", DB, "--xyz", "--", "w"],
            vec!["--xyz", "no such option"],
        ),
        (
            vec!["complections", "bash"],
            vec![
                "'complections'",
                "did you mean completions? To run it, put --",
            ],
        ),
        (
            vec![DB, "--", "w"],
            vec!["postgres://u:***@h/db", "--db URL"],
        ),
        (vec!["--db", DB], vec!["no command", "after --"]),
        (vec!["--db", DB, "--"], vec!["no command", "after --"]),
        (vec!["--", "w"], vec!["no database", "--db", "LEASEWRAP_DB"]),
        (vec![], vec!["no command"]),
        (
            vec!["--db", "u:s3cret@h/db", "--", "w"],
            vec!["--db: 'u:***@h/db'", "postgres://"],
        ),
        (vec!["--db"], vec!["--db needs a value"]),
        (
            vec!["--db", DB, "--ttl", "--", "w"],
            vec!["--ttl needs a value"],
        ),
        (
            vec!["--db", DB, "--ttl", "abc", "--", "w"],
            vec!["--ttl: 'abc'", "15s"],
        ),
        (
            vec!["--db", DB, "--ttl", "30", "--", "w"],
            vec!["--ttl: '30'", "15s"],
        ),
        (
            vec!["--db", DB, "--jitter", "2", "--", "w"],
            vec!["--jitter: '2'", "from 0 to 1"],
        ),
        (
            vec!["--db", DB, "--slots", "0", "--", "w"],
            vec!["--slots: '0'", "from 1 to"],
        ),
        (
            vec!["--db", DB, "--name", "", "--", "w"],
            vec!["--name", "1 to 200 bytes"],
        ),
        (
            vec!["--db", DB, "--label", "a\nb", "--", "w"],
            vec!["--label", "control character"],
        ),
        (
            vec!["--db", DB, "--takeover", "x", "--", "w"],
            vec!["--takeover: 'x'", "observed, clock"],
        ),
        (
            vec!["--db", DB, "--stop-to", "x", "--", "w"],
            vec!["--stop-to: 'x'", "tree, worker"],
        ),
        (
            vec!["--db", DB, "--stop-signal", "TREM", "--", "w"],
            vec!["--stop-signal: 'TREM'", "SIGINT"],
        ),
        (
            vec!["--db", DB, "--lost-exit-code", "0", "--", "w"],
            vec!["--lost-exit-code: '0'", "1 to 255"],
        ),
        (
            vec!["--db", DB, "--conflict-exit-code", "256", "--", "w"],
            vec!["'256'", "0 to 255"],
        ),
        (
            vec!["--db", DB, "--wait", "1s", "--no-wait", "--", "w"],
            vec!["--wait", "--no-wait"],
        ),
        (
            vec!["--db", DB, "--db-file", "x", "--", "w"],
            vec!["--db", "--db-file"],
        ),
        (
            vec!["--db", DB, "-q", "-v", "--", "w"],
            vec!["--quiet", "--verbose"],
        ),
        (
            vec!["--db", DB, "--precheck", " ", "--", "w"],
            vec!["--precheck", "is empty", "command of the shell"],
        ),
        (
            vec!["--db", DB, "--hook-timeout", "0s", "--", "w"],
            vec!["--hook-timeout: '0s'", "no time at all"],
        ),
        (
            vec!["--db", DB, "--worker-watchdog", "0ms", "--", "w"],
            vec!["--worker-watchdog: '0ms'", "no time at all"],
        ),
        (
            vec!["--db", DB, "--rejoin=maybe", "--", "w"],
            vec!["--rejoin", "maybe"],
        ),
    ] {
        let said = usage(&line, &[]);
        for hint in hints {
            assert!(said.contains(hint), "{line:?}: {said:?} lacks {hint:?}");
        }
    }
}

#[test]
fn help_is_short_or_long_and_shows_no_value_of_a_variable() {
    let short = help(&["--help"]);
    assert_eq!(short, help(&["-h"]));
    assert!(short.contains("Each option but --no-wait, -v and -q has its variable"));
    let long = help(&["help"]);
    assert!(long.len() > short.len() && long.contains("Examples:") && !short.contains("Examples:"));
    for text in [&short, &long] {
        assert!(!text.contains("s3cret") && !text.contains("7s"), "{text}");
    }
    // Those of the socket are not the run form's.
    let all = format!("{long}{}", help(&["help", "serve"]));
    for variable in OPTIONS {
        assert!(all.contains(&format!("[env: {variable}]")), "{variable}");
    }
    for heading in [
        "Subcommands:",
        "Database:",
        "Lease:",
        "Standing by:",
        "Times",
        "Worker:",
        "Log",
    ] {
        assert!(short.contains(heading), "{heading}: {short}");
    }
    assert!(help(&["completions", "--help"]).contains("leasewrap completions"));
}

#[test]
fn the_two_halves_have_their_own_options() {
    let serve = |line: &[&str], environment: &[(&str, &str)]| {
        let line = [&["serve"], line].concat();
        match read(&line, environment) {
            Ok(Parsed::Command(command)) => match *command {
                Commands::Serve(arguments) => arguments.check(),
                other => panic!("{other:?}"),
            },
            other => panic!("{line:?}: {other:?}"),
        }
    };
    let options = serve(
        &["--db", DB, "--name", "n", "--listen", "8080"],
        &[("LEASEWRAP_SOCKET", "/s"), ("LEASEWRAP_SOCKET_MODE", "660")],
    )
    .unwrap();
    assert_eq!(
        (options.mode, options.run.keep.name.as_str()),
        (Some(0o660), "n")
    );
    assert_eq!(options.socket, std::path::Path::new("/s"));
    assert!(options.run.wait.is_none() && !options.run.rejoin);
    let said = serve(&["--db", DB], &[]).unwrap_err().to_string();
    assert!(said.contains("LEASEWRAP_SOCKET"), "{said}");
    let said = serve(&["--socket", "/s"], &[]).unwrap_err().to_string();
    assert!(said.contains("no database"), "{said}");
    for mode in ["9", "1777", "0400", "rw", ""] {
        let said = usage(&["serve", "--db", DB, "--socket-mode", mode], &[]);
        assert!(said.contains("--socket-mode"), "{said}");
    }
    let attach = |line: &[&str]| match read(line, &[("LEASEWRAP_WAIT", "3s")]) {
        Ok(Parsed::Command(command)) => match *command {
            Commands::Attach(arguments) => arguments.check(),
            other => panic!("{other:?}"),
        },
        other => panic!("{line:?}: {other:?}"),
    };
    let options = attach(&["attach", "--socket", "/s", "--", "w", "--wait"]).unwrap();
    assert_eq!(options.command, ["w", "--wait"]);
    assert_eq!(options.wait, Some(Duration::from_secs(3)));
    let said = attach(&["attach", "--socket", "/s"]).unwrap_err();
    assert!(said.to_string().contains("no command"), "{said}");
    let said = usage(&["attach", "--db", DB, "--", "w"], &[]);
    assert!(said.contains("--db"), "{said}");
}
