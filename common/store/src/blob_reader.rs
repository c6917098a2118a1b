//! [`BlobReader`]: one whole blob of a store, every read verified against its leaves.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::merkle::{LEAF_BYTES, Leaves};
use colibri_common::{BlobId, ByteRange, ClaimedLength, VerifiedLength};

use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::limits::COPY_BUFFER_BYTES;

/// An open blob. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobReader {
    leaves: Leaves,
    length_bytes: u64,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
}

impl BlobReader {
    pub(crate) fn open(
        id: BlobId,
        length_bytes: u64,
        list: Bytes,
        file: Arc<dyn DiskFile>,
        path: PathBuf,
    ) -> Result<Self, StoreError> {
        // The list comes from the same disk as the blob, so it is proven again.
        let leaves = Leaves::check(id, list).map_err(|_| StoreError::Corrupt { id, offset: 0 })?;
        leaves.fits(ClaimedLength(length_bytes)).map_err(|_| StoreError::Corrupt { id, offset: length_bytes })?;
        Ok(Self { leaves, length_bytes, file, path })
    }

    /// The blob.
    pub const fn id(&self) -> BlobId {
        self.leaves.id()
    }

    /// Its length in bytes: verified when it was committed.
    pub const fn length(&self) -> u64 {
        self.length_bytes
    }

    /// Its leaves.
    pub const fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// The bytes of a range that lies inside the blob, held in memory, after verifying the leaves they are in.
    pub fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        let id = self.id();
        if !ByteRange::whole(self.length_bytes).contains(range) {
            let (length_bytes, start, end) = (self.length_bytes, range.start(), range.end());
            return Err(StoreError::OutOfRange { id, length_bytes, start, end });
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let blocks = range.blocks(LEAF_BYTES);
        let whole = ByteRange::new(blocks.start * LEAF_BYTES, self.length_bytes.min(blocks.end * LEAF_BYTES));
        Ok(self.read_leaves(whole)?.0.slice(range.within(whole.start())))
    }

    /// Asks that the next reads come from the disk itself and not from memory. A hint.
    pub fn forget_cached(&self) -> Result<(), StoreError> {
        self.file.forget_cached().map_err(|error| StoreError::io(&self.path, error))
    }

    /// Reads all of it and verifies it.
    pub fn scrub(&self) -> Result<VerifiedLength, StoreError> {
        let step = COPY_BUFFER_BYTES as u64;
        let mut proven = None;
        for at in 0..self.length_bytes.div_ceil(step).max(1) {
            proven = self.read_leaves(ByteRange::new(at * step, self.length_bytes.min((at + 1) * step)))?.1;
        }
        proven.ok_or(StoreError::Corrupt { id: self.id(), offset: self.length_bytes })
    }

    /// Reads a span of whole leaves; the length too, if the last is among them.
    fn read_leaves(&self, span: ByteRange) -> Result<(Bytes, Option<VerifiedLength>), StoreError> {
        let mut bytes = vec![0; usize::try_from(span.len()).expect("callers' ranges fit memory")];
        match self.file.read_exact_at(span.start(), &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(StoreError::Corrupt { id: self.id(), offset: span.start() });
            }
            done => done.map_err(|error| StoreError::io(&self.path, error))?,
        }
        let run = self.leaves.verify(span.start(), Bytes::from(bytes)).map_err(|error| StoreError::corrupt(&error))?;
        Ok((run.bytes().clone(), run.length()))
    }
}
