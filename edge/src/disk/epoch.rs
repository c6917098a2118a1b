//! [`Epoch`]: the one small document that says how the last process using the folder ended, and what its files took.
//!
//! It is durable at start, where it says that a process is at work, and at a clean stop. In between it is only rewritten, so
//! that after a kill the totals are a few seconds old; after a power loss it may be gone or torn, which counts as unclean.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_store::disk::{DiskFile, Lock, OpenMode};
use colibri_store::{Disk, StoreError};
use serde::{Deserialize, Serialize};

use super::ledger::Totals;
use crate::limits::DISK_EPOCH_BYTES_MAX;

/// What the files of the tier look like; another number means that they are of no use.
const FORMAT: &str = "colibri-edge-units-1";

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Epoch {
    format: String,
    /// Another in each process.
    run: u64,
    /// The process has stopped, and all it wrote is durable.
    clean: bool,
    bytes: u64,
    files: u64,
}

impl Epoch {
    /// Begins one of our own.
    pub fn begin(totals: Totals) -> Self {
        let run = RandomState::new().build_hasher().finish();
        Self { format: FORMAT.to_owned(), run, clean: false, bytes: totals.bytes, files: totals.files }
    }

    /// The same with other totals.
    pub fn now(&self, totals: Totals, clean: bool) -> Self {
        Self { clean, bytes: totals.bytes, files: totals.files, ..self.clone() }
    }

    pub const fn is_clean(&self) -> bool {
        self.clean
    }

    pub const fn totals(&self) -> Totals {
        Totals { bytes: self.bytes, files: self.files }
    }

    pub const fn is_of_run(&self, other: &Self) -> bool {
        self.run == other.run
    }

    /// The document, if there is one that can be read.
    pub fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Self>> {
        let file = match disk.open(&path(dir), OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = vec![0; DISK_EPOCH_BYTES_MAX.min(file.length()?) as usize];
        file.read_exact_at(0, &mut bytes)?;
        let epoch: Option<Self> = serde_json::from_slice(&bytes).ok();
        Ok(epoch.filter(|epoch| epoch.format == FORMAT))
    }

    /// Replaces the document.
    pub fn write(&self, disk: &dyn Disk, dir: &Path, durable: bool) -> Result<(), StoreError> {
        let new = dir.join("epoch.new");
        let write = || {
            let file = disk.open(&new, OpenMode::Create)?;
            let text = serde_json::to_vec(self).map_err(io::Error::other)?;
            file.set_len(0)?;
            file.write_at(0, &text)?;
            if durable {
                file.sync()?;
            }
            disk.rename(&new, &path(dir))?;
            if durable { disk.sync_dir(dir) } else { Ok(()) }
        };
        write().map_err(|source| StoreError::Io { path: path(dir), source })
    }

    /// Makes sure that no document is there.
    pub fn remove(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        match disk.remove_file(&path(dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        disk.sync_dir(dir)
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("epoch")
}

/// Keeps other processes out of the folder until it is dropped.
pub(super) fn lock_folder(disk: &dyn Disk, dir: &Path) -> Result<Arc<dyn DiskFile>, StoreError> {
    let path = dir.join("lock");
    let io = |source| StoreError::Io { path: path.clone(), source };
    let file = disk.open(&path, OpenMode::Create).map_err(io)?;
    if file.try_lock(Lock::Exclusive).map_err(io)? { Ok(file) } else { Err(StoreError::InUse { path: dir.to_owned() }) }
}
