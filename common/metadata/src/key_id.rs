//! [`KeyId`]: the name under which metadata lists a key.
//!
//! Opaque, as the specification has it since 1.0.29 (§4.2): a verifier compares it and never computes it, so a name proves
//! nothing about the key behind it. What counts towards a threshold are keys.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use colibri_common::hex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::canonical;
use crate::key::KeyError;
use crate::limits;

/// The name of a key: any short text; for a key of ours the SHA-256 of its canonical JSON in hex.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// The id that the real tools give a key which is written as `key`: SHA-256 of its canonical form. Nothing if it has
    /// none (a float in it).
    pub fn of(key: &Value) -> Option<Self> {
        let text = canonical::encode(key).ok()?;
        Some(Self(hex(digest(&SHA256, &text).as_ref())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let fits = !text.is_empty() && text.len() as u64 <= limits::KEY_ID_BYTES_MAX;
        if !fits || text.chars().any(char::is_control) {
            return Err(KeyError::Id);
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::borrow::Borrow<str> for KeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
