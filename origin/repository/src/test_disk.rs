//! [`SeldomSynced`]: the machine's disk for tests that write a great deal and lose no power.

use std::sync::atomic::{AtomicU32, Ordering};

use colibri_store::testing::{Watch, WatchedDisk};

/// Of so many syncs one is done.
const SYNCS_PER_REAL_ONE: u32 = 2_000;

/// The machine's disk, on which most syncs do nothing.
pub(crate) type SeldomSynced = WatchedDisk<Seldom>;

/// Lets a sync pass now and then.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    syncs: AtomicU32,
}

impl Watch for Seldom {
    fn syncing(&self) -> bool {
        self.syncs.fetch_add(1, Ordering::Relaxed).is_multiple_of(SYNCS_PER_REAL_ONE)
    }
}
