//! [`Release`]: one version of a product: whom it trusts, every package with its cell of the grid, and every blob with its
//! sizes. The form and its reader are here; what the form alone does not say is checked in `check`.
//!
//! The reader is strict: an unknown field is an error, because what a field means may not be ignored on a device. A field is
//! added by raising [`FORMAT`]; a program reads its own format and the one before, and refuses newer ones by name.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use bytes::Bytes;
use colibri_common::{BlobId, DIGEST_BYTES, unhex};
use colibri_metadata::TrustAnchor;
use colibri_package::delivery::{DeliveryType, Identity};
use colibri_package::url::{RelativePackageUrl, RepositoryUrl, UnpinnedPackageUrl};
use colibri_package::{PackageName, PackagePath};
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::error::ReleaseError;
use crate::grid::{Availability, NotApplicable, PackageSet, Versioning};
use crate::limits;
use crate::version::ProductVersion;

/// The newest format that this version reads, and writes if it has to: a release without what came with it is written as before.
/// Format 2 has `forbids_overlay`, format 3 `boot` and `cache`.
pub const FORMAT: u64 = 3;

/// A product release. Made by [`Release::parse`] or by a [`crate::ReleaseBuilder`]: always checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    pub(crate) format: u64,
    pub(crate) product: String,
    pub(crate) version: ProductVersion,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) forbids_overlay: bool,
    pub(crate) repositories: Vec<TrustedRepository>,
    pub(crate) packages: Vec<ReleasePackage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) discoverable: Vec<DiscoverableDomain>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) boot: Vec<BootPackage>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cache: Vec<CachePackage>,
    pub(crate) contents: Vec<PackageContents>,
    pub(crate) blobs: Vec<ReleaseBlob>,
}

/// A repository that the product trusts, and what to trust it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedRepository {
    /// `fuchsia-pkg://HOST`.
    #[serde(with = "as_text")]
    pub url: RepositoryUrl,
    /// A root file of it, the exact text. Updates begin here, so that it may be an old one, but not an unsigned one.
    pub root: String,
}

/// A package in a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasePackage {
    /// Unpinned URL.
    #[serde(with = "as_text")]
    pub url: UnpinnedPackageUrl,
    /// When the package is there.
    pub availability: Availability,
    /// Who sets its version.
    pub versioning: Versioning,
    /// Package hash: the version of an anchored package, the version to fall back to of an upgradable one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<BlobId>,
    /// Oldest version that an upgradable package may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<ProductVersion>,
}

/// A domain of discoverable packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscoverableDomain {
    /// `fuchsia-pkg://HOST`.
    #[serde(with = "as_text")]
    pub url: RepositoryUrl,
}

/// A package that comes with the boot image: permanent & anchored as base is, but addressed `fuchsia-boot:///NAME` and there
/// before anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootPackage {
    /// Its name.
    #[serde(with = "as_text")]
    pub name: PackageName,
    /// Package hash.
    pub hash: BlobId,
}

/// A package of the cache set: there from the start, and its repository says the version without any constraint. Outside the
/// grid, and deprecated by RFC-0212 in favour of permanent & upgradable packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachePackage {
    /// Unpinned URL.
    #[serde(with = "as_text")]
    pub url: UnpinnedPackageUrl,
    /// Package hash of the version that is there from the start, and to fall back to.
    pub hash: BlobId,
}

/// What one package hash consists of: a package or a subpackage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageContents {
    /// The package hash, which is the id of its meta.far.
    pub hash: BlobId,
    /// Its content blobs, sorted, without the meta.far.
    pub blobs: Vec<BlobId>,
    /// Its direct subpackages, sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subpackages: Vec<Subpackage>,
}

/// A subpackage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subpackage {
    /// Its name in the package that has it.
    #[serde(with = "as_text")]
    pub name: RelativePackageUrl,
    /// Its package hash.
    pub hash: BlobId,
}

/// A blob of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseBlob {
    /// Its id.
    pub hash: BlobId,
    /// Length of the content in bytes.
    pub raw_bytes: u64,
    /// Its delivery forms as the publisher made them, by type, at least one.
    pub encoded: Vec<EncodedForm>,
}

/// One delivery form of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodedForm {
    /// Delivery type.
    #[serde(rename = "type", with = "as_number")]
    pub ty: DeliveryType,
    /// Length of the delivery blob in bytes.
    pub bytes: u64,
    /// Which of the possible encoded forms it is: SHA-256 of its unit H.
    #[serde(with = "as_hex")]
    pub identity: Identity,
}

impl Release {
    /// Path of the document in the package that carries it.
    pub const PATH: &str = "release.json";

    /// Reads a release strictly and checks it.
    ///
    /// # Errors
    /// Says which package, blob or field is at fault and why.
    pub fn parse(json: &[u8]) -> Result<Self, ReleaseError> {
        #[derive(Deserialize)]
        struct Head {
            format: u64,
        }
        if json.len() as u64 > limits::RELEASE_BYTES_MAX {
            return Err(ReleaseError::TooMany { what: "bytes", limit: limits::RELEASE_BYTES_MAX });
        }
        let malformed = |error: serde_json::Error| ReleaseError::Malformed(error.to_string());
        // The format first: a newer one may have fields that are unknown here.
        match serde_json::from_slice(json).map_err(malformed)? {
            Head { format: 0 } => return Err(ReleaseError::Malformed("there is no format 0".to_owned())),
            Head { format: found } if found > FORMAT => return Err(ReleaseError::TooNew { found }),
            Head { .. } => {}
        }
        let release: Self = serde_json::from_slice(json).map_err(malformed)?;
        release.check()?;
        Ok(release)
    }

    /// The document: one line of JSON, the same for the same release.
    ///
    /// # Errors
    /// It would be longer than a reader accepts.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ReleaseError> {
        let mut json = serde_json::to_vec(self).map_err(|error| ReleaseError::Malformed(error.to_string()))?;
        json.push(b'\n');
        if json.len() as u64 > limits::RELEASE_BYTES_MAX {
            return Err(ReleaseError::TooMany { what: "bytes", limit: limits::RELEASE_BYTES_MAX });
        }
        Ok(json)
    }

    /// Name of the product.
    pub fn product(&self) -> &str {
        &self.product
    }

    /// Version of this release.
    pub const fn version(&self) -> ProductVersion {
        self.version
    }

    /// Whether developer overlays are refused, also on a device in engineering mode.
    pub const fn forbids_overlay(&self) -> bool {
        self.forbids_overlay
    }

    /// The repositories that the product trusts, by URL.
    pub fn repositories(&self) -> &[TrustedRepository] {
        &self.repositories
    }

    /// The packages that the release names, by URL and package set.
    pub fn packages(&self) -> &[ReleasePackage] {
        &self.packages
    }

    /// The packages of one set.
    pub fn packages_in(&self, set: PackageSet) -> impl Iterator<Item = &ReleasePackage> {
        self.packages.iter().filter(move |package| package.set() == Ok(set))
    }

    /// Domains whose packages may be resolved though the release names none of them (on demand & discoverable).
    pub fn discoverable(&self) -> &[DiscoverableDomain] {
        &self.discoverable
    }

    /// Packages that come with the boot image, by name.
    pub fn boot(&self) -> &[BootPackage] {
        &self.boot
    }

    /// The deprecated cache set, by URL.
    pub fn cache(&self) -> &[CachePackage] {
        &self.cache
    }

    /// Every package hash that the release names: of package sets, boot packages and the cache set.
    pub fn hashes(&self) -> impl Iterator<Item = BlobId> {
        let boot = self.boot.iter().map(|package| package.hash);
        let cache = self.cache.iter().map(|package| package.hash);
        self.packages.iter().filter_map(|package| package.hash).chain(boot).chain(cache)
    }

    /// What every package hash consists of, by hash.
    pub fn contents(&self) -> &[PackageContents] {
        &self.contents
    }

    /// What one package hash consists of.
    pub fn contents_of(&self, hash: BlobId) -> Option<&PackageContents> {
        let found = self.contents.binary_search_by_key(&hash, |contents| contents.hash).ok()?;
        self.contents.get(found)
    }

    /// Every blob, by id.
    pub fn blobs(&self) -> &[ReleaseBlob] {
        &self.blobs
    }

    /// One blob.
    pub fn blob(&self, id: BlobId) -> Option<&ReleaseBlob> {
        let found = self.blobs.binary_search_by_key(&id, |blob| blob.hash).ok()?;
        self.blobs.get(found)
    }

    /// Every blob that these package hashes need: meta.fars, content, and those of subpackages, recursively.
    pub fn blobs_needed(&self, hashes: impl IntoIterator<Item = BlobId>) -> BTreeSet<BlobId> {
        let mut needed = BTreeSet::new();
        // Each package hash is looked into once, so that this ends whatever the document says.
        let mut seen = BTreeSet::new();
        let mut open: Vec<BlobId> = hashes.into_iter().collect();
        while let Some(hash) = open.pop() {
            if !seen.insert(hash) {
                continue;
            }
            needed.insert(hash);
            if let Some(contents) = self.contents_of(hash) {
                needed.extend(contents.blobs.iter().copied());
                open.extend(contents.subpackages.iter().map(|subpackage| subpackage.hash));
            }
        }
        needed
    }
}

impl TrustedRepository {
    /// What a client of this repository trusts at first.
    pub fn trust_anchor(&self) -> TrustAnchor {
        TrustAnchor::RootFile(Bytes::copy_from_slice(self.root.as_bytes()))
    }
}

impl ReleasePackage {
    /// The package set it is in.
    ///
    /// # Errors
    /// There is no such set.
    pub const fn set(&self) -> Result<PackageSet, NotApplicable> {
        PackageSet::new(self.availability, self.versioning)
    }

    /// What makes it this package in this set, and its place in the list. `NAME` and `NAME/0` are one package.
    pub(crate) fn key(&self) -> (RepositoryUrl, PackagePath, Availability, Versioning) {
        (self.url.repository().clone(), self.url.path(), self.availability, self.versioning)
    }
}

impl CachePackage {
    /// Its place in the list. `NAME` and `NAME/0` are one package.
    pub(crate) fn key(&self) -> (RepositoryUrl, PackagePath) {
        (self.url.repository().clone(), self.url.path())
    }
}

impl ReleaseBlob {
    /// Bytes that travel when the blob is fetched: of its first form, which is the one that every client reads.
    pub fn fetched_bytes(&self) -> u64 {
        self.encoded.first().map_or(self.raw_bytes, |form| form.bytes)
    }
}

/// URLs and names as text.
pub(crate) mod as_text {
    use super::{Deserialize, Deserializer, Display, FromStr, Serializer, text_error};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| text_error::<D>(&text, &error))
    }
}

/// Delivery types as numbers.
mod as_number {
    use super::{DeliveryType, Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &DeliveryType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(value.number())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DeliveryType, D::Error> {
        DeliveryType::try_from(u32::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Identities as 64 hex digits.
mod as_hex {
    use super::{DIGEST_BYTES, Deserialize, Deserializer, Identity, Serializer, text_error, unhex};

    pub fn serialize<S: Serializer>(value: &Identity, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Identity, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digest = unhex(&text).and_then(|bytes| <[u8; DIGEST_BYTES]>::try_from(bytes).ok());
        digest.map(Identity::from_digest).ok_or_else(|| text_error::<D>(&text, &"not 64 lower-case hex digits"))
    }
}

fn text_error<'de, D: Deserializer<'de>>(text: &str, reason: &dyn Display) -> D::Error {
    let shown: String = text.chars().take(128).collect();
    D::Error::custom(format_args!("{shown:?}: {reason}"))
}
