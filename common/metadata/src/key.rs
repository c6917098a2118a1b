//! [`PublicKey`]: ed25519, ECDSA P-256 and RSA-PSS keys as TUF metadata writes them (specification §4.2).
//!
//! A key is its numbers: two texts of one key are equal here, so a threshold cannot be met by writing one key twice.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
};
use colibri_common::{hex, unhex};
use serde_json::{Value, json};

use crate::key_id::KeyId;
use crate::limits;
use crate::spki;

/// Length of an ed25519 public key in bytes.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// A public key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(Kind);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Ed25519([u8; PUBLIC_KEY_BYTES]),
    /// The uncompressed point.
    EcdsaP256([u8; spki::POINT_BYTES]),
    /// An `RSAPublicKey` in DER.
    RsaPss(Arc<[u8]>),
}

/// Why a text is not a key or a key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 64 lower-case hex digits.
    #[error("an ed25519 public key is 64 lower-case hex digits")]
    Key,
    /// Key type and scheme that this client does not know.
    #[error("a key is ed25519, ecdsa with ecdsa-sha2-nistp256, or rsa with rsassa-pss-sha256")]
    Unknown,
    /// Not a PEM public key of P-256.
    #[error("an ecdsa public key is PEM of an uncompressed point of NIST P-256")]
    Ecdsa,
    /// Not a PEM public key of RSA of a bearable size.
    #[error(
        "an rsa public key is PEM, with {} to {} bits and an odd exponent of at most {} bits",
        limits::RSA_BITS_MIN,
        limits::RSA_BITS_MAX,
        limits::RSA_EXPONENT_BITS_MAX
    )]
    Rsa,
    /// Empty, too long, or with control characters.
    #[error("a key id has 1 to {} bytes and no control characters", limits::KEY_ID_BYTES_MAX)]
    Id,
}

/// The points of small order of the curve of ed25519 by their y coordinates: for such a "key" anybody makes signatures of
/// anything. (Coordinates that are not reduced, the library refuses.)
const SMALL_ORDER: [[u8; PUBLIC_KEY_BYTES]; 5] = {
    let mut all = [[0; PUBLIC_KEY_BYTES]; 5];
    all[1][0] = 1;
    all[2] = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    all[3] = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    // p − 1 with p = 2^255 − 19.
    all[4] = [0xff; PUBLIC_KEY_BYTES];
    all[4][0] = 0xec;
    all[4][31] = 0x7f;
    all
};

fn is_small_order(key: &[u8; PUBLIC_KEY_BYTES]) -> bool {
    let mut y = *key;
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
}

impl PublicKey {
    /// Wraps the 32 bytes of an ed25519 key. Bytes that are no curve point, or one of small order, verify nothing.
    pub const fn from_bytes(bytes: [u8; PUBLIC_KEY_BYTES]) -> Self {
        Self(Kind::Ed25519(bytes))
    }

    /// The 32 bytes of an ed25519 key; nothing for another kind.
    pub const fn ed25519_bytes(&self) -> Option<&[u8; PUBLIC_KEY_BYTES]> {
        match &self.0 {
            Kind::Ed25519(bytes) => Some(bytes),
            Kind::EcdsaP256(_) | Kind::RsaPss(_) => None,
        }
    }

    /// Reads an ECDSA P-256 or RSA key from PEM (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// It is neither, or of a size that is not taken.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::ecdsa_p256(text).or_else(|_| Self::rsa(text))
    }

    /// Reads a key as metadata writes it: `keytype`, `scheme` and `keyval.public`; other fields mean nothing (§4.2).
    ///
    /// # Errors
    /// A type that is not known, or a value that is no such key. Metadata that lists it is fine, the key never counts.
    pub fn from_json(key: &Value) -> Result<Self, KeyError> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let public = key.get("keyval").and_then(|value| value.get("public")).and_then(Value::as_str);
        let (Some(kind), Some(scheme), Some(public)) = (text("keytype"), text("scheme"), public) else {
            return Err(KeyError::Unknown);
        };
        match (kind, scheme) {
            ("ed25519", "ed25519") => public.parse(),
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => Self::ecdsa_p256(public),
            ("rsa", "rsassa-pss-sha256") => Self::rsa(public),
            _ => Err(KeyError::Unknown),
        }
    }

    /// Reads an ECDSA P-256 key from PEM (`BEGIN PUBLIC KEY`), or its bare point in hex, as older repositories write it.
    ///
    /// # Errors
    /// It is no such key.
    pub fn ecdsa_p256(public: &str) -> Result<Self, KeyError> {
        let point = match unhex(public) {
            Some(point) => point.try_into().ok().filter(|point: &[u8; spki::POINT_BYTES]| point[0] == 4),
            None => spki::der_of_pem(public).and_then(|der| spki::p256_point(&der)),
        };
        let point = point.ok_or(KeyError::Ecdsa)?;
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).map_err(|_| KeyError::Ecdsa)?;
        Ok(Self(Kind::EcdsaP256(point)))
    }

    fn rsa(public: &str) -> Result<Self, KeyError> {
        let key = spki::der_of_pem(public).and_then(|der| spki::rsa_public_key(&der)).ok_or(KeyError::Rsa)?;
        ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, &key).map_err(|_| KeyError::Rsa)?;
        Ok(Self(Kind::RsaPss(key.into())))
    }

    /// The key as metadata writes it, without `keyid_hash_algorithms`.
    pub fn to_json(&self) -> Value {
        let (kind, scheme, public) = match &self.0 {
            Kind::Ed25519(bytes) => ("ed25519", "ed25519", hex(bytes)),
            Kind::EcdsaP256(point) => ("ecdsa", "ecdsa-sha2-nistp256", spki::pem_of_der(spki::p256_der(point))),
            Kind::RsaPss(key) => ("rsa", "rsassa-pss-sha256", spki::pem_of_der(spki::rsa_der(key))),
        };
        json!({"keytype": kind, "keyval": {"public": public}, "scheme": scheme})
    }

    /// The id that we and the real tools give the key: SHA-256 of its canonical JSON.
    pub fn id(&self) -> KeyId {
        // Strings only: this has a canonical form.
        KeyId::of(&self.to_json()).unwrap_or_else(|| unreachable!("a key holds no floats"))
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
        match &self.0 {
            Kind::Ed25519(key) => {
                !is_small_order(key) && UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
            Kind::EcdsaP256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
            }
            Kind::RsaPss(key) => {
                UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key).verify(message, signature).is_ok()
            }
        }
    }
}

/// Reads an ed25519 key.
impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = unhex(text).ok_or(KeyError::Key)?;
        Ok(Self::from_bytes(bytes.try_into().map_err(|_| KeyError::Key)?))
    }
}

/// An ed25519 key in hex; another kind by its type and id.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Ed25519(bytes) => f.write_str(&hex(bytes)),
            Kind::EcdsaP256(_) => write!(f, "ecdsa:{}", self.id()),
            Kind::RsaPss(_) => write!(f, "rsa:{}", self.id()),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
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
    fn keys_are_lower_case_hex_and_ids_are_short_texts() {
        assert_eq!("".parse::<PublicKey>(), Err(KeyError::Key));
        assert_eq!("AA".repeat(32).parse::<PublicKey>(), Err(KeyError::Key));
        assert_eq!("aa".repeat(31).parse::<PublicKey>(), Err(KeyError::Key));
        for text in ["", "a\n", "\u{1b}[2J", &"a".repeat(257)] {
            assert_eq!(text.parse::<KeyId>(), Err(KeyError::Id), "{text}");
        }
        for text in ["a", "A0", "../x", "a key", &"a".repeat(256)] {
            assert_eq!(text.parse::<KeyId>().unwrap().as_str(), text);
        }
    }

    /// R of small order and S = 0 satisfy the equation whenever the hash says so: a few tries are enough.
    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        let forged = |key: [u8; PUBLIC_KEY_BYTES]| {
            let mut forged = 0;
            for r in SMALL_ORDER {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&r);
                for message in 0..64_u8 {
                    forged += usize::from(UnparsedPublicKey::new(&ED25519, key).verify(&[message], &signature).is_ok());
                    assert!(!PublicKey::from_bytes(key).verifies(&[message], &signature));
                }
            }
            forged
        };
        for key in SMALL_ORDER {
            let mut negative = key;
            negative[31] |= 0x80;
            assert!(forged(key) + forged(negative) > 0, "the list names only keys that can be forged for: {key:02x?}");
        }
        // p and p + 1, which are 0 and 1 unreduced.
        for low in [0xed, 0xee] {
            let mut key = SMALL_ORDER[4];
            key[0] = low;
            assert_eq!(forged(key), 0);
        }
    }
}
