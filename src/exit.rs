//! The exit codes: what a caller can branch on (contract, section 6).

/// Usage error.
pub const USAGE: u8 = 2;
/// Stepped down: the precheck failed or the worker's watchdog ran out.
pub const STEPPED_DOWN: u8 = 120;
/// Not acquired within `--wait` (default; `--conflict-exit-code` changes it).
pub const NOT_ACQUIRED: u8 = 121;
/// The lease was lost (default; `--lost-exit-code` changes it).
pub const LOST: u8 = 122;
/// The database cannot be used.
pub const DATABASE: u8 = 123;
/// leasewrap itself failed.
pub const FAILED: u8 = 125;
/// The command cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// The command is not found.
pub const NOT_FOUND: u8 = 127;

/// What a shell reports for an end by signal `signal`: 128 + N.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}
