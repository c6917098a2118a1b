//! Lists of package manifests: what `--package-list` and `--auto-publish` take.

use serde::{Deserialize, Serialize};

use super::{PathsRelative, pretty};
use crate::PackageError;
use crate::limits::MANIFEST_BYTES_MAX;

const WHAT: &str = "list of package manifests";

/// Which package manifests belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageManifestList {
    /// What the paths are relative to.
    #[serde(default, skip_serializing_if = "PathsRelative::is_default")]
    pub paths_relative: PathsRelative,
    /// The package manifests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: String,
    content: PackageManifestList,
}

impl PackageManifestList {
    /// Parses a list.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        PackageError::check_size(WHAT, bytes.len(), MANIFEST_BYTES_MAX)?;
        let wire: Wire = serde_json::from_slice(bytes).map_err(PackageError::json(WHAT))?;
        if wire.version != "1" {
            return Err(PackageError::Version { what: WHAT, found: wire.version });
        }
        Ok(wire.content)
    }

    /// The file.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PackageError> {
        pretty(WHAT, &Wire { version: "1".to_owned(), content: self.clone() })
    }
}
