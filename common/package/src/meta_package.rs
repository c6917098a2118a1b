//! `meta/package`: a package's own name and variant.

use serde::{Deserialize, Serialize};

use crate::limits::META_PACKAGE_BYTES_MAX;
use crate::{PackageError, PackageName, PackagePath, PackageVariant};

/// The content of `meta/package`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaPackage {
    /// The name.
    pub name: PackageName,
    /// The variant, called version in the file.
    #[serde(rename = "version")]
    pub variant: PackageVariant,
}

impl MetaPackage {
    /// Where it lies in meta.far.
    pub const PATH: &'static str = "meta/package";

    /// Parses the file; unknown keys are tolerated.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        PackageError::check_size(Self::PATH, bytes.len(), META_PACKAGE_BYTES_MAX)?;
        serde_json::from_slice(bytes).map_err(PackageError::json(Self::PATH))
    }

    /// The file: no white space, name first.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Names have no characters that JSON escapes.
        format!(r#"{{"name":"{}","version":"{}"}}"#, self.name, self.variant).into_bytes()
    }

    /// `NAME/VARIANT`.
    pub fn path(&self) -> PackagePath {
        PackagePath::new(self.name.clone(), self.variant.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_compactly_and_read_with_unknown_keys() {
        let text = br#"{"name":"n","version":"0"}"#;
        let meta = MetaPackage::parse(text).unwrap();
        assert_eq!((meta.to_bytes(), meta.path().to_string()), (text.to_vec(), "n/0".to_owned()));
        assert_eq!(MetaPackage::parse(br#" { "version": "0", "x": [1], "name": "n" } "#).unwrap(), meta);
        let bad: [&[u8]; 6] = [
            b"",
            b"{}",
            br#"{"name":"N","version":"0"}"#,
            br#"{"name":"n","version":0}"#,
            br#"{"name":"n","name":"m","version":"0"}"#,
            br#"{"name":"n","version":"0"}x"#,
        ];
        for bad in bad {
            assert!(MetaPackage::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
