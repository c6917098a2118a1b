//! [`Unknown`]: blobs that upstream said it does not have. Bounded, short-lived, and forgotten when a new metadata set is
//! served: a release may bring what was missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use colibri_common::BlobId;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::limits::UNKNOWN_BYTES_MAX;
use crate::shapes::one_shard;

/// Items the index is sized for.
const ESTIMATED_ITEMS: usize = 4096;

/// Bytes an entry takes besides its place.
const ENTRY_BYTES: u64 = 128;

/// Where a blob was asked for (`/REPO` or nothing), which, and in what form.
type Key = (String, BlobId, u32);

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Seen> for ByBytes {
    fn weight(&self, (place, _, _): &Key, _: &Seen) -> u64 {
        place.len() as u64 + ENTRY_BYTES
    }
}

/// When it was said, and under which metadata.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    at: Instant,
    era: u64,
}

/// What upstream does not have.
#[derive(Debug, Clone)]
pub(crate) struct Unknown {
    absent: Arc<Cache<Key, Seen, ByBytes>>,
    era: Arc<AtomicU64>,
    life: Duration,
}

impl Unknown {
    pub fn new(life: Duration) -> Self {
        Self { absent: Arc::new(one_shard(ESTIMATED_ITEMS, UNKNOWN_BYTES_MAX, ByBytes)), era: Arc::default(), life }
    }

    /// Whether upstream said lately that it has no such blob.
    pub fn has(&self, place: &str, id: BlobId, form: u32, life_max: Duration) -> bool {
        let seen = self.absent.get(&(place.to_owned(), id, form));
        seen.is_some_and(|seen| seen.era == self.era() && seen.at.elapsed() < self.life.min(life_max))
    }

    /// To be taken before upstream is asked.
    pub fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// Upstream said that it has no such blob, when asked in this era.
    pub fn remember(&self, place: &str, id: BlobId, form: u32, era: u64) {
        self.absent.insert((place.to_owned(), id, form), Seen { at: Instant::now(), era });
    }

    /// There is new metadata: what was missing may be there.
    pub fn forget_all(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
        self.absent.clear();
    }
}
