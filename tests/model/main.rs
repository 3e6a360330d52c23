//! The rules of the lease, checked in every world that a few faults can make.
//!
//! The real machines of keeper and guard run on two or three hosts around a
//! database that is a model of what the store's SQL does. [stateright] tries
//! every order of events and every place for each fault, as many as a
//! scenario's budget allows; the simulation goes far beyond that budget, but
//! draws. Every mutation of the rules has to be noticed.

mod check;
mod coverage;
mod mutations;
mod pod;
mod scenarios;
mod simulation;
mod world;
