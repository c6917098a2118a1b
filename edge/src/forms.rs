//! [`Forms`]: the coded forms of metadata documents. One that came coded from upstream is passed on as it came; any other is
//! made once when it is asked for. They are known by the hash of what they decode to, so they are never out of date.

use std::sync::Arc;

use bytes::Bytes;
use colibri_api::{ApiError, Coding};
use colibri_common::Digest;
use colibri_transport::{CodingError, coding};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::limits::FORMS_BYTES_MAX;
use crate::shapes::one_shard;

/// Items the index is sized for.
const ESTIMATED_ITEMS: usize = 4096;

/// Bytes an entry costs besides its content.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

type Key = (Digest, Coding);

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Bytes> for ByBytes {
    fn weight(&self, _: &Key, form: &Bytes) -> u64 {
        form.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// Coded forms by the SHA-256 of what they decode to.
#[derive(Debug, Clone)]
pub(crate) struct Forms(Arc<Cache<Key, Bytes, ByBytes>>);

impl Forms {
    pub fn new() -> Self {
        Self(Arc::new(one_shard(ESTIMATED_ITEMS, FORMS_BYTES_MAX, ByBytes)))
    }

    /// Keeps a form that came from upstream and was decoded.
    pub fn keep(&self, sha256: Digest, coding: Coding, form: Bytes) {
        self.0.insert((sha256, coding), form);
    }

    /// The form of `bytes`, which have this hash.
    pub async fn of(&self, sha256: Digest, coding: Coding, bytes: &Bytes) -> Result<Bytes, ApiError> {
        let bytes = bytes.clone();
        let encode: fn(&[u8]) -> Result<Bytes, CodingError> = match coding {
            Coding::Identity => return Ok(bytes),
            Coding::Gzip => coding::gzip,
            Coding::Zstd => coding::zstd,
        };
        let make = async {
            let made = tokio::task::spawn_blocking(move || encode(&bytes)).await;
            let made = made.map_err(|_| ApiError::Unavailable("the edge is stopping".to_owned()))?;
            made.map_err(|error| ApiError::Internal(error.to_string()))
        };
        self.0.get_or_insert_async(&(sha256, coding), make).await
    }
}
