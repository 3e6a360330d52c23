//! What holds of every input from outside, whoever makes it up: the tests
//! beside this folder, which follow a grammar, or the fuzzer in `guided/`,
//! which follows the branches that are taken. Each panics where it does not hold.

pub mod answers;
pub mod frames;
pub mod options;
pub mod rows;
pub mod texts;
pub mod urls;

/// A password that no message may show.
pub const SECRET: &str = "hunter2secret";

/// Whether an input names the password where it may be shown.
pub fn gives_it_away(data: &[u8]) -> bool {
    data.windows(SECRET.len())
        .any(|part| part == SECRET.as_bytes())
}

/// Takes `length` bytes, or those that there are.
pub fn take<'a>(data: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(length.min(data.len()));
    *data = rest;
    taken
}

/// What people may read of what others have said: one line that moves no
/// cursor, and shows no password.
#[track_caller]
pub fn one_line(said: &str) {
    assert!(!said.contains(char::is_control), "control: {said:?}");
    assert!(!said.contains(SECRET), "the password: {said:?}");
}

/// The same of an input that they have given themselves, of a bearable length:
/// so many characters, of which each may be written as an escape.
#[track_caller]
pub fn one_clear_line(said: &str, repeated: usize) {
    one_line(said);
    let length = said.chars().count();
    assert!(
        length < 500 + 16 * repeated,
        "{length} characters: {said:?}"
    );
}
