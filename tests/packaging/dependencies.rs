//! What leasewrap is built from: it needs no newer Rust than it says, and the
//! oldest versions that Cargo.toml allows are those that are tested.

use std::process::Command;

use serde_json::Value;

fn packages() -> Vec<Value> {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    metadata.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let output = metadata
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 100);
    packages
}

#[test]
fn no_dependency_needs_a_newer_rust() {
    let version = |text: &str| -> Vec<u32> {
        let parts = text.split('.').map(|part| part.parse().unwrap());
        parts.chain([0, 0, 0]).take(3).collect()
    };
    let own = version(env!("CARGO_PKG_RUST_VERSION"));
    for package in packages() {
        if let Some(needs) = package["rust_version"].as_str() {
            assert!(version(needs) <= own, "{} needs {needs}", package["id"]);
        }
    }
}

#[test]
fn no_older_dependency_is_allowed_than_what_is_tested() {
    let packages = packages();
    let own = packages
        .iter()
        .find(|package| package["name"] == "leasewrap");
    for dependency in own.unwrap()["dependencies"].as_array().unwrap() {
        let oldest = dependency["req"].as_str().unwrap().trim_start_matches('^');
        let locked = packages.iter().any(|package| {
            // What follows a plus sign orders nothing.
            let version = package["version"].as_str().unwrap();
            package["name"] == dependency["name"] && version.split('+').next() == Some(oldest)
        });
        assert!(
            locked,
            "{} {oldest} is not what Cargo.lock has",
            dependency["name"]
        );
    }
}
