//! What the pages quote of the program and of the tree is there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use leasewrap::lease::ids::{LeaseName, Token};
use leasewrap::lease::keeper::event::{Outcome, StopCause};
use leasewrap::lease::record::{Fault, Loss, Unknown};
use leasewrap::lease::watch::Reason;
use leasewrap::telemetry::ending::Ending;
use leasewrap::telemetry::transition::Containment;
use leasewrap::wire::{NotStarted, WorkerEnd};

use super::{pages, top};

/// All that the program can say.
fn source(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            source(&path, all);
        } else {
            // A fuzzer's inputs are no text.
            *all += &String::from_utf8_lossy(&fs::read(&path).unwrap());
        }
    }
}

/// What the README quotes of last lines.
fn explained() -> Vec<String> {
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    let (_, after) = readme.split_once("## What the last line says").unwrap();
    let (section, _) = after.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split(" | ").next().unwrap());
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    words.map(str::to_owned).collect()
}

#[test]
fn every_last_line_that_is_explained_is_one() {
    let mut all = String::new();
    source(&top().join("src"), &mut all);
    let explained = explained();
    assert!(explained.len() > 10, "{explained:?}");
    for words in explained {
        assert!(all.contains(&words), "leasewrap never says {words:?}");
    }
}

/// Each way to end.
fn ends() -> Vec<Outcome> {
    let unfit = StopCause::Unfit;
    let hung = StopCause::Watchdog;
    let stranger = Loss::OtherHolder {
        label: "h/1".to_owned(),
        token: Token(8),
    };
    let lost = [
        None,
        Some(Loss::Missing),
        Some(stranger),
        Some(Loss::OtherToken(Token(8))),
        Some(Loss::Closed),
        Some(Loss::Released),
    ];
    let failed = NotStarted::Failed {
        message: "no memory".to_owned(),
    };
    let not_started = [NotStarted::Late, NotStarted::Exec { errno: 2 }, failed];
    let mut ends = vec![
        Outcome::Worker(WorkerEnd::Exited(0)),
        Outcome::Worker(WorkerEnd::Signaled(9)),
        Outcome::SteppedDown { why: unfit },
        Outcome::SteppedDown { why: hung },
        Outcome::NotAcquired {
            why: Reason::Overtaken,
        },
        Outcome::Database(Unknown {
            fault: Fault::Final,
            message: "no such role".to_owned(),
        }),
        Outcome::GuardDied,
        Outcome::Signaled(15),
    ];
    ends.extend(lost.map(|loss| Outcome::Lost { loss }));
    ends.extend(not_started.map(Outcome::NotStarted));
    for end in &ends {
        // A new way to end belongs into the list above, and into the README.
        match end {
            Outcome::Worker(_)
            | Outcome::SteppedDown { .. }
            | Outcome::NotAcquired { .. }
            | Outcome::Lost { .. }
            | Outcome::Database(_)
            | Outcome::NotStarted(_)
            | Outcome::GuardDied
            | Outcome::Signaled(_) => {}
        }
    }
    ends
}

#[test]
fn every_last_line_is_explained() {
    let explained = explained();
    let name = LeaseName::new("mailer").unwrap();
    for outcome in ends() {
        let ending = Ending {
            outcome: &outcome,
            name: &name,
            program: "./mailer",
            exit_code: 1,
            stop: None,
            stop_signal: 15,
            waited: Duration::from_secs(5),
            held: None,
            runs_out_in: None,
            rides_out: Duration::from_secs(11),
            unanswered: true,
            killed: true,
            containment: Containment::Tree,
        };
        let says = ending.text();
        assert!(
            explained.iter().any(|words| says.contains(words)),
            "the README explains nowhere: {says}"
        );
    }
}

#[test]
fn every_test_that_is_named_is_one() {
    let mut names = Vec::new();
    let mut pages = pages().to_vec();
    pages.push(top().join("tests/README.md"));
    for page in pages {
        let text = fs::read_to_string(page).unwrap();
        let commands = text.split("cargo test --test ").skip(1);
        names.extend(commands.map(|rest| {
            let end = rest.find(['`', '\n', '#']).unwrap();
            rest[..end].split(" -- ").next().unwrap().trim().to_owned()
        }));
    }
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let (target, filter) = name.split_once(' ').unwrap_or((&name, ""));
        let tests = top().join("tests");
        let mut all = String::new();
        if tests.join(target).is_dir() {
            source(&tests.join(target), &mut all);
        } else {
            all = fs::read_to_string(tests.join(format!("{target}.rs"))).unwrap();
        }
        let mut lines = all.lines().map(str::trim_start);
        assert!(
            lines
                .any(|line| (line.contains("fn ") || line.starts_with("mod "))
                    && line.contains(filter)),
            "cargo test --test {name} runs nothing"
        );
    }
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1) {
            let target = target.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(file.exists(), "{}: {target}", page.display());
            if !anchor.is_empty() {
                let text = fs::read_to_string(&file).unwrap();
                let mut titles = text.lines().filter(|line| line.starts_with('#'));
                let found = titles.any(|title| {
                    let words = title.trim_start_matches('#').trim().to_lowercase();
                    words.replace(' ', "-").replace(['`', ','], "") == anchor
                });
                assert!(found, "{}: {target}", page.display());
            }
        }
    }
}
