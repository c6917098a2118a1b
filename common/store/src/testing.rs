//! Disks for tests: the machine's with somebody who watches it ([`WatchedDisk`]), and one that is all test, [`CrashDisk`].
//!
//! [`CrashDisk`]: the test twin of [`OsDisk`](crate::OsDisk), in memory, that loses power at any operation.
//!
//! Faults it makes, and why the code above must survive them: writes not yet synced are lost, kept or torn at 512-byte
//! sectors, in any combination, since a page cache writes back as it likes; names not yet synced in their folder are lost or
//! kept likewise; a moved file may show under both names. Injected on top: a full disk (half of the refused write is there)
//! and plain I/O errors, from the N-th change on. Deliberately absent: reordering across a sync, damage to synced data
//! (write to the file), lost renames within one folder being half done.

mod watched;
mod world;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use colibri_common::ByteRange;

use crate::disk::{DirEntry, Disk, DiskFile, EntryKind, Lock, OpenMode};
pub use watched::{Watch, WatchedDisk};
use world::{Change, FileNumber, Node, World};

/// What goes wrong from some change on, until [`CrashDisk::heal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Everything that takes space fails with `StorageFull`; removing and syncing work.
    NoSpace,
    /// Every change and every sync fails.
    Broken,
}

/// A disk in memory that remembers every change. Cheap to clone; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct CrashDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What was durable when this disk was made.
    base: World,
    /// What programs see.
    live: World,
    log: Vec<Change>,
    fault: Option<(usize, Fault)>,
    locks: HashMap<FileNumber, Vec<(u64, Lock)>>,
    next_handle: u64,
}

const TOTAL_BYTES: u64 = 1 << 40;

impl CrashDisk {
    /// An empty disk with a folder `/`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of changes and syncs so far: the places where [`CrashDisk::crash`] can cut.
    pub fn operations(&self) -> usize {
        self.state().log.len()
    }

    /// The disk as it may be after power was lost when `operations` changes had been made; `seed` chooses what of the
    /// unsynced ones survives.
    pub fn crash(&self, operations: usize, seed: u64) -> Self {
        self.crash_ignoring(operations, seed, |_| false)
    }

    /// The disk as the next process finds it when this one was killed after so many changes: power stayed, so nothing is lost.
    pub fn kill(&self, operations: usize) -> Self {
        let state = self.state();
        let mut survivor = state.base.clone();
        state.log[..operations].iter().for_each(|change| survivor.apply(change));
        survivor.number_after(&state.live);
        let state = State { base: survivor.clone(), live: survivor, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Like [`CrashDisk::crash`] on a disk that lied: syncs of paths for which `ignored` is true had no effect. A test of
    /// durability must fail with this, or that sync proves nothing.
    pub fn crash_ignoring(&self, operations: usize, seed: u64, ignored: impl Fn(&Path) -> bool) -> Self {
        let state = self.state();
        let mut survivor = world::after_power_loss(&state.base, &state.log[..operations], seed, ignored);
        survivor.number_after(&state.live);
        let state = State { base: survivor.clone(), live: survivor, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// From `changes` further changes on, `fault` happens.
    pub fn fail_after(&self, changes: usize, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.log.len() + changes, fault));
    }

    /// Ends the fault.
    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// Paths synced so far, in order.
    pub fn synced_paths(&self) -> Vec<PathBuf> {
        let synced = |change: &Change| match change {
            Change::SyncFile { path, .. } | Change::SyncDir { path, .. } => Some(path.clone()),
            _ => None,
        };
        self.state().log.iter().filter_map(synced).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Applies and records a change, unless the fault forbids it.
    fn make(&mut self, change: Change) -> io::Result<()> {
        if let Some((from, fault)) = self.fault
            && self.log.len() >= from
        {
            match fault {
                Fault::Broken => return Err(io::Error::other("injected I/O error")),
                Fault::NoSpace if change.takes_space() => {
                    if let Change::Write { file, offset, data } = change {
                        let half = data.slice(..data.len() / 2);
                        self.apply(Change::Write { file, offset, data: half });
                    }
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Fault::NoSpace => {}
            }
        }
        self.apply(change);
        Ok(())
    }

    fn apply(&mut self, change: Change) {
        self.live.apply(&change);
        self.log.push(change);
    }
}

impl Disk for CrashDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let (folder, name) = state.live.place(path)?;
        let file = match (state.live.node(folder, &name), mode) {
            (Some(Node::Folder(_)), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Node::File(file)), _) => file,
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                let file = state.live.new_file();
                state.make(Change::Name { folder, name, node: Node::File(file) })?;
                file
            }
        };
        let handle = state.next_handle;
        state.next_handle += 1;
        let (path, writable) = (path.to_owned(), mode != OpenMode::Read);
        Ok(Arc::new(CrashFile { disk: self.clone(), file, path, handle, writable }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (from_folder, from_name) = state.live.place(from)?;
        let (to_folder, to_name) = state.live.place(to)?;
        let node = state.live.node(from_folder, &from_name).ok_or(io::ErrorKind::NotFound)?;
        if let Some(Node::Folder(_)) = state.live.node(to_folder, &to_name) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        state.make(Change::Move { from_folder, from_name, to_folder, to_name, node })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = Node::File(state.live.file(from).ok_or(io::ErrorKind::NotFound)?);
        let (folder, name) = state.live.place(to)?;
        if state.live.node(folder, &name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.make(Change::Name { folder, name, node })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (folder, name) = state.live.place(path)?;
        match state.live.node(folder, &name) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Node::Folder(_)) => Err(io::ErrorKind::IsADirectory.into()),
            Some(node) => state.make(Change::Unname { folder, name, node }),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (folder, name) = match state.live.place(path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            placed => placed?,
        };
        if state.live.node(folder, &name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = Node::Folder(state.live.new_folder());
        state.make(Change::Name { folder, name, node })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let folder = state.live.folder(path)?;
        state.make(Change::SyncDir { folder, path: path.to_owned() })
    }

    fn sync_everything(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.state();
        for change in state.live.syncs_of_everything() {
            state.make(change)?;
        }
        Ok(())
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state();
        let folder = state.live.folder(path)?;
        let entry = |(name, node): (&std::ffi::OsString, &Node)| DirEntry {
            name: name.clone(),
            kind: match node {
                Node::File(_) => EntryKind::File,
                Node::Folder(_) => EntryKind::Folder,
            },
        };
        Ok(state.live.entries(folder).map(entry).collect())
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.state();
        Ok(state.live.file(path).map(|file| state.live.length(file)))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(TOTAL_BYTES - self.state().live.allocated_bytes_in_all())
    }
}

#[derive(Debug)]
struct CrashFile {
    disk: CrashDisk,
    file: FileNumber,
    path: PathBuf,
    handle: u64,
    writable: bool,
}

impl CrashFile {
    fn change(&self, change: Change) -> io::Result<()> {
        if self.writable { self.disk.state().make(change) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl DiskFile for CrashFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.disk.state().live.read(self.file, offset, buffer))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write { file: self.file, offset, data: Bytes::copy_from_slice(data) })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().live.length(self.file))
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.change(Change::SetLength { file: self.file, length_bytes })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().make(Change::SyncFile { file: self.file, path: self.path.clone() })
    }

    fn punch(&self, range: ByteRange) -> io::Result<()> {
        self.change(Change::Punch { file: self.file, range })
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().live.allocated_bytes(self.file))
    }

    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        let mut state = self.disk.state();
        let holders = state.locks.entry(self.file).or_default();
        let conflicts =
            |held: &(u64, Lock)| held.0 != self.handle && (lock == Lock::Exclusive || held.1 == Lock::Exclusive);
        if holders.iter().any(conflicts) {
            return Ok(false);
        }
        holders.retain(|held| held.0 != self.handle);
        holders.push((self.handle, lock));
        Ok(true)
    }

    fn unlock(&self) -> io::Result<()> {
        if let Some(holders) = self.disk.state().locks.get_mut(&self.file) {
            holders.retain(|held| held.0 != self.handle);
        }
        Ok(())
    }
}

impl Drop for CrashFile {
    fn drop(&mut self) {
        _ = self.unlock();
    }
}
