//! The README's tables against the binary, in both directions: nothing is
//! missing, and nothing invented.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::leasewrap::leasewrap;

const README: &str = include_str!("../../README.md");

/// Switches of which a variable would be of no use.
const WITHOUT_VARIABLE: [&str; 5] = ["--no-wait", "--verbose", "--quiet", "--help", "--version"];

/// The rows of the table below `heading`, as their first and second cells.
fn table(heading: &str) -> Vec<(String, String)> {
    let (_, after) = README
        .split_once(heading)
        .unwrap_or_else(|| panic!("no {heading:?}"));
    let rows = after.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let row = row.replace("\\|", "/");
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let mut cell = || cells.next().unwrap_or_default().to_owned();
        (cell(), cell())
    })
    .collect()
}

/// The words in backticks, without what follows the first blank of each.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split(' ').next())
}

/// The options of the README's tables, long ones.
fn documented() -> BTreeSet<String> {
    let rows = ["## Options", "## Choosing the times"].map(table);
    let words = rows.iter().flatten().flat_map(|(option, _)| quoted(option));
    let long = |word: &str| match word {
        "-v" => "--verbose".to_owned(),
        "-q" => "--quiet".to_owned(),
        word => word.to_owned(),
    };
    words.map(long).collect()
}

fn help(words: &[&str]) -> String {
    let builder = words
        .iter()
        .fold(leasewrap().text(), |builder, word| builder.switch(word));
    builder.run().code(0).out
}

/// The options in a long help, each with its variable.
fn options(help: &str) -> BTreeMap<String, Option<String>> {
    let mut options = BTreeMap::new();
    let mut last = None;
    // Examples have options too.
    let described = help.lines().take_while(|line| *line != "Examples:");
    for line in described {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let named = text.starts_with('-') && (indent == 2 || indent == 6);
        if named && let Some(long) = text.split([' ', ',']).find(|word| word.starts_with("--")) {
            // What may be repeated ends with three points.
            let long = long.trim_end_matches('.').to_owned();
            options.insert(long.clone(), None);
            last = Some(long);
        } else if let Some(variable) = text.strip_prefix("[env: ")
            && let Some(option) = &last
        {
            options.insert(
                option.clone(),
                Some(variable.trim_end_matches(']').to_owned()),
            );
        }
    }
    options
}

#[test]
fn every_option_is_in_the_tables_and_every_one_there_is_an_option() {
    let long = help(&["help"]);
    let (_, run) = long.split_once("Arguments:").unwrap();
    let mut known = options(run);
    assert!(known.len() > 30, "{known:?}");
    // The two halves of a run have a few of their own.
    for half in ["serve", "attach"] {
        known.extend(options(&help(&["help", half])));
    }
    let known_names: BTreeSet<String> = known
        .keys()
        .filter(|name| !["--help", "--version"].contains(&name.as_str()))
        .cloned()
        .collect();
    let documented = documented();
    let missing: Vec<_> = known_names.difference(&documented).collect();
    assert!(missing.is_empty(), "not in the README: {missing:?}");
    let invented: Vec<_> = documented.difference(&known_names).collect();
    assert!(invented.is_empty(), "only in the README: {invented:?}");
    for (option, variable) in &known {
        if WITHOUT_VARIABLE.contains(&option.as_str()) {
            assert_eq!(variable, &None, "{option}");
            continue;
        }
        let wanted = option
            .trim_start_matches('-')
            .replace('-', "_")
            .to_uppercase();
        assert_eq!(variable, &Some(format!("LEASEWRAP_{wanted}")), "{option}");
    }
}

#[test]
fn every_variable_works_as_its_option_does() {
    // A value that no option takes (a switch's neither): told under its name.
    for (option, variable) in options(&help(&["help"])) {
        let Some(variable) = variable else { continue };
        let free_text = ["--name", "--label", "--value", "--db-file", "--schema"];
        let commands = ["--precheck", "--on-event"];
        if free_text.contains(&option.as_str()) || commands.contains(&option.as_str()) {
            continue;
        }
        let mut builder = leasewrap().text().env(&variable, "=?");
        if option != "--db" {
            builder = builder.option("--db", "sqlite:/nowhere/at/all");
        }
        let ended = builder.sh("true").run().code(2);
        assert!(
            ended.last_line().contains(&variable),
            "{variable}: {ended:?}"
        );
    }
}

#[test]
fn every_command_is_in_the_table_with_options_that_it_has() {
    let help_text = help(&["help"]);
    let (_, list) = help_text.split_once("Subcommands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let mut known: BTreeSet<&str> = list
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    known.remove("help");
    let rows = table("## Operating");
    let mut documented = BTreeSet::new();
    for (cell, _) in &rows {
        for code in cell.split('`').skip(1).step_by(2) {
            let code = code.strip_prefix("leasewrap ").unwrap_or(code);
            let mut words = code
                .split([' ', '[', ']', '/'])
                .filter(|word| !word.is_empty());
            let name = words.next().unwrap();
            documented.insert(name.to_owned());
            let known = options(&help(&["help", name]));
            for option in words.filter(|word| word.starts_with("--")) {
                assert!(known.contains_key(option), "{name} has no {option}");
            }
        }
    }
    let documented: BTreeSet<&str> = documented.iter().map(String::as_str).collect();
    assert_eq!(documented, known);
}
