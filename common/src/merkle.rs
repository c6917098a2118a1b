//! The Fuchsia merkle tree (reference "Fuchsia formats" §1): constants and geometry here, one file per verb below.
//!
//! A blob is cut into leaves of 8 KiB. Each leaf is hashed together with its offset and its meaningful length; 256 hashes
//! make a hash block of the next level, until one hash remains: the [`BlobId`](crate::BlobId). The list of level-0 hashes,
//! the *leaves*, is enough to rebuild and check the root, so upper levels are never stored or sent.
//!
//! There is deliberately no decoding that skips verification: [`Verified`] is made by [`Leaves::verify`] and nothing else.

mod builder;
mod hash;
mod leaves;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod verifier;

pub use builder::{Builder, Tree, build};
pub use hash::{Sha256Stream, sha256, sha512};
pub use leaves::{Leaves, LeavesError};
pub use verifier::{Verified, Verifier, VerifyError};

/// Bytes in a leaf (and in a hash block).
pub const LEAF_BYTES: u64 = 8192;

/// Hashes in a hash block.
pub const HASHES_PER_BLOCK: u64 = LEAF_BYTES / crate::DIGEST_BYTES as u64;

/// Bytes in a unit of raw content: the leaves of one hash block, 2 MiB.
pub const UNIT_BYTES: u64 = LEAF_BYTES * HASHES_PER_BLOCK;

/// Number of leaves of a blob of `length` bytes; the empty blob has one (empty) leaf.
pub const fn leaf_count(length: u64) -> u64 {
    if length == 0 { 1 } else { length.div_ceil(LEAF_BYTES) }
}

/// Number of units of a blob of `length` bytes; the empty blob has one.
pub const fn unit_count(length: u64) -> u64 {
    if length == 0 { 1 } else { length.div_ceil(UNIT_BYTES) }
}
