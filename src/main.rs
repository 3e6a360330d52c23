//! The program's entry: the C `main` itself, see `leasewrap::sys::entry`.
#![no_main]

leasewrap::entry!(leasewrap::main);
