//! [`Documents`]: named files below one folder, each replaced or made as a whole.
//!
//! For trust state, repository metadata and the blobs of a repository. A write goes to a temporary file, is synced, gets
//! its name by one rename (or one link, if the name must be new) and is acknowledged after the folder is synced too: after
//! power loss a document is the old one or the new one, never a mixture. Several processes may share a folder. The folder
//! stays a plain one that other tools can read and fill; only reading never writes to it.
//!
//! Deliberately absent: verification (contents are the caller's), locking of readers against writers (a reader keeps the
//! version it opened), transactions over several documents (make one document the commit point).

mod batch;

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use colibri_common::ByteRange;

use crate::disk::{Disk, DiskFile, EntryKind, Lock, OpenMode, create_dir_durably, folder_of, is_absence};
use crate::document_name::{DocumentName, TEMP_FOLDER};
use crate::error::{AtPath, StoreError};
use crate::limits::{COPY_BUFFER_BYTES, FORMAT_BYTES_MAX};

/// A folder of documents. Cheap to clone; clones share the folder.
#[derive(Debug, Clone)]
pub struct Documents {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Held, shared, from the first write on: temporary files of others are left alone while one of them holds it.
    temp_lock: Mutex<Option<Arc<dyn DiskFile>>>,
    next_temp: AtomicU64,
    /// Folders known to be durable in their parents.
    durable: Mutex<HashSet<PathBuf>>,
}

/// Folders remembered as durable before the memory starts afresh.
const DURABLE_FOLDERS_MAX: usize = 4096;

impl Documents {
    /// Opens a folder, made if it is missing.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        if disk.list_dir(dir).is_err() {
            create_dir_durably(disk.as_ref(), dir).at(dir)?;
        }
        let shared = Shared {
            disk,
            dir: dir.to_owned(),
            temp_lock: Mutex::default(),
            next_temp: AtomicU64::new(0),
            durable: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Where a document lies, for people and for other programs; ours go through this type.
    pub fn path(&self, name: &DocumentName) -> PathBuf {
        name.below(&self.shared.dir)
    }

    /// Checks that the folder's `format` document says `KIND VERSION` with a version this program knows, and writes it if
    /// there is none. Gives the version found.
    pub fn check_format(&self, kind: &'static str, known: u32) -> Result<u32, StoreError> {
        let name = DocumentName::new("format")?;
        let path = self.path(&name);
        let Some(text) = self.get(&name, FORMAT_BYTES_MAX)? else {
            self.put(&name, format!("{kind} {known}\n").as_bytes())?;
            return Ok(known);
        };
        let version = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| text.trim_end().strip_prefix(kind)?.strip_prefix(' ')?.parse::<u32>().ok());
        match version {
            None => Err(StoreError::UnknownFormat { path, expected: kind }),
            Some(found) if found > known => Err(StoreError::TooNew { path: self.shared.dir.clone(), found, known }),
            Some(found) => Ok(found),
        }
    }

    /// The whole document, if there is one; [`StoreError::TooLarge`] if it is longer than `limit_bytes`.
    pub fn get(&self, name: &DocumentName, limit_bytes: u64) -> Result<Option<Bytes>, StoreError> {
        let Some(document) = self.open_document(name)? else { return Ok(None) };
        let length_bytes = document.length();
        if length_bytes > limit_bytes {
            return Err(StoreError::TooLarge { path: document.path, length_bytes, limit_bytes });
        }
        document.read(ByteRange::whole(document.length())).map(Some)
    }

    /// Opens a document for reading in parts. What it gives stays the version of this moment, whatever is put later.
    pub fn open_document(&self, name: &DocumentName) -> Result<Option<DocumentReader>, StoreError> {
        let path = self.path(name);
        let file = match self.shared.disk.open(&path, OpenMode::Read) {
            Err(error) if is_absence(&error) => return Ok(None),
            opened => opened.at(&path)?,
        };
        let length_bytes = file.length().at(&path)?;
        Ok(Some(DocumentReader { file, path, length_bytes }))
    }

    /// Length of a document, if there is one.
    pub fn length(&self, name: &DocumentName) -> Result<Option<u64>, StoreError> {
        let path = self.path(name);
        self.shared.disk.file_len(&path).at(&path)
    }

    /// Makes or replaces a document: atomic and, once this returns, durable. After an error it is the old or the new one.
    pub fn put(&self, name: &DocumentName, content: &[u8]) -> Result<(), StoreError> {
        let mut writer = self.writer()?;
        writer.write(content)?;
        writer.commit(name)
    }

    /// Makes a document, durably; false, and nothing changed, if there is one of that name. Of any number of concurrent
    /// calls, in any number of processes, one gets true.
    pub fn put_new(&self, name: &DocumentName, content: &[u8]) -> Result<bool, StoreError> {
        let mut writer = self.writer()?;
        writer.write(content)?;
        writer.commit_new(name)
    }

    /// Like [`Documents::put_new`] without waiting for the disk, for what is of no use to anybody after power loss: then it is
    /// gone, or there with any content.
    pub fn put_new_unsynced(&self, name: &DocumentName, content: &[u8]) -> Result<bool, StoreError> {
        let mut writer = self.writer()?;
        writer.write(content)?;
        let (path, _) = writer.named_path(name)?;
        writer.link(&path)
    }

    /// Like [`Documents::get`], from the disk itself where the system can tell it from its cache. For proving what is at
    /// rest; what was written without this type must be made durable first, or it stays in the cache.
    pub fn get_uncached(&self, name: &DocumentName, limit_bytes: u64) -> Result<Option<Bytes>, StoreError> {
        let Some(document) = self.open_document(name)? else { return Ok(None) };
        let length_bytes = document.length();
        if length_bytes > limit_bytes {
            return Err(StoreError::TooLarge { path: document.path, length_bytes, limit_bytes });
        }
        document.file.forget_cached().at(&document.path)?;
        document.read(ByteRange::whole(length_bytes)).map(Some)
    }

    /// Makes a document durable that another program may have put here; nothing happens if there is none.
    pub fn make_durable(&self, name: &DocumentName) -> Result<(), StoreError> {
        let Some(document) = self.open_document(name)? else { return Ok(()) };
        document.file.sync().at(&document.path)?;
        let folder = self.shared.ready_folder(&document.path)?;
        self.shared.disk.sync_dir(&folder).at(&folder)
    }

    /// Like [`Documents::put`] for content that is read from `source`, at most `limit_bytes` of it; gives its length.
    pub fn put_from(&self, name: &DocumentName, source: &mut dyn Read, limit_bytes: u64) -> Result<u64, StoreError> {
        let mut writer = self.writer()?;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StoreError::Io { path: self.path(name), source: error }),
            };
            let length_bytes = writer.length() + count as u64;
            if length_bytes > limit_bytes {
                return Err(StoreError::TooLarge { path: self.path(name), length_bytes, limit_bytes });
            }
            writer.write(&buffer[..count])?;
        }
        let length_bytes = writer.length();
        writer.commit(name)?;
        Ok(length_bytes)
    }

    /// Starts a document whose content arrives in pieces, and whose name may be known only at the end.
    pub fn writer(&self) -> Result<DocumentWriter, StoreError> {
        let temp_dir = self.shared.ready_temp_dir()?;
        loop {
            let number = self.shared.next_temp.fetch_add(1, Ordering::Relaxed);
            let path = temp_dir.join(format!("{}-{number}", std::process::id()));
            match self.shared.disk.open(&path, OpenMode::CreateNew) {
                // Of a process in another container with the same number, or of one that died.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => {
                    let file = opened.at(&path)?;
                    return Ok(DocumentWriter {
                        shared: self.shared.clone(),
                        file,
                        path,
                        length_bytes: 0,
                        named: false,
                    });
                }
            }
        }
    }

    /// Removes a document, durably; false if there was none.
    pub fn remove(&self, name: &DocumentName) -> Result<bool, StoreError> {
        let path = self.path(name);
        match self.shared.disk.remove_file(&path) {
            Err(error) if is_absence(&error) => return Ok(false),
            removed => removed.at(&path)?,
        }
        let folder = folder_of(&path);
        self.shared.disk.sync_dir(&folder).at(&folder)?;
        Ok(true)
    }

    /// The names that start with `prefix` (all, if it is empty), sorted. Files whose names are not document names are left
    /// out, as are folders that cannot hold one that matches.
    pub fn list(&self, prefix: &str) -> Result<Vec<DocumentName>, StoreError> {
        let mut found = Vec::new();
        // Only the part of the prefix before its last slash names a folder for certain.
        let start = prefix.rfind('/').map_or("", |slash| &prefix[..slash]);
        if !start.is_empty() && DocumentName::new(start).is_err() {
            return Ok(found);
        }
        let mut folders = vec![start.to_owned()];
        while let Some(folder) = folders.pop() {
            let path = self.shared.dir.join(&folder);
            let entries = match self.shared.disk.list_dir(&path) {
                Err(error) if is_absence(&error) => continue,
                listed => listed.at(&path)?,
            };
            for entry in entries {
                let Some(part) = entry.name.to_str() else { continue };
                let name = if folder.is_empty() { part.to_owned() } else { format!("{folder}/{part}") };
                let Ok(document) = DocumentName::new(&name) else { continue };
                match entry.kind {
                    EntryKind::File if name.starts_with(prefix) => found.push(document),
                    EntryKind::Folder if name.starts_with(prefix) || prefix.starts_with(&name) => folders.push(name),
                    _ => {}
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

impl Shared {
    /// The folder of temporary files; on first use made, locked, and cleared of what crashed writers left.
    fn ready_temp_dir(&self) -> Result<PathBuf, StoreError> {
        let dir = self.dir.join(TEMP_FOLDER);
        let mut held = self.temp_lock.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() {
            return Ok(dir);
        }
        // Our own folder too: whoever made it may have stopped before it was durable.
        create_dir_durably(self.disk.as_ref(), &self.dir).at(&self.dir)?;
        create_dir_durably(self.disk.as_ref(), &dir).at(&dir)?;
        let path = dir.join("lock");
        let lock = self.disk.open(&path, OpenMode::Create).at(&path)?;
        loop {
            if lock.try_lock(Lock::Exclusive).at(&path)? {
                // Nobody else writes now: every temporary file is a left-over.
                let swept = self.sweep_temp_dir(&dir);
                lock.unlock().at(&path)?;
                swept?;
            }
            if lock.try_lock(Lock::Shared).at(&path)? {
                break;
            }
            // Somebody holds it exclusively, which lasts as long as a sweep.
            std::thread::yield_now();
        }
        *held = Some(lock);
        Ok(dir)
    }

    fn sweep_temp_dir(&self, dir: &Path) -> Result<(), StoreError> {
        for entry in self.disk.list_dir(dir).at(dir)? {
            if entry.kind == EntryKind::File && entry.name != "lock" {
                let path = dir.join(entry.name);
                self.disk.remove_file(&path).at(&path)?;
            }
        }
        Ok(())
    }

    /// The folder that will hold `path`, there and durable.
    fn ready_folder(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let folder = folder_of(path);
        let known = |set: &HashSet<PathBuf>| set.contains(&folder);
        if !known(&self.durable.lock().unwrap_or_else(PoisonError::into_inner)) {
            let mut at = folder.clone();
            // Every folder between ours and the document's, since any may be new.
            while at != self.dir {
                create_dir_durably(self.disk.as_ref(), &at).at(&at)?;
                at = folder_of(&at);
            }
            let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            if durable.len() >= DURABLE_FOLDERS_MAX {
                durable.clear();
            }
            durable.insert(folder.clone());
        }
        Ok(folder)
    }
}

/// A document being written. Dropped without a commit it leaves nothing behind.
#[derive(Debug)]
pub struct DocumentWriter {
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    length_bytes: u64,
    /// The temporary name is gone: renamed away.
    named: bool,
}

impl DocumentWriter {
    /// Appends.
    pub fn write(&mut self, data: &[u8]) -> Result<(), StoreError> {
        self.file.write_at(self.length_bytes, data).at(&self.path)?;
        self.length_bytes += data.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub const fn length(&self) -> u64 {
        self.length_bytes
    }

    /// Makes this the document `name`, replacing another, durably.
    pub fn commit(mut self, name: &DocumentName) -> Result<(), StoreError> {
        let (path, folder) = self.ready(name)?;
        self.shared.disk.rename(&self.path, &path).at(&path)?;
        self.named = true;
        self.shared.disk.sync_dir(&folder).at(&folder)
    }

    /// Makes this the document `name`, durably, if there is none of that name; else gives false.
    pub fn commit_new(self, name: &DocumentName) -> Result<bool, StoreError> {
        let (path, folder) = self.ready(name)?;
        let made = self.link(&path)?;
        // Also if another writer made it: the answer "it exists" must outlive power loss as well.
        self.shared.disk.sync_dir(&folder).at(&folder)?;
        Ok(made)
    }

    /// Gives the file its name; false if it is taken.
    fn link(&self, path: &Path) -> Result<bool, StoreError> {
        match self.shared.disk.hard_link(&self.path, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            linked => linked.map(|()| true).at(path),
        }
    }

    fn ready(&self, name: &DocumentName) -> Result<(PathBuf, PathBuf), StoreError> {
        self.file.sync().at(&self.path)?;
        self.named_path(name)
    }

    /// The path of `name` and its folder, which is there and durable.
    fn named_path(&self, name: &DocumentName) -> Result<(PathBuf, PathBuf), StoreError> {
        let path = name.below(&self.shared.dir);
        let folder = self.shared.ready_folder(&path)?;
        Ok((path, folder))
    }
}

impl Drop for DocumentWriter {
    fn drop(&mut self) {
        if !self.named {
            // If this fails the next first writer sweeps it.
            _ = self.shared.disk.remove_file(&self.path);
        }
    }
}

/// One version of a document, open for reading.
#[derive(Debug, Clone)]
pub struct DocumentReader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    length_bytes: u64,
}

impl DocumentReader {
    /// Length in bytes.
    pub const fn length(&self) -> u64 {
        self.length_bytes
    }

    /// The bytes of `range`, cut at the document's end. They are held in memory: read large documents in parts.
    pub fn read(&self, range: ByteRange) -> Result<Bytes, StoreError> {
        let range = range.intersect(ByteRange::whole(self.length_bytes));
        let mut content = vec![0; usize::try_from(range.len()).unwrap_or(usize::MAX)];
        self.file.read_exact_at(range.start(), &mut content).at(&self.path)?;
        Ok(Bytes::from(content))
    }
}
