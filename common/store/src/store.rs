//! [`Store`]: the durable store of a device: whole raw blobs, one plain file each, named by id.
//!
//! A blob enters through a [`Partial`] only, which takes nothing but verified bytes, and is in the store when the index says
//! so. The crash argument: the index row is committed last, after the file's bytes and its name are durable, so a row
//! implies a whole file; rows are removed before files, so whatever power loss leaves is either whole or has no row. With
//! its row a blob that is removed gets a mark, which goes when the file has gone for good. At open a marked file is
//! swept, another one without a row is a partial again, a row without its file is dropped, partials stay and are
//! re-verified when resumed. Every read verifies the leaves it touches. Deliberately absent: eviction (only [`Store::sweep`] removes), recency,
//! encodings, networking.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, ByteRange, ClaimedLength, VerifiedLength};

use crate::blob_reader::BlobReader;
use crate::disk::{Disk, DiskFile, Lock, OpenMode, create_dir_durably, is_absence};
use crate::documents::Documents;
use crate::error::{AtPath, StoreError};
use crate::index::Index;
use crate::layout::{FORMAT_KIND, FORMAT_VERSION, StoreLayout};
use crate::limits::{PIN_NAME_BYTES_MAX, PINNED_BLOBS_MAX, PINS_MAX, REMOVALS_AT_A_TIME};
use crate::partial::Partial;
use crate::recovery::{self, Recovery};

/// A store, open in this process and locked against others. Cheap to clone; clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) layout: StoreLayout,
    index: Index,
    /// Blobs that have a [`Partial`].
    writing: Mutex<HashSet<BlobId>>,
    /// Held shared while a name in `blobs/` and its row are brought in line, alone while a sweep removes both: else a sweep
    /// could unlink a file that was committed anew after its row was removed.
    naming: RwLock<()>,
    _lock: Arc<dyn DiskFile>,
}

/// What a sweep removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Blobs removed, in no order.
    pub removed: Vec<BlobId>,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Unfinished blobs removed.
    pub partials_removed: u64,
}

/// How much a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreStats {
    /// Whole blobs.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Unfinished blobs.
    pub partials: u64,
    /// Bytes that may still be written to this disk.
    pub free_bytes: u64,
}

impl Store {
    /// Opens a store, made if it is missing, and repairs what a crash left. One process at a time: [`StoreError::InUse`].
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<(Self, Recovery), StoreError> {
        let layout = StoreLayout::new(dir);
        create_dir_durably(disk.as_ref(), dir).at(dir)?;
        let path = layout.lock();
        let lock = disk.open(&path, OpenMode::Create).at(&path)?;
        if !lock.try_lock(Lock::Exclusive).at(&path)? {
            return Err(StoreError::InUse { path: dir.to_owned() });
        }
        Documents::open(disk.clone(), dir)?.check_format(FORMAT_KIND, FORMAT_VERSION)?;
        for folder in [layout.blobs(), layout.partials()] {
            create_dir_durably(disk.as_ref(), &folder).at(&folder)?;
        }
        let index = Index::open(disk.clone(), &layout)?;
        let recovery = recovery::recover(disk.as_ref(), &layout, &index)?;
        let shared = Shared { disk, layout, index, writing: Mutex::default(), naming: RwLock::default(), _lock: lock };
        Ok((Self { shared: Arc::new(shared) }, recovery))
    }

    /// Length of a blob that is here as a whole. A row whose file is gone, or has another length, counts as absent.
    pub fn contains(&self, id: BlobId) -> Result<Option<u64>, StoreError> {
        self.shared.contains(id)
    }

    /// Starts or resumes a blob: bytes of an earlier attempt are re-verified and kept if they are right. `length` is a claim
    /// that must fit the leaves; the last leaf decides. Errors: [`StoreError::AlreadyStored`], and
    /// [`StoreError::BusyWriting`] while another [`Partial`] of the blob lives (writers do not share).
    pub fn begin(&self, leaves: Leaves, length: ClaimedLength) -> Result<Partial, StoreError> {
        let id = leaves.id();
        leaves.fits(length).map_err(|source| StoreError::Leaves { id, source })?;
        if !self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            return Err(StoreError::BusyWriting { id });
        }
        let opened = self.shared.ready_to_write(id).and_then(|()| Partial::open(self.shared.clone(), leaves, length));
        if opened.is_err() {
            self.shared.end_writing(id);
        }
        opened
    }

    /// Opens a blob for reading. It stays readable through this handle even if a sweep removes it meanwhile.
    pub fn open_blob(&self, id: BlobId) -> Result<BlobReader, StoreError> {
        let absent = || StoreError::NotFound { id };
        let (length_bytes, list) = self.shared.index.blob(id)?.ok_or_else(absent)?;
        let path = self.path(id);
        let file = match self.shared.disk.open(&path, OpenMode::Read) {
            Err(error) if is_absence(&error) => return Err(absent()),
            opened => opened.at(&path)?,
        };
        BlobReader::open(id, length_bytes, list, file, path)
    }

    /// Bytes of a blob, verified again on the way out: [`StoreError::Corrupt`] rather than a wrong byte. The range must lie
    /// inside the blob. To read more than once from a large blob use [`Store::open_blob`].
    pub fn read(&self, id: BlobId, range: ByteRange) -> Result<Bytes, StoreError> {
        self.open_blob(id)?.read(range)
    }

    /// Reads all of a blob and verifies it.
    pub fn scrub(&self, id: BlobId) -> Result<VerifiedLength, StoreError> {
        self.open_blob(id)?.scrub()
    }

    /// Removes one blob, whatever protects it: for one that turned out damaged, so that it can be fetched again. False if it
    /// was not here.
    pub fn discard(&self, id: BlobId) -> Result<bool, StoreError> {
        let _alone = self.shared.naming.write().unwrap_or_else(PoisonError::into_inner);
        let was_here = self.shared.index.remove(id)?;
        if was_here {
            self.shared.remove_files(&[id])?;
        }
        Ok(was_here)
    }

    /// Makes a damaged blob an unfinished one, so that what is right in it is not fetched again. False if it was not here.
    pub fn set_aside(&self, id: BlobId) -> Result<bool, StoreError> {
        let _alone = self.shared.naming.write().unwrap_or_else(PoisonError::into_inner);
        let was_here = self.shared.index.length(id)?.is_some();
        if was_here {
            // The row first, as always: a file without a row is nothing that anybody relies on.
            self.shared.index.forget(&[id])?;
            let path = self.path(id);
            if self.shared.disk.file_len(&path).at(&path)?.is_some() {
                recovery::set_aside(self.shared.disk.as_ref(), &self.shared.layout, id)?;
            }
        }
        Ok(was_here)
    }

    /// The file of a blob, to hard-link or reflink it. Its bytes are unverified until read through this store, and nobody may
    /// write to it. The file is there only while the blob is.
    pub fn path(&self, id: BlobId) -> PathBuf {
        self.shared.layout.blob(id)
    }

    /// All whole blobs, sorted.
    pub fn ids(&self) -> Result<Vec<BlobId>, StoreError> {
        let mut ids: Vec<_> = self.shared.index.blobs()?.into_keys().collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// All whole blobs with their lengths in bytes.
    pub fn lengths(&self) -> Result<BTreeMap<BlobId, u64>, StoreError> {
        Ok(self.shared.index.blobs()?.into_iter().collect())
    }

    /// Bytes that may still be written to this disk.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        let dir = self.shared.layout.dir();
        self.shared.disk.free_bytes(dir).at(dir)
    }

    /// Bytes of disk that unfinished blobs take which nobody writes now: a sweep gives them back, or whoever begins them again
    /// makes use of them.
    pub fn unfinished_bytes(&self) -> Result<u64, StoreError> {
        self.shared.unfinished_bytes()
    }

    /// Protects blobs from [`Store::sweep`], durably, under a name; a pin of that name is replaced. The blobs need not be here
    /// yet: pin first, then test presence.
    pub fn pin(&self, name: &str, ids: &[BlobId]) -> Result<(), StoreError> {
        let over = |what, count, limit| Err(StoreError::OverLimit { what, count, limit });
        if name.len() > PIN_NAME_BYTES_MAX {
            return over("bytes of a pin's name", name.len() as u64, PIN_NAME_BYTES_MAX as u64);
        }
        if ids.len() as u64 > PINNED_BLOBS_MAX {
            return over("blobs of one pin", ids.len() as u64, PINNED_BLOBS_MAX);
        }
        if !self.shared.index.pin(name, ids)? {
            return over("pins", PINS_MAX + 1, PINS_MAX);
        }
        Ok(())
    }

    /// Ends a pin, durably; false if there was none.
    pub fn unpin(&self, name: &str) -> Result<bool, StoreError> {
        self.shared.index.unpin(name)
    }

    /// All pins.
    pub fn pins(&self) -> Result<BTreeMap<String, Vec<BlobId>>, StoreError> {
        self.shared.index.pins()
    }

    /// Removes every blob, whole or unfinished, that is in no pin, not in `protected`, and not being written.
    pub fn sweep(&self, protected: &HashSet<BlobId>) -> Result<SweepReport, StoreError> {
        self.shared.sweep(protected)
    }

    /// Counts; walks the index.
    pub fn stats(&self) -> Result<StoreStats, StoreError> {
        let blobs = self.shared.index.blobs()?;
        Ok(StoreStats {
            blobs: blobs.len() as u64,
            blob_bytes: blobs.values().sum(),
            partials: recovery::ids_in(self.shared.disk.as_ref(), &self.shared.layout.partials())?.0.len() as u64,
            free_bytes: self.free_bytes()?,
        })
    }
}

impl Shared {
    fn contains(&self, id: BlobId) -> Result<Option<u64>, StoreError> {
        let Some(length_bytes) = self.index.length(id)? else { return Ok(None) };
        let path = self.layout.blob(id);
        let there = self.disk.file_len(&path).at(&path)?;
        Ok((there == Some(length_bytes)).then_some(length_bytes))
    }

    /// Brings index and files in line before a blob is written: no row, and what there is of a file is a partial.
    fn ready_to_write(&self, id: BlobId) -> Result<(), StoreError> {
        let _naming = self.naming.read().unwrap_or_else(PoisonError::into_inner);
        if self.contains(id)?.is_some() {
            return Err(StoreError::AlreadyStored { id });
        }
        if self.index.length(id)?.is_some() {
            self.index.forget(&[id])?;
        }
        if self.index.is_removing(id)? {
            // A removal failed. What is written from now on is to stay.
            self.index.removed(&[id])?;
        }
        let path = self.layout.blob(id);
        if self.disk.file_len(&path).at(&path)?.is_some() {
            // A commit failed between name and row (a full disk): no need to fetch it again.
            recovery::set_aside(self.disk.as_ref(), &self.layout, id)?;
        }
        Ok(())
    }

    /// Gives a verified and synced partial its name and its row.
    pub(crate) fn place(&self, leaves: &Leaves, length: VerifiedLength) -> Result<(), StoreError> {
        let _naming = self.naming.read().unwrap_or_else(PoisonError::into_inner);
        let id = leaves.id();
        let (path, folder) = (self.layout.blob(id), self.layout.blobs());
        self.disk.rename(&self.layout.partial(id), &path).at(&path)?;
        self.disk.sync_dir(&folder).at(&folder)?;
        self.index.insert(id, length.bytes(), &leaves.wire())
    }

    pub(crate) fn end_writing(&self, id: BlobId) {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    fn sweep(&self, protected: &HashSet<BlobId>) -> Result<SweepReport, StoreError> {
        let _alone = self.naming.write().unwrap_or_else(PoisonError::into_inner);
        let mut report = SweepReport::default();
        // What an earlier removal did not finish comes first.
        let left = self.index.removing()?;
        self.remove_files(&left)?;
        let candidates: Vec<BlobId> = self.index.blobs()?.into_keys().filter(|id| !protected.contains(id)).collect();
        for some in candidates.chunks(REMOVALS_AT_A_TIME) {
            let removed = self.index.remove_unpinned(some)?;
            let (ids, lengths): (Vec<_>, Vec<_>) = removed.into_iter().unzip();
            self.remove_files(&ids)?;
            report.removed_bytes += lengths.iter().sum::<u64>();
            report.removed.extend(ids);
        }
        let pinned = self.index.pinned()?;
        for id in recovery::ids_in(self.disk.as_ref(), &self.layout.partials())?.0 {
            // Kept locked while the file goes: a writer that begins now waits, and then starts afresh.
            let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            if !pinned.contains(&id) && !protected.contains(&id) && !writing.contains(&id) {
                self.remove_if_there(&self.layout.partial(id))?;
                report.partials_removed += 1;
            }
        }
        Ok(report)
    }

    fn unfinished_bytes(&self) -> Result<u64, StoreError> {
        let mut sum = 0;
        for id in recovery::ids_in(self.disk.as_ref(), &self.layout.partials())?.0 {
            if self.writing.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
                continue;
            }
            let path = self.layout.partial(id);
            match self.disk.open(&path, OpenMode::Read) {
                // Begun again or swept meanwhile.
                Err(error) if is_absence(&error) => {}
                opened => sum += opened.at(&path)?.allocated_bytes().at(&path)?,
            }
        }
        Ok(sum)
    }

    /// Removes the files of blobs that are marked as being removed, for good, and then the marks.
    fn remove_files(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        for id in ids {
            self.remove_if_there(&self.layout.blob(*id))?;
        }
        recovery::forget_removed(self.disk.as_ref(), &self.layout, &self.index, ids)
    }

    fn remove_if_there(&self, path: &Path) -> Result<(), StoreError> {
        match self.disk.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.at(path),
        }
    }
}
