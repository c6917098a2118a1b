//! [`Unknown`]: blobs that upstream said it does not have. Bounded, short-lived, and forgotten when a new metadata set is
//! served: a release may bring what was missing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use colibri_common::BlobId;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::lifetimes::Lifetimes;
use crate::limits::UNKNOWN_BYTES_MAX;
use crate::shapes::one_shard;

/// Items the index is sized for.
const ESTIMATED_ITEMS: usize = 4096;

/// Bytes an entry takes besides its place.
const ENTRY_BYTES: u64 = 128;

/// The number of the form of leaves, beside those of delivery types and 0 for raw blobs.
pub(crate) const FORM_LEAVES: u32 = u32::MAX;

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
    era_began: Arc<Mutex<Instant>>,
    lifetimes: Lifetimes,
}

impl Unknown {
    pub fn new(lifetimes: Lifetimes) -> Self {
        let absent = Arc::new(one_shard(ESTIMATED_ITEMS, UNKNOWN_BYTES_MAX, ByBytes));
        Self { absent, era: Arc::default(), era_began: Arc::new(Mutex::new(Instant::now())), lifetimes }
    }

    /// How long ago upstream said that it has no such blob, if it did so lately.
    pub fn since(&self, place: &str, id: BlobId, form: u32, life_max: Duration) -> Option<Duration> {
        let seen = self.absent.get(&(place.to_owned(), id, form)).filter(|seen| seen.era == self.era())?;
        Some(seen.at.elapsed()).filter(|since| *since < self.lifetimes.unknown().min(life_max))
    }

    /// How long ago upstream may have said to another that it has no such blob: under the metadata that is served here, and no
    /// longer than it would count here; ms, rounded down.
    pub fn age_ms_max(&self) -> u64 {
        let era = self.era_began.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        u64::try_from(era.min(self.lifetimes.unknown()).as_millis()).unwrap_or(u64::MAX)
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
        *self.era_began.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.era.fetch_add(1, Ordering::AcqRel);
        self.absent.clear();
    }
}
