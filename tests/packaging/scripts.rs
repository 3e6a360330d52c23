//! Units and scripts as their readers read them. What they do is for the
//! `check` beside each, which needs release builds, root or a systemd.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::support::leasewrap::binary;
use super::support::run::run;
use super::{packaging, read};

fn scripts() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![packaging("")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::read_to_string(&path).is_ok_and(|text| text.starts_with("#!")) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_script_is_one_and_stops_at_a_failure() {
    let scripts = scripts();
    assert!(scripts.len() >= 7, "{scripts:?}");
    for path in scripts {
        let output = Command::new("bash").arg("-n").arg(&path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\nset -euo pipefail\n"), "{}", path.display());
    }
}

#[test]
fn systemd_has_nothing_to_say_about_the_unit() {
    let unit = read("systemd/leasewrap@.service");
    let unit = unit.replace("/usr/bin/leasewrap", &binary().display().to_string());
    let path = run().directory("unit").join("leasewrap@.service");
    fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .expect("systemd-analyze: install Debian's package `systemd`");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What it says of other units of this system is not ours.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("leasewrap"))
        .collect();
    assert!(ours.is_empty(), "{said}");
}
