//! What the pages quote of the program and of the tree is there.

use std::fs;
use std::path::Path;

use super::{pages, top};

/// All that the program can say.
fn source(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            source(&path, all);
        } else {
            *all += &fs::read_to_string(&path).unwrap();
        }
    }
}

#[test]
fn every_last_line_that_is_explained_is_one() {
    let readme = fs::read_to_string(top().join("README.md")).unwrap();
    let (_, after) = readme.split_once("## What the last line says").unwrap();
    let (section, _) = after.split_once("\n## ").unwrap();
    let mut all = String::new();
    source(&top().join("src"), &mut all);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let mut count = 0;
    for row in rows {
        let cell = row.split(" | ").next().unwrap();
        for words in cell.split('`').skip(1).step_by(2) {
            assert!(all.contains(words), "leasewrap never says {words:?}");
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
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
