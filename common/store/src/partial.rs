//! [`Partial`]: a blob on its way into the store: verified bytes in any order, resumable, whole only after `commit`.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::merkle::{HASHES_PER_BLOCK, LEAF_BYTES, Leaves, Verified};
use colibri_common::{BlobId, ByteRange, ClaimedLength, VerifiedLength};

use crate::disk::{DiskFile, OpenMode};
use crate::error::{AtPath, StoreError};
use crate::limits::COPY_BUFFER_BYTES;
use crate::store::Shared;

/// A blob being written; one at a time for each blob. Dropped without a commit its bytes stay, and the next
/// [`Store::begin`](crate::Store::begin) re-verifies and resumes them.
#[derive(Debug)]
pub struct Partial {
    shared: Arc<Shared>,
    leaves: Leaves,
    /// A claim until the last leaf is here.
    length_bytes: u64,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// CRC-32C of each leaf that was verified, on its way to the file or as an earlier attempt left it there.
    guards: Vec<Option<u32>>,
}

impl Partial {
    /// Opens the partial of a blob that `shared` has marked as being written by this caller.
    pub(crate) fn open(shared: Arc<Shared>, leaves: Leaves, claimed: ClaimedLength) -> Result<Self, StoreError> {
        let path = shared.layout.partial(leaves.id());
        let file = shared.disk.open(&path, OpenMode::Create).at(&path)?;
        let leaf_count = usize::try_from(leaves.count()).expect("checked lists fit memory");
        let mut partial = Self { shared, leaves, length_bytes: claimed.0, file, path, guards: vec![None; leaf_count] };
        partial.find_present()?;
        Ok(partial)
    }

    /// The blob.
    pub const fn id(&self) -> BlobId {
        self.leaves.id()
    }

    /// The 2 MiB units of raw content of which at least one leaf is missing, in order.
    pub fn missing_units(&self) -> Vec<u32> {
        let units = self.guards.chunks(HASHES_PER_BLOCK as usize).enumerate();
        units.filter(|(_, leaves)| leaves.contains(&None)).map(|(unit, _)| unit as u32).collect()
    }

    /// The runs of leaves that are missing, in order; the last may end behind the blob.
    pub fn missing(&self) -> Vec<ByteRange> {
        let mut at = 0;
        let runs = self.guards.chunk_by(|one, next| one.is_some() == next.is_some()).map(|run| {
            let range = ByteRange::new(at * LEAF_BYTES, (at + run.len() as u64) * LEAF_BYTES);
            at += run.len() as u64;
            (range, run[0].is_some())
        });
        runs.filter(|(_, is_here)| !is_here).map(|(range, _)| range).collect()
    }

    /// Keeps verified bytes of this blob. Nothing is durable before the commit.
    pub fn write(&mut self, run: &Verified) -> Result<(), StoreError> {
        if run.id() != self.id() {
            return Err(StoreError::WrongBlob { expected: self.id(), found: run.id() });
        }
        self.file.write_at(run.offset(), run.bytes()).at(&self.path)?;
        if let Some(proven) = run.length() {
            self.length_bytes = proven.bytes();
        }
        self.mark(run);
        Ok(())
    }

    /// Makes the blob part of the store, durably: checks that all of it stands in the file as it was verified, syncs the file,
    /// renames it, syncs the folder, and records it in the index, in this order. After an error nothing is lost: begin again.
    pub fn commit(self) -> Result<VerifiedLength, StoreError> {
        if let Some(missing) = self.guards.iter().position(Option::is_none) {
            return Err(StoreError::Incomplete { id: self.id(), offset: missing as u64 * LEAF_BYTES });
        }
        if self.file.length().at(&self.path)? != self.length_bytes {
            // Left over from an attempt that believed in another length.
            self.file.set_len(self.length_bytes).at(&self.path)?;
        }
        let proven = self.check_all()?;
        self.file.sync().at(&self.path)?;
        self.shared.place(&self.leaves, proven)?;
        Ok(proven)
    }

    /// Gives up: removes what was written.
    pub fn discard(self) -> Result<(), StoreError> {
        self.shared.disk.remove_file(&self.path).at(&self.path)
    }

    /// Compares all that stands in the file with what was verified. Every leaf was hashed by this process, so its guard is
    /// enough to find what a disk or a torn write changed since; the last leaf is hashed again, which proves the length.
    fn check_all(&self) -> Result<VerifiedLength, StoreError> {
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        for range in pieces(self.length_bytes) {
            let bytes = &mut buffer[..in_memory(range)];
            self.file.read_exact_at(range.start(), bytes).at(&self.path)?;
            let first = (range.start() / LEAF_BYTES) as usize;
            for (index, leaf) in bytes.chunks(LEAF_BYTES as usize).enumerate() {
                if self.guards[first + index] != Some(crc32c::crc32c(leaf)) {
                    let offset = (first + index) as u64 * LEAF_BYTES;
                    return Err(StoreError::Corrupt { id: self.id(), offset });
                }
            }
        }
        let last = (self.leaves.count() - 1) * LEAF_BYTES;
        let bytes = self.read(ByteRange::new(last, self.length_bytes))?;
        let proven = self.leaves.verify(last, bytes).map_err(|error| StoreError::corrupt(&error))?.length();
        proven.ok_or(StoreError::Incomplete { id: self.id(), offset: last })
    }

    /// Verifies what an earlier attempt left, leaf by leaf: any of it may be missing or torn.
    fn find_present(&mut self) -> Result<(), StoreError> {
        let there_bytes = self.file.length().at(&self.path)?.min(self.length_bytes);
        if there_bytes == 0 && self.length_bytes != 0 {
            return Ok(());
        }
        for range in pieces(there_bytes) {
            let bytes = self.read(range)?;
            match self.leaves.verify(range.start(), bytes.clone()) {
                Ok(run) => self.mark(&run),
                Err(_) => {
                    for at in (0..bytes.len()).step_by(LEAF_BYTES as usize) {
                        let leaf = bytes.slice(at..bytes.len().min(at + LEAF_BYTES as usize));
                        if let Ok(run) = self.leaves.verify(range.start() + at as u64, leaf) {
                            self.mark(&run);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        let mut bytes = vec![0; in_memory(range)];
        self.file.read_exact_at(range.start(), &mut bytes).at(&self.path)?;
        Ok(Bytes::from(bytes))
    }

    fn mark(&mut self, run: &Verified) {
        let first = (run.offset() / LEAF_BYTES) as usize;
        // The empty blob has one leaf of no bytes.
        let leaves = run.bytes().chunks(LEAF_BYTES as usize).chain(run.bytes().is_empty().then_some(&[][..]));
        for (guard, leaf) in self.guards[first..].iter_mut().zip(leaves) {
            *guard = Some(crc32c::crc32c(leaf));
        }
    }
}

/// Length of a piece.
fn in_memory(piece: ByteRange) -> usize {
    usize::try_from(piece.len()).expect("a piece fits memory")
}

/// A blob of this length in buffers of whole leaves; one empty piece for the empty blob.
fn pieces(length_bytes: u64) -> impl Iterator<Item = ByteRange> {
    let step = COPY_BUFFER_BYTES as u64;
    (0..length_bytes.div_ceil(step).max(1)).map(move |at| ByteRange::new(at * step, length_bytes.min((at + 1) * step)))
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.shared.end_writing(self.leaves.id());
    }
}
