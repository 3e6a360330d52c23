//! `serve` and `attach`: the two halves in two containers of a pod, on real
//! processes and a real server. The faults print `fault=… overlap_ms=…
//! gap_ms=…` as those of `tests/faults` do.

#[path = "../support/mod.rs"]
mod support;

#[path = "../faults/scene.rs"]
mod scene;

mod attach_faults;
mod chaos;
mod containers;
mod ends;
mod orders;
mod pod;
mod serve_faults;
mod sockets;
mod strangers;
mod terminal;
