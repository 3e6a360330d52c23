//! The manifests, by a tool that carries Kubernetes' schemas, and their
//! command lines, by leasewrap.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::leasewrap::{file_with, lease_name, leasewrap};
use super::support::server::shared;
use super::{command_lines, manifests};

/// Of PyPI: on the path, or where `.ci/run` puts it.
const VALIDATOR: &str = "kubernetes-validate";

fn validator() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut all = env::split_paths(&path)
        .chain([own])
        .map(|dir| dir.join(VALIDATOR));
    all.find(|program| program.exists()).unwrap_or_else(|| {
        panic!(
            "{VALIDATOR} of PyPI is missing: python3 -m venv target/python && \
             target/python/bin/pip install {VALIDATOR}"
        )
    })
}

#[test]
fn every_manifest_is_what_kubernetes_expects() {
    let mut command = Command::new(validator());
    command.args(["--strict", "--no-warn"]);
    let manifests = manifests();
    command.args(manifests.iter().map(|(path, _)| path));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for (path, _) in manifests {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(said.contains(&format!("{name} passed")), "{name}: {said}");
    }
}

#[test]
fn every_command_line_in_a_manifest_runs() {
    let url = file_with(&shared().url());
    let mut ran = 0;
    for (path, manifest) in manifests() {
        for words in command_lines(&manifest) {
            let subcommand = !words[0].starts_with("--");
            if subcommand || words.iter().any(|word| word.starts_with("--on-event")) {
                continue; // Tested with what they stand for: serve, attach, install, hooks.
            }
            let mut builder = leasewrap().text();
            for word in words.iter().take_while(|word| *word != "--") {
                builder = match word.split_once('=') {
                    Some(("--db-file", _)) => {
                        builder.option("--db-file", &url.display().to_string())
                    }
                    Some(("--listen", _)) => builder.option("--listen", "127.0.0.1:0"),
                    Some(("--name", _)) => builder.option("--name", &lease_name("manifest")),
                    _ => builder.switch(word),
                };
            }
            builder.worker(&["true"]).run().code(0);
            ran += 1;
        }
        assert!(!manifest.contains("leasewrap:latest"), "{}", path.display());
    }
    assert_eq!(ran, 2);
}
