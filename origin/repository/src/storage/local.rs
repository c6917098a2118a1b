//! A folder on this machine's disk: `Documents` of `common/store`, and a lock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colibri_common::ByteRange;
use colibri_store::{Disk, DocumentName, Documents, StoreError};

use super::Storage;
use crate::error::RepositoryError;
use crate::layout;
use crate::lock::PublishLock;

/// A repository's folder.
#[derive(Debug)]
pub(crate) struct LocalStorage {
    disk: Arc<dyn Disk>,
    documents: Documents,
}

impl LocalStorage {
    /// Opens a folder, made if it is missing.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        let documents = Documents::open(disk.clone(), dir)?;
        Ok(Self { disk, documents })
    }
}

impl Storage for LocalStorage {
    fn place(&self) -> &Path {
        self.documents.dir()
    }

    fn read(&self, name: &DocumentName, bytes_max: u64) -> Result<Option<Bytes>, StoreError> {
        self.documents.get(name, bytes_max)
    }

    fn read_range(&self, name: &DocumentName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        self.documents.open_document(name)?.map(|document| document.read(range)).transpose()
    }

    fn read_at_rest(&self, name: &DocumentName, bytes_max: u64) -> Result<Option<Bytes>, StoreError> {
        self.documents.get_uncached(name, bytes_max)
    }

    fn make_durable(&self, name: &DocumentName) -> Result<(), StoreError> {
        self.documents.make_durable(name)
    }

    fn length(&self, name: &DocumentName) -> Result<Option<u64>, StoreError> {
        self.documents.length(name)
    }

    fn create(&self, name: &DocumentName, content: &Bytes) -> Result<bool, StoreError> {
        self.documents.put_new(name, content)
    }

    fn create_passing(&self, name: &DocumentName, content: &Bytes) -> Result<bool, StoreError> {
        self.documents.put_new_unsynced(name, content)
    }

    fn create_all(&self, documents: &[(DocumentName, Bytes)]) -> Result<Vec<bool>, StoreError> {
        self.documents.put_all_new(documents)
    }

    fn replace(&self, name: &DocumentName, content: &Bytes) -> Result<(), StoreError> {
        self.documents.put(name, content)
    }

    fn replace_all(&self, documents: &[(DocumentName, Bytes)]) -> Result<(), StoreError> {
        self.documents.put_all(documents)
    }

    fn list(&self, prefix: &str) -> Result<Vec<DocumentName>, StoreError> {
        self.documents.list(prefix)
    }

    fn remove_all(&self, names: &[DocumentName]) -> Result<(), StoreError> {
        self.documents.remove_all(names)
    }

    fn sweep(&self, names: &[DocumentName]) -> Result<(), StoreError> {
        self.documents.remove_all_unsynced(names)
    }

    fn lock(&self) -> Result<PublishLock, RepositoryError> {
        PublishLock::take(self.disk.as_ref(), &self.place().join(layout::LOCK))
    }

    fn try_lock(&self) -> Result<Option<PublishLock>, RepositoryError> {
        match PublishLock::take_within(self.disk.as_ref(), &self.place().join(layout::LOCK), Duration::ZERO) {
            Err(RepositoryError::Locked { .. }) => Ok(None),
            taken => taken.map(Some),
        }
    }
}
