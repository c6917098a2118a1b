//! [`Storage`]: where a repository lies. The one seam between the rules of this package and a folder or a bucket.
//!
//! A backend needs no locks, no renames and no conditional replacing: a write that fails if the name is taken is all that
//! commits rest on. Each backend passes the suite in `storage/contract.rs`. Deliberately absent: what the documents mean.

#[cfg(test)]
pub(crate) mod bucket_twin;
#[cfg(test)]
mod contract;
mod elsewhere;
mod local;

use std::fmt::Debug;
use std::path::Path;

use bytes::Bytes;
use colibri_common::ByteRange;
use colibri_store::{DocumentName, StoreError};

use crate::error::RepositoryError;
use crate::lock::PublishLock;

pub use elsewhere::keep_blobs_in;
pub(crate) use local::LocalStorage;

/// Named documents, each written as a whole. Everything written or removed is durable when the call returns unless the method
/// says otherwise, and seen by every later call of every program; a reader sees an old or a new document, never a mixture.
pub(crate) trait Storage: Send + Sync + Debug {
    /// What people call the place: a folder, an address.
    fn place(&self) -> &Path;

    /// Where blobs lie, if not in [`Storage::place`]: others may use them too.
    fn blobs_elsewhere(&self) -> Option<&Path> {
        None
    }

    /// The document; nothing if there is none, an error if it is longer than `bytes_max`.
    fn read(&self, name: &DocumentName, bytes_max: u64) -> Result<Option<Bytes>, StoreError>;

    /// The bytes of `range`, cut at the document's end.
    fn read_range(&self, name: &DocumentName, range: ByteRange) -> Result<Option<Bytes>, StoreError>;

    /// Like [`Storage::read`], of what is at rest and not from a cache that this program filled by writing. For proving.
    fn read_at_rest(&self, name: &DocumentName, bytes_max: u64) -> Result<Option<Bytes>, StoreError>;

    /// Makes a document durable that another program may have put there; nothing happens if there is none.
    fn make_durable(&self, name: &DocumentName) -> Result<(), StoreError>;

    /// Length of a document in bytes, if there is one.
    fn length(&self, name: &DocumentName) -> Result<Option<u64>, StoreError>;

    /// Makes a document; false, and nothing changed, if there is one of that name. Of any number of concurrent calls one
    /// gets true.
    fn create(&self, name: &DocumentName, content: &Bytes) -> Result<bool, StoreError>;

    /// [`Storage::create`] of what is of no use to anybody after power loss, and need not be durable: then it is gone, or there
    /// with any content.
    fn create_passing(&self, name: &DocumentName, content: &Bytes) -> Result<bool, StoreError> {
        self.create(name, content)
    }

    /// [`Storage::create`] for several documents, each by itself.
    fn create_all(&self, documents: &[(DocumentName, Bytes)]) -> Result<Vec<bool>, StoreError> {
        documents.iter().map(|(name, content)| self.create(name, content)).collect()
    }

    /// Makes or replaces a document.
    fn replace(&self, name: &DocumentName, content: &Bytes) -> Result<(), StoreError>;

    /// [`Storage::replace`] for several documents, each by itself; they become visible in this order.
    fn replace_all(&self, documents: &[(DocumentName, Bytes)]) -> Result<(), StoreError> {
        documents.iter().try_for_each(|(name, content)| self.replace(name, content))
    }

    /// The names that start with `prefix`, sorted.
    fn list(&self, prefix: &str) -> Result<Vec<DocumentName>, StoreError>;

    /// Removes documents; those that are not there count as removed.
    fn remove_all(&self, names: &[DocumentName]) -> Result<(), StoreError>;

    /// [`Storage::remove_all`] of what does no harm: any of it may be there again after power loss.
    fn sweep(&self, names: &[DocumentName]) -> Result<(), StoreError> {
        self.remove_all(names)
    }

    /// Waits for the publish lock, which keeps programs from working for nothing. Where there are no locks it excludes nobody:
    /// commits are safe without, collection is not and refuses.
    fn lock(&self) -> Result<PublishLock, RepositoryError>;

    /// The lock, unless somebody holds it.
    fn try_lock(&self) -> Result<Option<PublishLock>, RepositoryError>;
}
