//! [`Share`]: what all fetches of one device have in common: who writes which blob, places for blobs, the bound on bytes per
//! second, and what is signed about sizes.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::BlobId;
use colibri_fetch::{Bandwidth, Budget, BudgetLimits, Class, SignedSize};
use colibri_release::Release;

use crate::config::DeviceConfig;
use crate::limits::LISTED_SIZES_MAX;
use crate::writers::Writers;

/// Shared by all fetches of a device.
#[derive(Debug)]
pub(crate) struct Share {
    pub writers: Writers,
    /// A place for each package being fetched.
    packages: Arc<Budget>,
    /// A place for each blob being fetched; the less urgent leave some to the more urgent.
    pub places: Arc<Budget>,
    pub bandwidth: Option<Bandwidth>,
    /// Sizes of the blobs of a release that is being fetched.
    sizes: Mutex<HashMap<BlobId, SignedSize>>,
    /// Lengths of meta.fars that repositories list, in bytes.
    listed: Mutex<HashMap<BlobId, u64>>,
}

impl Share {
    pub fn new(config: &DeviceConfig) -> Self {
        let so_many = |at_once: usize| {
            let in_flight_max = u32::try_from(at_once).unwrap_or(u32::MAX);
            Budget::new(BudgetLimits { in_flight_max, ..BudgetLimits::default() })
        };
        let (packages, places) = (so_many(config.packages_at_once), so_many(config.blobs_at_once));
        let bandwidth = NonZeroU64::new(config.bandwidth_bytes_per_s).map(Bandwidth::new);
        Self {
            writers: Writers::default(),
            packages,
            places,
            bandwidth,
            sizes: Mutex::default(),
            listed: Mutex::default(),
        }
    }

    /// Whoever sends more of a blob of this release than it says is to blame.
    pub fn expect_sizes_of(&self, release: &Release) {
        let blobs = release.blobs().iter();
        let sizes = blobs.map(|blob| {
            // More forms than one may be signed; which of them a source has is its choice.
            let encoded_bytes = blob.encoded.iter().map(|form| form.bytes).max();
            (blob.hash, SignedSize { content_bytes: blob.raw_bytes, encoded_bytes })
        });
        *self.sizes() = sizes.collect();
    }

    /// Whoever sends more of this meta.far than the repository's metadata says is to blame.
    pub fn expect_listed(&self, meta_far: BlobId, bytes: u64) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.len() >= LISTED_SIZES_MAX {
            // What is asked for is listed a moment before.
            listed.clear();
        }
        listed.insert(meta_far, bytes);
    }

    pub fn signed_size(&self, id: &BlobId) -> Option<SignedSize> {
        let listed = || {
            let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied();
            listed.map(|content_bytes| SignedSize { content_bytes, encoded_bytes: None })
        };
        self.sizes().get(id).copied().or_else(listed)
    }

    /// A place for a package of which something is missing.
    pub async fn package_place(&self, class: Class) -> colibri_fetch::Permit {
        self.packages.acquire(class, 0).await
    }

    /// The class counts for who waits for a place.
    pub async fn place(&self, class: Class) -> colibri_fetch::Permit {
        self.places.acquire(class, 0).await
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<BlobId, SignedSize>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
