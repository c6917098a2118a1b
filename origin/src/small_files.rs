//! [`SmallFiles`]: metadata and target files, read whole, hashed once per version and kept in bounded memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{ByteRange, Clock, Digest, sha256};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::OriginError;
use crate::file::{OpenFile, Stamp};
use crate::limits::{SMALL_FILE_BYTES_MAX, SMALL_FILE_READ_ATTEMPTS, SMALL_FILES_CACHE_BYTES};

/// One version of a small file.
#[derive(Debug, Clone)]
pub(crate) struct SmallFile {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their SHA-256.
    pub sha256: Digest,
    /// Which version it is.
    pub stamp: Stamp,
}

type Key = (PathBuf, Stamp);

#[derive(Debug, Clone)]
struct ByLength;

impl Weighter<Key, SmallFile> for ByLength {
    fn weight(&self, (path, _): &Key, file: &SmallFile) -> u64 {
        (file.bytes.len() + path.as_os_str().len() + 256) as u64
    }
}

/// Reader and cache of small files.
pub(crate) struct SmallFiles {
    cache: Cache<Key, SmallFile, ByLength>,
    clock: Arc<dyn Clock>,
}

impl SmallFiles {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { cache: Cache::with_weighter(1024, SMALL_FILES_CACHE_BYTES, ByLength), clock }
    }

    /// The file as it is now, or nothing if there is none. Blocks.
    pub fn get(&self, path: &Path) -> Result<Option<SmallFile>, OriginError> {
        for _ in 0..SMALL_FILE_READ_ATTEMPTS {
            let Some(file) = OpenFile::open(path)? else { return Ok(None) };
            let length = file.length();
            if length > SMALL_FILE_BYTES_MAX {
                return Err(OriginError::TooLarge { path: path.to_owned(), length });
            }
            let key = (path.to_owned(), file.stamp());
            if let Some(known) = self.cache.get(&key) {
                return Ok(Some(known));
            }
            let bytes = file.read(ByteRange::whole(length));
            // A file rewritten in place may have been caught half-way: only a version that held still counts.
            if !file.is_unchanged()? {
                continue;
            }
            let bytes = bytes?;
            let found = SmallFile { sha256: sha256(&bytes), bytes, stamp: file.stamp() };
            if file.stamp().is_settled(self.clock.now()) {
                self.cache.insert(key, found.clone());
            }
            return Ok(Some(found));
        }
        Err(OriginError::Unsettled(path.to_owned()))
    }
}
