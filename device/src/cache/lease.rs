//! [`Lease`]: a package stays on the device while somebody holds one.

use std::sync::Arc;

use colibri_common::{BlobId, UnixSeconds};

use super::Cache;
use super::indices::{LeaseId, Opened};

/// An open package: no collection removes it, its subpackages or its tree until this is dropped.
#[derive(Debug)]
pub struct Lease {
    cache: Arc<Cache>,
    id: LeaseId,
    package: BlobId,
}

/// What can be said of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseInfo {
    /// The package hash.
    pub package: BlobId,
    /// Who holds it, in words.
    pub holder: String,
    /// Since when.
    pub since: UnixSeconds,
}

impl Lease {
    pub(super) const fn new(cache: Arc<Cache>, id: LeaseId, package: BlobId) -> Self {
        Self { cache, id, package }
    }

    /// The package hash.
    pub const fn package(&self) -> BlobId {
        self.package
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.cache.lock().close(self.id);
    }
}

impl LeaseInfo {
    pub(super) fn of(opened: &Opened) -> Self {
        Self { package: opened.package, holder: opened.holder.clone(), since: opened.since }
    }
}
