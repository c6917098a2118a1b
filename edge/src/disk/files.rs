//! [`Files`]: the files of the disk tier: where they lie, which are open, and who may make, open or remove one. No blob is
//! opened twice at a time, or holds on its units would mean nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use colibri_common::BlobId;
use colibri_package::delivery::{DeliveryType, Encoding, Layout};
use colibri_store::{Belief, BlobFile, Disk, HolePunching, StoreError};
use rustix::process::{Resource, getrlimit};

use super::ledger::FileKey;
use crate::limits::{DISK_LAYOUT_BYTES_MAX, DISK_OPEN_FILES_MAX};

/// Names of files are changed, and files opened, one at a time in each of so many parts of the tier.
const NAME_LOCKS: usize = 64;

/// Files lie in this many folders, by the first byte of the blob's id.
pub(super) const FOLDERS: u16 = 256;

/// The folder, and the files of it that are open.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    /// Unknown while the disk is too full to try.
    punching: OnceLock<HolePunching>,
    pub(super) open_max: usize,
    open: Mutex<Open>,
    names: [Mutex<()>; NAME_LOCKS],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<FileKey, Entry>,
    layout_bytes: u64,
    /// Candidates for closing; each open file is in here once.
    order: VecDeque<FileKey>,
}

#[derive(Debug)]
struct Entry {
    file: BlobFile,
    layout_bytes: u64,
    used: bool,
}

/// The right to make, open and remove the file of one blob, and of some others.
pub(super) struct NameLock<'a>(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>);

impl Files {
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        let may_open = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let open_max = usize::try_from((may_open / 4).clamp(16, DISK_OPEN_FILES_MAX)).expect("a few thousand");
        Self {
            disk,
            dir,
            punching: OnceLock::new(),
            open_max,
            open: Mutex::default(),
            names: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }

    /// What the file system can do about holes; tries to find out if that is not known.
    pub fn probe(&self) -> Result<(), StoreError> {
        if self.punching.get().is_none() {
            match HolePunching::probe(&*self.disk, &self.dir) {
                // Somebody has filled the disk. Until there is room to try, whole files go.
                Err(StoreError::NoSpace { .. }) => {}
                probed => _ = self.punching.set(probed?),
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn set_punching(&mut self, punching: HolePunching) {
        self.punching = OnceLock::from(punching);
    }

    pub fn punching(&self) -> HolePunching {
        self.punching.get().copied().unwrap_or(HolePunching::Unsupported)
    }

    /// Waits for the right to the name of a blob's file. Whoever has one must not ask for another.
    pub fn lock(&self, key: FileKey) -> NameLock<'_> {
        NameLock(lock(&self.names[self.hasher.hash_one(key) as usize % NAME_LOCKS]))
    }

    /// The file, if it is open.
    pub fn get(&self, key: FileKey) -> Option<BlobFile> {
        let mut open = lock(&self.open);
        let entry = open.files.get_mut(&key)?;
        entry.used = true;
        Some(entry.file.clone())
    }

    /// The file, opened if it is there. Nothing, and no file any more, if it is not one of ours or damaged as a whole.
    pub fn open(&self, _name: &NameLock<'_>, key: FileKey, belief: Belief) -> Result<Option<BlobFile>, StoreError> {
        if let Some(file) = self.get(key) {
            return Ok(Some(file));
        }
        let path = self.path(key);
        let recovered = match BlobFile::recover(self.disk.clone(), &path, self.punching(), belief) {
            Err(error) if is_not_found(&error) => return Ok(None),
            recovered => recovered?,
        };
        let ours = |file: &BlobFile| (file.layout().id(), file.layout().encoding()) == (key.id, key.encoding);
        let Some(file) = recovered.filter(ours) else {
            tracing::warn!(blob = %key.id, encoding = %key.encoding, "a file of the disk tier is damaged and goes");
            _ = self.disk.remove_file(&path);
            return Ok(None);
        };
        self.keep_open(key, &file);
        Ok(Some(file))
    }

    /// Makes the file; whatever had its name goes.
    pub fn create(&self, _name: &NameLock<'_>, key: FileKey, layout: &Layout) -> Result<BlobFile, StoreError> {
        drop(self.take(key));
        let path = self.path(key);
        let create = || BlobFile::create(self.disk.clone(), &path, layout.clone(), self.punching());
        let created = match create() {
            Err(error) if is_not_found(&error) => {
                self.make_folder(path.parent().unwrap_or(&self.dir))?;
                create()
            }
            created => created,
        };
        // A name without a file behind it that somebody knows would stay until the next start.
        let file = created.inspect_err(|_| drop(self.disk.remove_file(&path)))?;
        self.keep_open(key, &file);
        Ok(file)
    }

    /// Removes the file's name. It may be gone already, as may the folder: what counts is that nobody will look for it.
    pub fn remove(&self, _name: &NameLock<'_>, key: FileKey) {
        drop(self.take(key));
        match self.disk.remove_file(&self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(blob = %key.id, %error, "a file of the disk tier could not be removed");
            }
            _ => {}
        }
    }

    /// True if this opening of the file is the one that others find.
    pub fn is_current(&self, key: FileKey, file: &BlobFile) -> bool {
        lock(&self.open).files.get(&key).is_some_and(|entry| entry.file.is(file))
    }

    /// Closes all files that nobody is at, and forgets the others: their names are gone.
    pub fn forget_all(&self) {
        drop(std::mem::take(&mut *lock(&self.open)));
    }

    /// The files of ours in one folder.
    pub fn list(&self, folder: u8) -> io::Result<Vec<FileKey>> {
        let entries = match self.disk.list_dir(&self.dir.join(format!("{folder:02x}"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listed => listed?,
        };
        let keys = entries.into_iter().filter_map(|entry| parse_name(entry.name.to_str()?));
        Ok(keys.filter(|key| key.id.as_bytes()[0] == folder).collect())
    }

    /// Removes what versions before the first that kept its files over a restart left.
    pub fn remove_old(&self) -> io::Result<()> {
        for entry in self.disk.list_dir(&self.dir)? {
            let name = entry.name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.split('.').next());
            if name.is_some_and(|id| id.parse::<BlobId>().is_ok()) {
                self.disk.remove_file(&self.dir.join(&entry.name))?;
            }
        }
        Ok(())
    }

    /// True if there may be files that [`Self::list`] would find.
    pub fn has_folders(&self) -> io::Result<bool> {
        let is_folder = |name: &str| name.len() == 2 && u8::from_str_radix(name, 16).is_ok();
        let mut entries = self.disk.list_dir(&self.dir)?.into_iter();
        Ok(entries.any(|entry| entry.name.to_str().is_some_and(is_folder)))
    }

    /// All folders that [`Self::list`] takes.
    pub fn folders() -> impl Iterator<Item = u8> {
        0..=u8::MAX
    }

    pub fn path(&self, key: FileKey) -> PathBuf {
        self.dir.join(format!("{:02x}", key.id.as_bytes()[0])).join(format!("{}.{}{SUFFIX}", key.id, key.encoding))
    }

    /// Makes a folder and what is missing above it.
    pub fn make_folder(&self, dir: &Path) -> Result<(), StoreError> {
        let made = match self.disk.create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    self.make_folder(parent)?;
                }
                self.disk.create_dir(dir)
            }
            made => made,
        };
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(StoreError::Io { path: dir.to_owned(), source: error })
            }
            _ => Ok(()),
        }
    }

    fn keep_open(&self, key: FileKey, file: &BlobFile) {
        let layout = file.layout();
        // Guards take an eighth of what leaves take.
        let layout_bytes = (layout.leaves().wire().len() + layout.unit_h().len()) as u64 * 9 / 8 + 512;
        // Closing a file whose name is gone may take long: not while others wait.
        let mut closed = Vec::new();
        let mut open = lock(&self.open);
        let mut looks = 2 * open.order.len();
        while (open.files.len() >= self.open_max || open.layout_bytes + layout_bytes > DISK_LAYOUT_BYTES_MAX)
            && looks > 0
        {
            looks -= 1;
            let Some(candidate) = open.order.pop_front() else { break };
            let Some(entry) = open.files.get_mut(&candidate) else { continue };
            if std::mem::take(&mut entry.used) || !entry.file.is_idle() {
                open.order.push_back(candidate);
            } else {
                closed.extend(open.take(candidate));
            }
        }
        open.layout_bytes += layout_bytes;
        open.order.push_back(key);
        open.files.insert(key, Entry { file: file.clone(), layout_bytes, used: true });
    }

    fn take(&self, key: FileKey) -> Option<Entry> {
        let mut open = lock(&self.open);
        let entry = open.take(key)?;
        open.order.retain(|other| *other != key);
        Some(entry)
    }
}

impl Open {
    fn take(&mut self, key: FileKey) -> Option<Entry> {
        let entry = self.files.remove(&key)?;
        self.layout_bytes -= entry.layout_bytes;
        Some(entry)
    }
}

const SUFFIX: &str = ".unit";

/// Only files of the tier's own naming are ever removed: a mistyped folder loses nothing.
fn parse_name(name: &str) -> Option<FileKey> {
    let (id, encoding) = name.strip_suffix(SUFFIX)?.split_once('.')?;
    let known = [Encoding::Raw, Encoding::Delivery(DeliveryType::Type1), Encoding::Delivery(DeliveryType::Type2)];
    let encoding = known.into_iter().find(|known| known.to_string() == encoding)?;
    Some(FileKey { id: id.parse::<BlobId>().ok()?, encoding })
}

pub(super) fn is_not_found(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
