//! Targets: [`TargetName`] that cannot leave its directory, [`TargetDescription`] and [`Hashes`].

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Algorithm, SHA256, SHA512, digest};
use colibri_common::{BlobId, unhex};
use serde_json::Value;

use crate::limits;

/// The name of a target: a relative path that cannot hold traversal. In a package repository `NAME/VARIANT`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetName(String);

/// Why a text is not a target name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetNameError {
    /// Empty, or longer than the limit.
    #[error("a target name has 1 to {} bytes", limits::TARGET_NAME_BYTES_MAX)]
    Length,
    /// A leading or trailing slash, an empty segment, `.` or `..`.
    #[error("a target name is a relative path without empty, `.` or `..` segments")]
    Segment,
    /// NUL or backslash.
    #[error("a target name holds no NUL and no backslash")]
    Character,
}

impl TargetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetName {
    type Err = TargetNameError;

    fn from_str(text: &str) -> Result<Self, TargetNameError> {
        if text.is_empty() || text.len() as u64 > limits::TARGET_NAME_BYTES_MAX {
            return Err(TargetNameError::Length);
        }
        if text.contains(['\0', '\\']) {
            return Err(TargetNameError::Character);
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(TargetNameError::Segment);
        }
        Ok(Self(text.to_owned()))
    }
}

impl Borrow<str> for TargetName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TargetName({:?})", self.0)
    }
}

/// The hashes that metadata gives for a file; at least one of the two that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    /// SHA-256, 32 bytes.
    pub sha256: Option<Vec<u8>>,
    /// SHA-512, 64 bytes.
    pub sha512: Option<Vec<u8>>,
}

impl Hashes {
    /// Reads `{"sha512":"hex",…}`; algorithms we do not know are skipped as long as one we know is there.
    pub(crate) fn from_json(value: &Value) -> Result<Self, String> {
        let map = value.as_object().ok_or("hashes is not an object")?;
        let read = |name: &str, algorithm: &Algorithm| match map.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => match unhex(text) {
                Some(bytes) if bytes.len() == algorithm.output_len() => Ok(Some(bytes)),
                _ => Err(format!("{name} is not a lower-case hex digest of that algorithm")),
            },
            Some(_) => Err(format!("{name} is not a string")),
        };
        let hashes = Self { sha256: read("sha256", &SHA256)?, sha512: read("sha512", &SHA512)? };
        if hashes.sha256.is_none() && hashes.sha512.is_none() {
            return Err("hashes has neither sha256 nor sha512".into());
        }
        Ok(hashes)
    }

    /// Checks `bytes` against every hash given.
    ///
    /// # Errors
    /// The algorithm whose hash differs.
    pub fn check(&self, bytes: &[u8]) -> Result<(), &'static str> {
        for (name, algorithm, expected) in [("sha256", &SHA256, &self.sha256), ("sha512", &SHA512, &self.sha512)] {
            if expected.as_deref().is_some_and(|hash| hash != digest(algorithm, bytes).as_ref()) {
                return Err(name);
            }
        }
        Ok(())
    }
}

/// What the targets role says about one target.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetDescription {
    /// Length of the target in bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: Hashes,
    /// `custom`, as signed; null if absent.
    pub custom: Value,
}

impl TargetDescription {
    /// The package hash: `custom.merkle`, if there is one and it is a blob id.
    pub fn merkle(&self) -> Option<BlobId> {
        self.custom.get("merkle")?.as_str()?.parse().ok()
    }

    /// The length of the meta.far in bytes: `custom.size`.
    pub fn size(&self) -> Option<u64> {
        self.custom.get("size")?.as_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_name_cannot_leave_its_directory() {
        for good in ["a", "package1/0", "..a/b..", "a/...", "ü/x y", &"a".repeat(1024)] {
            assert_eq!(good.parse::<TargetName>().unwrap().as_str(), good);
        }
        use TargetNameError::{Character, Length, Segment};
        for (bad, error) in [
            ("", Length),
            (&"a".repeat(1025), Length),
            ("/a", Segment),
            ("a/", Segment),
            ("a//b", Segment),
            ("./a", Segment),
            ("a/../b", Segment),
            ("..", Segment),
            ("a\\b", Character),
            ("a\0", Character),
        ] {
            assert_eq!(bad.parse::<TargetName>(), Err(error), "{bad:?}");
        }
    }
}
