//! Supervision as in contract sections 3 and 6: what `tini` and `dumb-init`
//! do, what a shell expects of a job, and nothing in the worker's way.

#[path = "../support/mod.rs"]
mod support;

mod callers;
mod ends;
mod live;
mod namespaces;
mod pid1;
mod secrets;
mod signals;
mod stops;
mod streams;
mod terminal;
mod terminal_programs;
mod tree;

use support::leasewrap::{Builder, holder, lease_name};
use support::server::shared;

/// A leasewrap of a lease of its own on the shared server.
fn leasewrap() -> Builder {
    holder(&shared().url(), &lease_name("supervision"))
}
