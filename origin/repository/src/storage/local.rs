//! A folder on this machine's disk: `Documents` of `common/store`, and a lock. Blobs may lie in another folder, perhaps on
//! another disk, where each is written and made durable in the same way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colibri_common::ByteRange;
use colibri_store::{Disk, DocumentName, Documents, StoreError};

use super::{Storage, elsewhere};
use crate::error::RepositoryError;
use crate::layout;
use crate::lock::PublishLock;

/// A repository's folder.
#[derive(Debug)]
pub(crate) struct LocalStorage {
    disk: Arc<dyn Disk>,
    documents: Documents,
    /// Where blobs lie, if not below the folder.
    blobs: Option<Documents>,
}

impl LocalStorage {
    /// Opens a folder, made if it is missing.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        let documents = Documents::open(disk.clone(), dir)?;
        Ok(Self { disk, documents, blobs: None })
    }

    /// Opens a folder whose blobs may have been put elsewhere with [`elsewhere::keep_blobs_in`].
    pub fn open_wherever_blobs_lie(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        let blobs = elsewhere::folder_of(dir).map(|blobs| Documents::open(disk.clone(), &blobs)).transpose()?;
        Ok(Self { blobs, ..Self::open(disk, dir)? })
    }

    /// Who holds a document, and its name there.
    fn holder(&self, name: &DocumentName) -> Result<(&Documents, DocumentName), StoreError> {
        match (&self.blobs, elsewhere::name_below(name.as_str())) {
            (Some(blobs), Some(below)) => Ok((blobs, DocumentName::new(below)?)),
            _ => Ok((&self.documents, name.clone())),
        }
    }

    /// Does `each` to runs of items with one holder, in their order.
    fn by_holder<T>(
        &self,
        items: &[T],
        name: impl Fn(&T) -> &DocumentName,
        mut each: impl FnMut(&Documents, &[T], Vec<DocumentName>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let is_blob = |item: &T| self.blobs.is_some() && elsewhere::name_below(name(item).as_str()).is_some();
        for run in items.chunk_by(|left, right| is_blob(left) == is_blob(right)) {
            let names: Result<Vec<_>, _> = run.iter().map(|item| Ok(self.holder(name(item))?.1)).collect();
            let holder = self.blobs.as_ref().filter(|_| run.first().is_some_and(is_blob)).unwrap_or(&self.documents);
            each(holder, run, names?)?;
        }
        Ok(())
    }
}

fn renamed(run: &[(DocumentName, Bytes)], names: Vec<DocumentName>) -> Vec<(DocumentName, Bytes)> {
    names.into_iter().zip(run).map(|(name, (_, content))| (name, content.clone())).collect()
}

impl Storage for LocalStorage {
    fn place(&self) -> &Path {
        self.documents.dir()
    }

    fn blobs_elsewhere(&self) -> Option<&Path> {
        self.blobs.as_ref().map(Documents::dir)
    }

    fn read(&self, name: &DocumentName, bytes_max: u64) -> Result<Option<Bytes>, StoreError> {
        let (holder, name) = self.holder(name)?;
        holder.get(&name, bytes_max)
    }

    fn read_range(&self, name: &DocumentName, range: ByteRange) -> Result<Option<Bytes>, StoreError> {
        let (holder, name) = self.holder(name)?;
        holder.open_document(&name)?.map(|document| document.read(range)).transpose()
    }

    fn read_at_rest(&self, name: &DocumentName, bytes_max: u64) -> Result<Option<Bytes>, StoreError> {
        let (holder, name) = self.holder(name)?;
        holder.get_uncached(&name, bytes_max)
    }

    fn make_durable(&self, name: &DocumentName) -> Result<(), StoreError> {
        let (holder, name) = self.holder(name)?;
        holder.make_durable(&name)
    }

    fn length(&self, name: &DocumentName) -> Result<Option<u64>, StoreError> {
        let (holder, name) = self.holder(name)?;
        holder.length(&name)
    }

    fn create(&self, name: &DocumentName, content: &Bytes) -> Result<bool, StoreError> {
        let (holder, name) = self.holder(name)?;
        holder.put_new(&name, content)
    }

    fn create_passing(&self, name: &DocumentName, content: &Bytes) -> Result<bool, StoreError> {
        let (holder, name) = self.holder(name)?;
        holder.put_new_unsynced(&name, content)
    }

    fn create_all(&self, documents: &[(DocumentName, Bytes)]) -> Result<Vec<bool>, StoreError> {
        let mut made = Vec::with_capacity(documents.len());
        self.by_holder(
            documents,
            |(name, _)| name,
            |holder, run, names| {
                made.extend(holder.put_all_new(&renamed(run, names))?);
                Ok(())
            },
        )?;
        Ok(made)
    }

    fn replace(&self, name: &DocumentName, content: &Bytes) -> Result<(), StoreError> {
        let (holder, name) = self.holder(name)?;
        holder.put(&name, content)
    }

    fn replace_all(&self, documents: &[(DocumentName, Bytes)]) -> Result<(), StoreError> {
        self.by_holder(documents, |(name, _)| name, |holder, run, names| holder.put_all(&renamed(run, names)))
    }

    fn list(&self, prefix: &str) -> Result<Vec<DocumentName>, StoreError> {
        let mut found = self.documents.list(prefix)?;
        if let (Some(blobs), Some(below)) = (&self.blobs, elsewhere::prefix_below(prefix)) {
            let names = blobs.list(below)?.into_iter().map(|name| elsewhere::name_above(&name));
            found.extend(names.collect::<Result<Vec<_>, _>>()?);
            found.sort_unstable();
        }
        Ok(found)
    }

    fn remove_all(&self, names: &[DocumentName]) -> Result<(), StoreError> {
        self.by_holder(names, |name| name, |holder, _, names| holder.remove_all(&names))
    }

    fn sweep(&self, names: &[DocumentName]) -> Result<(), StoreError> {
        self.by_holder(names, |name| name, |holder, _, names| holder.remove_all_unsynced(&names))
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
