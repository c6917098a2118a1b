//! Subpackages build manifests: which package manifests become subpackages, and under which names.

use colibri_common::BlobId;
use serde::Deserialize;

use super::PackageManifest;
use crate::PackageError;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::url::RelativePackageUrl;

const WHAT: &str = "subpackages build manifest";

/// One subpackage to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubpackageEntry {
    /// Its name; if absent, the name in its package manifest.
    pub name: Option<RelativePackageUrl>,
    /// Host path of its package manifest.
    pub package_manifest_file: String,
}

/// A subpackages build manifest: a JSON array without version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubpackagesBuildManifest(pub Vec<SubpackageEntry>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    package_manifest_file: String,
    name: Option<RelativePackageUrl>,
    meta_package_file: Option<String>,
}

impl SubpackagesBuildManifest {
    /// Parses the file. At most one of `name` and `meta_package_file` may be given; the latter is not read.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        PackageError::check_size(WHAT, bytes.len(), MANIFEST_BYTES_MAX)?;
        let wire: Vec<Wire> = serde_json::from_slice(bytes).map_err(PackageError::json(WHAT))?;
        let entries = wire.into_iter().map(|entry| match (entry.name, entry.meta_package_file) {
            (Some(name), Some(_)) => Err(PackageError::Json {
                what: WHAT,
                reason: format!("subpackage '{name}' has both name and meta_package_file; give at most one"),
            }),
            (name, _) => Ok(SubpackageEntry { name, package_manifest_file: entry.package_manifest_file }),
        });
        entries.collect::<Result<_, _>>().map(Self)
    }
}

impl SubpackageEntry {
    /// Name and package hash of this subpackage, given its package manifest.
    pub fn resolve(&self, manifest: &PackageManifest) -> Result<(RelativePackageUrl, BlobId), PackageError> {
        let meta_far = manifest.meta_far().ok_or(PackageError::ManifestWithoutMetaFar)?;
        let name = self.name.clone().unwrap_or_else(|| RelativePackageUrl::new(manifest.package.name.clone()));
        Ok((name, meta_far.merkle))
    }
}
