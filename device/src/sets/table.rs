//! [`Table`]: what each cell of the RFC-0212 grid means on a device, read from a product release. Pure.
//!
//! One table answers for everybody: what must be here before the release commits, what is fetched afterwards, what is there
//! when somebody asks, what is given up in which order, and who says which version a URL means. Subpackages follow their
//! parents, because packages are always meant with all that they need. Deliberately absent: fetching, deleting.

use std::collections::BTreeMap;

use colibri_common::BlobId;
use colibri_package::url::{AbsolutePackageUrl, UnpinnedPackageUrl};
use colibri_release::{Availability, PackageSet, ProductVersion, Release, ReleasePackage, Versioning};

use crate::cache::{Current, Kept};

/// A version of an upgradable package, as its authority says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgrade {
    /// The package hash.
    pub hash: BlobId,
    /// Its version.
    pub version: ProductVersion,
}

/// Which version of a package a device uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The release's.
    Anchored(BlobId),
    /// Its authority's.
    Upgraded(BlobId),
    /// The release's, since its authority gave none that is new enough.
    Fallback(BlobId),
    /// None yet.
    Nothing,
}

/// Who says which version a URL means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The release, of a package that is permanent & anchored.
    Base(BlobId),
    /// The release, of another anchored package.
    Anchored(BlobId),
    /// The last word of the package's own authority.
    Upgraded(BlobId),
    /// The release, of an upgradable package whose authority gave no version that is new enough.
    Fallback(BlobId),
    /// The repository of the URL, for a package that the release names.
    Upgradable,
    /// The repository of the URL, for a package that the release does not name.
    Discoverable,
    /// The repository of the URL, for a package of the deprecated cache set; the release, where that cannot be asked.
    Cache,
}

/// Why a package set refuses something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// Neither named nor in a discoverable domain.
    #[error("release {release} names no `{url}`, and does not let packages of that domain be discovered")]
    NotEligible {
        /// The URL.
        url: String,
        /// Product and version.
        release: String,
    },
    /// Another version than the one in use.
    #[error("release {release} allows `{url}` only as {allowed}")]
    OtherVersion {
        /// The URL, with its hash.
        url: String,
        /// Product and version.
        release: String,
        /// The version in use.
        allowed: BlobId,
    },
    /// Its version comes from the release, or nobody knows it.
    #[error("release {release} has no upgradable package `{url}`")]
    NotUpgradable {
        /// The URL.
        url: String,
        /// Product and version.
        release: String,
    },
    /// Older than the release accepts.
    #[error("version {version} of `{url}` is older than {minimum}, the oldest that the release accepts")]
    BelowMinimum {
        /// The URL.
        url: String,
        /// As offered.
        version: ProductVersion,
        /// The release's bound.
        minimum: ProductVersion,
    },
    /// Its authority says the version, nobody else.
    #[error("`{0}` names a version of an upgradable package, whose version its authority says: leave out the hash")]
    PinnedUpgradable(String),
    /// A minimum cannot be checked where no version is told.
    #[error("`{url}` must be version {minimum} or newer, and its authority has not given one yet")]
    NoVersionYet {
        /// The URL.
        url: String,
        /// The release's bound.
        minimum: ProductVersion,
    },
}

/// How much of a package set is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRow {
    /// The cell.
    pub set: PackageSet,
    /// Packages that the device may have, by URL, each with the version in use and whether it is wholly here.
    pub packages: Vec<SetPackage>,
    /// Domains, of the discoverable cell.
    pub domains: Vec<String>,
}

/// A package in a [`SetRow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetPackage {
    /// Its unpinned URL.
    pub url: String,
    /// The version in use.
    pub chosen: Chosen,
    /// Wholly here: delivered.
    pub is_delivered: bool,
}

/// A release and what authorities said since.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    release: &'a Release,
    upgrades: &'a BTreeMap<String, Upgrade>,
}

/// How upgrades are keyed: `NAME` and `NAME/0` are one package.
pub(crate) fn key(url: &UnpinnedPackageUrl) -> String {
    format!("{}/{}", url.repository(), url.path())
}

impl Chosen {
    /// The version, if there is one.
    pub const fn hash(self) -> Option<BlobId> {
        match self {
            Self::Anchored(hash) | Self::Upgraded(hash) | Self::Fallback(hash) => Some(hash),
            Self::Nothing => None,
        }
    }
}

impl<'a> Table<'a> {
    /// `upgrades` by unpinned URL with a variant; those that the release does not accept are passed over.
    pub const fn new(release: &'a Release, upgrades: &'a BTreeMap<String, Upgrade>) -> Self {
        Self { release, upgrades }
    }

    /// The release.
    pub const fn release(&self) -> &'a Release {
        self.release
    }

    /// Which version of a package is used. An upgrade is never below the minimum.
    pub fn chosen(&self, package: &ReleasePackage) -> Chosen {
        let upgrade = self.upgrades.get(&key(&package.url)).filter(|upgrade| {
            let is_new_enough = package.minimum_version.is_none_or(|minimum| upgrade.version >= minimum);
            package.versioning == Versioning::Upgradable && is_new_enough
        });
        match (upgrade, package.hash) {
            (Some(upgrade), _) => Chosen::Upgraded(upgrade.hash),
            (None, Some(hash)) if package.versioning == Versioning::Upgradable => Chosen::Fallback(hash),
            (None, Some(hash)) => Chosen::Anchored(hash),
            (None, None) => Chosen::Nothing,
        }
    }

    /// Packages that must be wholly here before the release is committed, with where from, by URL: permanent ones, of
    /// upgradable ones the version to fall back to.
    pub fn before_commit(&self) -> Vec<(&'a UnpinnedPackageUrl, BlobId)> {
        self.of(Availability::Permanent).filter_map(|package| Some((&package.url, package.hash?))).collect()
    }

    /// Packages that are fetched by themselves once the release is committed, with where from, by URL.
    pub fn after_commit(&self) -> Vec<(&'a UnpinnedPackageUrl, BlobId)> {
        let automatic = self.of(Availability::Automatic);
        automatic.filter_map(|package| Some((&package.url, self.chosen(package).hash()?))).collect()
    }

    /// Packages that are there from the start besides: the deprecated cache set, with where from, by URL.
    pub fn cache_set(&self) -> Vec<(&'a UnpinnedPackageUrl, BlobId)> {
        self.release.cache().iter().map(|package| (&package.url, package.hash)).collect()
    }

    /// All that is fetched before the release is committed.
    pub fn from_the_start(&self) -> Vec<(&'a UnpinnedPackageUrl, BlobId)> {
        let mut packages = self.before_commit();
        packages.extend(self.cache_set());
        packages
    }

    /// Writes what this table keeps, and how firmly, into the indices. The rest of them stays.
    pub(crate) fn apply(&self, kept: &mut Kept) {
        kept.base = self.before_commit().into_iter().map(|(_, hash)| hash).collect();
        kept.anchored.clear();
        kept.upgradable.clear();
        // What a system image said of these it says no more. Its cache set is still what to fall back to, unless the release has
        // one, or the one before had.
        kept.named.base.clear();
        kept.named.anchored.clear();
        if !self.release.cache().is_empty() || kept.cache_of_release {
            kept.cache = self.release.cache().iter().map(|package| package.hash).collect();
            let named = self.release.cache().iter().map(|package| (key(&package.url), package.hash));
            kept.named.cache = named.collect();
            kept.cache_of_release = !self.release.cache().is_empty();
        }
        for package in self.release.packages() {
            let availability = package.availability;
            match self.chosen(package) {
                Chosen::Upgraded(hash) => {
                    let version = self.upgrades.get(&key(&package.url)).map(|upgrade| upgrade.version);
                    let version = version.unwrap_or(ProductVersion::new([0; 4]));
                    let current = kept.upgradable.entry(key(&package.url));
                    let current = current.or_insert(Current { hash, version, availability });
                    // In two sets it is kept as the stronger one says.
                    current.availability = current.availability.min(availability);
                }
                Chosen::Anchored(hash) | Chosen::Fallback(hash) if availability != Availability::Permanent => {
                    let strongest = kept.anchored.entry(hash).or_insert(availability);
                    *strongest = availability.min(*strongest);
                }
                _ => {}
            }
        }
    }

    /// Who says which version a URL means: the release for what it anchors, the authority's last word or the fallback for
    /// what is upgradable, and the repository only where nothing is known here. A pin of what is anchored must be the version in
    /// use; what is upgradable cannot be pinned.
    ///
    /// # Errors
    /// The release does not let this be resolved.
    pub fn authority(&self, url: &AbsolutePackageUrl) -> Result<Authority, SetError> {
        let wanted = key(url.as_unpinned());
        let mut named: Vec<_> = self.release.packages().iter().filter(|package| key(&package.url) == wanted).collect();
        // What is anchored is so in every set.
        named.sort_by_key(|package| package.versioning);
        let Some(package) = named.first() else {
            let domain = url.repository();
            if self.release.cache().iter().any(|package| key(&package.url) == wanted) {
                return Ok(Authority::Cache);
            }
            return match self.release.discoverable().iter().any(|listed| listed.url == *domain) {
                true => Ok(Authority::Discoverable),
                false => Err(SetError::NotEligible { url: url.to_string(), release: self.name() }),
            };
        };
        if package.versioning == Versioning::Upgradable && url.hash().is_some() {
            return Err(SetError::PinnedUpgradable(url.to_string()));
        }
        match (self.chosen(package), package.minimum_version) {
            (Chosen::Anchored(allowed), _) if url.hash().is_some_and(|pin| pin != allowed) => {
                Err(SetError::OtherVersion { url: url.to_string(), release: self.name(), allowed })
            }
            // In two sets it is as permanent as the stronger one says.
            (Chosen::Anchored(hash), _)
                if named.iter().any(|package| package.availability == Availability::Permanent) =>
            {
                Ok(Authority::Base(hash))
            }
            (Chosen::Anchored(hash), _) => Ok(Authority::Anchored(hash)),
            (Chosen::Upgraded(hash), _) => Ok(Authority::Upgraded(hash)),
            (Chosen::Fallback(hash), _) => Ok(Authority::Fallback(hash)),
            (Chosen::Nothing, Some(minimum)) => Err(SetError::NoVersionYet { url: url.to_string(), minimum }),
            (Chosen::Nothing, None) => Ok(Authority::Upgradable),
        }
    }

    /// Whether a version may be used for a package.
    ///
    /// # Errors
    /// The release sets its version itself, does not name it, or wants a newer one.
    pub fn check_upgrade(&self, url: &UnpinnedPackageUrl, upgrade: Upgrade) -> Result<(), SetError> {
        let of_url = self.release.packages().iter().filter(|package| key(&package.url) == key(url));
        let mut upgradable = of_url.filter(|package| package.versioning == Versioning::Upgradable).peekable();
        if upgradable.peek().is_none() {
            return Err(SetError::NotUpgradable { url: url.to_string(), release: self.name() });
        }
        match upgradable.filter_map(|package| package.minimum_version).max() {
            Some(minimum) if upgrade.version < minimum => {
                Err(SetError::BelowMinimum { url: url.to_string(), version: upgrade.version, minimum })
            }
            _ => Ok(()),
        }
    }

    /// Every cell that exists, with what may be here and what is. `is_delivered` says whether a package is wholly here.
    pub fn rows(&self, is_delivered: impl Fn(BlobId) -> bool) -> Vec<SetRow> {
        let rows = PackageSet::all().map(|set| {
            let packages = self.release.packages_in(set).map(|package| {
                let chosen = self.chosen(package);
                let is_delivered = chosen.hash().is_some_and(&is_delivered);
                SetPackage { url: package.url.to_string(), chosen, is_delivered }
            });
            let domains = self.release.discoverable().iter().map(|domain| domain.url.to_string());
            let domains = domains.filter(|_| set.versioning() == Versioning::Discoverable).collect();
            SetRow { set, packages: packages.collect(), domains }
        });
        rows.collect()
    }

    fn of(&self, availability: Availability) -> impl Iterator<Item = &'a ReleasePackage> + use<'a> {
        self.release.packages().iter().filter(move |package| package.availability == availability)
    }

    /// Product and version.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.release.product(), self.release.version())
    }
}
