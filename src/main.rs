#![no_main]
//! The program: `sys::entry` says why it has no Rust `fn main`.

leasewrap::entry!(leasewrap::main);
