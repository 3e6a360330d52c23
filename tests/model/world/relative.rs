//! Makes states equal that differ only in when they are.
//!
//! The machines keep absolute instants and counters that grow for ever, so
//! that no state would ever be seen twice. What they decide depends on
//! differences only: between an instant and now, between a revision and the
//! row's present one. This hasher sees the numbers pass and hashes those
//! differences; the checker knows states by their hash alone.
//!
//! Instants and revisions are told from other numbers by their size: the
//! model's clocks and revisions start far above everything else.

use std::hash::Hasher;

/// Where all clocks of the model start, in nanoseconds.
pub const CLOCK_ORIGIN: u64 = 1 << 50;

/// What the model's clock shows first: the database's may be an hour behind.
pub const START: u64 = CLOCK_ORIGIN + 4 * 3_600_000_000_000;

/// Where revisions start; above every token.
pub const REVISION_ORIGIN: i64 = 1 << 45;

/// Instants further back than this are one to every rule: the longest watch
/// of the model (2.2 times a ttl of 6 s) is shorter.
const FARTHEST: i64 = 14_000_000_000;

/// So far back, revisions are just old.
const OLDEST: i64 = 5;

pub struct Relative<'a, H> {
    pub inner: &'a mut H,
    /// The clock that the hashed instants are of.
    pub now: u64,
    /// The row's present revision.
    pub revision: i64,
}

impl<H: Hasher> Hasher for Relative<'_, H> {
    fn finish(&self) -> u64 {
        self.inner.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.inner.write(bytes);
    }

    fn write_u8(&mut self, number: u8) {
        self.inner.write_u8(number);
    }

    fn write_u32(&mut self, number: u32) {
        self.inner.write_u32(number);
    }

    fn write_u64(&mut self, number: u64) {
        if number < CLOCK_ORIGIN {
            self.inner.write_u64(number);
        } else {
            let ago = self.now.wrapping_sub(number).cast_signed();
            self.inner.write_i64(ago.min(FARTHEST));
        }
    }

    fn write_i64(&mut self, number: i64) {
        if number < REVISION_ORIGIN {
            self.inner.write_i64(number);
        } else {
            self.inner.write_i64((self.revision - number).min(OLDEST));
        }
    }

    fn write_usize(&mut self, number: usize) {
        self.inner.write_usize(number);
    }

    fn write_isize(&mut self, number: isize) {
        self.inner.write_isize(number);
    }
}
