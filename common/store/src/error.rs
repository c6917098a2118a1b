//! [`StoreError`]: everything that can go wrong on one disk, each variant one that a caller treats differently.

use std::io;
use std::path::{Path, PathBuf};

use colibri_common::BlobId;
use colibri_common::merkle::{LeavesError, VerifyError};

/// Why the disk did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A text is not a [`DocumentName`](crate::DocumentName).
    #[error("{name:?} is not a document name: {reason}")]
    BadName {
        /// The text.
        name: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// The store does not hold the blob.
    #[error("blob {id} is not in the store")]
    NotFound {
        /// The blob.
        id: BlobId,
    },
    /// Bytes at rest are no longer those that were verified. [`Store::discard`](crate::Store::discard) and fetch it again.
    #[error("blob {id} is damaged on disk at offset {offset}: discard it and fetch it again")]
    Corrupt {
        /// The blob.
        id: BlobId,
        /// Offset of the first bad leaf.
        offset: u64,
    },
    /// Disk or quota is full.
    #[error(
        "{path}: no space left on the disk (or in its quota): free some or raise the quota and try again; nothing stored before was lost"
    )]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// A folder was written by a newer version of this program.
    #[error("{path}: format version {found} is newer than {known}, the newest this program knows: use a newer colibri")]
    TooNew {
        /// The folder.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A folder's `format` document is not one.
    #[error("{path} does not say a format this program knows; expected `{expected} VERSION`")]
    UnknownFormat {
        /// The format document.
        path: PathBuf,
        /// The kind of folder expected.
        expected: &'static str,
    },
    /// A document is longer than its reader allows.
    #[error("{path} has {length_bytes} bytes, over the limit of {limit_bytes}")]
    TooLarge {
        /// The document.
        path: PathBuf,
        /// Its length, or the bytes seen so far of one being written.
        length_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Another process, or another part of this one, has the folder open.
    #[error("{path} is in use by another process: stop it, or choose another folder")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Another writer is filling the same blob.
    #[error("blob {id} is being written by somebody else")]
    BusyWriting {
        /// The blob.
        id: BlobId,
    },
    /// The store holds the blob already.
    #[error("blob {id} is in the store already")]
    AlreadyStored {
        /// The blob.
        id: BlobId,
    },
    /// Verified bytes of one blob were given to the writer of another.
    #[error("bytes of blob {found} were given to the writer of blob {expected}")]
    WrongBlob {
        /// The blob being written.
        expected: BlobId,
        /// The blob the bytes belong to.
        found: BlobId,
    },
    /// A blob was committed before all of it was there.
    #[error("blob {id} is not complete: the leaf at offset {offset} is missing")]
    Incomplete {
        /// The blob.
        id: BlobId,
        /// The first missing byte.
        offset: u64,
    },
    /// More bytes were asked for than the blob has.
    #[error("blob {id} has {length_bytes} bytes; its bytes {start}..{end} were asked for")]
    OutOfRange {
        /// The blob.
        id: BlobId,
        /// Its length.
        length_bytes: u64,
        /// First byte asked for.
        start: u64,
        /// One past the last.
        end: u64,
    },
    /// Verified pieces of another encoded form of the same blob.
    #[error("{path} holds another encoded form of blob {id} than these pieces")]
    WrongForm {
        /// The blob.
        id: BlobId,
        /// The file.
        path: PathBuf,
    },
    /// A unit that is not in a partially present file.
    #[error("unit {unit} of blob {id} is not here")]
    UnitAbsent {
        /// The blob.
        id: BlobId,
        /// The unit.
        unit: u32,
    },
    /// A unit whose bytes changed on disk; it counts as absent from now on.
    #[error("unit {unit} of blob {id} is damaged on disk: fetch it again")]
    UnitCorrupt {
        /// The blob.
        id: BlobId,
        /// The unit.
        unit: u32,
    },
    /// A length that does not fit the leaves it came with.
    #[error("blob {id}: {source}")]
    Leaves {
        /// The blob.
        id: BlobId,
        /// What does not fit.
        source: LeavesError,
    },
    /// More of something than `limits.rs` allows.
    #[error("{count} {what} are over the limit of {limit}")]
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// The index file is damaged.
    #[error("{path}: the index is damaged ({reason}): move the store's folder away; its blobs can be fetched again")]
    Index {
        /// The index file.
        path: PathBuf,
        /// What the database said.
        reason: String,
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

impl StoreError {
    /// The error for an operation on `path` that the operating system refused.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    /// Bytes read back do not verify.
    pub(crate) const fn corrupt(error: &VerifyError) -> Self {
        match *error {
            VerifyError::BadLeaf { id, offset, .. }
            | VerifyError::TooLong { id, offset }
            | VerifyError::TooShort { id, offset }
            | VerifyError::Misaligned { id, offset } => Self::Corrupt { id, offset },
        }
    }
}

/// Names the path of an I/O error.
pub(crate) trait AtPath<T> {
    /// The value, or the error with `path` in it.
    fn at(self, path: &Path) -> Result<T, StoreError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::io(path, source))
    }
}
