//! [`MetaFar`]: an opened package. It knows what the package names; fetching that is somebody else's business.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use colibri_common::BlobId;

use crate::far::FarBytes;
use crate::limits::META_FAR_BYTES_MAX;
use crate::meta_contents::MetaContents;
use crate::meta_package::MetaPackage;
use crate::subpackages::MetaSubpackages;
use crate::url::RelativePackageUrl;
use crate::{AbiRevision, PackageError, PackageName, PackagePath, PackageVariant, ResourcePath};

/// Where a package keeps its ABI revision.
pub const ABI_REVISION_PATH: &str = "meta/fuchsia.abi/abi-revision";

/// A parsed meta.far.
#[derive(Debug, Clone)]
pub struct MetaFar {
    far: FarBytes,
    package: MetaPackage,
    contents: MetaContents,
    subpackages: MetaSubpackages,
    abi_revision: Option<AbiRevision>,
}

impl MetaFar {
    /// Parses a meta.far. `meta/package` and `meta/contents` must be there; all names must be UTF-8.
    pub fn parse(bytes: Bytes) -> Result<Self, PackageError> {
        PackageError::check_size("meta.far", bytes.len(), META_FAR_BYTES_MAX)?;
        let far = FarBytes::parse(bytes)?;
        if let Some(entry) = far.entries().iter().find(|entry| entry.text().is_none()) {
            return Err(PackageError::NotUtf8 {
                what: format!("the name '{}' in meta.far", entry.name().escape_ascii()),
            });
        }
        let file = |path: &'static str| far.get(path.as_bytes()).ok_or(PackageError::MissingFile(path));
        let package = MetaPackage::parse(&file(MetaPackage::PATH)?)?;
        let contents = MetaContents::parse(&file(MetaContents::PATH)?)?;
        let subpackages = far.get(MetaSubpackages::PATH.as_bytes());
        let subpackages =
            subpackages.map_or_else(|| Ok(MetaSubpackages::default()), |file| MetaSubpackages::parse(&file))?;
        let abi_revision = far.get(ABI_REVISION_PATH.as_bytes()).map(|file| AbiRevision::parse(&file)).transpose()?;
        Ok(Self { far, package, contents, subpackages, abi_revision })
    }

    /// The package's own name (it may be published under another).
    pub const fn name(&self) -> &PackageName {
        &self.package.name
    }

    /// Its variant.
    pub const fn variant(&self) -> &PackageVariant {
        &self.package.variant
    }

    /// `NAME/VARIANT`.
    pub fn path(&self) -> PackagePath {
        self.package.path()
    }

    /// Content path to blob, sorted.
    pub const fn contents(&self) -> &BTreeMap<ResourcePath, BlobId> {
        self.contents.as_map()
    }

    /// The blobs that the content paths name, each once.
    pub fn content_blobs(&self) -> BTreeSet<BlobId> {
        self.contents().values().copied().collect()
    }

    /// Direct subpackages by name, each pinned by package hash.
    pub const fn subpackages(&self) -> &BTreeMap<RelativePackageUrl, BlobId> {
        self.subpackages.as_map()
    }

    /// The ABI revision, if the package says one.
    pub const fn abi_revision(&self) -> Option<AbiRevision> {
        self.abi_revision
    }

    /// Paths of the files inside meta.far, sorted.
    pub fn meta_paths(&self) -> impl Iterator<Item = &str> {
        self.far.entries().iter().filter_map(|entry| entry.text())
    }

    /// The content of a file inside meta.far.
    pub fn meta_file(&self, path: &str) -> Option<Bytes> {
        self.far.get(path.as_bytes())
    }
}
