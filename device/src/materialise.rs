//! [`materialise`]: a package of the store as a read-only tree of plain files.
//!
//! The tree is built beside its target and gets its name by one rename, so nothing half done is ever seen under that name.
//! Files share their bytes with the store where the file system can (reflink, else hard link) and are copies elsewhere;
//! every blob is verified again on the way. Files are 0444, folders 0555; content files of a package that may execute are 0555
//! too, and bytes are then shared only with trees of the same rights. Deliberately absent: keeping trees up to date
//! (a package is immutable: another version is another tree), owners, extended attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use colibri_common::{BlobId, ByteRange};
use colibri_package::ResourcePath;
use colibri_store::limits::COPY_BUFFER_BYTES;
use colibri_store::{BlobReader, Store, StoreError};

/// What became of the files of a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaterialiseReport {
    /// Files that share blocks with the store, copied when written to.
    pub reflinked: u64,
    /// Files that are the store's own, under a second name.
    pub hard_linked: u64,
    /// Files with bytes of their own, those of `meta/` included.
    pub copied: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Why a package has no tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaterialiseError {
    /// A path that could leave the tree, or is no path at all.
    #[error("{path:?} is not a path inside a package: {reason}")]
    BadPath {
        /// The path.
        path: String,
        /// The rule it breaks.
        reason: String,
    },
    /// A path that is used twice, or for a file and a folder.
    #[error("the package uses {path:?} for two different things")]
    Conflict {
        /// The path.
        path: String,
    },
    /// The target has no name of its own, as `/` and `..` have not.
    #[error("{path} cannot be the target of a package's tree: name a new folder")]
    BadTarget {
        /// The target.
        path: PathBuf,
    },
    /// There is something of that name. It is never replaced: programs may be running from it.
    #[error("{path} exists already: remove it or choose another folder")]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// Another process builds the same tree.
    #[error("{path} is being made by another process")]
    Busy {
        /// The target.
        path: PathBuf,
    },
    /// A blob of the package is missing or damaged.
    #[error("file {path:?} of the package: {source}")]
    Blob {
        /// The file that needs it.
        path: String,
        /// What is wrong with it.
        source: Box<StoreError>,
    },
    /// Disk or quota is full.
    #[error("{path}: no space left on the disk (or in its quota): free some or raise the quota and try again")]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// Anything else the operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What the content files of a tree may do. Those of `meta/` are never executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// They are read.
    Read,
    /// They are read and executed.
    Execute,
}

impl Rights {
    /// Permission bits.
    const fn mode(self) -> u32 {
        match self {
            Self::Read => 0o444,
            Self::Execute => 0o555,
        }
    }
}

/// Looking at who shares a file, and giving it another name or other rights, is one thing.
static SHARING: Mutex<()> = Mutex::new(());

/// What became of a hard link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// It is there.
    Made,
    /// Another file system, too many names, rules.
    Impossible,
    /// A tree with other rights has the file.
    OtherRights,
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Blob(BlobId),
    Inline(&'a Bytes),
}

/// Builds the tree of a package at `target`, durably: `contents` from the store, `inline` (the files of `meta/`) as given. The
/// blobs must be protected from collection meanwhile. An existing target is refused, whatever it is. After an error there is
/// nothing at the target; what a crash left beside it is removed by the next call with the same target.
pub fn materialise(
    store: &Store,
    contents: &BTreeMap<String, BlobId>,
    inline: &BTreeMap<String, Bytes>,
    target: &Path,
    rights: Rights,
) -> Result<MaterialiseReport, MaterialiseError> {
    build(contents, inline, target, |staging, path, id| staging.add_blob(store, path, id, rights))
}

/// [`materialise`] of blobs that lie somewhere else: `copy` writes one, and answers for it.
pub(crate) fn materialise_with(
    contents: &BTreeMap<String, BlobId>,
    inline: &BTreeMap<String, Bytes>,
    target: &Path,
    copy: impl Fn(BlobId, &mut dyn Write) -> io::Result<()>,
) -> Result<MaterialiseReport, MaterialiseError> {
    build(contents, inline, target, |staging, path, id| staging.add_copy(path, |out| copy(id, out)))
}

fn build(
    contents: &BTreeMap<String, BlobId>,
    inline: &BTreeMap<String, Bytes>,
    target: &Path,
    mut add_blob: impl FnMut(&mut Staging, &str, BlobId) -> Result<(), MaterialiseError>,
) -> Result<MaterialiseReport, MaterialiseError> {
    let files = files_of(contents, inline)?;
    let folders = folders_of(files.keys().copied());
    if let Some(path) = files.keys().find(|path| folders.contains(*path)) {
        return Err(MaterialiseError::Conflict { path: (*path).to_owned() });
    }
    if fs::symlink_metadata(target).is_ok() {
        return Err(MaterialiseError::TargetExists { path: target.to_owned() });
    }
    let mut staging = Staging::claim(target)?;
    for folder in &folders {
        let path = staging.dir.join(folder);
        fs::create_dir(&path).at(&path)?;
    }
    for (path, source) in &files {
        match source {
            Source::Blob(id) => add_blob(&mut staging, path, *id)?,
            Source::Inline(content) => staging.add_inline(path, content)?,
        }
    }
    staging.publish(&folders, target)
}

/// Every file of the tree, its path checked again: the caller's word is not enough for writing outside of it.
fn files_of<'a>(
    contents: &'a BTreeMap<String, BlobId>,
    inline: &'a BTreeMap<String, Bytes>,
) -> Result<BTreeMap<&'a str, Source<'a>>, MaterialiseError> {
    let mut files = BTreeMap::new();
    let blobs = contents.iter().map(|(path, id)| (path, Source::Blob(*id)));
    for (path, source) in blobs.chain(inline.iter().map(|(path, content)| (path, Source::Inline(content)))) {
        let checked = path.parse::<ResourcePath>();
        checked.map_err(|reason| MaterialiseError::BadPath { path: path.clone(), reason: reason.to_string() })?;
        if files.insert(path.as_str(), source).is_some() {
            return Err(MaterialiseError::Conflict { path: path.clone() });
        }
    }
    Ok(files)
}

/// Every folder that files lie in, parents before children.
fn folders_of<'a>(files: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    files.flat_map(|path| path.match_indices('/').map(move |(at, _)| &path[..at])).collect()
}

/// The unfinished tree beside its target. Removed on drop unless published.
#[derive(Debug)]
struct Staging {
    dir: PathBuf,
    parent: PathBuf,
    /// Holds the lock that says somebody is at work here.
    _lock: File,
    may_reflink: bool,
    may_link: bool,
    report: MaterialiseReport,
    is_published: bool,
}

impl Staging {
    /// Makes the staging folder of a target, empty and ours alone.
    fn claim(target: &Path) -> Result<Self, MaterialiseError> {
        let bad = || MaterialiseError::BadTarget { path: target.to_owned() };
        let name = target.file_name().ok_or_else(bad)?.to_string_lossy();
        let parent = match target.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => return Err(bad()),
        };
        let dir = parent.join(format!(".{name}.unfinished"));
        let lock = loop {
            match fs::create_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.at(&dir)?,
            }
            let lock = match File::open(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.at(&dir)?,
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(MaterialiseError::Busy { path: target.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(error).at(&dir),
            }
            // Between opening and locking its owner may have published it: then it is no longer ours to empty.
            let locked = lock.metadata().at(&dir)?.ino();
            if fs::symlink_metadata(&dir).is_ok_and(|there| there.ino() == locked) {
                break lock;
            }
        };
        empty(&dir).at(&dir)?;
        let report = MaterialiseReport::default();
        Ok(Self { dir, parent, _lock: lock, may_reflink: true, may_link: true, report, is_published: false })
    }

    fn add_inline(&mut self, path: &str, content: &Bytes) -> Result<(), MaterialiseError> {
        let to = self.dir.join(path);
        let write = || {
            let mut file = create(&to)?;
            file.write_all(content)?;
            finish(&file, Rights::Read)
        };
        write().at(&to)?;
        self.report.copied += 1;
        self.report.bytes += content.len() as u64;
        Ok(())
    }

    fn add_blob(&mut self, store: &Store, path: &str, id: BlobId, rights: Rights) -> Result<(), MaterialiseError> {
        let to = self.dir.join(path);
        let of_blob = |source| MaterialiseError::Blob { path: path.to_owned(), source: Box::new(source) };
        let blob = store.open_blob(id).map_err(of_blob)?;
        let from = store.path(id);
        if self.may_reflink || self.may_link {
            // These share the store's bytes as they are, so they are read once more to be sure of them.
            blob.scrub().map_err(of_blob)?;
        }
        if self.may_reflink && reflink(&from, &to, rights).at(&to)? {
            self.report.reflinked += 1;
        } else {
            self.may_reflink = false;
            let link = if self.may_link { hard_link(&from, &to, rights).at(&to)? } else { Link::Impossible };
            self.may_link = link != Link::Impossible;
            if link == Link::Made {
                self.report.hard_linked += 1;
            } else {
                copy(&blob, &to, rights, of_blob)?;
                self.report.copied += 1;
            }
        }
        self.report.bytes += blob.length();
        Ok(())
    }

    fn add_copy(
        &mut self,
        path: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), MaterialiseError> {
        let to = self.dir.join(path);
        let copy = || {
            let mut file = create(&to)?;
            write(&mut file)?;
            finish(&file, Rights::Execute)?;
            file.metadata()
        };
        self.report.bytes += copy().at(&to)?.len();
        self.report.copied += 1;
        Ok(())
    }

    /// Makes the folders read-only and everything durable, and gives the tree its name.
    fn publish(mut self, folders: &BTreeSet<&str>, target: &Path) -> Result<MaterialiseReport, MaterialiseError> {
        for folder in folders.iter().rev().map(|folder| self.dir.join(folder)).chain([self.dir.clone()]) {
            fs::set_permissions(&folder, Permissions::from_mode(0o555)).at(&folder)?;
            sync_folder(&folder).at(&folder)?;
        }
        // A folder replaces nothing but an empty folder, should one have appeared meanwhile.
        match fs::rename(&self.dir, target) {
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory) => {
                return Err(MaterialiseError::TargetExists { path: target.to_owned() });
            }
            renamed => renamed.at(target)?,
        }
        self.is_published = true;
        sync_folder(&self.parent).at(&self.parent)?;
        Ok(self.report)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.is_published {
            // If this fails, the next attempt at the same target does it.
            _ = remove_tree(&self.dir);
        }
    }
}

/// Removes a tree.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    empty(dir)?;
    fs::remove_dir(dir)
}

/// Removes everything inside a folder of ours, read-only folders included. Links are removed, never followed.
fn empty(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            empty(&entry.path())?;
            fs::remove_dir(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn create(to: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(to)
}

fn finish(file: &File, rights: Rights) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(rights.mode()))?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Shares the blocks of a file, if the file system can; false, and nothing is there, if it cannot.
fn reflink(from: &Path, to: &Path, rights: Rights) -> io::Result<bool> {
    let Ok(source) = File::open(from) else { return Ok(false) };
    let file = create(to)?;
    match rustix::fs::ioctl_ficlone(&file, &source) {
        Ok(()) => finish(&file, rights).map(|()| true),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(io::ErrorKind::StorageFull.into()),
        Err(_) => fs::remove_file(to).map(|()| false),
    }
}

/// Gives the store's own file a second name, if nobody has it with other rights.
fn hard_link(from: &Path, to: &Path, rights: Rights) -> io::Result<Link> {
    let _alone = SHARING.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(there) = fs::metadata(from) else { return Ok(Link::Impossible) };
    let is_as_wanted = there.permissions().mode() & 0o777 == rights.mode();
    let is_executable = there.permissions().mode() & 0o111 != 0;
    if there.nlink() > 1 && is_executable != (rights == Rights::Execute) {
        return Ok(Link::OtherRights);
    }
    match fs::hard_link(from, to) {
        Err(error) if is_full(&error) => return Err(error),
        Err(_) => return Ok(Link::Impossible),
        Ok(()) => {}
    }
    // Owner and bytes are the store's; that nobody writes to them suits it as well.
    if !is_as_wanted {
        // As durable as the rest of the tree: a mode is written with the file, not with its folder.
        finish(&File::open(to)?, rights)?;
    }
    Ok(Link::Made)
}

fn copy(
    blob: &BlobReader,
    to: &Path,
    rights: Rights,
    of_blob: impl Fn(StoreError) -> MaterialiseError,
) -> Result<(), MaterialiseError> {
    let mut file = create(to).at(to)?;
    for start in (0..blob.length()).step_by(COPY_BUFFER_BYTES) {
        let end = blob.length().min(start + COPY_BUFFER_BYTES as u64);
        let bytes = blob.read(ByteRange::new(start, end)).map_err(&of_blob)?;
        file.write_all(&bytes).at(to)?;
    }
    finish(&file, rights).at(to)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Names the path of an I/O error.
trait AtPath<T> {
    fn at(self, path: &Path) -> Result<T, MaterialiseError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, MaterialiseError> {
        self.map_err(|source| match source {
            full if is_full(&full) => MaterialiseError::NoSpace { path: path.to_owned() },
            source => MaterialiseError::Io { path: path.to_owned(), source },
        })
    }
}

#[cfg(test)]
mod tests;
