//! Small documents by path: metadata files, TUF targets, repository configurations. They leave unverified, and say so in
//! their type: only a TUF client or a hash can tell whether they are true.

use bytes::Bytes;
use colibri_api::Coding;
use colibri_common::{BlobId, sha256};
use colibri_metadata::{TargetDescription, TargetName};
use http::header::{ACCEPT_ENCODING, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::attempt::{Attempt, Whole};
use crate::blob::BlobFetcher;
use crate::error::{AttemptError, FetchError};
use crate::limits::TARGET_BYTES_MAX;
use crate::nearby::Part;
use crate::round::Subject;
use crate::source::Source;
use crate::witness::Given;

/// What stands in a target's path as it is: the unreserved characters of RFC 3986 §2.3, and slashes.
const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// What can be known of a document beforehand, such as the hash in its name; the error says what is wrong.
pub type Check<'a> = &'a (dyn Fn(&[u8]) -> Result<(), String> + Sync);

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
        check: Check<'_>,
    ) -> Result<Unverified, FetchError> {
        self.fetch_document(None, path, bytes_max, etag, check).await
    }

    /// [`Self::document_checked`] for a document that never changes: whoever is nearby is asked first, who may have got it for
    /// all.
    pub async fn lasting_document(
        &self,
        path: &str,
        bytes_max: u64,
        etag: Option<&str>,
        check: Check<'_>,
    ) -> Result<Unverified, FetchError> {
        // Asked of no third on behalf of somebody nearby, as units are.
        let nearby = self.first(&BlobId::from_digest(sha256(path.as_bytes())), Part::Unit { unit: 0, of: 1 });
        self.fetch_document(nearby.as_deref(), path, bytes_max, etag, check).await
    }

    async fn fetch_document(
        &self,
        nearby: Option<&Source>,
        path: &str,
        bytes_max: u64,
        etag: Option<&str>,
        check: Check<'_>,
    ) -> Result<Unverified, FetchError> {
        let mut extra = HeaderMap::from_iter([(ACCEPT_ENCODING, Coding::ACCEPTED)]);
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            extra.insert(IF_NONE_MATCH, etag);
        }
        let subject = Subject { what: path.to_owned(), blob: None, encoding: None, unit: 0 };
        let sources = self.sources();
        let mut round = self.round(&sources, subject, nearby);
        while let Some(source) = round.next().await {
            match self.attempt(&round, source).document(path, bytes_max, &extra, check).await {
                Ok(document) => {
                    self.succeeded(source, Given::Document);
                    return Ok(document);
                }
                Err(error) => round.failed(source, &error),
            }
        }
        Err(round.give_up())
    }
}

impl BlobFetcher {
    /// Fetches the target that metadata describes so, of at most [`TARGET_BYTES_MAX`] bytes; what leaves here has its length
    /// and every hash that we know (specification §5.7). `folder` is where targets are below each source's URL; `numbered`
    /// says that their files carry hashes (consistent snapshots).
    pub async fn target(
        &self,
        folder: &str,
        name: &TargetName,
        target: &TargetDescription,
        numbered: bool,
    ) -> Result<Bytes, FetchError> {
        if target.length > TARGET_BYTES_MAX {
            return Err(FetchError::Local(format!("target {name} has more than {TARGET_BYTES_MAX} bytes")));
        }
        let place = if numbered { name.with_hash(&target.hashes) } else { name.to_string() };
        let path = format!("{folder}/{}", utf8_percent_encode(&place, IN_PATHS));
        let check = |bytes: &[u8]| target.is(bytes);
        match self.document_checked(&path, target.length, None, &check).await? {
            Unverified::Document { bytes, .. } => Ok(bytes),
            // Nobody asked for a condition.
            Unverified::NotModified => Err(FetchError::NotFound { what: path, asked: self.sources().names() }),
        }
    }
}

impl Attempt<'_> {
    async fn document(
        &self,
        path: &str,
        bytes_max: u64,
        extra: &HeaderMap,
        check: Check<'_>,
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
