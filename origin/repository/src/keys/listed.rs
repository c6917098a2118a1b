//! [`ListedKey`]: a public key as metadata lists it, with its id; read from a PEM or JSON file.

use std::path::Path;

use colibri_metadata::{KeyId, PublicKey};
use pkcs8::der::{Decode, Document};
use pkcs8::spki::SubjectPublicKeyInfoRef;
use serde_json::{Value, json};

use crate::error::RepositoryError;
use crate::limits;

/// Object identifier of ed25519 (RFC 8410).
pub(super) const ED25519_OID: pkcs8::ObjectIdentifier = pkcs8::ObjectIdentifier::new_unwrap("1.3.101.112");

/// Label of a public key in PEM.
pub(super) const PUBLIC_KEY_LABEL: &str = "PUBLIC KEY";

/// A public key as metadata lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedKey {
    public: PublicKey,
    /// The JSON whose hash is the id.
    json: Value,
    id: KeyId,
}

impl ListedKey {
    /// A key without `keyid_hash_algorithms`, as ours are.
    pub fn new(public: PublicKey) -> Self {
        Self { json: public.to_json(), id: public.id(), public }
    }

    /// A key as the real tools list it: `keyid_hash_algorithms` takes part in the id if present.
    pub(super) fn with_algorithms(public: PublicKey, algorithms: Option<Vec<String>>) -> Self {
        let mut key = Self::new(public);
        if let (Some(list), Value::Object(map)) = (algorithms, &mut key.json) {
            map.insert("keyid_hash_algorithms".into(), json!(list));
            key.id = KeyId::of(&key.json).unwrap_or(key.id);
        }
        key
    }

    /// The key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Its id.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The key as metadata writes it.
    pub fn to_json(&self) -> Value {
        self.json.clone()
    }

    /// Reads a public key: PEM (`PUBLIC KEY`, also out of a key file made by us), or JSON as metadata lists it.
    ///
    /// # Errors
    /// The file cannot be read or holds no key that we can use.
    pub fn read(path: &Path) -> Result<Self, RepositoryError> {
        let text = super::ring::read_key_text(path)?;
        let bad = |reason| RepositoryError::KeyFile { path: path.to_owned(), reason };
        let text = text.expose();
        if text.trim_start().starts_with('{') {
            let value = serde_json::from_str(text).map_err(|_| bad("it is not JSON"))?;
            return Self::from_json(&value).ok_or_else(|| bad("it is not a key that can be used"));
        }
        Self::from_pem(text).map_err(bad)
    }

    /// Reads a key as metadata lists it.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        Some(Self { public: PublicKey::from_json(value).ok()?, json: value.clone(), id: KeyId::of(value)? })
    }

    /// The first public key in a PEM text.
    pub(super) fn from_pem(text: &str) -> Result<Self, &'static str> {
        let block = pem_block(text, PUBLIC_KEY_LABEL).ok_or("it has no block -----BEGIN PUBLIC KEY-----")?;
        if let Ok(public) = PublicKey::from_pem(block) {
            return Ok(Self::new(public));
        }
        let (_, document) = Document::from_pem(block).map_err(|_| "its public key is not PEM")?;
        let unknown = "its public key is neither ed25519 nor ECDSA P-256 nor RSA";
        let info = SubjectPublicKeyInfoRef::from_der(document.as_bytes());
        let info = info.map_err(|_| "its public key is malformed")?;
        if info.algorithm.oid != ED25519_OID {
            return Err(unknown);
        }
        let bytes = info.subject_public_key.as_bytes().ok_or(unknown)?;
        Ok(Self::new(PublicKey::from_bytes(bytes.try_into().map_err(|_| unknown)?)))
    }

    /// The key as PEM (`PUBLIC KEY`).
    pub fn to_pem(&self) -> Result<String, RepositoryError> {
        super::pkcs8_file::public_pem(&self.public)
    }
}

/// One block of a PEM text, its delimiters included.
pub(super) fn pem_block<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let start = text.find(&begin)?;
    let length = text[start..].find(&end)? + end.len();
    (length as u64 <= limits::KEY_FILE_BYTES_MAX).then(|| &text[start..start + length])
}
