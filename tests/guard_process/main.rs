//! The guard as a process: a real one, with real workers; the tests speak
//! the keeper's frames.

#[path = "../support/mod.rs"]
mod kit;

mod death;
mod helpers;
mod inheritance;
mod namespaces;
mod support;
mod terminals;
mod trees;
