//! [`PublicKey`] and [`KeyId`]: ed25519 keys as TUF metadata writes them (reference "Fuchsia formats" §5).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use colibri_common::{hex, unhex};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::canonical;
use crate::limits;

/// Length of an ed25519 public key in bytes.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// An ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; PUBLIC_KEY_BYTES]);

/// The name of a key: lower-case hex; for a key of ours the SHA-256 of its canonical JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

/// Why a text is not a key or a key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 64 lower-case hex digits.
    #[error("an ed25519 public key is 64 lower-case hex digits")]
    Key,
    /// Not lower-case hex of a bounded length.
    #[error("a key id is lower-case hex of at most {} digits", limits::KEY_ID_DIGITS_MAX)]
    Id,
}

impl PublicKey {
    /// Wraps the 32 bytes of a key. Bytes that are no curve point verify nothing.
    pub const fn from_bytes(bytes: [u8; PUBLIC_KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.0
    }

    /// The key as metadata writes it, without `keyid_hash_algorithms`.
    pub fn to_json(&self) -> Value {
        json!({"keytype": "ed25519", "keyval": {"public": hex(&self.0)}, "scheme": "ed25519"})
    }

    /// The key's id: SHA-256 of its canonical JSON.
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.to_json()).unwrap_or_else(|| KeyId(String::new()))
    }

    /// The three ids that a bare key may go by: without `keyid_hash_algorithms`, with `["sha256"]`, with
    /// `["sha256","sha512"]`.
    pub fn ids(&self) -> Vec<KeyId> {
        let forms = [None, Some(json!(["sha256"])), Some(json!(["sha256", "sha512"]))];
        let with = |algorithms: Option<Value>| {
            let mut key = self.to_json();
            if let (Some(list), Value::Object(map)) = (algorithms, &mut key) {
                map.insert("keyid_hash_algorithms".into(), list);
            }
            KeyId::of(&key)
        };
        forms.into_iter().filter_map(with).collect()
    }

    /// Whether `signature` over `message` was made with this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = unhex(text).ok_or(KeyError::Key)?;
        Ok(Self(bytes.try_into().map_err(|_| KeyError::Key)?))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl KeyId {
    /// The id of a key given as JSON: SHA-256 of its canonical form. Nothing if it has none (a float in it).
    pub fn of(key: &Value) -> Option<Self> {
        let text = canonical::encode(key).ok()?;
        Some(Self(hex(digest(&SHA256, &text).as_ref())))
    }

    /// The hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let fits = !text.is_empty() && text.len() as u64 <= limits::KEY_ID_DIGITS_MAX;
        if !fits || unhex(text).is_none() {
            return Err(KeyError::Id);
        }
        Ok(Self(text.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_key_ids() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/tuf-keys.json");
        let keys: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for name in ["repo_private_key", "repo_key"] {
            let key: PublicKey = keys[name]["public_hex"].as_str().unwrap().parse().unwrap();
            assert_eq!(key.id().as_str(), keys[name]["keyid"].as_str().unwrap());
        }
        let key: PublicKey = keys["repo_key"]["public_hex"].as_str().unwrap().parse().unwrap();
        let ids = key.ids();
        assert_eq!(ids.len(), 3);
        assert_eq!(ids[1].as_str(), keys["repo_key"]["keyid_with_keyid_hash_algorithms_sha256"].as_str().unwrap());
    }

    #[test]
    fn keys_and_ids_are_lower_case_hex() {
        assert_eq!("".parse::<PublicKey>(), Err(KeyError::Key));
        assert_eq!("AA".repeat(32).parse::<PublicKey>(), Err(KeyError::Key));
        assert_eq!("aa".repeat(31).parse::<PublicKey>(), Err(KeyError::Key));
        for text in ["", "a", "A0", "../x", &"a".repeat(130)] {
            assert_eq!(text.parse::<KeyId>(), Err(KeyError::Id), "{text}");
        }
    }
}
