//! The kit's programs: a test binary executed under one of these names.

use super::{run, witness};

/// Under which names.
pub const NAMES: [&str; 2] = ["sweeper", "witness"];

/// Runs the program `name`, if it is one; the answer is its exit code.
pub fn run(name: &str, args: &[String]) -> Option<i32> {
    match name {
        "sweeper" => Some(run::sweep(args)),
        "witness" => Some(witness::main(args)),
        _ => None,
    }
}
