//! Frames as somebody writes them: one, or conversations with a guard and
//! with `attach`. The first byte says which.

#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

use properties::frames;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, script)) => frames::the_guard_keeps_its_rules(script),
        Some((1, script)) => frames::attach_keeps_its_rules(script),
        Some((_, frame)) if !frame.is_empty() => frames::whole(frame),
        _ => {}
    }
});
