//! The keeper's machine: what to do next, given what happened and when.
//!
//! `Standby → Acquiring → Starting → Holding → Stopping → Releasing → Ended`

pub mod event;
