//! [`ByteRange`]: half-open spans of bytes and the arithmetic on them; no off-by-one anywhere else.
//!
//! HTTP's inclusive notation is parsed and printed in `common/api`; this file knows only numbers.

use std::fmt;

/// The bytes `start .. end` of something; never inverted, possibly empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The range `start .. end`; an `end` before `start` gives the empty range at `start`.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start, end: if end < start { start } else { end } }
    }

    /// The first `length` bytes.
    pub const fn whole(length: u64) -> Self {
        Self { start: 0, end: length }
    }

    /// First byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Number of bytes.
    pub const fn len(self) -> u64 {
        self.end - self.start
    }

    /// True if there is no byte in it.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The bytes in both; empty (at the later start) if they do not meet.
    pub fn intersect(self, other: Self) -> Self {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// True if `other` lies wholly inside.
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The indices of the blocks of `block_bytes` that this range touches; empty for an empty range.
    pub const fn blocks(self, block_bytes: u64) -> std::ops::Range<u64> {
        let first = self.start / block_bytes;
        if self.is_empty() { first..first } else { first..self.end.div_ceil(block_bytes) }
    }

    /// This range as indices into a buffer whose first byte is `base`. Panics if the range lies before `base`.
    pub fn within(self, base: u64) -> std::ops::Range<usize> {
        let index = |at: u64| usize::try_from(at - base).expect("a buffer fits the address space");
        index(self.start)..index(self.end)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_touched() {
        assert_eq!(ByteRange::new(0, 0).blocks(10), 0..0);
        assert_eq!(ByteRange::new(0, 10).blocks(10), 0..1);
        assert_eq!(ByteRange::new(9, 11).blocks(10), 0..2);
        assert_eq!(ByteRange::new(20, 20).blocks(10), 2..2);
    }

    #[test]
    fn inverted_is_empty_and_intersection_never_inverts() {
        assert!(ByteRange::new(5, 3).is_empty());
        let apart = ByteRange::new(0, 5).intersect(ByteRange::new(7, 9));
        assert!(apart.is_empty());
        assert_eq!(ByteRange::new(0, 8).intersect(ByteRange::new(5, 20)), ByteRange::new(5, 8));
    }
}
