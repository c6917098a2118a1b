//! `meta/fuchsia.pkg/subpackages`: the direct children of a package, each pinned by hash.

use std::collections::BTreeMap;

use colibri_common::BlobId;
use serde::{Deserialize, Serialize};

use crate::PackageError;
use crate::limits::SUBPACKAGES_BYTES_MAX;
use crate::unique_map::unique_map;
use crate::url::RelativePackageUrl;

/// The content of `meta/fuchsia.pkg/subpackages`; a package without the file has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetaSubpackages(BTreeMap<RelativePackageUrl, BlobId>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: String,
    #[serde(deserialize_with = "unique_map")]
    subpackages: BTreeMap<RelativePackageUrl, BlobId>,
}

impl MetaSubpackages {
    /// Where it lies in meta.far.
    pub const PATH: &'static str = "meta/fuchsia.pkg/subpackages";

    /// Subpackages by name.
    pub const fn new(subpackages: BTreeMap<RelativePackageUrl, BlobId>) -> Self {
        Self(subpackages)
    }

    /// Parses the file; unknown fields and repeated names are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        PackageError::check_size(Self::PATH, bytes.len(), SUBPACKAGES_BYTES_MAX)?;
        let wire: Wire = serde_json::from_slice(bytes).map_err(PackageError::json(Self::PATH))?;
        if wire.version != "1" {
            return Err(PackageError::Version { what: Self::PATH, found: wire.version });
        }
        Ok(Self(wire.subpackages))
    }

    /// The file: compact, version first, names sorted.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PackageError> {
        let wire = Wire { version: "1".to_owned(), subpackages: self.0.clone() };
        serde_json::to_vec(&wire).map_err(PackageError::json(Self::PATH))
    }

    /// Name to package hash, sorted.
    pub const fn as_map(&self) -> &BTreeMap<RelativePackageUrl, BlobId> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_json() {
        let hash = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";
        let text = format!(r#"{{"version":"1","subpackages":{{"a":"{hash}","b":"{hash}"}}}}"#);
        let subpackages = MetaSubpackages::parse(text.as_bytes()).unwrap();
        assert_eq!(subpackages.as_map().len(), 2);
        assert_eq!(subpackages.to_bytes().unwrap(), text.as_bytes());
        let bad = [
            r#"{"version":"2","subpackages":{}}"#.to_owned(),
            r#"{"version":"1","subpackages":{},"x":1}"#.to_owned(),
            format!(r#"{{"version":"1","subpackages":{{"A":"{hash}"}}}}"#),
            format!(r#"{{"version":"1","subpackages":{{"a/0":"{hash}"}}}}"#),
            r#"{"version":"1","subpackages":{"a":"00"}}"#.to_owned(),
            format!(r#"{{"version":"1","subpackages":{{"a":"{hash}","a":"{hash}"}}}}"#),
            r#"{"version":"1"}"#.to_owned(),
        ];
        for bad in bad {
            assert!(MetaSubpackages::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
