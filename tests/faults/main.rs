//! The faults of contract section 1, each on real processes and a real
//! server: no worker of an old holder lives beside a new one's.
//!
//! Each test prints `fault=… overlap_ms=… gap_ms=…`: how long the old
//! holder's workers lived on beside the new one's (never positive), and how
//! long nobody worked.

#[path = "../support/mod.rs"]
mod support;

mod failover;
mod kept;
mod line;
mod moments;
mod namespaces;
mod patroni;
mod processes;
mod rows;
mod scene;
mod servers;
mod sqlite;
mod stuck;
mod unanswered;
