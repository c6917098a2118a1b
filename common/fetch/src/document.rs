//! Small documents by path: metadata files, TUF targets, repository configurations. They leave unverified, and say so in
//! their type: only a TUF client or a hash can tell whether they are true.

use bytes::Bytes;
use colibri_api::Coding;
use http::header::{ACCEPT_ENCODING, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};

use crate::attempt::{Attempt, Whole};
use crate::blob::BlobFetcher;
use crate::error::{AttemptError, FetchError};
use crate::round::{Round, Subject};

/// What a source says a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unverified {
    /// It is still the one whose ETag was sent along.
    NotModified,
    /// The document.
    Document {
        /// Its bytes, decoded.
        bytes: Bytes,
        /// The form in which it came, if that was coded: to be passed on as it is.
        coded: Option<(Coding, Bytes)>,
        /// Its ETag, if the source sent one.
        etag: Option<String>,
    },
}

impl BlobFetcher {
    /// Fetches the document at `path` (below each source's URL) of at most `bytes_max` bytes, decoded.
    pub async fn document(&self, path: &str, bytes_max: u64, etag: Option<&str>) -> Result<Unverified, FetchError> {
        self.document_checked(path, bytes_max, etag, &|_| Ok(())).await
    }

    /// [`Self::document`] with a check of what can be known of it beforehand, such as the hash in its name: a source whose
    /// document does not pass is passed over. The check's error says what is wrong.
    pub async fn document_checked(
        &self,
        path: &str,
        bytes_max: u64,
        etag: Option<&str>,
        check: &(dyn Fn(&[u8]) -> Result<(), String> + Sync),
    ) -> Result<Unverified, FetchError> {
        let mut extra = HeaderMap::from_iter([(ACCEPT_ENCODING, Coding::ACCEPTED)]);
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            extra.insert(IF_NONE_MATCH, etag);
        }
        let subject = Subject { what: path.to_owned(), blob: None, encoding: None, unit: 0 };
        let mut round = Round::new(self.sources(), subject);
        while let Some(source) = round.next().await {
            match self.attempt(&round, source).document(path, bytes_max, &extra, check).await {
                Ok(document) => {
                    source.succeeded();
                    return Ok(document);
                }
                Err(error) => round.failed(source, &error),
            }
        }
        Err(round.give_up())
    }
}

impl Attempt<'_> {
    async fn document(
        &self,
        path: &str,
        bytes_max: u64,
        extra: &HeaderMap,
        check: &(dyn Fn(&[u8]) -> Result<(), String> + Sync),
    ) -> Result<Unverified, AttemptError> {
        let answer = self.get(&self.source.url.join(path), None, extra.clone()).await?;
        if answer.not_modified {
            return Ok(Unverified::NotModified);
        }
        let etag = answer.etag.clone();
        let Whole { bytes, coded } = self.read_whole(answer, bytes_max).await?;
        check(&bytes).map_err(AttemptError::WrongHash)?;
        Ok(Unverified::Document { bytes, coded, etag })
    }
}
