//! Small documents by path: metadata files, TUF targets, repository configurations. They leave unverified, and say so in
//! their type: only a TUF client or a hash can tell whether they are true.

use bytes::Bytes;
use http::header::IF_NONE_MATCH;
use http::{HeaderMap, HeaderValue};

use crate::attempt;
use crate::blob::BlobFetcher;
use crate::error::{AttemptError, FetchError};
use crate::round::{Round, Subject};
use crate::source::Source;

/// What a source says a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unverified {
    /// It is still the one whose ETag was sent along.
    NotModified,
    /// The document.
    Document {
        /// Its bytes.
        bytes: Bytes,
        /// Its ETag, if the source sent one.
        etag: Option<String>,
    },
}

impl BlobFetcher {
    /// Fetches the document at `path` (below each source's URL) of at most `bytes_max` bytes.
    pub async fn document(&self, path: &str, bytes_max: u64, etag: Option<&str>) -> Result<Unverified, FetchError> {
        let mut extra = HeaderMap::new();
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            extra.insert(IF_NONE_MATCH, etag);
        }
        let subject = Subject { what: path.to_owned(), blob: None, encoding: None, unit: 0 };
        let mut round = Round::new(self.sources(), subject);
        while let Some(source) = round.next().await {
            match self.document_from(source, path, bytes_max, &extra).await {
                Ok(document) => {
                    source.succeeded();
                    return Ok(document);
                }
                Err(error) => round.failed(source, &error),
            }
        }
        Err(round.give_up())
    }

    async fn document_from(
        &self,
        source: &Source,
        path: &str,
        bytes_max: u64,
        extra: &HeaderMap,
    ) -> Result<Unverified, AttemptError> {
        let answer = attempt::get(self.client(), source, self.agent(), &source.url.join(path), None, extra).await?;
        if answer.not_modified {
            return Ok(Unverified::NotModified);
        }
        let etag = answer.etag;
        Ok(Unverified::Document { bytes: attempt::read_all(source, answer.body, bytes_max).await?, etag })
    }
}
