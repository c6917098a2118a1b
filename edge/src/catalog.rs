//! [`Catalog`]: the shapes of blobs that were opened lately, with their leaves and proven lengths. Bounded in bytes; losing an
//! entry costs a few small requests upstream.

use std::sync::Arc;

use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, VerifiedLength};
use colibri_fetch::{BlobFetcher, FetchError};
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

/// Leaves and layouts of recently opened blobs.
#[derive(Debug)]
pub(crate) struct Catalog {
    fetcher: BlobFetcher,
    leaves: Cache<BlobId, Leaves, ByBytes>,
    opened: Cache<(BlobId, Encoding), Arc<Opened>, ByBytes>,
    leaves_flights: SingleFlight<BlobId, Leaves>,
    open_flights: SingleFlight<(BlobId, Encoding), Arc<Opened>>,
}

impl Catalog {
    pub fn new(fetcher: BlobFetcher, tasks: &TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            fetcher,
            leaves: Cache::with_weighter(ESTIMATED_ITEMS, CATALOG_BYTES_MAX / 2, ByBytes),
            opened: Cache::with_weighter(ESTIMATED_ITEMS, CATALOG_BYTES_MAX / 2, ByBytes),
            leaves_flights: SingleFlight::new(tasks.clone()),
            open_flights: SingleFlight::new(tasks.clone()),
        })
    }

    /// The leaves, and whether upstream had to be asked.
    pub async fn leaves(self: &Arc<Self>, place: &str, id: BlobId) -> (Result<Leaves, FetchError>, Freshness) {
        if let Some(leaves) = self.leaves.get(&id) {
            return (Ok(leaves), Freshness::Hit);
        }
        let (this, place) = (self.clone(), place.to_owned());
        let work = async move {
            if let Some(leaves) = this.leaves.get(&id) {
                return Ok(leaves);
            }
            let leaves = this.fetcher.leaves(&place, id).await?;
            this.leaves.insert(id, leaves.clone());
            Ok(leaves)
        };
        let (answer, joined) = self.leaves_flights.join(id, work).await;
        (answer, if joined { Freshness::Joined } else { Freshness::Miss })
    }

    /// The opened blob. What was verified while opening goes to `keep`, once, in the task that opens.
    pub async fn open(
        self: &Arc<Self>,
        place: &str,
        id: BlobId,
        encoding: Encoding,
        keep: impl FnOnce(&Opened, Vec<VerifiedPieces>) + Send + 'static,
    ) -> (Result<Arc<Opened>, FetchError>, Freshness) {
        if let Some(opened) = self.opened.get(&(id, encoding)) {
            return (Ok(opened), Freshness::Hit);
        }
        let (this, place) = (self.clone(), place.to_owned());
        let work = async move {
            if let Some(opened) = this.opened.get(&(id, encoding)) {
                return Ok(opened);
            }
            let leaves = match this.leaves(&place, id).await.0 {
                Ok(leaves) => Some(leaves),
                Err(FetchError::NotFound { .. }) => None,
                Err(error) => return Err(error),
            };
            let blob = this.fetcher.open_with(&place, id, encoding, leaves).await?;
            let opened = Arc::new(Opened { layout: blob.layout, length: blob.length });
            this.leaves.insert(id, opened.layout.leaves().clone());
            keep(&opened, blob.early);
            this.opened.insert((id, encoding), opened.clone());
            Ok(opened)
        };
        let (answer, joined) = self.open_flights.join((id, encoding), work).await;
        (answer, if joined { Freshness::Joined } else { Freshness::Miss })
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
