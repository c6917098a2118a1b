//! [`Release`]: one version of a product, with every package it names, how each is kept, and every blob with its sizes.

use std::collections::BTreeSet;

use colibri_common::BlobId;
use colibri_package::url::{RepositoryUrl, UnpinnedPackageUrl};
use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::grid::{Availability, NotApplicable, PackageSet, Versioning};
use crate::limits;
use crate::version::ProductVersion;

/// A product release. Made by [`Release::parse`], or checked by [`Release::check`] after it was put together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Name of the product.
    pub product: String,
    /// Version of this release.
    pub version: ProductVersion,
    /// The packages that the release names.
    pub packages: Vec<ReleasePackage>,
    /// Domains whose packages may be resolved though the release names none of them (on demand & discoverable).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discoverable: Vec<DiscoverableDomain>,
    /// Every blob of the packages with a hash, subpackages included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<ReleaseBlob>,
}

/// A package in a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasePackage {
    /// Unpinned URL.
    #[serde(with = "as_text")]
    pub url: UnpinnedPackageUrl,
    /// Package hash: the version of an anchored package, the version to fall back to of an upgradable one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<BlobId>,
    /// When the package is there.
    pub availability: Availability,
    /// Who sets its version.
    pub versioning: Versioning,
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

/// A blob of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseBlob {
    /// Its id.
    pub hash: BlobId,
    /// Length of the content in bytes.
    pub raw_bytes: u64,
    /// Length of the delivery blob in bytes, as the publisher encoded it.
    pub encoded_bytes: u64,
}

/// Why a release is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not JSON of this form.
    #[error("product release: {0}")]
    Malformed(String),
    /// Longer than the limit.
    #[error("a product release has at most {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The product has no name, or one that is too long or has control characters.
    #[error("{0:?} is not a product name")]
    ProductName(String),
    /// A package in a cell of the grid that does not exist.
    #[error("package {url}: {source}")]
    NotApplicable {
        /// The package.
        url: String,
        /// The cell.
        source: NotApplicable,
    },
    /// A package whose fields contradict its package set.
    #[error("package {url} ({set}): {reason}")]
    Package {
        /// The package.
        url: String,
        /// Its package set.
        set: PackageSet,
        /// What is wrong.
        reason: &'static str,
    },
    /// A package, domain or blob is listed twice.
    #[error("{0} is listed twice")]
    Duplicate(String),
}

impl Release {
    /// Reads a release strictly and checks it.
    ///
    /// # Errors
    /// Says which package is at fault and why.
    pub fn parse(json: &[u8]) -> Result<Self, ReleaseError> {
        if json.len() as u64 > limits::RELEASE_BYTES_MAX {
            return Err(ReleaseError::TooMany { what: "bytes", limit: limits::RELEASE_BYTES_MAX });
        }
        let release: Self = serde_json::from_slice(json).map_err(|e| ReleaseError::Malformed(e.to_string()))?;
        release.check()?;
        Ok(release)
    }

    /// Checks what the form alone does not say.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn check(&self) -> Result<(), ReleaseError> {
        let bounds = [
            ("packages", self.packages.len(), limits::PACKAGES_MAX),
            ("blobs", self.blobs.len(), limits::BLOBS_MAX),
            ("discoverable domains", self.discoverable.len(), limits::DOMAINS_MAX),
        ];
        for (what, count, limit) in bounds {
            if count as u64 > limit {
                return Err(ReleaseError::TooMany { what, limit });
            }
        }
        let name = &self.product;
        let too_long = name.len() as u64 > limits::PRODUCT_NAME_BYTES_MAX;
        if name.is_empty() || too_long || name.chars().any(char::is_control) {
            return Err(ReleaseError::ProductName(name.chars().take(64).collect()));
        }
        for package in &self.packages {
            package.check()?;
        }
        let mut seen = BTreeSet::new();
        // One package may be in several sets, but only once in each.
        let packages = self.packages.iter().map(|p| format!("{} ({} & {})", p.url, p.availability, p.versioning));
        let domains = self.discoverable.iter().map(|domain| domain.url.to_string());
        let blobs = self.blobs.iter().map(|blob| format!("blob {}", blob.hash));
        for key in packages.chain(domains).chain(blobs) {
            if seen.contains(&key) {
                return Err(ReleaseError::Duplicate(key));
            }
            seen.insert(key);
        }
        Ok(())
    }

    /// The packages of one set.
    pub fn packages_in(&self, set: PackageSet) -> impl Iterator<Item = &ReleasePackage> {
        self.packages.iter().filter(move |package| package.set() == Ok(set))
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

/// URLs as text.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use super::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|e| super::text_error::<D>(&text, &e))
    }
}

fn text_error<'de, D: Deserializer<'de>>(text: &str, reason: &dyn std::fmt::Display) -> D::Error {
    D::Error::custom(format_args!("{text:?}: {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HASH: &str = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";

    fn full() -> Value {
        json!({
            "product": "workstation",
            "version": "8.20220622.2.1",
            "packages": [
                {"url": "fuchsia-pkg://a.com/base", "hash": HASH, "availability": "permanent", "versioning": "anchored"},
                {"url": "fuchsia-pkg://a.com/late", "hash": HASH, "availability": "automatic", "versioning": "anchored"},
                {"url": "fuchsia-pkg://a.com/rare", "hash": HASH, "availability": "on_demand", "versioning": "anchored"},
                {"url": "fuchsia-pkg://a.com/time/0", "hash": HASH, "availability": "permanent", "versioning": "upgradable"},
                {"url": "fuchsia-pkg://a.com/eager", "availability": "automatic", "versioning": "upgradable", "minimum_version": "1.2.0.0"},
                {"url": "fuchsia-pkg://a.com/app", "availability": "on_demand", "versioning": "upgradable"},
            ],
            "discoverable": [{"url": "fuchsia-pkg://apps.example"}],
            "blobs": [{"hash": HASH, "raw_bytes": 0, "encoded_bytes": 28}],
        })
    }

    fn parse(value: &Value) -> Result<Release, ReleaseError> {
        Release::parse(&serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn a_release_with_every_package_set_goes_round() {
        let release = parse(&full()).unwrap();
        assert_eq!(serde_json::to_value(&release).unwrap(), full());
        for set in PackageSet::all() {
            let expected = usize::from(set.versioning() != Versioning::Discoverable);
            assert_eq!(release.packages_in(set).count(), expected, "{set}");
        }
    }

    #[test]
    fn not_applicable_cells_and_contradictions_are_refused() {
        let package = |index: usize, field: &str, value: Value| {
            let mut release = full();
            release["packages"][index][field] = value;
            parse(&release).unwrap_err().to_string()
        };
        for (said, word) in [
            (package(0, "versioning", json!("discoverable")), "no permanent & discoverable"),
            (package(1, "versioning", json!("discoverable")), "no automatic & discoverable"),
            (package(2, "versioning", json!("discoverable")), "lists domains"),
            (package(0, "hash", json!(null)), "needs a hash"),
            (package(0, "minimum_version", json!("1")), "not a minimum version"),
            (package(3, "hash", json!(null)), "fall back"),
            (package(0, "availability", json!("always")), "always"),
            (package(0, "url", json!("fuchsia-pkg://a.com/base?hash=00")), "base?hash=00"),
            (package(0, "colour", json!(1)), "colour"),
        ] {
            assert!(said.contains(word), "{said}");
            assert!(!said.contains('\n'));
        }
    }

    #[test]
    fn duplicates_and_bad_names_are_refused() {
        for (list, index) in [("packages", 0), ("discoverable", 0), ("blobs", 0)] {
            let mut release = full();
            let again = release[list][index].clone();
            release[list].as_array_mut().unwrap().push(again);
            assert!(matches!(parse(&release), Err(ReleaseError::Duplicate(_))), "{list}");
        }
        for name in [json!(""), json!("a\nb"), json!("x".repeat(256))] {
            let mut release = full();
            release["product"] = name;
            assert!(matches!(parse(&release), Err(ReleaseError::ProductName(_))));
        }
        assert!(matches!(Release::parse(b"{"), Err(ReleaseError::Malformed(_))));
        // The same package in two sets is allowed.
        let mut release = full();
        release["packages"][1]["url"] = json!("fuchsia-pkg://a.com/base");
        assert!(parse(&release).is_ok());
    }
}
