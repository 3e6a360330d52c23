//! Processes of a leasewrap's caller, which have told their pids on stderr.

use super::leasewrap::{Leasewrap, events};
use super::wait::{SOON, until, until_true};

/// The pids of the line that begins with this word.
#[track_caller]
pub fn told<const N: usize>(leasewrap: &Leasewrap, word: &str) -> [i32; N] {
    until(word, SOON, || {
        let lines = leasewrap.log();
        let line = lines.iter().find_map(|line| line.strip_prefix(word))?;
        let pids = line.split_whitespace().map(|pid| pid.parse().unwrap());
        pids.collect::<Vec<i32>>().try_into().ok()
    })
}

/// Waits until leasewrap (`-v`) knows that this is none of the worker's tree.
#[track_caller]
pub fn left_alone(leasewrap: &Leasewrap, pid: i32) {
    let pid = pid.to_string();
    until_true("it is known as a stranger", SOON, || {
        let mut seen = events(&leasewrap.log(), "strangers").into_iter();
        seen.any(|seen| {
            seen["pids"]
                .as_str()
                .unwrap()
                .split(' ')
                .any(|one| one == pid)
        })
    });
}
