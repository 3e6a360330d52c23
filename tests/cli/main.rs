//! The command line as in contract sections 5 and 6: options, their
//! variables, exit codes, what is said and what is not.

#[path = "../support/mod.rs"]
mod support;

mod database;
mod install;
mod logs;
mod many;
mod operators;
mod options;
mod readme;
mod selftest;
mod standby;
mod usage;

use support::leasewrap::{Builder, holder, lease_name};
use support::server::shared;

/// A leasewrap of a lease of its own on the shared server.
fn leasewrap() -> Builder {
    holder(&shared().url(), &lease_name("cli"))
}

/// One value of a lease's row.
fn row(name: &str, column: &str) -> String {
    shared().psql(&format!(
        "select {column} from leasewrap.lease where name = '{name}'"
    ))
}
