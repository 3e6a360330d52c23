//! Texts of others, and single values.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::cases;
use crate::properties::texts;

const RUNS: u32 = 10_000;

fn text() -> impl Strategy<Value = String> {
    let words = [
        "1",
        "90",
        "s",
        "ms",
        "h ",
        "-",
        "+",
        ".",
        "e",
        "99999999999",
        "SIG",
        "RTMIN",
        "RTMAX",
        "TERM",
        "[",
        "]",
        ":",
        "::1",
        "/run/x",
        "unix:",
        "pg_",
        "\n",
        "\u{1b}[2J",
        "\u{9b}",
        "\u{202e}",
        "\u{2066}",
        "\"",
        "STATUS=",
        "WATCHDOG=1",
    ];
    let piece = prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => "[ -~]{0,12}",
        1 => "[ -~]{180,210}",
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(cases(RUNS))]

    #[test]
    fn texts_of_others_move_no_cursor(text in text()) {
        texts::in_one_line(&text);
        texts::logged_in_one_line(&text);
        texts::heard(text.as_bytes());
    }

    #[test]
    fn values_read_the_same_when_written_back(text in text()) {
        texts::single_values(&text);
    }
}
