//! A password file, and after a byte 1 a service file.
//!
//! words: src/store/postgres/url.rs

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::LazyLock;

use properties::{SECRET, urls};

static FILES: LazyLock<[PathBuf; 2]> = LazyLock::new(|| {
    let file = |what: &str| {
        let name = format!("leasewrap-guided-{}.{what}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, "").expect("write");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
        path
    };
    [file("pass"), file("service")]
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if properties::gives_it_away(data) {
        return;
    }
    let [pass, service] = &*FILES;
    let mut parts = data.splitn(2, |byte| *byte == 1);
    let mut part = || parts.next().unwrap_or_default();
    let end = format!("\n*:*:*:*:{SECRET}\n");
    fs::write(pass, [part(), end.as_bytes()].concat()).expect("write");
    let end = format!("\npassword={SECRET}\n[two]\nhost=h\n");
    fs::write(service, [b"[one]\n", part(), end.as_bytes()].concat()).expect("write");
    let given = |name: &str, path: &PathBuf| (name.to_owned(), path.display().to_string());
    let variables = vec![given("PGPASSFILE", pass), given("PGSERVICEFILE", service)];
    urls::read_or_refused("postgres://u@h/db", variables.clone());
    urls::read_or_refused("postgres:///?service=one", variables);
});
