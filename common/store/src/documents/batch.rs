//! Several documents at a time: each file is synced, each folder only once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;

use super::{DocumentWriter, Documents};
use crate::disk::{folder_of, is_absence};
use crate::document_name::DocumentName;
use crate::error::{AtPath, StoreError};
use crate::limits::DOCUMENTS_WRITTEN_AT_A_TIME;

impl Documents {
    /// Like [`Documents::put`] for several documents, and much cheaper. They get their names in the order given; after an
    /// error or a crash any of them may be the old or the new one, each whole.
    pub fn put_all(&self, documents: &[(DocumentName, Bytes)]) -> Result<(), StoreError> {
        let mut folders = BTreeSet::new();
        for some in documents.chunks(DOCUMENTS_WRITTEN_AT_A_TIME) {
            for (mut writer, name) in self.written(some)? {
                let (path, folder) = writer.named_path(name)?;
                self.shared.disk.rename(&writer.path, &path).at(&path)?;
                writer.named = true;
                folders.insert(folder);
            }
        }
        self.sync_folders(&folders)
    }

    /// Like [`Documents::put_new`] for several documents, in the manner of [`Documents::put_all`]: true for each that this
    /// call made.
    pub fn put_all_new(&self, documents: &[(DocumentName, Bytes)]) -> Result<Vec<bool>, StoreError> {
        let mut folders = BTreeSet::new();
        let mut made = Vec::with_capacity(documents.len());
        for some in documents.chunks(DOCUMENTS_WRITTEN_AT_A_TIME) {
            for (writer, name) in self.written(some)? {
                let (path, folder) = writer.named_path(name)?;
                made.push(writer.link(&path)?);
                folders.insert(folder);
            }
        }
        self.sync_folders(&folders)?;
        Ok(made)
    }

    /// Removes documents, durably; those that are not there count as removed.
    pub fn remove_all(&self, names: &[DocumentName]) -> Result<(), StoreError> {
        self.sync_folders(&self.removed(names)?)
    }

    /// Like [`Documents::remove_all`] without waiting for the disk: any of them may be there again after power loss.
    pub fn remove_all_unsynced(&self, names: &[DocumentName]) -> Result<(), StoreError> {
        self.removed(names).map(drop)
    }

    /// Removes documents; gives the folders that have changed.
    fn removed(&self, names: &[DocumentName]) -> Result<BTreeSet<PathBuf>, StoreError> {
        let mut folders = BTreeSet::new();
        for name in names {
            let path = self.path(name);
            match self.shared.disk.remove_file(&path) {
                Err(error) if is_absence(&error) => continue,
                removed => removed.at(&path)?,
            }
            folders.insert(folder_of(&path));
        }
        Ok(folders)
    }

    /// Every document in a temporary file, synced.
    fn written<'a>(
        &self,
        documents: &'a [(DocumentName, Bytes)],
    ) -> Result<Vec<(DocumentWriter, &'a DocumentName)>, StoreError> {
        let mut writers = Vec::with_capacity(documents.len());
        for (name, content) in documents {
            let mut writer = self.writer()?;
            writer.write(content)?;
            writers.push((writer, name));
        }
        let files: Vec<_> = writers.iter().map(|(writer, _)| writer.file.as_ref()).collect();
        match self.shared.disk.sync_files(&files) {
            Err((index, error)) => Err(error).at(&writers[index].0.path),
            Ok(()) => Ok(writers),
        }
    }

    fn sync_folders(&self, folders: &BTreeSet<PathBuf>) -> Result<(), StoreError> {
        folders.iter().try_for_each(|folder| self.shared.disk.sync_dir(folder).at(folder))
    }
}
