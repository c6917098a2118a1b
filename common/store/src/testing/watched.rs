//! [`WatchedDisk`]: the machine's disk with somebody at its door, who hears of each operation before it is done, may let it
//! wait, and may refuse it.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use colibri_common::ByteRange;

use crate::disk::{DirEntry, Disk, DiskFile, Lock, OpenMode, OsDisk};

/// Hears of operations before they are done. What is not named here is done unheard.
pub trait Watch: Send + Sync + Debug {
    /// A file is to be opened or made.
    fn opening(&self, path: &Path, mode: OpenMode) {
        _ = (path, mode);
    }

    /// Something is to be read.
    fn reading(&self) {}

    /// Something is to be written.
    ///
    /// # Errors
    /// What the writer is told instead.
    fn writing(&self) -> io::Result<()> {
        Ok(())
    }

    /// A file or a folder is to be made durable; false to pretend only.
    fn syncing(&self) -> bool {
        true
    }
}

/// [`OsDisk`] with a [`Watch`]. Cheap to clone.
#[derive(Debug, Default)]
pub struct WatchedDisk<W> {
    watch: Arc<W>,
}

impl<W: Watch> WatchedDisk<W> {
    /// The disk, and who watches it.
    pub fn new(watch: W) -> Self {
        Self { watch: Arc::new(watch) }
    }

    /// Who watches it.
    pub fn watch(&self) -> &Arc<W> {
        &self.watch
    }
}

impl<W> Clone for WatchedDisk<W> {
    fn clone(&self) -> Self {
        Self { watch: self.watch.clone() }
    }
}

impl<W: Watch + 'static> Disk for WatchedDisk<W> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.watch.opening(path, mode);
        Ok(Arc::new(WatchedFile { file: OsDisk.open(path, mode)?, watch: self.watch.clone() }))
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
        if self.watch.syncing() { OsDisk.sync_dir(path) } else { Ok(()) }
    }

    fn sync_everything(&self, path: &Path) -> io::Result<()> {
        OsDisk.sync_everything(path)
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
struct WatchedFile<W> {
    file: Arc<dyn DiskFile>,
    watch: Arc<W>,
}

impl<W: Watch> DiskFile for WatchedFile<W> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch.reading();
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.watch.writing()?;
        self.file.write_at(offset, data)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.file.set_len(length_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.watch.syncing() { self.file.sync() } else { Ok(()) }
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
