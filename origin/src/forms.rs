//! [`Forms`]: metadata in gzip and zstd, made once per version and kept in bounded memory, known by the hash of what it decodes to.

use bytes::Bytes;
use colibri_api::Coding;
use colibri_common::Digest;
use colibri_transport::{CodingError, coding};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::error::OriginError;
use crate::limits::FORMS_CACHE_BYTES;

type Key = (Digest, Coding);

#[derive(Debug, Clone)]
struct ByLength;

impl Weighter<Key, Bytes> for ByLength {
    fn weight(&self, _: &Key, form: &Bytes) -> u64 {
        form.len() as u64 + 128
    }
}

/// Maker and memory of coded forms.
pub(crate) struct Forms(Cache<Key, Bytes, ByLength>);

impl Forms {
    pub fn new() -> Self {
        Self(Cache::with_weighter(4096, FORMS_CACHE_BYTES, ByLength))
    }

    /// The form of `bytes`, which have this SHA-256. Blocks; who asks for the same at the same time waits for the one maker.
    pub fn of(&self, sha256: Digest, coding: Coding, bytes: &Bytes) -> Result<Bytes, OriginError> {
        let encode: fn(&[u8]) -> Result<Bytes, CodingError> = match coding {
            Coding::Identity => return Ok(bytes.clone()),
            Coding::Gzip => coding::gzip,
            Coding::Zstd => coding::zstd,
        };
        Ok(self.0.get_or_insert_with(&(sha256, coding), || encode(bytes))?)
    }
}
