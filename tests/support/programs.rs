//! The kit's programs: a test binary executed under one of these names.

use std::os::unix::net::UnixDatagram;

use super::{run, witness};

/// Under which names.
pub const NAMES: [&str; 3] = ["notify", "sweeper", "witness"];

/// Runs the program `name`, if it is one; the answer is its exit code.
pub fn run(name: &str, args: &[String]) -> Option<i32> {
    match name {
        "notify" => Some(notify(args)),
        "sweeper" => Some(run::sweep(args)),
        "witness" => Some(witness::main(args)),
        _ => None,
    }
}

/// The program `notify MESSAGE`: sends it as `sd_notify(3)` does.
fn notify(args: &[String]) -> i32 {
    let [message] = args else { return 2 };
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return 3;
    };
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(message.as_bytes(), path));
    i32::from(sent.is_err())
}
