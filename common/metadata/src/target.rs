//! One target: [`TargetName`] that cannot leave its directory, [`TargetDescription`] and [`Hashes`] (specification §4.5).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{Algorithm, SHA256, SHA512, digest};
use colibri_common::{BlobId, hex, unhex};
use serde_json::Value;

use crate::error::Rule;
use crate::fields::malformed;
use crate::json::{Reader, Span, Text};
use crate::limits;
use crate::role::ReadError;

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
    /// NUL.
    #[error("a target name holds no NUL")]
    Character,
}

impl TargetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where a repository with consistent snapshots keeps the target (§3.6.1, §5.7.3): the hash and a dot before the last
    /// segment, `a/HASH.b`. SHA-256 is taken if there is one.
    pub fn with_hash(&self, hashes: &Hashes) -> String {
        let hash = hashes.sha256.as_ref().or(hashes.sha512.as_ref()).map(|hash| hex(hash)).unwrap_or_default();
        match self.0.rsplit_once('/') {
            Some((folder, file)) => format!("{folder}/{hash}.{file}"),
            None => format!("{hash}.{}", self.0),
        }
    }

    /// Whether a text is a target name.
    pub(crate) fn check(text: &str) -> Result<(), TargetNameError> {
        if text.is_empty() || text.len() as u64 > limits::TARGET_NAME_BYTES_MAX {
            return Err(TargetNameError::Length);
        }
        if text.contains('\0') {
            return Err(TargetNameError::Character);
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(TargetNameError::Segment);
        }
        Ok(())
    }
}

impl FromStr for TargetName {
    type Err = TargetNameError;

    fn from_str(text: &str) -> Result<Self, TargetNameError> {
        Self::check(text)?;
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetDescription {
    /// Length of the target in bytes.
    pub length: u64,
    /// Its hashes.
    pub hashes: Hashes,
    /// `custom`, as signed; null if absent.
    pub custom: Value,
}

/// A description as it lies in a text, checked but not decoded.
pub(crate) struct RawTarget {
    length: u64,
    sha256: Option<Text>,
    sha512: Option<Text>,
    custom: Option<Span>,
}

impl RawTarget {
    /// Reads and checks one description (TARGETS, §4.5).
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let (mut length, mut hashes, mut custom) = (None, None, None);
        if !reader.is_object() {
            return Err(malformed("it is not an object").into());
        }
        reader.object(|reader, key| {
            match &*reader.text(key) {
                "length" => {
                    let span = reader.skip()?;
                    length = Some(reader.raw(span).parse().map_err(|_| malformed("length is not a length in bytes"))?);
                }
                "hashes" => hashes = Some(Self::read_hashes(reader)?),
                "custom" => custom = Some(reader.skip()?),
                _ => _ = reader.skip()?,
            }
            Ok::<_, ReadError>(())
        })?;
        let length = length.ok_or_else(|| malformed("it has no length"))?;
        let (sha256, sha512) = hashes.ok_or_else(|| malformed("it has no hashes"))?;
        Ok(Self { length, sha256, sha512, custom })
    }

    fn read_hashes(reader: &mut Reader<'_>) -> Result<(Option<Text>, Option<Text>), ReadError> {
        let (mut sha256, mut sha512) = (None, None);
        if !reader.is_object() {
            return Err(malformed("hashes is not an object").into());
        }
        let digest_of = |reader: &mut Reader<'_>, algorithm: &Algorithm| {
            if !reader.is_string() {
                return Err(malformed("a hash is not a string").into());
            }
            let text = reader.string()?;
            let digits = reader.text(text);
            if digits.len() != 2 * algorithm.output_len() || !is_lower_hex(digits.as_bytes()) {
                return Err(malformed("a sha256 or sha512 is not a lower-case hex digest of that algorithm").into());
            }
            Ok::<_, ReadError>(text)
        };
        reader.object(|reader, key| {
            match &*reader.text(key) {
                "sha256" => sha256 = Some(digest_of(reader, &SHA256)?),
                "sha512" => sha512 = Some(digest_of(reader, &SHA512)?),
                _ => _ = reader.skip()?,
            }
            Ok::<_, ReadError>(())
        })?;
        if sha256.is_none() && sha512.is_none() {
            return Err(malformed("hashes has neither sha256 nor sha512").into());
        }
        Ok((sha256, sha512))
    }

    /// Decodes what [`Self::read`] has read from `reader`.
    pub fn decode(&self, reader: &Reader<'_>) -> Result<TargetDescription, Rule> {
        let bytes = |text: Option<Text>| text.and_then(|text| unhex(&reader.text(text)));
        let custom = match self.custom {
            None => Value::Null,
            Some(span) => {
                let custom = Reader::new(reader.raw(span).as_bytes()).and_then(|mut inner| inner.value());
                custom.map_err(|error| Rule::Malformed(error.to_string()))?
            }
        };
        let hashes = Hashes { sha256: bytes(self.sha256), sha512: bytes(self.sha512) };
        Ok(TargetDescription { length: self.length, hashes, custom })
    }
}

/// Lower-case hex digits only; written so that it runs over many at a time.
fn is_lower_hex(digits: &[u8]) -> bool {
    digits.iter().fold(true, |all, byte| all & (byte.is_ascii_digit() | (b'a'..=b'f').contains(byte)))
}

impl TargetDescription {
    /// Whether `bytes` are this target: its length and every hash that we know (§5.7.2).
    ///
    /// # Errors
    /// What differs.
    pub fn is(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() as u64 != self.length {
            return Err(format!("it has {} bytes, the metadata says {}", bytes.len(), self.length));
        }
        self.hashes.check(bytes).map_err(|algorithm| format!("its {algorithm} hash is not the one in the metadata"))
    }

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
    fn a_hash_stands_before_the_last_segment() {
        let mut hashes = Hashes { sha256: Some(vec![1; 32]), sha512: Some(vec![2; 64]) };
        let of = |name: &str, hashes: &Hashes| name.parse::<TargetName>().unwrap().with_hash(hashes);
        assert_eq!(of("a/b/c.d", &hashes), format!("a/b/{}.c.d", "01".repeat(32)));
        hashes.sha256 = None;
        assert_eq!(of("c", &hashes), format!("{}.c", "02".repeat(64)));
    }

    #[test]
    fn a_target_name_cannot_leave_its_directory() {
        for good in ["a", "package1/0", "..a/b..", "a/...", "ü/x y", "a\\b\"", &"a".repeat(1024)] {
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
            ("a\0", Character),
        ] {
            assert_eq!(bad.parse::<TargetName>(), Err(error), "{bad:?}");
        }
    }
}
