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

/// Has a command run by [`NOBODY`] where `/proc` shows nothing of what they may
/// not look into; for root alone.
pub fn nobody_below_a_hiding_proc() -> Vec<&'static str> {
    let hidden = "mount -t proc -o hidepid=invisible proc /proc && exec \"$@\"";
    let mut below = vec!["unshare", "--mount", "--propagation", "private"];
    below.extend(["sh", "-c", hidden, "sh"]);
    below.extend(NOBODY);
    below
}

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
