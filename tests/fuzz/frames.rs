//! Frames between keeper and guard, and between `serve` and `attach`, where a
//! stranger may write them.

use leasewrap::wire::{FromGuard, MAX_FRAME, ToGuard};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;

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

proptest! {
    #![proptest_config(cases(RUNS))]

    #[test]
    fn frames_are_read_whole_or_not_at_all(bytes in bytes()) {
        if let Ok(frame) = ToGuard::decode(&bytes) {
            let again = frame.encode();
            prop_assert!(again.len() <= MAX_FRAME.max(bytes.len()));
            prop_assert_eq!(ToGuard::decode(&again), Ok(frame));
        }
        if let Ok(frame) = FromGuard::decode(&bytes) {
            let again = frame.encode();
            prop_assert_eq!(FromGuard::decode(&again), Ok(frame));
        }
    }

    #[test]
    fn a_frame_with_something_behind_it_is_none(bytes in bytes(), more in vec(any::<u8>(), 1..4)) {
        let longer: Vec<u8> = bytes.iter().chain(&more).copied().collect();
        if ToGuard::decode(&bytes).is_ok() {
            prop_assert!(ToGuard::decode(&longer).is_err());
        }
        if FromGuard::decode(&bytes).is_ok() {
            prop_assert!(FromGuard::decode(&longer).is_err());
        }
    }
}
