//! [`BlobId`]: the merkle root of a blob as a newtype; the only place where one is parsed or printed.
//!
//! The word *root* alone is TUF's; a blob's merkle root is always called its id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Length of a digest in bytes (SHA-256).
pub const DIGEST_BYTES: usize = 32;

/// A SHA-256 digest: one leaf hash, one node hash, or a merkle root.
pub type Digest = [u8; DIGEST_BYTES];

/// The identity of a blob: its Fuchsia merkle root (reference "Fuchsia formats" §1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(Digest);

/// Why a text is not a blob id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlobIdError {
    /// The text does not have exactly 64 characters.
    #[error("a blob id has exactly 64 hex digits")]
    Length,
    /// A character is not one of `0-9a-f`.
    #[error("a blob id has only the digits 0-9 and a-f")]
    Digit,
    /// Upper-case hex: refused, because one blob has one name.
    #[error("a blob id is written in lower-case hex")]
    UpperCase,
}

impl BlobId {
    /// Wraps a digest that is claimed to be a merkle root. A claim needs no proof: only data checked against it does.
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// The 32 bytes of the id.
    pub const fn as_bytes(&self) -> &Digest {
        &self.0
    }

    /// The first 8 hex digits, for people.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }
}

impl FromStr for BlobId {
    type Err = BlobIdError;

    fn from_str(text: &str) -> Result<Self, BlobIdError> {
        if text.len() != 2 * DIGEST_BYTES {
            return Err(BlobIdError::Length);
        }
        let mut digest = [0; DIGEST_BYTES];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Self(digest))
    }
}

fn nibble(digit: u8) -> Result<u8, BlobIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Err(BlobIdError::UpperCase),
        _ => Err(BlobIdError::Digit),
    }
}

/// Lower-case hex of any bytes.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Bytes of a text of lower-case hex digits, or nothing if it is not one.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some((nibble(pair[0]).ok()? << 4) | nibble(pair[1]).ok()?)).collect()
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_exactly_64_lower_case_digits() {
        let text = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";
        assert_eq!(text.parse::<BlobId>().unwrap().to_string(), text);
        assert_eq!(text.to_uppercase().parse::<BlobId>(), Err(BlobIdError::UpperCase));
        assert_eq!(text[1..].parse::<BlobId>(), Err(BlobIdError::Length));
        assert_eq!(format!("g{}", &text[1..]).parse::<BlobId>(), Err(BlobIdError::Digit));
        assert_eq!(format!("é{}", &text[2..]).parse::<BlobId>(), Err(BlobIdError::Digit));
    }
}
