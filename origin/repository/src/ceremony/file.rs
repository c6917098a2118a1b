//! [`CeremonyFile`]: one file that collects signatures, and how it lies in the file that goes from hand to hand.

use std::collections::BTreeMap;

use colibri_metadata::KeyId;
use serde_json::{Value, json};

use super::{refused, version_of};
use crate::error::RepositoryError;
use crate::keys::{KeyRole, ListedKey};
use crate::roles::{self, SignedFile};

/// A metadata file that collects signatures.
#[derive(Debug, Clone, PartialEq)]
pub struct CeremonyFile {
    name: String,
    version: u32,
    /// Version that it follows.
    follows: u32,
    signed: Value,
    /// Hex by key id.
    signatures: BTreeMap<KeyId, String>,
}

impl CeremonyFile {
    pub(super) fn new(name: &str, follows: u32, signed: Value) -> Result<Self, RepositoryError> {
        let version = version_of(&signed).ok_or_else(|| refused(format!("{name} has no version")))?;
        Ok(Self { name: name.to_owned(), version, follows, signed, signatures: BTreeMap::new() })
    }

    /// Reads one: `value` holds `signatures` and `signed`.
    pub(super) fn parse(
        role: KeyRole,
        name: &str,
        follows: Option<&Value>,
        value: &Value,
    ) -> Result<Self, RepositoryError> {
        let bad = |what: &str| refused(format!("no file to be signed: {what}"));
        let follows = follows.and_then(|v| u32::try_from(v.as_u64()?).ok());
        let follows = follows.ok_or_else(|| bad("it does not say which version it follows"))?;
        let signed = value.get("signed").cloned().ok_or_else(|| bad("it has no `signed`"))?;
        roles::check_text(&signed).map_err(|reason| RepositoryError::Unsignable { role, reason })?;
        if signed.get("_type").and_then(Value::as_str) != Some(role.name()) {
            return Err(bad(&format!("it says it is {role}, but what would be signed is not")));
        }
        let mut file = Self::new(name, follows, signed)?;
        for entry in value.get("signatures").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
            let text = |name: &str| entry.get(name).and_then(Value::as_str);
            let (Some(id), Some(signature)) = (text("keyid"), text("sig")) else {
                return Err(bad("a signature has no keyid or no sig"));
            };
            let id = id.parse().map_err(|e| bad(&format!("{e}")))?;
            file.signatures.insert(id, signature.to_owned());
        }
        Ok(file)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "file": self.name, "follows": self.follows, "signatures": self.signatures_json(), "signed": self.signed,
        })
    }

    pub(super) fn signatures_json(&self) -> Value {
        self.signatures.iter().map(|(id, signature)| json!({"keyid": id, "sig": signature})).collect()
    }

    /// Its unnumbered name, such as `targets.json`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that it will have.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The version that it follows.
    pub fn follows(&self) -> u32 {
        self.follows
    }

    /// What is signed.
    pub fn signed(&self) -> &Value {
        &self.signed
    }

    pub(super) fn is_the_same_as(&self, other: &Self) -> bool {
        (&self.name, self.follows, &self.signed) == (&other.name, other.follows, &other.signed)
    }

    pub(super) fn add_signature(&mut self, id: KeyId, signature: String) {
        self.signatures.insert(id, signature);
    }

    pub(super) fn take_signatures(&mut self, other: &Self) {
        self.signatures.extend(other.signatures.iter().map(|(id, signature)| (id.clone(), signature.clone())));
    }

    /// Whether the key's valid signature over `message`, which is what is signed, is there.
    pub(super) fn has(&self, key: &ListedKey, message: &[u8]) -> bool {
        let signature = self.signatures.get(key.id()).and_then(|text| colibri_common::unhex(text));
        signature.is_some_and(|signature| key.public().verifies(message, &signature))
    }

    /// The file as it would be published.
    pub(super) fn to_signed(&self, role: KeyRole) -> Result<SignedFile, RepositoryError> {
        let signatures = self.signatures.iter().map(|(id, signature)| (id.clone(), signature.clone())).collect();
        let message = roles::encode(role, &self.signed)?;
        Ok(roles::envelope(self.name.clone(), self.version, &message, signatures))
    }
}
