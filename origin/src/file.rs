//! [`OpenFile`]: one version of a file, held open, and the [`Stamp`] that tells versions apart.
//!
//! All calls block; async code goes through [`blocking`]. Names are made safe before they come here.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{ByteRange, UnixSeconds};

use crate::error::OriginError;

/// Which version of a file this is. A file renamed into place has a new inode, one rewritten in place new times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// True if the file has been left alone for longer than the resolution of its times, so that a later version cannot have
    /// the same stamp.
    pub fn is_settled(&self, now: UnixSeconds) -> bool {
        u64::try_from(self.changed.0.max(self.modified.0)).is_ok_and(|changed_s| now.0 > changed_s.saturating_add(2))
    }
}

/// One version of a file. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct OpenFile {
    file: Arc<File>,
    stamp: Stamp,
    path: Arc<Path>,
}

impl OpenFile {
    /// Opens a regular file; nothing if there is none of that name.
    pub fn open(path: &Path) -> Result<Option<Self>, OriginError> {
        let fault = |source| OriginError::Read { path: path.to_owned(), source };
        // Looked at before it is opened: opening a pipe would wait for its other end.
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(fault(error)),
        }
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(fault(error)),
        };
        let stamp = Stamp::of(&file.metadata().map_err(fault)?);
        Ok(Some(Self { file: Arc::new(file), stamp, path: path.into() }))
    }

    /// Its stamp when it was opened.
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Its length when it was opened, in bytes.
    pub const fn length(&self) -> u64 {
        self.stamp.length
    }

    /// Where it was found.
    pub fn path(&self) -> PathBuf {
        self.path.to_path_buf()
    }

    /// True if nobody has written to it since it was opened.
    pub fn is_unchanged(&self) -> Result<bool, OriginError> {
        let metadata = self.file.metadata().map_err(|source| self.fault(source))?;
        Ok(Stamp::of(&metadata) == self.stamp)
    }

    /// The bytes of `range`, which must lie inside the file.
    pub fn read(&self, range: ByteRange) -> Result<Bytes, OriginError> {
        let mut bytes = vec![0; range.within(range.start()).len()];
        self.file.read_exact_at(&mut bytes, range.start()).map_err(|source| self.fault(source))?;
        Ok(Bytes::from(bytes))
    }

    fn fault(&self, source: io::Error) -> OriginError {
        OriginError::Read { path: self.path(), source }
    }
}

/// True for the errors that mean "there is no such file": also a name too long for the file system.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

/// Runs blocking work on the pool made for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OriginError> + Send + 'static,
) -> Result<T, OriginError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|failure| {
        if failure.is_panic() {
            std::panic::resume_unwind(failure.into_panic());
        }
        Err(OriginError::Stopping)
    })
}
