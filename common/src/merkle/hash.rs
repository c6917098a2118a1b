//! Hashing of one leaf, of one hash block, and of the levels above the leaves. The only file that names `sha2`, which
//! picks the CPU's SHA instructions at run time.

use sha2::{Digest as _, Sha256, Sha512};

use super::{HASHES_PER_BLOCK, LEAF_BYTES};
use crate::Digest;

static ZEROS: [u8; LEAF_BYTES as usize] = [0; LEAF_BYTES as usize];

/// Hash of the data leaf at `offset`, which must be a multiple of [`LEAF_BYTES`]; `data` is at most one leaf long.
pub(super) fn leaf(offset: u64, data: &[u8]) -> Digest {
    debug_assert!(offset.is_multiple_of(LEAF_BYTES) && data.len() as u64 <= LEAF_BYTES);
    let length = u32::try_from(data.len()).expect("a leaf is at most 8 KiB");
    // The empty blob is the one block that is not padded.
    block(offset, length, data, !data.is_empty())
}

/// Hash of a hash block of `level` (1 = hashes of leaves) at `offset` in its level; its length field is always 8192.
fn node(level: u64, offset: u64, hashes: &[u8]) -> Digest {
    block(offset | level, LEAF_BYTES as u32, hashes, true)
}

fn block(identity: u64, length: u32, bytes: &[u8], pad: bool) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(identity.to_le_bytes());
    hasher.update(length.to_le_bytes());
    hasher.update(bytes);
    if pad {
        hasher.update(&ZEROS[bytes.len()..]);
    }
    hasher.finalize().into()
}

/// Plain SHA-256, for identities and file names that are not merkle roots.
pub fn sha256(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// SHA-256 of bytes that come in pieces.
#[derive(Debug, Clone, Default)]
pub struct Sha256Stream(Sha256);

impl Sha256Stream {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all of them.
    pub fn finish(self) -> Digest {
        self.0.finalize().into()
    }
}

/// SHA-512 of any bytes: what the real tools name TUF targets by.
pub fn sha512(bytes: &[u8]) -> [u8; 64] {
    Sha512::digest(bytes).into()
}

/// The root over a list of leaf hashes: 32 bytes each, at least one.
pub(super) fn root(leaves: &[u8]) -> Digest {
    let mut level_hashes = leaves.to_vec();
    let mut level = 1;
    while level_hashes.len() > crate::DIGEST_BYTES {
        let mut above = Vec::with_capacity(level_hashes.len() / HASHES_PER_BLOCK as usize + crate::DIGEST_BYTES);
        for (index, hashes) in level_hashes.chunks(LEAF_BYTES as usize).enumerate() {
            above.extend_from_slice(&node(level, index as u64 * LEAF_BYTES, hashes));
        }
        level_hashes = above;
        level += 1;
    }
    level_hashes.try_into().expect("one hash remains")
}
