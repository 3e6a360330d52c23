//! Words and variables, with a NUL in between; what looks like a variable of
//! ours is one, and a byte 1 is a URL with a password.
//!
//! words: src/cli/args src/cli/commands.rs src/sys/environment.rs

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use properties::{SECRET, options};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if properties::gives_it_away(data) {
        return;
    }
    let url = format!("postgres://u:{SECRET}@h");
    let (mut words, mut variables) = (Vec::new(), BTreeMap::new());
    for piece in data.split(|byte| *byte == 0) {
        let parts: Vec<_> = piece.split(|byte| *byte == 1).collect();
        let piece = parts.join(url.as_bytes());
        let equals = piece.iter().position(|byte| *byte == b'=');
        match equals {
            Some(equals) if piece.starts_with(b"LEASEWRAP_") => {
                let name = String::from_utf8_lossy(&piece[..equals]).into_owned();
                variables.insert(name, OsString::from_vec(piece[equals + 1..].to_vec()));
            }
            _ => words.push(OsString::from_vec(piece)),
        }
    }
    options::read_or_refused(&words, &variables);
});
