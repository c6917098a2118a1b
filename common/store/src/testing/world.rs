//! The contents of a [`CrashDisk`](super::CrashDisk) as a pure value: changes applied to it, and what of them power loss
//! leaves.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::ByteRange;

const PAGE: u64 = 4096;
const SECTOR: usize = 512;

pub(super) type FileNumber = usize;
pub(super) type FolderNumber = usize;

/// What a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(FileNumber),
    Folder(FolderNumber),
}

/// One change or sync. Files and folders are numbered and never forgotten, so a change means the same in every order.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { file: FileNumber, offset: u64, data: Bytes },
    SetLength { file: FileNumber, length_bytes: u64 },
    Punch { file: FileNumber, range: ByteRange },
    SyncFile { file: FileNumber, path: PathBuf },
    Name { folder: FolderNumber, name: OsString, node: Node },
    Unname { folder: FolderNumber, name: OsString, node: Node },
    Move { from_folder: FolderNumber, from_name: OsString, to_folder: FolderNumber, to_name: OsString, node: Node },
    SyncDir { folder: FolderNumber, path: PathBuf },
}

impl Change {
    /// Setting a length takes none: what it adds is a hole.
    pub(super) const fn takes_space(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Name { .. })
    }

    fn is_of_file(&self, number: FileNumber) -> bool {
        matches!(self, Self::Write { file, .. } | Self::SetLength { file, .. } | Self::Punch { file, .. } if *file == number)
    }
}

/// Pages that are not there read as zeros and take no space.
#[derive(Debug, Clone, Default)]
struct Content {
    length_bytes: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

type Folder = BTreeMap<OsString, Node>;

#[derive(Debug, Clone)]
pub(super) struct World {
    folders: BTreeMap<FolderNumber, Folder>,
    files: BTreeMap<FileNumber, Content>,
    next_number: usize,
}

impl Default for World {
    fn default() -> Self {
        Self { folders: BTreeMap::from([(0, Folder::new())]), files: BTreeMap::new(), next_number: 1 }
    }
}

impl World {
    /// The syncs that make all of it durable.
    pub(super) fn syncs_of_everything(&self) -> Vec<Change> {
        let files = self.files.keys().map(|file| Change::SyncFile { file: *file, path: PathBuf::new() });
        let folders = self.folders.keys().map(|folder| Change::SyncDir { folder: *folder, path: PathBuf::new() });
        files.chain(folders).collect()
    }

    pub(super) fn new_file(&mut self) -> FileNumber {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn new_folder(&mut self) -> FolderNumber {
        self.new_file()
    }

    /// Makes sure that numbers given from now on are new to `other` as well.
    pub(super) fn number_after(&mut self, other: &Self) {
        self.next_number = self.next_number.max(other.next_number);
    }

    pub(super) fn folder(&self, path: &Path) -> io::Result<FolderNumber> {
        let mut at = 0;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => match self.node(at, name) {
                    Some(Node::Folder(number)) => at = number,
                    Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                    None => return Err(io::ErrorKind::NotFound.into()),
                },
                Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
            }
        }
        Ok(at)
    }

    /// The folder and the name in it that a path means; whether the name exists is another question.
    pub(super) fn place(&self, path: &Path) -> io::Result<(FolderNumber, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.folder(path.parent().unwrap_or(Path::new("/")))?, name.to_owned()))
    }

    pub(super) fn node(&self, folder: FolderNumber, name: &OsStr) -> Option<Node> {
        self.folders.get(&folder)?.get(name).copied()
    }

    pub(super) fn file(&self, path: &Path) -> Option<FileNumber> {
        let (folder, name) = self.place(path).ok()?;
        match self.node(folder, &name)? {
            Node::File(number) => Some(number),
            Node::Folder(_) => None,
        }
    }

    pub(super) fn entries(&self, folder: FolderNumber) -> impl Iterator<Item = (&OsString, &Node)> {
        self.folders.get(&folder).into_iter().flatten()
    }

    pub(super) fn length(&self, file: FileNumber) -> u64 {
        self.files.get(&file).map_or(0, |content| content.length_bytes)
    }

    pub(super) fn allocated_bytes(&self, file: FileNumber) -> u64 {
        self.files.get(&file).map_or(0, |content| content.pages.len() as u64 * PAGE)
    }

    pub(super) fn allocated_bytes_in_all(&self) -> u64 {
        self.files.keys().map(|file| self.allocated_bytes(*file)).sum()
    }

    pub(super) fn read(&self, file: FileNumber, offset: u64, buffer: &mut [u8]) -> usize {
        let Some(content) = self.files.get(&file) else { return 0 };
        let wanted = ByteRange::new(offset, offset + buffer.len() as u64);
        let there = wanted.intersect(ByteRange::whole(content.length_bytes));
        for number in there.blocks(PAGE) {
            let part = there.intersect(ByteRange::new(number * PAGE, (number + 1) * PAGE));
            let target = &mut buffer[part.within(offset)];
            match content.pages.get(&number) {
                Some(page) => target.copy_from_slice(&page[part.within(number * PAGE)]),
                None => target.fill(0),
            }
        }
        usize::try_from(there.len()).expect("no more than the buffer")
    }

    pub(super) fn write(&mut self, file: FileNumber, offset: u64, data: &[u8]) {
        let content = self.files.entry(file).or_default();
        let written = ByteRange::new(offset, offset + data.len() as u64);
        content.length_bytes = content.length_bytes.max(written.end());
        for number in written.blocks(PAGE) {
            let part = written.intersect(ByteRange::new(number * PAGE, (number + 1) * PAGE));
            let page = content.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[part.within(number * PAGE)].copy_from_slice(&data[part.within(offset)]);
        }
    }

    fn set_length(&mut self, file: FileNumber, length_bytes: u64) {
        let content = self.files.entry(file).or_default();
        content.length_bytes = length_bytes;
        content.pages.retain(|number, _| number * PAGE < length_bytes);
        if let Some(page) = content.pages.get_mut(&(length_bytes / PAGE)) {
            Arc::make_mut(page)[(length_bytes % PAGE) as usize..].fill(0);
        }
    }

    fn punch(&mut self, file: FileNumber, range: ByteRange) {
        let content = self.files.entry(file).or_default();
        let range = range.intersect(ByteRange::whole(content.length_bytes));
        for number in range.blocks(PAGE) {
            let page_range = ByteRange::new(number * PAGE, (number + 1) * PAGE);
            if range.contains(page_range) {
                content.pages.remove(&number);
            } else if let Some(page) = content.pages.get_mut(&number) {
                Arc::make_mut(page)[range.intersect(page_range).within(number * PAGE)].fill(0);
            }
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { file, offset, data } => self.write(*file, *offset, data),
            Change::SetLength { file, length_bytes } => self.set_length(*file, *length_bytes),
            Change::Punch { file, range } => self.punch(*file, *range),
            Change::SyncFile { .. } | Change::SyncDir { .. } => {}
            Change::Name { folder, name, node } => self.name(*folder, name, *node),
            Change::Unname { folder, name, node } => self.unname(*folder, name, *node),
            Change::Move { from_folder, from_name, to_folder, to_name, node } => {
                self.unname(*from_folder, from_name, *node);
                self.name(*to_folder, to_name, *node);
            }
        }
    }

    fn name(&mut self, folder: FolderNumber, name: &OsStr, node: Node) {
        self.folders.entry(folder).or_default().insert(name.to_owned(), node);
    }

    fn unname(&mut self, folder: FolderNumber, name: &OsStr, node: Node) {
        let folder = self.folders.entry(folder).or_default();
        if folder.get(name) == Some(&node) {
            folder.remove(name);
        }
    }
}

/// What is there after power was lost at the end of `log`, on a disk that held `base` before it.
pub(super) fn after_power_loss(base: &World, log: &[Change], seed: u64, ignored: impl Fn(&Path) -> bool) -> World {
    let mut world = base.clone();
    let mut pending: Vec<Change> = Vec::new();
    for change in log {
        match change {
            Change::SyncFile { path, .. } | Change::SyncDir { path, .. } if ignored(path) => {}
            Change::SyncFile { file, .. } => {
                pending.retain(|change| {
                    let is_synced = change.is_of_file(*file);
                    if is_synced {
                        world.apply(change);
                    }
                    !is_synced
                });
            }
            Change::SyncDir { folder, .. } => {
                pending = pending.into_iter().filter_map(|change| sync_names(&mut world, *folder, change)).collect();
            }
            change => pending.push(change.clone()),
        }
    }
    let mut chance = fastrand::Rng::with_seed(seed);
    // Extremes are as likely as mixtures: everything lost, everything kept.
    let kept_of_4 = chance.u8(0..=4);
    for change in pending {
        if chance.u8(0..4) < kept_of_4 {
            survive(&mut world, &change, kept_of_4 < 4, &mut chance);
        }
    }
    world
}

/// Syncs one folder as far as one pending change is concerned; gives back what stays pending of it.
fn sync_names(world: &mut World, synced: FolderNumber, change: Change) -> Option<Change> {
    match &change {
        Change::Name { folder, .. } | Change::Unname { folder, .. } if *folder == synced => world.apply(&change),
        Change::Move { from_folder, .. } if *from_folder == synced => world.apply(&change),
        Change::Move { from_folder, from_name, to_folder, to_name, node } if *to_folder == synced => {
            world.name(*to_folder, to_name, *node);
            return Some(Change::Unname { folder: *from_folder, name: from_name.clone(), node: *node });
        }
        _ => return Some(change),
    }
    None
}

/// Applies an unsynced change that power loss left, whole or in part.
fn survive(world: &mut World, change: &Change, may_tear: bool, chance: &mut fastrand::Rng) {
    match change {
        Change::Write { file, offset, data } if may_tear && chance.bool() => {
            // The length grew, but only some sectors got there.
            let end = offset + data.len() as u64;
            if world.length(*file) < end {
                world.set_length(*file, end);
            }
            let mut at = 0;
            while at < data.len() {
                // Sectors are cut where the disk cuts them, not where the write began.
                let sector_end = SECTOR - (*offset as usize + at) % SECTOR;
                let end = data.len().min(at + sector_end);
                if chance.bool() {
                    world.write(*file, offset + at as u64, &data[at..end]);
                }
                at = end;
            }
        }
        Change::Move { from_folder, to_folder, to_name, node, .. } if from_folder != to_folder && chance.bool() => {
            world.name(*to_folder, to_name, *node);
        }
        change => world.apply(change),
    }
}
