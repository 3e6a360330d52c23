//! Who runs a test, and somebody else.

use super::leasewrap::{Builder, binary};
use super::run::run;

/// Whether it is root that runs the test.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What has a command run by a user that owns nothing; for root alone.
pub const NOBODY: [&str; 4] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
];

/// Has a leasewrap run by somebody who is not root, from where they can
/// execute it.
pub fn by_nobody(builder: Builder) -> Builder {
    if !is_root() {
        return builder;
    }
    let copy = run().file("leasewrap");
    std::fs::copy(binary(), &copy).expect("copy the program");
    builder.program(&copy).below(&NOBODY)
}
