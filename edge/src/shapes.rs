//! [`Shapes`]: layouts and leaves of blobs that were opened lately. Bounded in bytes; losing an entry costs a few small
//! requests upstream.

use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, VerifiedLength};
use colibri_package::delivery::{Encoding, Layout, VerifiedPieces};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::limits::{SHAPES_BYTES_MAX, SHAPES_BYTES_MIN, SHAPES_SHARE};
use crate::unit::UnitKey;

/// Bytes an entry costs besides its leaves and unit H.
const ENTRY_OVERHEAD_BYTES: u64 = 512;

/// Bytes of an entry as the index is sized for.
const ESTIMATED_ITEM_BYTES: u64 = 4096;

/// A blob whose shape and length are proven.
#[derive(Debug)]
pub(crate) struct Opened {
    pub layout: Layout,
    /// Proven length of the content; kept because only it allows totals to be announced.
    length: VerifiedLength,
    /// The last piece, which was fetched to prove the length, if it is small: until its unit is filled, so that nobody
    /// fetches it again.
    pub last: Option<VerifiedPieces>,
    /// The same in all copies of what was opened once.
    opening: Arc<()>,
}

impl Opened {
    pub fn new(layout: Layout, length: VerifiedLength, last: Option<VerifiedPieces>) -> Self {
        Self { layout, length, last, opening: Arc::default() }
    }

    fn without_last(&self) -> Self {
        Self { layout: self.layout.clone(), length: self.length, last: None, opening: self.opening.clone() }
    }

    fn is_of_the_same_opening(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.opening, &other.opening)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ByBytes;

impl Weighter<BlobId, Leaves> for ByBytes {
    fn weight(&self, _id: &BlobId, leaves: &Leaves) -> u64 {
        leaves.wire().len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

impl Weighter<(BlobId, Encoding), Arc<Opened>> for ByBytes {
    fn weight(&self, _key: &(BlobId, Encoding), opened: &Arc<Opened>) -> u64 {
        // A layout keeps its leaves alive, whether or not the other cache still has them.
        let layout = &opened.layout;
        let last = opened.last.as_ref().map_or(0, |last| last.encoded().len());
        (layout.unit_h().len() + layout.leaves().wire().len() + last) as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// A cache of one shard: with several, an entry larger than a shard would never be kept, however large the budget.
pub(crate) fn one_shard<K, V, W>(items: usize, budget_bytes: u64, weighter: W) -> Cache<K, V, W>
where
    K: Eq + Hash,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let options = OptionsBuilder::new()
        .estimated_items_capacity(items)
        .weight_capacity(budget_bytes)
        .shards(1)
        .build()
        .expect("every required option is given");
    Cache::with_options(
        options,
        weighter,
        DefaultHashBuilder::default(),
        quick_cache::sync::DefaultLifecycle::default(),
    )
}

/// Leaves and layouts of recently opened blobs.
#[derive(Debug)]
pub(crate) struct Shapes {
    /// An entry that weighs more is too large for the caches.
    entry_bytes_max: u64,
    leaves: Cache<BlobId, Leaves, ByBytes>,
    opened: Cache<(BlobId, Encoding), Arc<Opened>, ByBytes>,
    large: Mutex<Large>,
}

/// The newest that are too large for the caches: whoever reads such a blob needs its leaves for each unit.
#[derive(Debug, Default)]
struct Large {
    leaves: Option<Leaves>,
    opened: Option<Arc<Opened>>,
}

impl Shapes {
    /// Shapes for units of so many bytes in memory: where more blobs are hot, the shapes of more have to be at hand.
    pub fn beside(memory_bytes: u64) -> Self {
        let budget_bytes = (memory_bytes / SHAPES_SHARE).clamp(SHAPES_BYTES_MIN, SHAPES_BYTES_MAX);
        let items = usize::try_from(budget_bytes / ESTIMATED_ITEM_BYTES).unwrap_or(usize::MAX);
        Self {
            // Half of one of the two caches.
            entry_bytes_max: budget_bytes / 4,
            leaves: one_shard(items, budget_bytes / 2, ByBytes),
            opened: one_shard(items, budget_bytes / 2, ByBytes),
            large: Mutex::default(),
        }
    }

    fn large(&self) -> MutexGuard<'_, Large> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn leaves(&self, id: BlobId) -> Option<Leaves> {
        self.leaves.get(&id).or_else(|| self.large().leaves.clone().filter(|leaves| leaves.id() == id))
    }

    pub fn keep_leaves(&self, leaves: Leaves) {
        if ByBytes.weight(&leaves.id(), &leaves) > self.entry_bytes_max {
            self.large().leaves = Some(leaves);
        } else {
            self.leaves.insert(leaves.id(), leaves);
        }
    }

    pub fn opened(&self, id: BlobId, encoding: Encoding) -> Option<Arc<Opened>> {
        let found = self.opened.get(&(id, encoding));
        found.or_else(|| self.large().opened.clone().filter(|opened| key_of(opened) == (id, encoding)))
    }

    pub fn keep(&self, opened: Arc<Opened>) {
        let key = key_of(&opened);
        if ByBytes.weight(&key, &opened) > self.entry_bytes_max {
            self.large().opened = Some(opened);
        } else {
            self.opened.insert(key, opened);
        }
    }

    /// The last piece is in its unit now: here it would only take the room of other shapes, and a small blob whose shape is
    /// lost is fetched again though it is in memory.
    pub fn last_is_filled(&self, opened: &Opened) {
        let key = key_of(opened);
        if self.opened.peek(&key).is_some_and(|kept| kept.is_of_the_same_opening(opened)) {
            self.opened.insert(key, Arc::new(opened.without_last()));
        }
    }

    /// The layout that a unit in some tier belongs to, if it is still here.
    pub fn layout_of(&self, key: &UnitKey) -> Option<Layout> {
        let opened = self.opened(key.id, key.encoding)?;
        (opened.layout.identity() == key.identity).then(|| opened.layout.clone())
    }

    /// Forgets a shape that no source has any more, unless it was replaced meanwhile.
    pub fn forget(&self, opened: &Opened) {
        self.opened.remove_if(&key_of(opened), |kept| kept.is_of_the_same_opening(opened));
        self.large().opened.take_if(|kept| kept.is_of_the_same_opening(opened));
    }
}

fn key_of(opened: &Opened) -> (BlobId, Encoding) {
    (opened.layout.id(), opened.layout.encoding())
}

#[cfg(test)]
mod tests {
    use colibri_common::merkle::{self, LEAF_BYTES};

    use super::*;

    /// Blobs whose leaf lists take this many bytes.
    fn opened(list_bytes: u64, seed: u8) -> Arc<Opened> {
        // Equal leaves at different offsets have different hashes, so content of one byte value will do.
        let content = vec![seed; usize::try_from(list_bytes / 32 * LEAF_BYTES).unwrap()];
        let tree = merkle::build(&content);
        Arc::new(Opened::new(Layout::raw(tree.leaves, tree.length.into()).unwrap(), tree.length, None))
    }

    #[test]
    fn every_size_is_kept_and_a_replaced_shape_is_not_forgotten() {
        let shapes = Shapes::beside(256 << 20);
        for size in [64, 1 << 20] {
            let (one, again) = (opened(size, 1), opened(size, 1));
            let id = one.layout.id();
            shapes.keep_leaves(one.layout.leaves().clone());
            shapes.keep(one.clone());
            assert!(shapes.leaves(id).is_some());
            assert!(Arc::ptr_eq(&shapes.opened(id, Encoding::Raw).unwrap(), &one));
            assert!(shapes.layout_of(&UnitKey::of(&one.layout, 0)).is_some());
            shapes.keep(again.clone());
            shapes.forget(&one);
            assert!(Arc::ptr_eq(&shapes.opened(id, Encoding::Raw).unwrap(), &again));
            shapes.forget(&again);
            assert!(shapes.opened(id, Encoding::Raw).is_none());
        }
    }

    #[test]
    fn of_those_too_large_for_the_cache_the_newest_is_kept() {
        let shapes = Shapes::beside(0);
        let (one, two) = (opened(64, 1), opened(96, 2));
        *shapes.large() = Large { leaves: Some(one.layout.leaves().clone()), opened: Some(one.clone()) };
        assert!(shapes.leaves(one.layout.id()).is_some() && shapes.leaves(two.layout.id()).is_none());
        assert!(shapes.opened(one.layout.id(), Encoding::Raw).is_some());
        assert!(shapes.opened(two.layout.id(), Encoding::Raw).is_none());
        shapes.forget(&one);
        assert!(shapes.opened(one.layout.id(), Encoding::Raw).is_none());
    }
    #[test]
    fn the_budget_follows_that_of_the_units() {
        let entry_bytes_max = |memory_bytes| Shapes::beside(memory_bytes).entry_bytes_max;
        assert_eq!(entry_bytes_max(0), SHAPES_BYTES_MIN / 4);
        assert_eq!(entry_bytes_max(256 << 20), 16 << 20);
        assert_eq!(entry_bytes_max(u64::MAX), SHAPES_BYTES_MAX / 4);
    }
}
