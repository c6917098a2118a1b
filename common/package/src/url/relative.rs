//! URLs that mean a subpackage of the package at hand.

use std::fmt;
use std::str::FromStr;

use percent_encoding::utf8_percent_encode;

use super::parts::Parts;
use super::{FRAGMENT, UrlError};
use crate::name::PackageName;
use crate::resource_path::ResourcePath;

/// The name of a subpackage; no variant, no hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePackageUrl(PackageName);

/// A resource in a subpackage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativeComponentUrl {
    package: RelativePackageUrl,
    resource: ResourcePath,
}

impl RelativePackageUrl {
    /// The relative URL of a subpackage with this name.
    pub const fn new(name: PackageName) -> Self {
        Self(name)
    }

    /// The name.
    pub const fn name(&self) -> &PackageName {
        &self.0
    }

    fn of_parts(parts: &Parts) -> Result<Self, UrlError> {
        if parts.scheme.is_some() {
            return Err(UrlError::CannotContainScheme);
        }
        if parts.host.is_some() {
            return Err(UrlError::HostMustBeEmpty);
        }
        parts.no_hash()?;
        let (name, variant) = parts.name_and_variant()?;
        if variant.is_some() {
            return Err(UrlError::RelativePathCannotSpecifyVariant);
        }
        // `/name`, `///name` and `./name` mean the same but are not what joining and making relative would give back.
        if parts.raw_path != name.as_str() {
            return Err(UrlError::InvalidRelativePath);
        }
        Ok(Self(name))
    }
}

impl FromStr for RelativePackageUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = Parts::parse(text)?;
        let url = Self::of_parts(&parts)?;
        parts.no_resource()?;
        Ok(url)
    }
}

impl TryFrom<String> for RelativePackageUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<RelativePackageUrl> for String {
    fn from(url: RelativePackageUrl) -> Self {
        url.0.into()
    }
}

impl fmt::Display for RelativePackageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RelativeComponentUrl {
    /// The subpackage.
    pub const fn package(&self) -> &RelativePackageUrl {
        &self.package
    }

    /// The resource in it.
    pub const fn resource(&self) -> &ResourcePath {
        &self.resource
    }
}

impl FromStr for RelativeComponentUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = Parts::parse(text)?;
        let package = RelativePackageUrl::of_parts(&parts)?;
        Ok(Self { package, resource: parts.resource.ok_or(UrlError::MissingResource)? })
    }
}

impl fmt::Display for RelativeComponentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.package, utf8_percent_encode(self.resource.as_str(), FRAGMENT))
    }
}
