//! [`Catalog`]: the shapes of blobs that were opened lately, with their leaves and proven lengths. Bounded in bytes; losing an
//! entry costs a few small requests upstream.

use std::sync::Arc;

use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, VerifiedLength};
use colibri_fetch::{BlobFetcher, FetchError, OpenedBlob, ProvenLeaves};
use colibri_package::delivery::{Encoding, Layout, VerifiedPieces};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio_util::task::TaskTracker;

use crate::limits::CATALOG_BYTES_MAX;
use crate::single_flight::SingleFlight;

/// Bytes an entry costs besides its leaves and unit H.
const ENTRY_OVERHEAD_BYTES: u64 = 512;

/// Items the index is sized for.
const ESTIMATED_ITEMS: usize = 16_384;

/// A blob whose shape and length are proven.
#[derive(Debug)]
pub(crate) struct Opened {
    pub layout: Layout,
    /// Proven length of the content; kept because only it allows totals to be announced.
    #[expect(dead_code, reason = "holding it is the proof that totals may be announced")]
    pub length: VerifiedLength,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<BlobId, Leaves> for ByBytes {
    fn weight(&self, _id: &BlobId, leaves: &Leaves) -> u64 {
        leaves.wire().len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

impl Weighter<(BlobId, Encoding), Arc<Opened>> for ByBytes {
    fn weight(&self, _key: &(BlobId, Encoding), opened: &Arc<Opened>) -> u64 {
        opened.layout.unit_h().len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// Takes what was verified while a blob was opened, once, in the task that opened it.
type KeepEarly = Box<dyn Fn(&Opened, Vec<VerifiedPieces>) + Send + Sync>;

/// Leaves and layouts of recently opened blobs.
pub(crate) struct Catalog {
    fetcher: BlobFetcher,
    keep_early: KeepEarly,
    leaves: Cache<BlobId, Leaves, ByBytes>,
    opened: Cache<(BlobId, Encoding), Arc<Opened>, ByBytes>,
    leaves_flights: SingleFlight<BlobId, Leaves>,
    open_flights: SingleFlight<(BlobId, Encoding), Arc<Opened>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("blobs", &self.opened.len()).finish_non_exhaustive()
    }
}

impl Catalog {
    pub fn new(fetcher: BlobFetcher, tasks: &TaskTracker, keep_early: KeepEarly) -> Arc<Self> {
        Arc::new(Self {
            fetcher,
            keep_early,
            leaves: Cache::with_weighter(ESTIMATED_ITEMS, CATALOG_BYTES_MAX / 2, ByBytes),
            opened: Cache::with_weighter(ESTIMATED_ITEMS, CATALOG_BYTES_MAX / 2, ByBytes),
            leaves_flights: SingleFlight::new(tasks.clone()),
            open_flights: SingleFlight::new(tasks.clone()),
        })
    }

    /// The leaves, and whether upstream had to be asked. `expected` is the encoding that will be asked for next.
    pub async fn leaves(
        self: &Arc<Self>,
        place: &str,
        id: BlobId,
        expected: Encoding,
    ) -> (Result<Leaves, FetchError>, Freshness) {
        if let Some(leaves) = self.leaves.get(&id) {
            return (Ok(leaves), Freshness::Hit);
        }
        let (this, place) = (self.clone(), place.to_owned());
        let work = async move {
            if let Some(leaves) = this.leaves.get(&id) {
                return Ok(leaves);
            }
            let ProvenLeaves { leaves, shown } = this.fetcher.leaves(&place, id, expected).await?;
            if let Some(shown) = shown {
                this.keep(shown);
            }
            this.leaves.insert(id, leaves.clone());
            Ok(leaves)
        };
        let (answer, joined) = self.leaves_flights.join(id, work).await;
        (answer, if joined { Freshness::Joined } else { Freshness::Miss })
    }

    /// The opened blob.
    pub async fn open(
        self: &Arc<Self>,
        place: &str,
        id: BlobId,
        encoding: Encoding,
    ) -> (Result<Arc<Opened>, FetchError>, Freshness) {
        if let Some(opened) = self.opened.get(&(id, encoding)) {
            return (Ok(opened), Freshness::Hit);
        }
        let (this, place) = (self.clone(), place.to_owned());
        let work = async move {
            let leaves = match this.leaves(&place, id, encoding).await.0 {
                Ok(leaves) => Some(leaves),
                Err(FetchError::NotFound { .. }) => None,
                Err(error) => return Err(error),
            };
            // Proving the leaves may have opened the blob on the way; another flight may have landed.
            if let Some(opened) = this.opened.get(&(id, encoding)) {
                return Ok(opened);
            }
            let blob = this.fetcher.open_with(&place, id, encoding, leaves).await?;
            this.leaves.insert(id, blob.layout.leaves().clone());
            Ok(this.keep(blob))
        };
        let (answer, joined) = self.open_flights.join((id, encoding), work).await;
        (answer, if joined { Freshness::Joined } else { Freshness::Miss })
    }

    fn keep(&self, blob: OpenedBlob) -> Arc<Opened> {
        let opened = Arc::new(Opened { layout: blob.layout, length: blob.length });
        (self.keep_early)(&opened, blob.early);
        self.opened.insert((opened.layout.id(), opened.layout.encoding()), opened.clone());
        opened
    }

    /// Forgets the shape of a blob: no source has this encoded form any more.
    pub fn forget(&self, id: BlobId, encoding: Encoding) {
        self.opened.remove(&(id, encoding));
    }
}

/// Where something came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It was here.
    Hit,
    /// Somebody else was fetching it.
    Joined,
    /// It was fetched for this request.
    Miss,
}
