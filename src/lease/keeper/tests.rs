//! The machine, state by state, on a virtual clock.

mod acquiring;
mod desk;
mod holding;
mod properties;
mod releasing;
mod standby;
mod stopping;
