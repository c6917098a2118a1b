//! The memory tier: whole units, bounded in bytes, evicted by `quick_cache` (S3-FIFO family: scan-resistant, one visited bit).
//!
//! It only remembers. Which units come in, and what becomes of those that leave, is [`crate::cache`]'s business.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use colibri_common::limits::BLOB_BYTES_MAX;
use colibri_common::merkle::UNIT_BYTES;
use colibri_package::limits::frame_content_bytes_max;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::unit::{Unit, UnitKey};

/// Expected unit size, for sizing the index only.
const TYPICAL_UNIT_BYTES: u64 = 64 * 1024;

/// Least memory per shard: the largest unit must fit into one, or it would never be kept. A unit is 2 MiB and what of its
/// last frame is beyond.
const SHARD_BYTES_MIN: u64 = 128 << 20;

const _: () = assert!(
    SHARD_BYTES_MIN / 10 * 9 > UNIT_BYTES + frame_content_bytes_max(BLOB_BYTES_MAX),
    "a shard keeps at most 97 % of its size in one entry"
);

/// A unit with the one thing the admission policy wants to know of it.
#[derive(Debug, Clone)]
struct Entry {
    unit: Arc<Unit>,
    reused: Arc<AtomicBool>,
}

/// A unit that had to make room.
#[derive(Debug)]
pub(crate) struct Evicted {
    pub key: UnitKey,
    pub unit: Arc<Unit>,
    /// It was asked for again while it was here.
    pub reused: bool,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<UnitKey, Entry> for ByBytes {
    fn weight(&self, _key: &UnitKey, entry: &Entry) -> u64 {
        // Empty units must weigh something, or they could never be evicted.
        entry.unit.memory_bytes().max(1)
    }
}

#[derive(Debug, Clone)]
struct Collect;

impl Lifecycle<UnitKey, Entry> for Collect {
    type RequestState = Vec<(UnitKey, Entry)>;

    fn on_evict(&self, state: &mut Self::RequestState, key: UnitKey, entry: Entry) {
        state.push((key, entry));
    }
}

/// Units in memory.
#[derive(Debug)]
pub(crate) struct MemoryTier {
    cache: Cache<UnitKey, Entry, ByBytes, DefaultHashBuilder, Collect>,
}

impl MemoryTier {
    pub fn new(budget_bytes: u64) -> Self {
        let shards = usize::try_from(budget_bytes / SHARD_BYTES_MIN).unwrap_or(1).clamp(1, 16);
        let items = usize::try_from(budget_bytes / TYPICAL_UNIT_BYTES).unwrap_or(usize::MAX).max(64);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(budget_bytes)
            .shards(shards)
            .build()
            .expect("every required option is given");
        Self { cache: Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), Collect) }
    }

    /// The unit, if it is here; remembers that it was asked for again.
    pub fn get(&self, key: &UnitKey) -> Option<Arc<Unit>> {
        let entry = self.cache.get(key)?;
        entry.reused.store(true, Ordering::Relaxed);
        Some(entry.unit)
    }

    /// Whether the unit is here; does not count as asking for it.
    pub fn has(&self, key: &UnitKey) -> bool {
        self.cache.contains_key(key)
    }

    /// Takes a unit in; gives back what had to go, which is the unit itself if it is larger than the tier.
    pub fn insert(&self, key: UnitKey, unit: Arc<Unit>) -> Vec<Evicted> {
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(key, Entry { unit, reused: Arc::default() }, &mut evicted);
        let evicted = evicted.into_iter();
        evicted
            .map(|(key, entry)| Evicted { key, unit: entry.unit, reused: entry.reused.load(Ordering::Relaxed) })
            .collect()
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}
