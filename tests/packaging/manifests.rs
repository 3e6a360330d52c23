//! The manifests, by a tool that carries Kubernetes' schemas, and their
//! command lines, by leasewrap.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::installation::on_path;
use super::support::leasewrap::{Builder, Leasewrap, file_with, lease_name, leasewrap};
use super::support::run::run;
use super::support::server::shared;
use super::{command_lines, manifests};

/// Of PyPI: on the path, or where `.ci/run` puts it.
const VALIDATOR: &str = "kubernetes-validate";

fn validator() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin");
    let own = Some(own.join(VALIDATOR)).filter(|program| program.exists());
    on_path(VALIDATOR).or(own).unwrap_or_else(|| {
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

/// The words of a command line as they are run here.
fn here(words: &[String], url: &str, dir: &Path) -> Builder {
    let lease = lease_name("manifest");
    let own = |word: &str| match word.split_once('=') {
        Some(("--db-file", _)) => format!("--db-file={url}"),
        Some(("--listen", _)) => "--listen=127.0.0.1:0".to_owned(),
        Some(("--name", _)) => format!("--name={lease}"),
        Some(("--socket", _)) => format!("--socket={}", dir.join("s").display()),
        _ => word.replace("/leasewrap", &dir.display().to_string()),
    };
    let options = words.iter().take_while(|word| *word != "--");
    options.fold(leasewrap().text(), |builder, word| {
        builder.switch(&own(word))
    })
}

#[test]
fn every_command_line_in_a_manifest_runs() {
    let url = file_with(&shared().url()).display().to_string();
    let dir = run().directory("manifest");
    let mut ran = Vec::new();
    for (_, manifest) in manifests() {
        let mut serve: Option<Leasewrap> = None;
        for words in command_lines(&manifest) {
            if words.iter().any(|word| word.starts_with("--on-event")) {
                continue; // With the hook: route.rs.
            }
            let builder = here(&words, &url, &dir);
            match words[0].as_str() {
                "install" => _ = builder.run().code(0),
                "serve" => serve = Some(builder.spawn()),
                _ => _ = builder.worker(&["true"]).run().code(0),
            }
            ran.push(words[0].clone());
        }
        if let Some(serve) = serve {
            serve.signal(libc::SIGTERM);
            serve.end().code(143);
        }
    }
    assert!(dir.join("leasewrap").exists());
    ran.retain(|word| !word.starts_with("--"));
    assert_eq!(ran, ["install", "install", "serve", "attach"]);
}
