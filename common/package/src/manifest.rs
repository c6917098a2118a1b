//! Manifests (reference "Fuchsia formats" §3): `package_manifest.json` here, lists and build manifests below.
//!
//! Text in, values out, and back. Paths in them are not touched: who opens files asks [`PathsRelative::resolve`].

mod build_manifest;
mod list;
mod subpackages_build;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use colibri_common::BlobId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use build_manifest::BuildManifest;
pub use list::PackageManifestList;
pub use subpackages_build::{SubpackageEntry, SubpackagesBuildManifest};

use crate::delivery::DeliveryType;
use crate::limits::MANIFEST_BYTES_MAX;
use crate::url::RelativePackageUrl;
use crate::{AbiRevision, MetaPackage, PackageError, PackagePath, ResourcePath};

const WHAT: &str = "package manifest";

/// The `path` of the meta.far in a package manifest.
pub const META_FAR_PATH: &str = "meta/";

/// What the paths in a manifest are relative to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathsRelative {
    /// The working directory of whoever reads it.
    #[default]
    WorkingDir,
    /// The directory of the manifest itself.
    File,
}

impl PathsRelative {
    /// Where a path in the manifest at `manifest` points.
    pub fn resolve(self, manifest: &Path, path: &str) -> PathBuf {
        match (self, manifest.parent()) {
            (Self::File, Some(directory)) => directory.join(path),
            _ => PathBuf::from(path),
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One blob of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestBlob {
    /// The file that has it: a delivery blob if the manifest names a delivery type, else the content itself.
    pub source_path: String,
    /// Its path in the package; [`META_FAR_PATH`] for the meta.far.
    pub path: String,
    /// The blob.
    pub merkle: BlobId,
    /// Length of its content in bytes (not of the delivery blob).
    pub size: u64,
}

/// One subpackage of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestSubpackage {
    /// Its own package manifest.
    pub manifest_path: String,
    /// Its name in this package.
    pub name: RelativePackageUrl,
    /// Its package hash.
    pub merkle: BlobId,
}

/// A `package_manifest.json` of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageManifest {
    /// Host of the repository it is meant for.
    pub repository: Option<String>,
    /// The published name, which may differ from the name in `meta/package`, and the variant.
    pub package: MetaPackage,
    /// The meta.far first, then the content by path.
    pub blobs: Vec<ManifestBlob>,
    /// What `source_path` and `manifest_path` are relative to.
    pub blob_sources_relative: PathsRelative,
    /// Direct subpackages.
    pub subpackages: Vec<ManifestSubpackage>,
    /// Set if the source files are delivery blobs.
    pub delivery_blob_type: Option<DeliveryType>,
    /// The ABI revision, if it says one.
    pub abi_revision: Option<AbiRevision>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    package: MetaPackage,
    blobs: Vec<ManifestBlob>,
    #[serde(default, skip_serializing_if = "PathsRelative::is_default")]
    blob_sources_relative: PathsRelative,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    subpackages: Vec<ManifestSubpackage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delivery_blob_type: Option<TypeName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    abi_revision: Option<AbiRevision>,
}

/// A delivery type as manifests write it (`Type1`); read as a number too, as other files have it.
struct TypeName(DeliveryType);

impl Serialize for TypeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de> Deserialize<'de> for TypeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u32),
            Name(String),
        }
        let number = match Either::deserialize(deserializer)? {
            Either::Number(number) => number,
            Either::Name(name) => match name.strip_prefix("Type").map(str::parse) {
                Some(Ok(number)) => number,
                _ => return Err(serde::de::Error::custom(format_args!("there is no delivery type '{name}'"))),
            },
        };
        DeliveryType::try_from(number).map(Self).map_err(serde::de::Error::custom)
    }
}

impl PackageManifest {
    /// Parses a manifest; unknown keys are tolerated.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        PackageError::check_size(WHAT, bytes.len(), MANIFEST_BYTES_MAX)?;
        let wire: Wire = serde_json::from_slice(bytes).map_err(PackageError::json(WHAT))?;
        if wire.version != "1" {
            return Err(PackageError::Version { what: WHAT, found: wire.version });
        }
        let manifest = Self {
            repository: wire.repository,
            package: wire.package,
            blobs: wire.blobs,
            blob_sources_relative: wire.blob_sources_relative,
            subpackages: wire.subpackages,
            delivery_blob_type: wire.delivery_blob_type.map(|name| name.0),
            abi_revision: wire.abi_revision,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// The meta.far first and nowhere else, all other paths sound and unique.
    fn check(&self) -> Result<(), PackageError> {
        let Some((meta_far, contents)) = self.blobs.split_first() else {
            return Err(PackageError::ManifestWithoutMetaFar);
        };
        if meta_far.path != META_FAR_PATH {
            return Err(PackageError::ManifestWithoutMetaFar);
        }
        let mut seen = BTreeSet::new();
        for blob in contents {
            let path: ResourcePath =
                blob.path.parse().map_err(|error| PackageError::Path { path: blob.path.clone(), error })?;
            if crate::meta_contents::is_in_meta(path.as_str()) {
                return Err(PackageError::PathInMeta(path.into()));
            }
            if !seen.insert(path) {
                return Err(PackageError::DuplicatePath(blob.path.clone()));
            }
        }
        Ok(())
    }

    /// The file: the meta.far first, then the content sorted by path; indented, with a line end.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PackageError> {
        self.check()?;
        let mut blobs = self.blobs.clone();
        blobs[1..].sort_by(|a, b| a.path.cmp(&b.path));
        let wire = Wire {
            version: "1".to_owned(),
            repository: self.repository.clone(),
            package: self.package.clone(),
            blobs,
            blob_sources_relative: self.blob_sources_relative,
            subpackages: self.subpackages.clone(),
            delivery_blob_type: self.delivery_blob_type.map(TypeName),
            abi_revision: self.abi_revision,
        };
        pretty(WHAT, &wire)
    }

    /// `NAME/VARIANT` under which it is published.
    pub fn path(&self) -> PackagePath {
        self.package.path()
    }

    /// The meta.far; a parsed manifest always has it.
    pub fn meta_far(&self) -> Option<&ManifestBlob> {
        self.blobs.first()
    }

    /// The content blobs: all but the meta.far.
    pub fn contents(&self) -> &[ManifestBlob] {
        self.blobs.get(1..).unwrap_or_default()
    }

    /// `blobs.json`: the blobs as a bare array.
    pub fn blobs_json(&self) -> Result<Vec<u8>, PackageError> {
        pretty("blobs.json", &self.blobs)
    }
}

fn pretty<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, PackageError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(PackageError::json(what))?;
    text.push(b'\n');
    Ok(text)
}
