//! A bucket in memory that honours nothing but `If-None-Match`: the twin of object stores for tests.
//!
//! No locks, no renames, no conditional replacing. [`BucketTwin::before_each_write`] lets a test run another program between
//! any two writes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use colibri_common::ByteRange;
use colibri_store::{DocumentName, StoreError};

use super::Storage;
use crate::error::RepositoryError;
use crate::lock::PublishLock;

type Hook = Arc<dyn Fn(&DocumentName) + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct BucketTwin {
    objects: Arc<Mutex<BTreeMap<DocumentName, Bytes>>>,
    hook: Option<Hook>,
}

impl fmt::Debug for BucketTwin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BucketTwin")
    }
}

impl BucketTwin {
    /// The same bucket as a client that runs `hook` before each of its writes.
    pub fn before_each_write(&self, hook: impl Fn(&DocumentName) + Send + Sync + 'static) -> Self {
        Self { objects: self.objects.clone(), hook: Some(Arc::new(hook)) }
    }

    fn objects(&self) -> std::sync::MutexGuard<'_, BTreeMap<DocumentName, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writes(&self, name: &DocumentName) {
        if let Some(hook) = &self.hook {
            hook(name);
        }
    }
}

impl Storage for BucketTwin {
    fn place(&self) -> &Path {
        Path::new("bucket")
    }

    fn read(&self, name: &DocumentName, bytes_max: u64) -> Result<Option<Bytes>, StoreError> {
        let Some(content) = self.objects().get(name).cloned() else { return Ok(None) };
        let length_bytes = content.len() as u64;
        if length_bytes > bytes_max {
            let path = self.place().join(name.as_str());
            return Err(StoreError::TooLarge { path, length_bytes, limit_bytes: bytes_max });
        }
        Ok(Some(content))
    }

    fn read_range(&self, name: &DocumentName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let Some(content) = self.objects().get(name).cloned() else { return Ok(None) };
        let at = |offset: u64| usize::try_from(offset).unwrap().min(content.len());
        Ok(Some(content.slice(at(range.start())..at(range.end()))))
    }

    fn read_at_rest(&self, name: &DocumentName, bytes_max: u64) -> Result<Option<Bytes>, StoreError> {
        self.read(name, bytes_max)
    }

    fn make_durable(&self, _name: &DocumentName) -> Result<(), StoreError> {
        Ok(())
    }

    fn length(&self, name: &DocumentName) -> Result<Option<u64>, StoreError> {
        Ok(self.objects().get(name).map(|content| content.len() as u64))
    }

    fn create(&self, name: &DocumentName, content: &Bytes) -> Result<bool, StoreError> {
        self.writes(name);
        let mut objects = self.objects();
        let new = !objects.contains_key(name);
        if new {
            objects.insert(name.clone(), Bytes::copy_from_slice(content));
        }
        Ok(new)
    }

    fn replace(&self, name: &DocumentName, content: &Bytes) -> Result<(), StoreError> {
        self.writes(name);
        self.objects().insert(name.clone(), Bytes::copy_from_slice(content));
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<DocumentName>, StoreError> {
        Ok(self.objects().keys().filter(|name| name.as_str().starts_with(prefix)).cloned().collect())
    }

    fn remove_all(&self, names: &[DocumentName]) -> Result<(), StoreError> {
        for name in names {
            self.writes(name);
            self.objects().remove(name);
        }
        Ok(())
    }

    fn lock(&self) -> Result<PublishLock, RepositoryError> {
        Ok(PublishLock::none())
    }

    fn try_lock(&self) -> Result<Option<PublishLock>, RepositoryError> {
        Ok(Some(PublishLock::none()))
    }
}
