//! [`ReleaseBuilder`]: puts a release together. It asks for what it still needs to know; the caller has the files.

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::BlobId;
use colibri_package::url::{RepositoryUrl, UnpinnedPackageUrl};
use colibri_package::{MetaFar, PackageName};

use crate::error::ReleaseError;
use crate::release::{
    BootPackage, CachePackage, DiscoverableDomain, PackageContents, Release, ReleaseBlob, ReleasePackage, Subpackage,
    TrustedRepository,
};
use crate::version::ProductVersion;

/// A release under construction.
///
/// Say what the product is, then answer [`Self::missing`] until it asks no more, then [`Self::finish`].
#[derive(Debug, Clone)]
pub struct ReleaseBuilder {
    product: String,
    version: ProductVersion,
    forbids_overlay: bool,
    repositories: Vec<TrustedRepository>,
    packages: Vec<ReleasePackage>,
    discoverable: Vec<DiscoverableDomain>,
    boot: Vec<BootPackage>,
    cache: Vec<CachePackage>,
    contents: BTreeMap<BlobId, PackageContents>,
    blobs: BTreeMap<BlobId, ReleaseBlob>,
    open_contents: BTreeSet<BlobId>,
    open_blobs: BTreeSet<BlobId>,
}

/// What a builder needs to know next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// What this package hash consists of: [`ReleaseBuilder::contents`].
    Contents(BlobId),
    /// The sizes and forms of this blob: [`ReleaseBuilder::blob`].
    Blob(BlobId),
}

impl ReleaseBuilder {
    /// A release of `product` without packages.
    pub fn new(product: &str, version: ProductVersion) -> Self {
        Self {
            product: product.to_owned(),
            version,
            forbids_overlay: false,
            repositories: Vec::new(),
            packages: Vec::new(),
            discoverable: Vec::new(),
            boot: Vec::new(),
            cache: Vec::new(),
            contents: BTreeMap::new(),
            blobs: BTreeMap::new(),
            open_contents: BTreeSet::new(),
            open_blobs: BTreeSet::new(),
        }
    }

    /// Refuses developer overlays, also on devices in engineering mode.
    pub const fn forbid_overlay(&mut self) {
        self.forbids_overlay = true;
    }

    /// Trusts a repository, from the root whose exact text this is.
    pub fn repository(&mut self, url: RepositoryUrl, root: String) {
        self.repositories.push(TrustedRepository { url, root });
    }

    /// Adds a package.
    pub fn package(&mut self, package: ReleasePackage) {
        self.names(package.hash);
        self.packages.push(package);
    }

    /// Adds a package that comes with the boot image.
    pub fn boot(&mut self, name: PackageName, hash: BlobId) {
        self.names([hash]);
        self.boot.push(BootPackage { name, hash });
    }

    /// Adds a package of the deprecated cache set.
    pub fn cache(&mut self, url: UnpinnedPackageUrl, hash: BlobId) {
        self.names([hash]);
        self.cache.push(CachePackage { url, hash });
    }

    fn names(&mut self, hashes: impl IntoIterator<Item = BlobId>) {
        let unknown = hashes.into_iter().filter(|hash| !self.contents.contains_key(hash));
        self.open_contents.extend(unknown);
    }

    /// Lets a device resolve the packages of a domain that the release does not name.
    pub fn discoverable(&mut self, url: RepositoryUrl) {
        self.discoverable.push(DiscoverableDomain { url });
    }

    /// What is not told yet; nothing when the release can be finished.
    pub fn missing(&self) -> Option<Missing> {
        let contents = self.open_contents.first().copied().map(Missing::Contents);
        contents.or_else(|| self.open_blobs.first().copied().map(Missing::Blob))
    }

    /// How many blobs are told of, and how many are known to be needed so far.
    pub fn progress(&self) -> (usize, usize) {
        (self.blobs.len(), self.blobs.len() + self.open_blobs.len() + self.open_contents.len())
    }

    /// Tells what a package hash consists of.
    pub fn contents(&mut self, contents: PackageContents) {
        self.open_contents.remove(&contents.hash);
        let blobs = contents.blobs.iter().copied().chain([contents.hash]);
        self.open_blobs.extend(blobs.filter(|id| !self.blobs.contains_key(id)));
        let subpackages = contents.subpackages.iter().map(|subpackage| subpackage.hash);
        let unknown = subpackages.filter(|hash| *hash != contents.hash && !self.contents.contains_key(hash));
        self.open_contents.extend(unknown);
        self.contents.insert(contents.hash, contents);
    }

    /// Tells of a blob.
    pub fn blob(&mut self, blob: ReleaseBlob) {
        self.open_blobs.remove(&blob.hash);
        self.blobs.insert(blob.hash, blob);
    }

    /// The release, checked as [`Release::parse`] checks one.
    ///
    /// # Errors
    /// Says which package, blob or field is at fault and why; also when something is still missing.
    pub fn finish(mut self) -> Result<Release, ReleaseError> {
        self.repositories.sort_by(|a, b| a.url.cmp(&b.url));
        self.discoverable.sort_by(|a, b| a.url.cmp(&b.url));
        self.packages.sort_by_cached_key(ReleasePackage::key);
        self.boot.sort_by(|a, b| a.name.cmp(&b.name));
        self.cache.sort_by_cached_key(CachePackage::key);
        let release = Release {
            // As old as it can be, for programs that are.
            format: match (self.boot.is_empty() && self.cache.is_empty(), self.forbids_overlay) {
                (false, _) => 3,
                (true, true) => 2,
                (true, false) => 1,
            },
            product: self.product,
            version: self.version,
            forbids_overlay: self.forbids_overlay,
            repositories: self.repositories,
            packages: self.packages,
            discoverable: self.discoverable,
            boot: self.boot,
            cache: self.cache,
            contents: self.contents.into_values().collect(),
            blobs: self.blobs.into_values().collect(),
        };
        release.check()?;
        Ok(release)
    }
}

impl PackageContents {
    /// What the meta.far, which is blob `hash`, says.
    pub fn of(hash: BlobId, meta: &MetaFar) -> Self {
        let subpackages = meta.subpackages().iter().map(|(name, hash)| Subpackage { name: name.clone(), hash: *hash });
        let mut subpackages: Vec<_> = subpackages.collect();
        subpackages.sort_by(|a, b| a.name.cmp(&b.name));
        Self { hash, blobs: meta.content_blobs().into_iter().collect(), subpackages }
    }
}
