//! The stores: one suite that each passes, and what concerns only one.

mod bench;
mod conformance;
mod postgres;
mod sqlite;
mod sqlite_files;
mod sqlite_restored;
#[path = "../support/mod.rs"]
mod support;
