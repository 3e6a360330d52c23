//! What `packaging` holds: its numbers against the rules of time, its command
//! lines and hooks by a real leasewrap, its manifests against Kubernetes'
//! schemas.

#[path = "../support/mod.rs"]
mod support;

mod dependencies;
mod manifests;
mod route;
mod scripts;
mod times;

use std::fs;
use std::path::{Path, PathBuf};

/// A file or directory below `packaging`.
fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(packaging(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every manifest, as its file and its text.
fn manifests() -> Vec<(PathBuf, String)> {
    let all = fs::read_dir(packaging("kubernetes")).unwrap().flatten();
    let mut paths: Vec<PathBuf> = all.map(|entry| entry.path()).collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    paths.sort();
    assert!(paths.len() >= 5, "{paths:?}");
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

/// The command lines of leasewrap in a manifest: the items of `args:` lists,
/// one a line or in brackets. Ours hold no quoted words.
fn command_lines(manifest: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut lines = manifest.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim_start().strip_prefix("args:") else {
            continue;
        };
        let mut words: Vec<String> = rest
            .trim()
            .trim_matches(['[', ']'])
            .split(", ")
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        while let Some(line) = lines.peek() {
            let line = line.trim_start();
            if let Some(word) = line.strip_prefix("- ") {
                words.push(word.to_owned());
            } else if !line.starts_with('#') {
                break;
            }
            lines.next();
        }
        found.push(words);
    }
    found
}
