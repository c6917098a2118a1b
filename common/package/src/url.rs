//! `fuchsia-pkg` and `fuchsia-boot` URLs (reference "Fuchsia formats" §6): the absolute kinds here, others and the one parser below.
//!
//! Pinned and unpinned package URLs are different types. The parser follows WHATWG rules where they matter and is stricter
//! where they would silently clean the input (tabs, line ends, surrounding spaces): those are refused.

mod boot;
mod error;
mod host;
mod parts;
mod relative;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use colibri_common::BlobId;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

pub use boot::BootUrl;
pub use error::UrlError;
pub use host::check_host;
pub use relative::{RelativeComponentUrl, RelativePackageUrl};

use crate::name::{PackageName, PackagePath, PackageVariant};
use crate::resource_path::ResourcePath;
use parts::{Parts, Scheme};

/// What is escaped when a resource is printed; `%` too, so that what was printed parses to the same resource.
const FRAGMENT: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'%');

/// `fuchsia-pkg://HOST`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryUrl {
    host: String,
}

/// `fuchsia-pkg://HOST/NAME[/VARIANT]`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnpinnedPackageUrl {
    repository: RepositoryUrl,
    name: PackageName,
    variant: Option<PackageVariant>,
}

/// `fuchsia-pkg://HOST/NAME[/VARIANT]?hash=HASH`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinnedPackageUrl {
    package: UnpinnedPackageUrl,
    hash: BlobId,
}

/// An absolute package URL, pinned or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AbsolutePackageUrl {
    /// Without a hash.
    Unpinned(UnpinnedPackageUrl),
    /// With a hash.
    Pinned(PinnedPackageUrl),
}

/// An absolute package URL and a resource in the package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AbsoluteComponentUrl {
    package: AbsolutePackageUrl,
    resource: ResourcePath,
}

impl RepositoryUrl {
    /// The repository of a host.
    pub fn from_host(host: &str) -> Result<Self, UrlError> {
        check_host(host)?;
        Ok(Self { host: host.to_owned() })
    }

    /// The host, which is the repository's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The URL of a package in this repository.
    pub fn package(&self, name: PackageName, variant: Option<PackageVariant>) -> UnpinnedPackageUrl {
        UnpinnedPackageUrl { repository: self.clone(), name, variant }
    }

    fn of_parts(parts: &Parts) -> Result<Self, UrlError> {
        match parts.scheme {
            None => return Err(UrlError::MissingScheme),
            Some(Scheme::Package) => {}
            Some(Scheme::Boot) => return Err(UrlError::InvalidScheme),
        }
        Ok(Self { host: parts.host.clone().ok_or(UrlError::MissingHost)? })
    }
}

impl FromStr for RepositoryUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = Parts::parse(text)?;
        let repository = Self::of_parts(&parts)?;
        if !parts.segments.is_empty() {
            return Err(UrlError::ExtraPathSegments);
        }
        parts.no_hash()?;
        parts.no_resource()?;
        Ok(repository)
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fuchsia-pkg://{}", self.host)
    }
}

impl UnpinnedPackageUrl {
    /// The repository.
    pub const fn repository(&self) -> &RepositoryUrl {
        &self.repository
    }

    /// The package's name.
    pub const fn name(&self) -> &PackageName {
        &self.name
    }

    /// The variant, if the URL names one.
    pub const fn variant(&self) -> Option<&PackageVariant> {
        self.variant.as_ref()
    }

    /// `NAME/VARIANT`, where an absent variant means `0`.
    pub fn path(&self) -> PackagePath {
        PackagePath::new(self.name.clone(), self.variant.clone().unwrap_or_default())
    }

    /// The same package pinned to a hash.
    pub fn pin(self, hash: BlobId) -> PinnedPackageUrl {
        PinnedPackageUrl { package: self, hash }
    }
}

impl FromStr for UnpinnedPackageUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        match text.parse()? {
            AbsolutePackageUrl::Unpinned(url) => Ok(url),
            AbsolutePackageUrl::Pinned(_) => Err(UrlError::CannotContainHash),
        }
    }
}

impl fmt::Display for UnpinnedPackageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.repository, self.name)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl PinnedPackageUrl {
    /// The URL without its hash.
    pub const fn as_unpinned(&self) -> &UnpinnedPackageUrl {
        &self.package
    }

    /// The package hash.
    pub const fn hash(&self) -> BlobId {
        self.hash
    }
}

impl FromStr for PinnedPackageUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        match text.parse()? {
            AbsolutePackageUrl::Pinned(url) => Ok(url),
            AbsolutePackageUrl::Unpinned(_) => Err(UrlError::MissingHash),
        }
    }
}

impl fmt::Display for PinnedPackageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}?hash={}", self.package, self.hash)
    }
}

impl AbsolutePackageUrl {
    /// The URL without a hash.
    pub const fn as_unpinned(&self) -> &UnpinnedPackageUrl {
        match self {
            Self::Unpinned(url) => url,
            Self::Pinned(url) => &url.package,
        }
    }

    /// The hash, if pinned.
    pub const fn hash(&self) -> Option<BlobId> {
        match self {
            Self::Unpinned(_) => None,
            Self::Pinned(url) => Some(url.hash),
        }
    }

    /// The repository.
    pub const fn repository(&self) -> &RepositoryUrl {
        &self.as_unpinned().repository
    }

    /// The package's name.
    pub const fn name(&self) -> &PackageName {
        &self.as_unpinned().name
    }

    /// The variant, if the URL names one.
    pub const fn variant(&self) -> Option<&PackageVariant> {
        self.as_unpinned().variant()
    }

    /// `NAME/VARIANT`, where an absent variant means `0`.
    pub fn path(&self) -> PackagePath {
        self.as_unpinned().path()
    }

    fn of_parts(parts: &Parts) -> Result<Self, UrlError> {
        let repository = RepositoryUrl::of_parts(parts)?;
        let (name, variant) = parts.name_and_variant()?;
        let url = UnpinnedPackageUrl { repository, name, variant };
        Ok(parts.hash.map_or_else(|| Self::Unpinned(url.clone()), |hash| Self::Pinned(url.clone().pin(hash))))
    }
}

impl FromStr for AbsolutePackageUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = Parts::parse(text)?;
        let url = Self::of_parts(&parts)?;
        parts.no_resource()?;
        Ok(url)
    }
}

impl fmt::Display for AbsolutePackageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpinned(url) => url.fmt(f),
            Self::Pinned(url) => url.fmt(f),
        }
    }
}

impl AbsoluteComponentUrl {
    /// The package.
    pub const fn package(&self) -> &AbsolutePackageUrl {
        &self.package
    }

    /// The resource in it.
    pub const fn resource(&self) -> &ResourcePath {
        &self.resource
    }
}

impl FromStr for AbsoluteComponentUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = Parts::parse(text)?;
        let package = AbsolutePackageUrl::of_parts(&parts)?;
        Ok(Self { package, resource: parts.resource.ok_or(UrlError::MissingResource)? })
    }
}

impl fmt::Display for AbsoluteComponentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.package, utf8_percent_encode(self.resource.as_str(), FRAGMENT))
    }
}
