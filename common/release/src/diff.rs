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
    /// Boot packages and packages of the cache set that came, went or changed.
    pub beside: Vec<Beside>,
    /// Blobs of the new release only.
    pub blobs_added: Vec<&'a ReleaseBlob>,
    /// Blobs of the old release only.
    pub blobs_removed: Vec<&'a ReleaseBlob>,
    /// Blobs that a device fetches by itself: it has the permanent and automatic packages and the cache set of the old release
    /// and nothing else, and gets those of the new one. Boot packages come with the boot image.
    pub fetched: Vec<&'a ReleaseBlob>,
    /// Blobs that come on top when everything on demand is asked for too.
    pub fetched_on_demand: Vec<&'a ReleaseBlob>,
}

/// What changed of a package that is in no cell of the grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// `boot` or `cache`.
    pub set: &'static str,
    /// `fuchsia-boot:///NAME`, or the unpinned URL.
    pub url: String,
    /// Its version in the old release, if it is there.
    pub old: Option<BlobId>,
    /// Its version in the new release, if it is there.
    pub new: Option<BlobId>,
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
            beside: beside(old, new),
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
            && self.beside.is_empty()
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
    let cache = release.cache().iter().map(|package| package.hash);
    release.blobs_needed(kept.filter_map(|package| package.hash).chain(cache))
}

/// What changed of boot packages and of the cache set.
fn beside(old: &Release, new: &Release) -> Vec<Beside> {
    let of = |release: &Release| -> BTreeMap<(&'static str, String), BlobId> {
        let boot = release.boot().iter();
        let boot = boot.map(|package| (("boot", format!("fuchsia-boot:///{}", package.name)), package.hash));
        let cache = release.cache().iter();
        let cache = cache
            .map(|package| (("cache", format!("{}/{}", package.url.repository(), package.url.path())), package.hash));
        boot.chain(cache).collect()
    };
    let (before, after) = (of(old), of(new));
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let each = keys.into_iter().map(|key| {
        let (old, new) = (before.get(key).copied(), after.get(key).copied());
        Beside { set: key.0, url: key.1.clone(), old, new }
    });
    each.filter(|beside| beside.old != beside.new).collect()
}
