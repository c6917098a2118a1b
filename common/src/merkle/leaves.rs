//! [`Leaves`]: the list of level-0 hashes of one blob, proven to belong to its id.
//!
//! Wire form (architecture §5): the digests concatenated for blobs over 8,192 bytes, else empty, meaning one leaf, which is
//! the blob id itself.

use bytes::Bytes;

use super::{LEAF_BYTES, VerifyError, hash, leaf_count, verifier::Verified};
use crate::limits::LEAVES_LIST_BYTES_MAX;
use crate::{BlobId, ByteRange, ClaimedLength, DIGEST_BYTES, Digest, VerifiedLength};

/// The checked leaf hashes of a blob. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves {
    id: BlobId,
    /// Wire form: empty for one leaf.
    list: Bytes,
}

/// Why a list is not the leaves of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeavesError {
    /// Its length is not a multiple of 32, or it is a list of one.
    #[error("a leaf list is empty or has 2 or more hashes of 32 bytes; got {0} bytes")]
    Shape(usize),
    /// It is longer than the largest blob's.
    #[error("a leaf list of {0} bytes is over the limit of {LEAVES_LIST_BYTES_MAX}")]
    TooLong(usize),
    /// It has an all-zero hash: hash blocks are zero-padded, so such a list could pass for a shorter one.
    #[error("leaf hash {0} is all zeros")]
    ZeroLeaf(u64),
    /// Its root is another blob.
    #[error("these leaves belong to blob {found}, not to {expected}")]
    WrongBlob {
        /// The blob that was asked for.
        expected: BlobId,
        /// The root of the list.
        found: BlobId,
    },
    /// Its count does not fit the length that was claimed.
    #[error("{count} leaves do not fit a blob of {claimed} bytes")]
    Count {
        /// Leaves in the list.
        count: u64,
        /// The claim, in bytes.
        claimed: u64,
    },
}

impl Leaves {
    /// Proves that `list`, in wire form, is the leaf list of `id`.
    pub fn check(id: BlobId, list: Bytes) -> Result<Self, LeavesError> {
        if list.is_empty() {
            return Ok(Self { id, list });
        }
        if list.len() as u64 > LEAVES_LIST_BYTES_MAX {
            return Err(LeavesError::TooLong(list.len()));
        }
        if !list.len().is_multiple_of(DIGEST_BYTES) || list.len() == DIGEST_BYTES {
            return Err(LeavesError::Shape(list.len()));
        }
        if let Some(index) = list.chunks_exact(DIGEST_BYTES).position(|hash| hash.iter().all(|byte| *byte == 0)) {
            return Err(LeavesError::ZeroLeaf(index as u64));
        }
        let found = BlobId::from_digest(hash::root(&list));
        if found != id {
            return Err(LeavesError::WrongBlob { expected: id, found });
        }
        Ok(Self { id, list })
    }

    /// The leaves that a builder computed itself: one hash or more.
    pub(super) fn trusted(id: BlobId, hashes: Bytes) -> Self {
        let list = if hashes.len() == DIGEST_BYTES { Bytes::new() } else { hashes };
        Self { id, list }
    }

    /// The blob.
    pub const fn id(&self) -> BlobId {
        self.id
    }

    /// Number of leaves, at least one.
    pub fn count(&self) -> u64 {
        (self.list.len() / DIGEST_BYTES).max(1) as u64
    }

    /// Wire form.
    pub fn wire(&self) -> Bytes {
        self.list.clone()
    }

    /// The hash of leaf `index`. Panics if there is none.
    pub fn hash(&self, index: u64) -> Digest {
        if self.list.is_empty() {
            assert_eq!(index, 0, "a one-leaf blob has leaf 0 only");
            return *self.id.as_bytes();
        }
        let at = usize::try_from(index).expect("checked lists fit memory") * DIGEST_BYTES;
        self.list[at..at + DIGEST_BYTES].try_into().expect("32 bytes")
    }

    /// The span of the last leaf, given a length that fits.
    pub fn last_leaf(&self, claimed: ClaimedLength) -> Result<ByteRange, LeavesError> {
        self.fits(claimed)?;
        Ok(ByteRange::new((self.count() - 1) * LEAF_BYTES, claimed.0))
    }

    /// Checks that a blob of the claimed length has this many leaves.
    pub fn fits(&self, claimed: ClaimedLength) -> Result<(), LeavesError> {
        if leaf_count(claimed.0) == self.count() {
            Ok(())
        } else {
            Err(LeavesError::Count { count: self.count(), claimed: claimed.0 })
        }
    }

    /// Checks a run of leaves that starts at `offset`. Only the blob's last leaf may be short, and it proves the length:
    /// a leaf hash commits to position and meaningful length.
    pub fn verify(&self, offset: u64, bytes: Bytes) -> Result<Verified, VerifyError> {
        let id = self.id;
        if !offset.is_multiple_of(LEAF_BYTES) {
            return Err(VerifyError::Misaligned { id, offset });
        }
        let first = offset / LEAF_BYTES;
        let leaves = leaf_count(bytes.len() as u64);
        if first + leaves > self.count() {
            return Err(VerifyError::TooLong { id, offset: self.count() * LEAF_BYTES });
        }
        let reaches_end = first + leaves == self.count();
        if !reaches_end && !(bytes.len() as u64).is_multiple_of(LEAF_BYTES) || (bytes.is_empty() && self.count() > 1) {
            return Err(VerifyError::TooShort { id, offset: offset + bytes.len() as u64 });
        }
        let mut at = offset;
        // `chunks` yields nothing for the empty blob, whose one leaf is empty.
        let empty = bytes.is_empty().then_some(&bytes[..]);
        for leaf in bytes.chunks(LEAF_BYTES as usize).chain(empty) {
            let expected = self.hash(at / LEAF_BYTES);
            let found = hash::leaf(at, leaf);
            if found != expected {
                return Err(VerifyError::BadLeaf { id, offset: at, expected, found });
            }
            at += LEAF_BYTES;
        }
        let length = reaches_end.then(|| VerifiedLength(offset + bytes.len() as u64));
        Ok(Verified::new(id, offset, bytes, length))
    }
}
