//! Every command and every SQL in the documentation, as it stands there,
//! against a server of its own; and every word that it quotes of the program.

#[path = "../support/mod.rs"]
mod support;

mod sandbox;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use sandbox::Sandbox;

/// What cannot run inside a test, by how it begins, and what runs it instead.
const ELSEWHERE: [(&str, &str); 6] = [
    (".ci/run", "every change"),
    ("cargo test ", ".ci/run"),
    ("packaging/release", "every release"),
    ("sudo apt-get install ", ".ci/run"),
    (
        "sudo ",
        "packaging/systemd/check and packaging/debian/check",
    ),
    ("leasewrap selftest ", "tests/cli/selftest.rs"),
];

/// A fenced block of a page.
struct Block {
    line: usize,
    language: String,
    text: String,
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for (index, line) in page.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), inside) {
            (Some(_), true) => inside = false,
            (Some(language), false) => {
                inside = true;
                blocks.push(Block {
                    line: index + 1,
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (None, true) => {
                if let Some(block) = blocks.last_mut() {
                    block.text += line.trim_start();
                    block.text.push('\n');
                }
            }
            (None, false) => {}
        }
    }
    assert!(!inside, "a block has no end");
    blocks
}

/// Runs a page from its top to its end, as a reader would.
fn follow(path: &str) {
    let page = fs::read_to_string(top().join(path)).unwrap();
    let mut sandbox = Sandbox::new();
    let mut ran = 0;
    for block in blocks(&page) {
        let place = format!("{path}:{}", block.line);
        match block.language.as_str() {
            "console" => {
                for command in block
                    .text
                    .lines()
                    .filter_map(|line| line.strip_prefix("$ "))
                {
                    if ELSEWHERE
                        .iter()
                        .any(|(start, _)| command.starts_with(start))
                    {
                        continue;
                    }
                    sandbox.run(&place, command);
                    ran += 1;
                }
            }
            "sql" => {
                sandbox.sql(&place, &block.text);
                ran += 1;
            }
            // A picture, or a part of a file that packaging/container tests.
            "text" | "dockerfile" | "yaml" => {}
            other => panic!("{place}: a block of {other:?} is run by nobody"),
        }
    }
    assert!(ran > 0, "{path}");
}

#[test]
fn the_readme_does_what_it_says() {
    follow("README.md");
}

#[test]
fn the_page_on_running_does_what_it_says() {
    follow("packaging/README.md");
}

#[test]
fn the_page_on_moving_does_what_it_says() {
    follow("packaging/MOVING.md");
}

/// The pages.
fn pages() -> [PathBuf; 3] {
    ["README.md", "packaging/README.md", "packaging/MOVING.md"].map(|path| top().join(path))
}
