//! [`Disk`] and [`DiskFile`]: the one seam between this package and a file system.
//!
//! Two implementations live: [`OsDisk`] here, and `CrashDisk` in the module `testing` (feature `testing`), which loses
//! power at any operation. All I/O is synchronous and positional; callers on an async runtime go through its blocking
//! pool. Deliberately absent: buffering, caching, any opinion about durability. Those are decided above the seam.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use colibri_common::ByteRange;
use rustix::fs::{Advice, FallocateFlags};

use crate::limits::SYNCS_AT_A_TIME;

/// A file system.
///
/// What an implementation promises, and what nobody may assume: data written to a file survives power loss only after
/// [`DiskFile::sync`] has returned; a created, linked, renamed or removed *name* only after [`Disk::sync_dir`] of its
/// folder has. Before that any subset of the changes may be there afterwards. A rename inside one folder is atomic; one
/// between folders may, until both are synced, show the file under both names or under the old one.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file. Files made by this call belong to the caller until it gives them a name others look for.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file; a file of that name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; `AlreadyExists` if that name is taken.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a name; open handles keep working.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes one folder; `AlreadyExists` if there is something of that name.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// [`DiskFile::sync`] of many files; gives the index of the first that failed, others may then be synced or not.
    fn sync_files(&self, files: &[&dyn DiskFile]) -> Result<(), (usize, io::Error)> {
        files.iter().enumerate().try_for_each(|(index, file)| file.sync().map_err(|error| (index, error)))
    }
    /// Makes everything on the file system that holds `path` durable, names and contents. `Unsupported` where that cannot be
    /// asked for. May take long: for a clean stop only.
    fn sync_everything(&self, path: &Path) -> io::Result<()> {
        _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
    /// What a folder holds, in no order.
    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Length of a regular file; nothing if there is none of that name.
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Bytes that may still be written below `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. The name may go away meanwhile; the bytes stay until the last handle is dropped.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at or beyond the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `data` at `offset`; the file grows as needed. After an error any part of it may have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it with zeros that take no space.
    fn set_len(&self, length_bytes: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Gives the space of whole file-system blocks inside `range` back; they read as zeros. `Unsupported` where the file
    /// system cannot.
    fn punch(&self, range: ByteRange) -> io::Result<()>;
    /// Bytes of disk the file takes.
    fn allocated_bytes(&self) -> io::Result<u64>;
    /// Takes an advisory lock, given back when the handle is dropped or by [`DiskFile::unlock`]; false if another handle
    /// (of any process) holds one that conflicts.
    fn try_lock(&self, lock: Lock) -> io::Result<bool>;
    /// Gives the lock back.
    fn unlock(&self) -> io::Result<()>;

    /// Asks that the next reads come from the disk itself and not from memory. A hint: what was not synced stays in memory,
    /// and a disk without a cache does nothing.
    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }

    /// Fills `buffer` from `offset`, or `UnexpectedEof`.
    fn read_exact_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(offset, buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => {
                    offset += count as u64;
                    buffer = &mut buffer[count..];
                }
            }
        }
        Ok(())
    }
}

/// How [`Disk::open`] treats existing and missing files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// For reading and writing; made, empty, if it is missing.
    Create,
    /// For reading and writing; must be missing before.
    CreateNew,
}

/// Kinds of advisory lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// One holder.
    Exclusive,
    /// Many holders, none of them exclusive.
    Shared,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without its folder.
    pub name: OsString,
    /// What it names.
    pub kind: EntryKind,
}

/// What a name in a folder names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file, or a symbolic link to one.
    File,
    /// A folder (symbolic links to folders are [`EntryKind::Other`], so that walks end).
    Folder,
    /// Anything else.
    Other,
}

/// Makes `dir` and its missing ancestors, each durable in its parent before this returns. An existing folder is synced in
/// its parent too: whoever made it may have stopped before that.
pub(crate) fn create_dir_durably(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let parent = match dir.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    let made = match disk.create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_dir_durably(disk, parent)?;
            disk.create_dir(dir)
        }
        made => made,
    };
    match made {
        // There before, or made by somebody else just now.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match disk.sync_dir(parent) {
            // The parent of an existing folder may be somebody else's, unreadable to us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        },
        made => made.and_then(|()| disk.sync_dir(parent)),
    }
}

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read);
        match mode {
            OpenMode::Read | OpenMode::Write => {}
            OpenMode::Create => _ = options.create(true).truncate(false),
            OpenMode::CreateNew => _ = options.create_new(true),
        }
        let file = options.open(path)?;
        // Opening a folder for reading succeeds; reading it then fails with a puzzling message.
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(OsFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Several at a time: the file system makes what it is asked meanwhile durable in one go.
    fn sync_files(&self, files: &[&dyn DiskFile]) -> Result<(), (usize, io::Error)> {
        let next = AtomicUsize::new(0);
        let work = || loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(index) else { return Ok(()) };
            file.sync().map_err(|error| (index, error))?;
        };
        if files.len() <= 1 {
            return work();
        }
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..SYNCS_AT_A_TIME.min(files.len())).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().expect("syncing does not panic")).fold(Ok(()), Result::and)
        })
    }

    fn sync_everything(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }

    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.push(DirEntry { name: entry.file_name(), kind: kind_of(&entry)? });
        }
        Ok(entries)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Ok(None),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// True for the errors that mean "there is no such file", also when a folder is a file or the file a folder.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
}

fn kind_of(entry: &fs::DirEntry) -> io::Result<EntryKind> {
    let kind = entry.file_type()?;
    let is_file =
        kind.is_file() || kind.is_symlink() && fs::metadata(entry.path()).is_ok_and(|target| target.is_file());
    Ok(match (is_file, kind.is_dir()) {
        (true, _) => EntryKind::File,
        (_, true) => EntryKind::Folder,
        _ => EntryKind::Other,
    })
}

#[derive(Debug)]
struct OsFile(File);

impl DiskFile for OsFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.0.set_len(length_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: also makes a changed length durable, but not time stamps, which nobody here reads.
        self.0.sync_data()
    }

    fn punch(&self, range: ByteRange) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.0, mode, range.start(), range.len())?)
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        // st_blocks counts 512-byte sectors whatever the block size.
        Ok(self.0.metadata()?.blocks() * 512)
    }

    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        let tried = match lock {
            Lock::Exclusive => self.0.try_lock(),
            Lock::Shared => self.0.try_lock_shared(),
        };
        match tried {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed)?)
    }
}

/// The folder of a path that has one; for paths made by this package, which all lie below a folder.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}
