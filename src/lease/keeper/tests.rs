//! The machine, state by state, on a virtual clock.

mod acquiring;
mod desk;
mod holding;
mod properties;
mod releasing;
mod search;
mod standby;
mod stopping;
