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
    /// Nobody has asked for it yet.
    expected: Arc<AtomicBool>,
}

/// Whether a unit that comes in was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// Whoever asked for it has it from the flight.
    AskedFor,
    /// It came with the opening of its blob, or from a bundle: the first who asks for it does not ask for it again.
    BeforeItWasAskedFor,
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

    /// The unit, if it is here; remembers that it was asked for again. Who asks for the first time must leave no mark: else
    /// every small blob that is read once would count as read twice, and be kept and written to disk for it.
    pub fn get(&self, key: &UnitKey) -> Option<Arc<Unit>> {
        if let Some(entry) = self.cache.peek(key)
            && entry.expected.load(Ordering::Relaxed)
            && entry.expected.swap(false, Ordering::Relaxed)
        {
            return Some(entry.unit);
        }
        let entry = self.cache.get(key)?;
        entry.reused.store(true, Ordering::Relaxed);
        Some(entry.unit)
    }

    /// Whether the unit is here; does not count as asking for it.
    pub fn has(&self, key: &UnitKey) -> bool {
        self.cache.contains_key(key)
    }

    /// Takes a unit in; gives back what had to go, which is the unit itself if it is larger than the tier.
    pub fn insert(&self, key: UnitKey, unit: Arc<Unit>, came: Came) -> Vec<Evicted> {
        let mut evicted = Vec::new();
        let expected = Arc::new(AtomicBool::new(came == Came::BeforeItWasAskedFor));
        self.cache.insert_with_lifecycle(key, Entry { unit, reused: Arc::default(), expected }, &mut evicted);
        let evicted = evicted.into_iter();
        evicted
            .map(|(key, entry)| Evicted { key, unit: entry.unit, reused: entry.reused.load(Ordering::Relaxed) })
            .collect()
    }

    /// Bytes it may hold.
    pub fn budget_bytes(&self) -> u64 {
        self.cache.capacity()
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

#[cfg(test)]
mod tests {
    use colibri_common::BlobId;
    use colibri_package::delivery::Encoding;

    use super::*;
    use crate::unit::Segment;

    /// Every small blob comes with its opening, and whoever opened it then takes it from memory.
    #[test]
    fn asking_for_the_first_time_is_not_asking_again() {
        for (came, asks, expected) in [
            (Came::AskedFor, 0, false),
            (Came::AskedFor, 1, true),
            (Came::BeforeItWasAskedFor, 0, false),
            (Came::BeforeItWasAskedFor, 1, false),
            (Came::BeforeItWasAskedFor, 2, true),
        ] {
            let tier = MemoryTier::new(1 << 20);
            let key = |byte| UnitKey {
                id: BlobId::from_digest([byte; 32]),
                encoding: Encoding::Raw,
                identity: None,
                unit: 0,
            };
            let unit = || Arc::new(Unit::new(vec![Segment::stored(0, vec![0; 100_000].into())]));
            assert!(tier.insert(key(0), unit(), came).is_empty());
            (0..asks).for_each(|_| assert!(tier.get(&key(0)).is_some()));
            let all = (1..=u8::MAX).flat_map(|byte| tier.insert(key(byte), unit(), Came::AskedFor));
            let evicted = all.filter(|evicted| evicted.key == key(0)).map(|evicted| evicted.reused);
            let evicted: Vec<_> = evicted.collect();
            // What was asked for again may stay for ever.
            assert!(evicted.iter().all(|reused| *reused == expected), "{came:?}, {asks}: {evicted:?}");
            assert!(expected || evicted.len() == 1, "{came:?}, {asks}: it is still there");
        }
    }
}
