//! Claimed and verified lengths: two types, because a length is only a claim until the last leaf has verified.

use std::fmt;

/// A blob length that somebody said: a header, a seek table, a manifest. Good for planning, never for announcing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimedLength(pub u64);

/// A blob length proven by the blob's last leaf; made only by the merkle module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifiedLength(pub(crate) u64);

impl VerifiedLength {
    /// The length in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl From<VerifiedLength> for ClaimedLength {
    fn from(length: VerifiedLength) -> Self {
        Self(length.0)
    }
}

impl fmt::Display for VerifiedLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
