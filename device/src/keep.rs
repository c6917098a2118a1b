//! [`Keep`]: where a device keeps blobs. Two live: the durable [`Store`] of a real device, and the synthetic fleet's tally
//! of hashes and counts. Only verified bytes can be written, by type.

use bytes::Bytes;
use colibri_common::merkle::{Leaves, Verified};
use colibri_common::{BlobId, ByteRange, ClaimedLength};
use colibri_store::{BlobReader, Partial, Store, StoreError};

/// Why something could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The disk is full.
    #[error("{0}")]
    NoSpace(String),
    /// Bytes at rest are no longer those that were verified: [`Keep::discard`], then fetch again.
    #[error("{0}")]
    Damaged(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<StoreError> for KeepError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace { .. } => Self::NoSpace(error.to_string()),
            StoreError::Corrupt { .. } => Self::Damaged(error.to_string()),
            error => Self::Other(error.to_string()),
        }
    }
}

/// What a blob is needed for. A device keeps both; a tally keeps the bytes of what it must parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A package's meta.far: it will be read back.
    MetaFar,
    /// Content.
    Content,
}

/// A content-addressed place for blobs. Calls may block on a disk.
///
/// Contract: a blob that [`Keep::length`] reports was committed whole; a partial that is dropped leaves no blob behind, and
/// at most saves its verified bytes for the next [`Keep::begin`].
pub trait Keep: Send + Sync + 'static {
    /// Length of a blob that is here; nothing if it is not.
    fn length(&self, id: &BlobId) -> Result<Option<u64>, KeepError>;
    /// Whether a blob is here in such a way that it serves a purpose: a tally that only counted it cannot read it back.
    fn has(&self, id: &BlobId, purpose: Purpose) -> Result<bool, KeepError>;
    /// The content of a blob that is here, at most `bytes_max`.
    fn read(&self, id: &BlobId, bytes_max: u64) -> Result<Bytes, KeepError>;
    /// Part of the content of a blob that is here.
    fn read_range(&self, id: &BlobId, range: ByteRange) -> Result<Bytes, KeepError>;
    /// Opens a blob that is here, to take over parts of it; nothing if it is not here, or cannot be read in parts.
    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn KeptBlob>>, KeepError> {
        _ = id;
        Ok(None)
    }
    /// Removes a blob that turned out damaged, so that it can be fetched again; false if it is not here.
    fn discard(&self, id: &BlobId) -> Result<bool, KeepError>;
    /// Starts or resumes writing a blob.
    fn begin(
        &self,
        leaves: &Leaves,
        length: ClaimedLength,
        purpose: Purpose,
    ) -> Result<Box<dyn PartialKeep>, KeepError>;
}

/// A blob that is here, open.
pub trait KeptBlob: Send {
    /// Its leaves.
    fn leaves(&self) -> &Leaves;
    /// Its length, bytes.
    fn length(&self) -> u64;
    /// Part of its content, verified again.
    fn read(&self, range: ByteRange) -> Result<Bytes, KeepError>;
}

/// A blob being written.
pub trait PartialKeep: Send {
    /// Runs of leaves that are missing, in order; the last may end behind the blob.
    fn missing(&self) -> Vec<ByteRange>;
    /// Adds verified leaves.
    fn write(&mut self, run: &Verified) -> Result<(), KeepError>;
    /// Makes the blob visible, durably, once all of it is there.
    fn commit(self: Box<Self>) -> Result<(), KeepError>;
}

impl Keep for Store {
    fn length(&self, id: &BlobId) -> Result<Option<u64>, KeepError> {
        Ok(self.contains(*id)?)
    }

    fn has(&self, id: &BlobId, _: Purpose) -> Result<bool, KeepError> {
        Ok(self.contains(*id)?.is_some())
    }

    fn read(&self, id: &BlobId, bytes_max: u64) -> Result<Bytes, KeepError> {
        let length = self.contains(*id)?.ok_or_else(|| KeepError::Other(format!("blob {id} is not in the store")))?;
        if length > bytes_max {
            return Err(KeepError::Other(format!("blob {id} has {length} bytes, more than {bytes_max}")));
        }
        Ok(Store::read(self, *id, ByteRange::whole(length))?)
    }

    fn read_range(&self, id: &BlobId, range: ByteRange) -> Result<Bytes, KeepError> {
        Ok(Store::read(self, *id, range)?)
    }

    fn open(&self, id: &BlobId) -> Result<Option<Box<dyn KeptBlob>>, KeepError> {
        match self.open_blob(*id) {
            Ok(blob) => Ok(Some(Box::new(blob))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn discard(&self, id: &BlobId) -> Result<bool, KeepError> {
        Ok(Store::discard(self, *id)?)
    }

    fn begin(&self, leaves: &Leaves, length: ClaimedLength, _: Purpose) -> Result<Box<dyn PartialKeep>, KeepError> {
        Ok(Box::new(Store::begin(self, leaves.clone(), length)?))
    }
}

impl KeptBlob for BlobReader {
    fn leaves(&self) -> &Leaves {
        Self::leaves(self)
    }

    fn length(&self) -> u64 {
        Self::length(self)
    }

    fn read(&self, range: ByteRange) -> Result<Bytes, KeepError> {
        Ok(Self::read(self, range)?)
    }
}

impl PartialKeep for Partial {
    fn missing(&self) -> Vec<ByteRange> {
        Self::missing(self)
    }

    fn write(&mut self, run: &Verified) -> Result<(), KeepError> {
        Ok(Partial::write(self, run)?)
    }

    fn commit(self: Box<Self>) -> Result<(), KeepError> {
        Partial::commit(*self)?;
        Ok(())
    }
}
