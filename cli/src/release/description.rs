//! A product description: what a product has, without versions; TOML or JSON, written by people.

use std::path::Path;

use colibri_package::url::{RepositoryUrl, UnpinnedPackageUrl};
use colibri_release::{Availability, PackageSet, ProductVersion, Versioning};
use serde::Deserialize;

use super::ReleaseVerbError;
use crate::files;

/// A product.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// Name of the product.
    pub product: String,
    /// Version of the release.
    pub version: ProductVersion,
    /// Whether developer overlays are refused, also on devices in engineering mode.
    #[serde(default)]
    pub forbids_overlay: bool,
    /// Its packages.
    #[serde(default, rename = "package")]
    pub packages: Vec<Package>,
    /// Packages that come with the boot image.
    #[serde(default)]
    pub boot: Vec<Named>,
    /// The deprecated cache set.
    #[serde(default)]
    pub cache: Vec<Named>,
    /// Hosts of repositories whose other packages a device may resolve too.
    #[serde(default)]
    pub discoverable: Vec<String>,
}

/// A package of the product.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    /// `fuchsia-pkg://HOST/NAME[/VARIANT]`.
    pub url: String,
    /// When it is there.
    pub availability: Availability,
    /// Who sets its version.
    pub versioning: Versioning,
    /// Oldest version that an upgradable package may have.
    #[serde(default)]
    pub minimum_version: Option<ProductVersion>,
    /// Whether an upgradable package falls back to the version that is offered now; if it is permanent it does anyway.
    #[serde(default)]
    pub fallback: bool,
}

/// A package of which only the URL is to be said.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// `fuchsia-pkg://HOST/NAME[/VARIANT]`.
    pub url: String,
}

impl Named {
    /// The URL.
    pub fn url(&self) -> Result<UnpinnedPackageUrl, String> {
        self.url.parse().map_err(|error| format!("package {:?}: {error}", self.url))
    }
}

impl Description {
    /// Reads a description; the name's ending tells the form.
    pub fn read(path: &Path) -> Result<Self, ReleaseVerbError> {
        let bytes = files::read(path)?;
        let wrong = |reason: String| ReleaseVerbError::Description { path: path.to_owned(), reason };
        let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("toml") => toml::from_str(text).map_err(|error| wrong(error.to_string())),
            Some("json") => serde_json::from_str(text).map_err(|error| wrong(error.to_string())),
            _ => Err(wrong("a product description is a .toml or a .json file".to_owned())),
        }
    }
}

impl Package {
    /// The URL.
    pub fn url(&self) -> Result<UnpinnedPackageUrl, String> {
        self.url.parse().map_err(|error| format!("package {:?}: {error}", self.url))
    }

    /// Whether the release says a hash for it.
    pub fn has_hash(&self) -> Result<bool, String> {
        let set = PackageSet::new(self.availability, self.versioning);
        let set = set.map_err(|error| format!("package {:?}: {error}", self.url))?;
        match set.versioning() {
            Versioning::Anchored if self.fallback => {
                Err(format!("package {:?}: an anchored package has one version and no fallback", self.url))
            }
            Versioning::Anchored => Ok(true),
            Versioning::Upgradable => Ok(self.fallback || set.availability() == Availability::Permanent),
            Versioning::Discoverable => {
                let reason = "a release lists no discoverable packages: put the host into `discoverable`";
                Err(format!("package {:?}: {reason}", self.url))
            }
        }
    }
}

/// The repository of a host.
pub(super) fn repository_url(host: &str) -> Result<RepositoryUrl, String> {
    RepositoryUrl::from_host(host).map_err(|error| format!("{host:?} is not the host of a repository: {error}"))
}
