//! [`Recorder`]: metadata of served repositories, and the exact bytes of every file that was read of it: for who passes a
//! repository on as it is, or takes it back. Deliberately absent: whether to believe them, which is the core's business.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use colibri_metadata::{Answer, Want};

use crate::blob::BlobFetcher;
use crate::document::Unverified;
use crate::error::{AttemptError, FetchError};
use crate::metadata::MetadataSource;

/// Reads metadata through a fetcher and keeps what it reads, by name.
#[derive(Debug)]
pub struct Recorder<'a> {
    fetcher: &'a BlobFetcher,
    files: Mutex<BTreeMap<String, Bytes>>,
}

impl<'a> Recorder<'a> {
    /// Has read nothing yet.
    pub const fn new(fetcher: &'a BlobFetcher) -> Self {
        Self { fetcher, files: Mutex::new(BTreeMap::new()) }
    }

    /// Every file that was found, by the name that it was asked for.
    pub fn into_files(self) -> BTreeMap<String, Bytes> {
        self.files.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetadataSource for Recorder<'_> {
    async fn fetch(&self, want: &Want) -> Result<Answer, AttemptError> {
        match self.fetcher.document(&format!("/{}", want.name), want.bytes_max, None).await {
            Ok(Unverified::Document { bytes, .. }) => {
                let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
                files.insert(want.name.clone(), bytes.clone());
                Ok(Answer::Found(bytes))
            }
            Ok(Unverified::NotModified) | Err(FetchError::NotFound { .. }) => Ok(Answer::NotFound),
            Err(error) => Err(AttemptError::Unexpected(error.to_string())),
        }
    }
}
