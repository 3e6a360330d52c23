//! How the program is linked: with its relative relocations packed (`-z
//! pack-relative-relocs`: ld(1); glibc 2.36 and later load that). There are
//! some fourteen thousand, which at 24 bytes each every start would read, and
//! keeper and guard keep in memory: packed they take 3 kB in place of 350.

use std::env::var;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=packaging/build.rs");
    // Of another machine's C library nothing is known here.
    let native = var("HOST") == var("TARGET");
    let gnu = var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    if native && gnu && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Major and minor version; "glibc 2.36" is how it says it (getconf(1)).
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
