//! The stores: one suite that each passes, and what concerns only one.

mod bench;
mod conformance;
mod postgres;
mod sqlite;
mod sqlite_files;
#[path = "../support/mod.rs"]
mod support;
