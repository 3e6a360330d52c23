//! Frames between keeper and guard, and between `serve` and `attach`, where a
//! stranger may write them.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::properties::frames;

const RUNS: u32 = 40_000;

/// Frames as they begin: a kind, and numbers as the encoding writes them.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let short = (0_u8..16, vec(any::<u8>(), 0..40)).prop_map(|(kind, mut rest)| {
        rest.insert(0, kind);
        rest
    });
    let small_numbers = (0_u8..16, vec(0_u8..4, 0..60)).prop_map(|(kind, mut rest)| {
        rest.insert(0, kind);
        rest
    });
    let lengths = (
        0_u8..16,
        vec(prop_oneof![Just(0xff), Just(0x7f), any::<u8>()], 0..24),
    )
        .prop_map(|(kind, mut rest)| {
            rest.insert(0, kind);
            rest
        });
    prop_oneof![short, small_numbers, lengths, vec(any::<u8>(), 0..200)]
}

/// A conversation: frames, and what happens in between.
fn script() -> impl Strategy<Value = Vec<u8>> {
    let frame = (bytes(), any::<u8>()).prop_map(|(mut frame, later)| {
        frame.truncate(191);
        let length = u8::try_from(frame.len()).expect("short");
        [vec![length, later], frame].concat()
    });
    let hello = Just(vec![3, 0, 0, 1, 4]);
    let happens = (192_u8.., any::<u8>()).prop_map(|(what, later)| vec![what, later]);
    vec(prop_oneof![frame, hello, happens], 0..12).prop_map(|steps| steps.concat())
}

proptest! {
    #![proptest_config(cases(RUNS))]

    #[test]
    fn frames_are_read_whole_or_not_at_all(bytes in bytes()) {
        frames::whole(&bytes);
    }

    #[test]
    fn conversations_of_strangers_start_one_worker_at_most(script in script()) {
        frames::the_guard_keeps_its_rules(&script);
        frames::attach_keeps_its_rules(&script);
    }
}
