//! [`Files`]: the open files of the disk tier. Each holds a descriptor and the layout of its blob, so there is a bound on
//! both; the file that was used longest ago goes first.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::BlobId;
use colibri_package::delivery::{Encoding, Identity, Layout};
use colibri_store::{BlobFile, Disk, HolePunching, StoreError};
use rustix::process::{Resource, getrlimit};

use crate::limits::{DISK_FILES_MAX, DISK_LAYOUT_BYTES_MAX};
use crate::unit::UnitKey;

type FileKey = (BlobId, Encoding, Option<Identity>);

/// Blobs with units on disk.
#[derive(Debug)]
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    pub(super) punching: HolePunching,
    pub(super) files_max: usize,
    open: Mutex<Open>,
    /// One file is made at a time. Apart from `open`, so that readers do not wait for the disk.
    making: Mutex<()>,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<FileKey, Entry>,
    layout_bytes: u64,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    file: BlobFile,
    layout_bytes: u64,
    last_use: u64,
}

/// What became of a unit that had to go.
#[derive(Debug)]
pub(super) enum Evicted {
    /// It is gone, and so are these others that shared its file.
    Units(Vec<UnitKey>),
    /// Somebody is reading it: try again.
    Held,
}

impl Files {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, punching: HolePunching) -> Self {
        let may_open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let files_max = usize::try_from((may_open / 4).clamp(16, DISK_FILES_MAX)).expect("a few thousand");
        Self { disk, dir, punching, files_max, open: Mutex::default(), making: Mutex::default() }
    }

    /// The file that the unit belongs to.
    pub fn get(&self, key: &UnitKey) -> Option<BlobFile> {
        let mut open = lock(&self.open);
        open.uses += 1;
        let uses = open.uses;
        let entry = open.files.get_mut(&file_key(key))?;
        entry.last_use = uses;
        Some(entry.file.clone())
    }

    /// The file that the unit belongs to, made if it is missing, and the units that had to make room for it.
    pub fn get_or_create(&self, key: &UnitKey, layout: &Layout) -> Result<(BlobFile, Vec<UnitKey>), StoreError> {
        let _making = lock(&self.making);
        if let Some(file) = self.get(key) {
            return Ok((file, Vec::new()));
        }
        let layout_bytes = (layout.leaves().wire().len() + layout.unit_h().len()) as u64;
        let displaced = self.make_room(layout_bytes);
        let file = self.create(key, layout)?;
        let mut open = lock(&self.open);
        open.layout_bytes += layout_bytes;
        let last_use = open.uses;
        open.files.insert(file_key(key), Entry { file: file.clone(), layout_bytes, last_use });
        Ok((file, displaced))
    }

    fn create(&self, key: &UnitKey, layout: &Layout) -> Result<BlobFile, StoreError> {
        let path = self.path(key);
        let create = || BlobFile::create(self.disk.clone(), &path, layout.clone(), self.punching);
        let created = match create() {
            // Somebody has removed the whole folder, which is their right.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let made = std::fs::create_dir_all(&self.dir);
                made.map_err(|source| StoreError::Io { path: self.dir.clone(), source })?;
                create()
            }
            created => created,
        };
        // A name without a file behind it that somebody knows would stay until the next start.
        created.inspect_err(|_| drop(self.disk.remove_file(&path)))
    }

    /// Lets files go until one more fits; their units.
    fn make_room(&self, layout_bytes: u64) -> Vec<UnitKey> {
        let mut displaced = Vec::new();
        loop {
            let (file_key, entry) = {
                let mut open = lock(&self.open);
                if open.files.len() < self.files_max && open.layout_bytes + layout_bytes <= DISK_LAYOUT_BYTES_MAX {
                    return displaced;
                }
                let oldest = open.files.iter().min_by_key(|(_, entry)| entry.last_use).map(|(key, _)| *key);
                let Some(oldest) = oldest else { return displaced };
                (oldest, open.take(&oldest))
            };
            if let Some(entry) = entry {
                displaced.extend(units_of(file_key, &entry.file));
                remove_name(&entry.file);
            }
        }
    }

    /// Frees a unit's room; the file goes with its last unit, or at once where holes cannot be punched.
    pub fn evict(&self, key: &UnitKey) -> Result<Evicted, StoreError> {
        let Some(file) = self.get(key) else { return Ok(Evicted::Units(Vec::new())) };
        let whole = self.punching == HolePunching::Unsupported;
        let units = units_of(file_key(key), &file);
        if !whole && file.evict(key.unit)?.is_none() {
            return Ok(Evicted::Held);
        }
        if !(whole || file.used_units().is_empty()) {
            return Ok(Evicted::Units(Vec::new()));
        }
        let entry = lock(&self.open).take(&file_key(key));
        if let Some(entry) = entry {
            remove_name(&entry.file);
        }
        Ok(Evicted::Units(if whole { units } else { Vec::new() }))
    }

    fn path(&self, key: &UnitKey) -> PathBuf {
        let identity = key.identity.map(|identity| identity.etag_hex()).unwrap_or_default();
        self.dir.join(format!("{}.{}.{identity}.unit", key.id, key.encoding))
    }
}

impl Open {
    fn take(&mut self, key: &FileKey) -> Option<Entry> {
        let entry = self.files.remove(key)?;
        self.layout_bytes -= entry.layout_bytes;
        Some(entry)
    }
}

/// The name may be gone already, as may the folder: what counts is that nobody will look for it.
fn remove_name(file: &BlobFile) {
    if let Err(error) = file.remove() {
        tracing::debug!(%error, "a file of the disk tier was gone already");
    }
}

fn units_of((id, encoding, identity): FileKey, file: &BlobFile) -> Vec<UnitKey> {
    file.used_units().into_iter().map(|unit| UnitKey { id, encoding, identity, unit }).collect()
}

fn file_key(key: &UnitKey) -> FileKey {
    (key.id, key.encoding, key.identity)
}

/// Only files of the tier's own naming are removed at start: a mistyped folder loses nothing.
pub(super) fn is_ours(name: &str) -> bool {
    name.ends_with(".unit") && name.split('.').next().is_some_and(|id| id.parse::<BlobId>().is_ok())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
