//! [`Kept`]: the indices that outlive the process, and the document they are written as.
//!
//! Everything else in the package cache (who fetches, who has a package open, what packages name) is gone with the process,
//! on purpose: a process that is gone relies on nothing. Unlike the original's, the retained sets are here too: a daemon
//! that was restarted in the middle of an update must not collect what the update has fetched.

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::{BlobId, UnixSeconds};
use colibri_release::{Availability, ProductVersion};
use serde::{Deserialize, Serialize};

use super::eviction::Rank;
use crate::limits::{RETAINED_BLOBS_MAX, RETAINED_PACKAGES_MAX, USES_MAX};

/// The format that this version writes.
const FORMAT: u64 = 1;

/// The document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<T> {
    format: u64,
    kept: T,
}

/// What a device keeps, and why, over restarts. Packages are named by package hash; their subpackages are meant too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Kept {
    /// Base: permanent packages of the running release.
    pub base: BTreeSet<BlobId>,
    /// The running release was not found healthy yet: nothing is collected.
    pub pending_commit: bool,
    /// Base as well: the packages of the running system, as its update package lists them.
    pub system: BTreeSet<BlobId>,
    /// Base as well: blobs of the running system, as its signed manifest lists them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub system_blobs: BTreeSet<BlobId>,
    /// Eager packages in use; signed answers, which are kept elsewhere, say which at each start.
    #[serde(skip)]
    pub eager: BTreeSet<BlobId>,
    /// The deprecated cache set.
    pub cache: BTreeSet<BlobId>,
    /// The release says the cache set, and not a system image.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cache_of_release: bool,
    /// Anchored packages of the running release that are not permanent.
    pub anchored: BTreeMap<BlobId, Availability>,
    /// The current version of each upgradable package, by its unpinned URL.
    pub upgradable: BTreeMap<String, Current>,
    /// Packages that the updater retains.
    pub retained_packages: BTreeSet<BlobId>,
    /// Blobs that the updater retains, whatever package they belong to.
    pub retained_blobs: BTreeSet<BlobId>,
    /// When packages that are there on demand were last used.
    pub uses: BTreeMap<BlobId, UnixSeconds>,
    /// What a system image says about URLs.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub named: Named,
}

/// The packages of a system image by unpinned URL with a variant: what a URL means on a device that follows no release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Named {
    /// Permanent & anchored.
    pub base: BTreeMap<String, BlobId>,
    /// The same, as the update package of the running system has it: then nothing else is base.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub system: BTreeMap<String, BlobId>,
    /// The other anchored packages.
    pub anchored: BTreeMap<String, BlobId>,
    /// The deprecated cache set: what to fall back to.
    pub cache: BTreeMap<String, BlobId>,
}

impl Named {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The version of an upgradable package that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Current {
    pub hash: BlobId,
    pub version: ProductVersion,
    pub availability: Availability,
}

impl Kept {
    /// Reads the document.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let document: Document<Self> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        match document.format {
            FORMAT => Ok(document.kept),
            found => Err(format!("it has format {found}; this version reads {FORMAT}")),
        }
    }

    /// The document.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&Document { format: FORMAT, kept: self }).map_err(|error| error.to_string())
    }

    /// The bound that is exceeded, if one is.
    pub fn over_limit(&self) -> Option<(&'static str, u64)> {
        let counts = [
            ("retained packages", self.retained_packages.len() as u64, RETAINED_PACKAGES_MAX),
            ("retained blobs", self.retained_blobs.len() as u64, RETAINED_BLOBS_MAX),
        ];
        counts.into_iter().find(|(_, count, limit)| count > limit).map(|(what, _, limit)| (what, limit))
    }

    /// Notes a use. Beyond the bound the use that is longest ago is forgotten.
    pub fn used(&mut self, package: BlobId, now: UnixSeconds) {
        self.uses.insert(package, now);
        if self.uses.len() > USES_MAX {
            let oldest = self.uses.iter().min_by_key(|(hash, used)| (**used, **hash)).map(|(hash, _)| *hash);
            oldest.map(|hash| self.uses.remove(&hash));
        }
    }

    /// Packages that are never given up.
    pub fn firm(&self) -> impl Iterator<Item = BlobId> + '_ {
        let permanent = self.upgradable.values().filter(|current| current.availability == Availability::Permanent);
        let sets = [&self.base, &self.system, &self.eager, &self.cache, &self.retained_packages]
            .into_iter()
            .flatten()
            .copied();
        sets.chain(permanent.map(|current| current.hash))
    }

    /// Packages that are given up for space, each once, with the stronger of its reasons.
    pub fn evictable(&self) -> impl Iterator<Item = (BlobId, Rank)> + '_ {
        let upgradable = self.upgradable.values().map(|current| (current.hash, current.availability));
        let named = self.anchored.iter().map(|(hash, availability)| (*hash, *availability)).chain(upgradable);
        let mut ranks: BTreeMap<BlobId, Rank> = self.uses.keys().map(|hash| (*hash, Rank::OnDemand)).collect();
        for (hash, availability) in named.filter(|(_, availability)| *availability != Availability::Permanent) {
            let rank = if availability == Availability::Automatic { Rank::Automatic } else { Rank::OnDemand };
            let strongest = ranks.entry(hash).or_insert(rank);
            *strongest = rank.max(*strongest);
        }
        ranks.into_iter()
    }
}
