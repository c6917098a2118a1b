//! What verification gives ([`Verified`]), how it fails ([`VerifyError`]), and the in-order [`Verifier`] for a stream.

use bytes::{Bytes, BytesMut};

use super::{LEAF_BYTES, Leaves, LeavesError};
use crate::{BlobId, ClaimedLength, Digest, VerifiedLength, hex};

/// A run of whole leaves of one blob that has been checked against its id. Made by [`Leaves::verify`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    id: BlobId,
    offset: u64,
    bytes: Bytes,
    length: Option<VerifiedLength>,
}

impl Verified {
    pub(super) const fn new(id: BlobId, offset: u64, bytes: Bytes, length: Option<VerifiedLength>) -> Self {
        Self { id, offset, bytes, length }
    }

    /// The blob.
    pub const fn id(&self) -> BlobId {
        self.id
    }

    /// Offset of the first byte in the blob, a multiple of 8 KiB.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The blob's length, if this run has its last leaf.
    pub const fn length(&self) -> Option<VerifiedLength> {
        self.length
    }
}

/// Why bytes are not what the blob has at that place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A leaf has another hash.
    #[error("blob {id}: leaf at offset {offset} hashes to {}, expected {}", hex(found), hex(expected))]
    BadLeaf {
        /// The blob.
        id: BlobId,
        /// Offset of the leaf.
        offset: u64,
        /// Hash in the leaf list.
        expected: Digest,
        /// Hash of the bytes.
        found: Digest,
    },
    /// More bytes than the blob has.
    #[error("blob {id}: bytes beyond its end at offset {offset}")]
    TooLong {
        /// The blob.
        id: BlobId,
        /// Where the excess begins.
        offset: u64,
    },
    /// The bytes end inside the blob.
    #[error("blob {id}: bytes end early at offset {offset}")]
    TooShort {
        /// The blob.
        id: BlobId,
        /// Where they end.
        offset: u64,
    },
    /// A run must start at a leaf.
    #[error("blob {id}: offset {offset} is not a multiple of 8192")]
    Misaligned {
        /// The blob.
        id: BlobId,
        /// The offset.
        offset: u64,
    },
}

/// Checks a blob that arrives from its first byte on, in pieces of any size. Holds less than one leaf.
#[derive(Debug)]
pub struct Verifier {
    leaves: Leaves,
    claimed: ClaimedLength,
    next: u64,
    pending: BytesMut,
    proven: Option<VerifiedLength>,
}

impl Verifier {
    /// A verifier for a blob of a claimed length, which must fit the leaves.
    pub fn new(leaves: Leaves, claimed: ClaimedLength) -> Result<Self, LeavesError> {
        leaves.fits(claimed)?;
        Ok(Self { leaves, claimed, next: 0, pending: BytesMut::new(), proven: None })
    }

    /// Takes the next bytes; gives back what they completed. After an error the verifier is of no more use.
    pub fn push(&mut self, data: &[u8]) -> Result<Option<Verified>, VerifyError> {
        self.pending.extend_from_slice(data);
        let received = self.next + self.pending.len() as u64;
        if received > self.claimed.0 {
            return Err(VerifyError::TooLong { id: self.leaves.id(), offset: self.claimed.0 });
        }
        let ready = if received == self.claimed.0 {
            self.pending.len()
        } else {
            self.pending.len() - self.pending.len() % LEAF_BYTES as usize
        };
        if ready == 0 {
            return Ok(None);
        }
        let run = self.leaves.verify(self.next, self.pending.split_to(ready).freeze())?;
        self.next += ready as u64;
        self.proven = run.length();
        Ok(Some(run))
    }

    /// Ends the blob: the proven length, or an error if it is not the claimed one. For the empty blob this is the whole check.
    pub fn finish(self) -> Result<VerifiedLength, VerifyError> {
        let id = self.leaves.id();
        let proven = match self.proven {
            Some(length) => Some(length),
            None => self.leaves.verify(self.next, self.pending.freeze())?.length(),
        };
        match proven {
            Some(length) if length.bytes() == self.claimed.0 => Ok(length),
            _ => Err(VerifyError::TooShort { id, offset: self.next }),
        }
    }
}
