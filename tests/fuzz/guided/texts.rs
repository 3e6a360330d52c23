//! A text of somebody else's, a worker's message, a single value.
//!
//! words: src/cli/args/values.rs src/keeper/watchdog.rs src/http/listen.rs

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

use properties::texts;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    texts::heard(data);
    let text = String::from_utf8_lossy(data);
    texts::in_one_line(&text);
    texts::logged_in_one_line(&text);
    texts::single_values(&text);
});
