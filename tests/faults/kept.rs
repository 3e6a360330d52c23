//! A lease that is kept through what is soon over.

use std::time::Duration;

use crate::scene::Scene;
use crate::support::leasewrap::{Builder, Leasewrap, events};
use crate::support::server::Server;
use crate::support::wait::{SOON, until};

/// Breaks something, and waits until the holder has noticed.
#[track_caller]
pub fn noticed(holder: &Leasewrap, break_it: impl FnOnce()) {
    // A call may have failed before, on a busy host.
    let before = events(&holder.log(), "call-failed").len();
    break_it();
    holder.wait_events("call-failed", before + 1);
}

impl Scene {
    /// A leasewrap that soon sees that something is wrong with its database,
    /// long before its lease is in danger.
    pub fn eager(&self, url: &str) -> Builder {
        self.leasewrap(url, &[])
            .option("--renew-every", "1s")
            .option("--call-timeout", "1s")
    }

    /// Waits until the lease was renewed from now on, and asserts that the
    /// worker with `token` goes on and is still the latest.
    #[track_caller]
    pub fn is_renewed(&self, server: &Server, token: i64, what: &str) {
        let revision = || -> i64 {
            let revision = self.row(server, "revision");
            revision.parse().expect("the lease has a row")
        };
        let before = revision();
        until(&format!("it is renewed after {what}"), 2 * SOON, || {
            // A look is a process: not all the time.
            std::thread::sleep(Duration::from_millis(100));
            // One renewal may have been on its way.
            (revision() >= before + 2).then_some(())
        });
        self.goes_on(token, Duration::from_millis(100), what);
    }
}
