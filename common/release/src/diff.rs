//! [`ReleaseDiff`]: what changes from one release to another, and what that costs a device.

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::BlobId;

use crate::grid::Availability;
use crate::release::{Release, ReleaseBlob, ReleasePackage};

/// A package as the diff compares it: URL and package set by name, and version.
type Key = (String, String);

/// What changed between two releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseDiff<'a> {
    /// Packages of the new release only, by URL and set.
    pub added: Vec<&'a ReleasePackage>,
    /// Packages of the old release only.
    pub removed: Vec<&'a ReleasePackage>,
    /// Packages of both whose hash or least version differs: old, new.
    pub changed: Vec<(&'a ReleasePackage, &'a ReleasePackage)>,
    /// Blobs of the new release only.
    pub blobs_added: Vec<&'a ReleaseBlob>,
    /// Blobs of the old release only.
    pub blobs_removed: Vec<&'a ReleaseBlob>,
    /// Blobs that a device fetches by itself: it has the permanent and automatic packages of the old release and nothing
    /// else, and gets those of the new one.
    pub fetched: Vec<&'a ReleaseBlob>,
    /// Blobs that come on top when everything on demand is asked for too.
    pub fetched_on_demand: Vec<&'a ReleaseBlob>,
}

impl<'a> ReleaseDiff<'a> {
    /// What changes from `old` to `new`.
    pub fn of(old: &'a Release, new: &'a Release) -> Self {
        let (before, after) = (by_key(old), by_key(new));
        let only = |here: &BTreeMap<Key, &'a ReleasePackage>, there: &BTreeMap<Key, &'a ReleasePackage>| {
            here.iter().filter(|(key, _)| !there.contains_key(*key)).map(|(_, package)| *package).collect::<Vec<_>>()
        };
        let both = before.iter().filter_map(|(key, old)| Some((*old, *after.get(key)?)));
        let differs = |(old, new): &(&ReleasePackage, &ReleasePackage)| {
            old.hash != new.hash || old.minimum_version != new.minimum_version
        };
        let (held, wanted) = (kept(old), kept(new));
        let of_new = |pick: &dyn Fn(BlobId) -> bool| new.blobs().iter().filter(|blob| pick(blob.hash)).collect();
        Self {
            added: only(&after, &before),
            removed: only(&before, &after),
            changed: both.filter(differs).collect(),
            blobs_added: of_new(&|id| old.blob(id).is_none()),
            blobs_removed: old.blobs().iter().filter(|blob| new.blob(blob.hash).is_none()).collect(),
            fetched: of_new(&|id| wanted.contains(&id) && !held.contains(&id)),
            fetched_on_demand: of_new(&|id| !wanted.contains(&id) && !held.contains(&id)),
        }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.changed.is_empty()
            && self.blobs_added.is_empty()
            && self.blobs_removed.is_empty()
    }
}

/// Bytes that travel when these blobs are fetched.
pub fn fetched_bytes<'a>(blobs: impl IntoIterator<Item = &'a ReleaseBlob>) -> u64 {
    blobs.into_iter().fold(0, |sum, blob| sum.saturating_add(blob.fetched_bytes()))
}

/// Bytes of content of these blobs.
pub fn raw_bytes<'a>(blobs: impl IntoIterator<Item = &'a ReleaseBlob>) -> u64 {
    blobs.into_iter().fold(0, |sum, blob| sum.saturating_add(blob.raw_bytes))
}

fn by_key(release: &Release) -> BTreeMap<Key, &ReleasePackage> {
    let key = |package: &ReleasePackage| {
        let url = format!("{}/{}", package.url.repository(), package.url.path());
        (url, format!("{} & {}", package.availability, package.versioning))
    };
    release.packages().iter().map(|package| (key(package), package)).collect()
}

/// The blobs that every device has once it runs this release.
fn kept(release: &Release) -> BTreeSet<BlobId> {
    let kept = release.packages().iter().filter(|package| package.availability != Availability::OnDemand);
    release.blobs_needed(kept.filter_map(|package| package.hash))
}
