//! What a release must be beyond its form: bounded, sorted, without repetition, and one closed whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_common::limits::BLOB_BYTES_MAX;
use colibri_metadata::TrustedSet;
use colibri_package::url::RepositoryUrl;

use crate::error::ReleaseError;
use crate::grid::{Availability, Versioning};
use crate::limits;
use crate::release::{CachePackage, Release, ReleaseBlob, ReleasePackage, TrustedRepository};

/// Bytes of the header that every delivery blob has.
const DELIVERY_HEADER_BYTES: u64 = 28;

impl Release {
    /// Checks what the form alone does not say.
    pub(crate) fn check(&self) -> Result<(), ReleaseError> {
        if self.forbids_overlay && self.format < 2 {
            return Err(ReleaseError::Malformed(format!("format {} has no `forbids_overlay`", self.format)));
        }
        for (field, is_empty) in [("boot", self.boot.is_empty()), ("cache", self.cache.is_empty())] {
            if !is_empty && self.format < 3 {
                return Err(ReleaseError::Malformed(format!("format {} has no `{field}`", self.format)));
            }
        }
        self.check_counts()?;
        let name = &self.product;
        let too_long = name.len() as u64 > limits::PRODUCT_NAME_BYTES_MAX;
        if name.is_empty() || too_long || name.chars().any(char::is_control) {
            return Err(ReleaseError::ProductName(name.chars().take(64).collect()));
        }
        self.check_order()?;
        for repository in &self.repositories {
            repository.check()?;
        }
        self.check_packages()?;
        for blob in &self.blobs {
            blob.check()?;
        }
        self.check_whole()
    }

    fn check_counts(&self) -> Result<(), ReleaseError> {
        let bounds = [
            ("repositories", self.repositories.len(), limits::REPOSITORIES_MAX),
            ("packages", self.packages.len(), limits::PACKAGES_MAX),
            ("discoverable domains", self.discoverable.len(), limits::DOMAINS_MAX),
            ("boot packages", self.boot.len(), limits::BOOT_PACKAGES_MAX),
            ("cache packages", self.cache.len(), limits::PACKAGES_MAX),
            ("package hashes", self.contents.len(), limits::CONTENTS_MAX),
            ("blobs", self.blobs.len(), limits::BLOBS_MAX),
        ];
        match bounds.into_iter().find(|(_, count, limit)| *count as u64 > *limit) {
            Some((what, _, limit)) => Err(ReleaseError::TooMany { what, limit }),
            None => Ok(()),
        }
    }

    /// Sorted lists give one release one text, and show what is listed twice.
    fn check_order(&self) -> Result<(), ReleaseError> {
        sorted("repository", self.repositories.iter().map(|repository| &repository.url))?;
        sorted("domain", self.discoverable.iter().map(|domain| &domain.url))?;
        sorted("boot package", self.boot.iter().map(|package| &package.name))?;
        for (package, next) in self.cache.iter().zip(self.cache.iter().skip(1)) {
            in_order(&package.key(), &next.key(), || format!("cache package {}", next.url))?;
        }
        sorted("contents of", self.contents.iter().map(|contents| contents.hash))?;
        sorted("blob", self.blobs.iter().map(|blob| blob.hash))?;
        for (package, next) in self.packages.iter().zip(self.packages.iter().skip(1)) {
            let shown = || format!("package {} ({} & {})", next.url, next.availability, next.versioning);
            in_order(&package.key(), &next.key(), shown)?;
        }
        for contents in &self.contents {
            sorted("blob", contents.blobs.iter())?;
            sorted("subpackage", contents.subpackages.iter().map(|subpackage| &subpackage.name))?;
        }
        Ok(())
    }

    fn check_packages(&self) -> Result<(), ReleaseError> {
        let trusted: BTreeSet<&RepositoryUrl> = self.repositories.iter().map(|repository| &repository.url).collect();
        let domains = self.discoverable.iter().map(|domain| (&domain.url, domain.url.to_string()));
        let packages = self.packages.iter().map(|package| (package.url.repository(), package.url.to_string()));
        let cache = self.cache.iter().map(|package| (package.url.repository(), package.url.to_string()));
        if let Some((_, shown)) = domains.chain(packages).chain(cache).find(|(url, _)| !trusted.contains(*url)) {
            return Err(ReleaseError::Untrusted(shown));
        }
        let of_sets: BTreeSet<_> =
            self.packages.iter().map(|package| (package.url.repository(), package.url.path())).collect();
        let in_both = |package: &&CachePackage| of_sets.contains(&(package.url.repository(), package.url.path()));
        if let Some(package) = self.cache.iter().find(in_both) {
            return Err(ReleaseError::CachedToo(package.url.to_string()));
        }
        let mut anchors = BTreeMap::new();
        for package in &self.packages {
            package.check()?;
            let Some(second) = package.hash.filter(|_| package.versioning == Versioning::Anchored) else { continue };
            let first = *anchors.entry((package.url.repository(), package.url.path())).or_insert(second);
            if first != second {
                return Err(ReleaseError::TwoVersions { url: package.url.to_string(), first, second });
            }
        }
        Ok(())
    }

    /// All that the packages need is told, and nothing else.
    fn check_whole(&self) -> Result<(), ReleaseError> {
        let named: Vec<BlobId> = self.hashes().collect();
        let subpackages = self.contents.iter().flat_map(|contents| &contents.subpackages);
        let hashes: BTreeSet<BlobId> = named.iter().copied().chain(subpackages.map(|sub| sub.hash)).collect();
        if let Some(hash) = hashes.iter().find(|hash| self.contents_of(**hash).is_none()) {
            return Err(ReleaseError::NoContents(*hash));
        }
        let needed = self.blobs_needed(named);
        // A package hash is the id of its meta.far: what is reachable is needed.
        if let Some(contents) = self.contents.iter().find(|contents| !needed.contains(&contents.hash)) {
            return Err(ReleaseError::Unused { what: "contents", id: contents.hash });
        }
        if let Some(id) = needed.iter().find(|id| self.blob(**id).is_none()) {
            return Err(ReleaseError::NoBlob(*id));
        }
        match self.blobs.iter().find(|blob| !needed.contains(&blob.hash)) {
            Some(blob) => Err(ReleaseError::Unused { what: "blob", id: blob.hash }),
            None => Ok(()),
        }
    }
}

impl TrustedRepository {
    fn check(&self) -> Result<(), ReleaseError> {
        match TrustedSet::from_root_file(&Bytes::copy_from_slice(self.root.as_bytes())) {
            Ok(_) => Ok(()),
            Err(error) => Err(ReleaseError::Root { url: self.url.to_string(), reason: error.to_string() }),
        }
    }
}

impl ReleasePackage {
    fn check(&self) -> Result<(), ReleaseError> {
        let url = || self.url.to_string();
        let set = self.set().map_err(|source| ReleaseError::NotApplicable { url: url(), source })?;
        let refuse = |reason| Err(ReleaseError::Package { url: url(), set, reason });
        match self.versioning {
            Versioning::Discoverable => refuse("a release lists domains, not packages, as discoverable"),
            Versioning::Anchored if self.hash.is_none() => refuse("an anchored package needs a hash"),
            Versioning::Anchored if self.minimum_version.is_some() => {
                refuse("an anchored package has a hash, not a minimum version")
            }
            Versioning::Upgradable if self.hash.is_none() && self.availability == Availability::Permanent => {
                refuse("it must be there in all circumstances, so it needs a hash to fall back to")
            }
            _ => Ok(()),
        }
    }
}

impl ReleaseBlob {
    fn check(&self) -> Result<(), ReleaseError> {
        let refuse = |reason| Err(ReleaseError::Blob { id: self.hash, reason });
        if self.encoded.is_empty() {
            return refuse("it has no delivery form");
        }
        sorted("delivery type", self.encoded.iter().map(|form| form.ty))?;
        if self.raw_bytes > BLOB_BYTES_MAX || self.encoded.iter().any(|form| form.bytes > BLOB_BYTES_MAX) {
            return refuse("it is larger than any blob");
        }
        if self.encoded.iter().any(|form| form.bytes < DELIVERY_HEADER_BYTES) {
            return refuse("a delivery form is shorter than its header");
        }
        Ok(())
    }
}

/// Strictly increasing.
fn sorted<T: Ord + Display>(what: &str, items: impl IntoIterator<Item = T>) -> Result<(), ReleaseError> {
    let mut items = items.into_iter();
    let Some(mut last) = items.next() else { return Ok(()) };
    for item in items {
        in_order(&last, &item, || format!("{what} {item}"))?;
        last = item;
    }
    Ok(())
}

fn in_order<T: Ord>(last: &T, next: &T, shown: impl FnOnce() -> String) -> Result<(), ReleaseError> {
    match last.cmp(next) {
        std::cmp::Ordering::Less => Ok(()),
        std::cmp::Ordering::Equal => Err(ReleaseError::Duplicate(shown())),
        std::cmp::Ordering::Greater => Err(ReleaseError::Order(shown())),
    }
}
