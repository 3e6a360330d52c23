//! A database's name: a byte for the way to write its password (above those:
//! none), a text, and after each byte 1 a variable.
//!
//! words: src/store/postgres/url.rs src/store/postgres/target.rs src/store/postgres/target/tls.rs

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

use properties::urls;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if properties::gives_it_away(data) {
        return;
    }
    let Some((way, text)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let mut pieces = text.split('\u{1}');
    let url = pieces.next().unwrap_or_default();
    let variables = pieces.filter_map(|piece| piece.split_once('='));
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let url = if *way < urls::WAYS {
        let url = urls::with_password(*way, url);
        urls::nobody_sees_it(&url);
        url
    } else {
        url.to_owned()
    };
    urls::read_or_refused(&url, variables.collect());
});
