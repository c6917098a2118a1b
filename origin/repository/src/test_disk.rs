//! [`SeldomSynced`]: the machine's disk for tests that write a great deal and lose no power.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use colibri_common::ByteRange;
use colibri_store::OsDisk;
use colibri_store::disk::{DirEntry, Disk, DiskFile, Lock, OpenMode};

/// Of so many syncs one is done.
const SYNCS_PER_REAL_ONE: u32 = 2_000;

/// The machine's disk, on which most syncs do nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeldomSynced {
    syncs: Arc<AtomicU32>,
}

impl SeldomSynced {
    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let is_due = self.syncs.fetch_add(1, Ordering::Relaxed).is_multiple_of(SYNCS_PER_REAL_ONE);
        if is_due { sync() } else { Ok(()) }
    }
}

impl Disk for SeldomSynced {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Opened { file: OsDisk.open(path, mode)?, disk: self.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.hard_link(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove_file(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync(|| OsDisk.sync_dir(path))
    }
    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        OsDisk.list_dir(path)
    }
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        OsDisk.file_len(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(path)
    }
}

#[derive(Debug)]
struct Opened {
    file: Arc<dyn DiskFile>,
    disk: SeldomSynced,
}

impl DiskFile for Opened {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.file.set_len(length_bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.disk.sync(|| self.file.sync())
    }
    fn punch(&self, range: ByteRange) -> io::Result<()> {
        self.file.punch(range)
    }
    fn allocated_bytes(&self) -> io::Result<u64> {
        self.file.allocated_bytes()
    }
    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.file.try_lock(lock)
    }
    fn unlock(&self) -> io::Result<()> {
        self.file.unlock()
    }
    fn forget_cached(&self) -> io::Result<()> {
        self.file.forget_cached()
    }
}
