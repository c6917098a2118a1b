//! Every path of a [`Store`](crate::Store), computed here and nowhere else.
//!
//! `format`, `lock`, `index.redb` (and `index.new` while it is made), `blobs/ID` for whole blobs, `partial/ID` for the rest.

use std::path::{Path, PathBuf};

use colibri_common::BlobId;

/// What the `format` document says.
pub(crate) const FORMAT_KIND: &str = "colibri-store";
/// The newest version this program reads and the one it writes.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// The folder of one store.
#[derive(Debug, Clone)]
pub(crate) struct StoreLayout {
    dir: PathBuf,
}

impl StoreLayout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.dir.join("index.redb")
    }

    pub(crate) fn new_index(&self) -> PathBuf {
        self.dir.join("index.new")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    pub(crate) fn blob(&self, id: BlobId) -> PathBuf {
        self.blobs().join(id.to_string())
    }

    pub(crate) fn partials(&self) -> PathBuf {
        self.dir.join("partial")
    }

    pub(crate) fn partial(&self, id: BlobId) -> PathBuf {
        self.partials().join(id.to_string())
    }
}
