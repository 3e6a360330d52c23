//! What the environment says of the options.

use super::*;

#[test]
fn each_option_has_its_variable_and_the_command_line_wins() {
    let environment = [
        ("LEASEWRAP_DB", DB),
        ("LEASEWRAP_NAME", "n"),
        ("LEASEWRAP_TTL", "1m"),
        ("LEASEWRAP_REJOIN", "true"),
        ("LEASEWRAP_PGOPTIONS", "false"),
        ("LEASEWRAP_WAIT", "5s"),
        ("LEASEWRAP_STOP_TO", "worker"),
        ("LEASEWRAP_LOST_EXIT_CODE", "9"),
    ];
    let options = run(&["--name", "m", "--", "w"], &environment);
    assert_eq!(options.keep.name.as_str(), "m");
    assert_eq!(options.keep.timing.ttl(), Duration::from_secs(60));
    assert!(options.rejoin && !options.keep.pgoptions);
    assert_eq!(options.wait, Some(Duration::from_secs(5)));
    assert_eq!(
        (options.keep.stop_to, options.exit_codes.lost),
        (StopTo::Worker, 9)
    );
    assert!(matches!(&options.keep.db.source, DbSource::Urls(urls) if urls[0].reveal() == DB));
}

#[test]
fn hooks_have_their_variables() {
    let none = run(&["--db", DB, "--", "w"], &[]);
    assert_eq!(
        (none.keep.hooks.precheck, none.keep.hooks.on_event),
        (None, None)
    );
    assert_eq!(none.keep.hooks.timeout, Duration::from_secs(5));
    assert_eq!(none.worker_watchdog, None);
    let environment = [
        ("LEASEWRAP_PRECHECK", "test -e x"),
        ("LEASEWRAP_ON_EVENT", "logger"),
        ("LEASEWRAP_HOOK_TIMEOUT", "7s"),
        ("LEASEWRAP_WORKER_WATCHDOG", "1m"),
    ];
    let all = run(&["--db", DB, "--", "w"], &environment);
    assert_eq!(all.keep.hooks.precheck, Some("test -e x".into()));
    assert_eq!(all.keep.hooks.on_event, Some("logger".into()));
    assert_eq!(all.keep.hooks.timeout, Duration::from_secs(7));
    assert_eq!(all.worker_watchdog, Some(Duration::from_secs(60)));
}

#[test]
fn an_option_wins_over_the_variable_of_one_that_it_excludes() {
    let options = run(
        &["--db", DB, "--no-wait", "--", "w"],
        &[("LEASEWRAP_WAIT", "5s")],
    );
    assert_eq!(options.wait, Some(Duration::ZERO));
    let options = run(&["--db", DB, "--", "w"], &[("LEASEWRAP_DB_FILE", "/f")]);
    assert!(matches!(options.keep.db.source, DbSource::Urls(_)));
    let options = run(&["--db-file", "/f", "--", "w"], &[("LEASEWRAP_DB", DB)]);
    assert!(matches!(options.keep.db.source, DbSource::File(_)));
    let options = run(
        &["--db", DB, "-q", "--", "w"],
        &[("LEASEWRAP_LOG", "trace")],
    );
    assert_eq!(options.keep.log.detail, Detail::Quiet);
    let said = usage(
        &["--", "w"],
        &[("LEASEWRAP_DB", DB), ("LEASEWRAP_DB_FILE", "/f")],
    );
    assert!(
        said.contains("LEASEWRAP_DB and LEASEWRAP_DB_FILE"),
        "{said}"
    );
}

#[test]
fn the_watchdog_and_pass_notify_exclude_each_other_whichever_is_named_where() {
    const WATCHDOG: (&str, &str) = ("LEASEWRAP_WORKER_WATCHDOG", "10s");
    const PASSES: (&str, &str) = ("LEASEWRAP_PASS_NOTIFY", "true");
    let found = |arguments: &[&str], environment: &[(&str, &str)]| {
        let options = run(
            &[&["--db", DB][..], arguments, &["--", "w"]].concat(),
            environment,
        );
        (options.worker_watchdog.is_some(), options.pass_notify)
    };
    assert_eq!(found(&["--pass-notify"], &[WATCHDOG]), (false, true));
    assert_eq!(
        found(&["--worker-watchdog", "5s"], &[PASSES]),
        (true, false)
    );
    let said = usage(&["--db", DB, "--", "w"], &[PASSES, WATCHDOG]);
    assert!(said.contains("are both set"), "{said}");
    usage(
        &[
            "--db",
            DB,
            "--pass-notify",
            "--worker-watchdog",
            "5s",
            "--",
            "w",
        ],
        &[],
    );
    // A switch that says no is not set.
    let not = ("LEASEWRAP_PASS_NOTIFY", "false");
    assert_eq!(found(&[], &[not, WATCHDOG]), (true, false));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let empty = OPTIONS.map(|name| (name, ""));
    let options = run(&["--db", DB, "--", "w"], &empty);
    assert_eq!(options, run(&["--db", DB, "--", "w"], &[]));
}

#[test]
fn a_wrong_variable_is_reported_under_its_own_name() {
    for (name, value, hint) in [
        ("LEASEWRAP_TTL", "abc", "15s"),
        ("LEASEWRAP_REJOIN", "yes", "true or false"),
        ("LEASEWRAP_TAKEOVER", "x", "observed, clock"),
        ("LEASEWRAP_LOG_FORMAT", "xml", "text, json"),
        ("LEASEWRAP_SLOTS", "-1", "from 1 to"),
    ] {
        let said = usage(&["--db", DB, "--", "w"], &[(name, value)]);
        assert!(said.starts_with(&format!("{name}: '{value}' ")), "{said}");
        assert!(said.contains(hint), "{said}");
        assert!(matches!(
            read(&["completions", "bash"], &[(name, value)]),
            Ok(Parsed::Command(_))
        ));
    }
    let said = usage(&["--", "w"], &[("LEASEWRAP_DB", "u:s3cret@h")]);
    assert!(said.starts_with("LEASEWRAP_DB: 'u:***@h'"), "{said}");
}

#[test]
fn a_repeated_option_takes_the_last_and_db_takes_all() {
    let options = run(
        &[
            "--db",
            "postgres://a",
            "--ttl",
            "1s",
            "--db",
            "postgres://b",
            "--ttl",
            "2s",
            "--",
            "w",
        ],
        &[],
    );
    assert_eq!(options.keep.timing.ttl(), Duration::from_secs(2));
    assert!(matches!(options.keep.db.source, DbSource::Urls(urls) if urls.len() == 2));
}

#[test]
fn the_list_of_variables_is_that_of_the_options() {
    fn collect(command: &clap::Command, into: &mut std::collections::BTreeSet<String>) {
        into.extend(
            command
                .get_arguments()
                .filter_map(|arg| arg.get_env())
                .map(|name| name.to_string_lossy().into_owned()),
        );
        command
            .get_subcommands()
            .for_each(|inner| collect(inner, into));
    }
    let mut found = std::collections::BTreeSet::new();
    collect(&Cli::command(), &mut found);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), OPTIONS);
}

#[test]
fn every_value_option_of_a_run_has_its_variable() {
    for arg in Cli::command()
        .get_arguments()
        .filter(|arg| !arg.is_positional())
    {
        let Some(long) = arg.get_long() else { continue };
        if ["no-wait", "verbose", "quiet", "help", "version"].contains(&long) {
            continue;
        }
        let expected = format!("LEASEWRAP_{}", long.replace('-', "_").to_uppercase());
        assert_eq!(
            arg.get_env()
                .map(|name| name.to_string_lossy().into_owned()),
            Some(expected),
            "--{long}"
        );
    }
}
