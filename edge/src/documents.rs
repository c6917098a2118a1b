//! Metadata and other small documents, kept for a short life: unnumbered files are revalidated when they are old, numbered
//! ones never change. When upstream is away, what is here is served within a bound.
//!
//! They are passed on as they came, byte for byte; devices verify the signatures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_api::ETag;
use colibri_common::sha256;
use colibri_fetch::{BlobFetcher, FetchError, Unverified};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio_util::task::TaskTracker;

use crate::cache::Freshness;
use crate::config::EdgeConfig;
use crate::limits::{DOCUMENT_BYTES_MAX, DOCUMENTS_BYTES_MAX};
use crate::metrics::Metrics;
use crate::single_flight::SingleFlight;

/// Items the index is sized for.
const ESTIMATED_ITEMS: usize = 4096;

/// One document as it came from upstream.
#[derive(Debug)]
pub(crate) struct Document {
    pub bytes: Bytes,
    pub etag: ETag,
    /// What upstream called it, to revalidate with.
    upstream_etag: Option<String>,
    checked_at: Instant,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<String, Arc<Document>> for ByBytes {
    fn weight(&self, path: &String, document: &Arc<Document>) -> u64 {
        (path.len() + document.bytes.len()) as u64 + 256
    }
}

/// How long a document may be answered without asking upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its name says what it is: it never changes.
    Immutable,
    /// The configured life of unnumbered metadata.
    Short,
    /// The client wants it checked now.
    Revalidate,
}

/// The documents of one edge.
#[derive(Debug, Clone)]
pub(crate) struct Documents {
    fetcher: BlobFetcher,
    kept: Arc<Cache<String, Arc<Document>, ByBytes>>,
    flights: Arc<SingleFlight<String, Arc<Document>>>,
    life: Duration,
    stale_max: Duration,
    metrics: Metrics,
}

impl Documents {
    pub fn new(fetcher: BlobFetcher, config: &EdgeConfig, metrics: Metrics, tasks: &TaskTracker) -> Self {
        Self {
            fetcher,
            kept: Arc::new(Cache::with_weighter(ESTIMATED_ITEMS, DOCUMENTS_BYTES_MAX, ByBytes)),
            flights: Arc::new(SingleFlight::new(tasks.clone())),
            life: Duration::from_secs(config.metadata_max_age_s),
            stale_max: Duration::from_secs(config.metadata_stale_max_s),
            metrics,
        }
    }

    /// The document at `path`.
    pub async fn get(&self, path: &str, life: Life) -> (Result<Arc<Document>, FetchError>, Freshness) {
        self.metrics.documents_asked.inc();
        let kept = self.kept.get(path);
        let life_left = match life {
            Life::Immutable => Duration::MAX,
            Life::Short => self.life,
            Life::Revalidate => Duration::ZERO,
        };
        if let Some(document) = kept.as_ref().filter(|document| document.checked_at.elapsed() < life_left) {
            return (Ok(document.clone()), Freshness::Hit);
        }
        let (this, work_path) = (self.clone(), path.to_owned());
        let work = async move { this.fetch(&work_path).await };
        let (answer, joined) = self.flights.join(path.to_owned(), work).await;
        let freshness = if joined { Freshness::Joined } else { Freshness::Miss };
        match (answer, kept) {
            (Err(FetchError::AllFailed { what, causes, .. }), Some(stale))
                if stale.checked_at.elapsed() < self.stale_max =>
            {
                tracing::warn!(%what, %causes, "upstream is away: serving what is here");
                self.metrics.documents_stale.inc();
                (Ok(stale), Freshness::Hit)
            }
            (answer, _) => (answer, freshness),
        }
    }

    async fn fetch(&self, path: &str) -> Result<Arc<Document>, FetchError> {
        self.metrics.documents_fetched.inc();
        let kept = self.kept.peek(path);
        let etag = kept.as_ref().and_then(|document| document.upstream_etag.as_deref());
        let checked_at = Instant::now();
        let document = match (self.fetcher.document(path, DOCUMENT_BYTES_MAX, etag).await, &kept) {
            (Ok(Unverified::Document { bytes, etag }), _) => {
                Document { etag: ETag::metadata(&sha256(&bytes)), bytes, upstream_etag: etag, checked_at }
            }
            (Ok(Unverified::NotModified), Some(kept)) => {
                let (bytes, etag) = (kept.bytes.clone(), kept.etag.clone());
                Document { bytes, etag, upstream_etag: kept.upstream_etag.clone(), checked_at }
            }
            (Ok(Unverified::NotModified), None) => {
                return Err(FetchError::Local(format!("{path}: upstream answered 304 to an unconditional request")));
            }
            (Err(error), _) => {
                if matches!(error, FetchError::NotFound { .. }) {
                    self.kept.remove(path);
                }
                return Err(error);
            }
        };
        let document = Arc::new(document);
        self.kept.insert(path.to_owned(), document.clone());
        Ok(document)
    }
}
