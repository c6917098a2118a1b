//! The signed envelope: `{"signatures":[{"keyid","sig"}],"signed":{…}}`, and counting valid signatures of distinct keys.

use std::collections::BTreeSet;

use colibri_common::unhex;
use serde_json::{Map, Value};

use crate::canonical;
use crate::error::Rule;
use crate::key::PublicKey;
use crate::limits;
use crate::role::{Role, Root};

/// A file split into its signatures and what they are over.
pub(crate) struct Envelope {
    /// Key id as written, and the signature's bytes. Ids are distinct.
    signatures: Vec<(String, Vec<u8>)>,
    /// The signed part.
    pub signed: Map<String, Value>,
    /// Canonical form of the signed part: what the signatures are over.
    message: Vec<u8>,
}

impl Envelope {
    /// Reads a file that is already known to be within its cap.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rule> {
        let malformed = |text: &str| Rule::Malformed(text.to_owned());
        let value = canonical::parse(bytes).map_err(|e| Rule::Malformed(e.to_string()))?;
        let Value::Object(mut file) = value else { return Err(malformed("it is not a JSON object")) };
        let Some(Value::Object(signed)) = file.remove("signed") else {
            return Err(malformed("it has no signed object"));
        };
        let listed = file.get("signatures").and_then(Value::as_array);
        let listed = listed.ok_or_else(|| malformed("it has no list of signatures"))?;
        if listed.len() as u64 > limits::SIGNATURES_MAX {
            return Err(malformed("it has too many signatures"));
        }
        let mut signatures: Vec<(String, Vec<u8>)> = Vec::with_capacity(listed.len());
        for entry in listed {
            let text = |name: &str| entry.get(name).and_then(Value::as_str);
            let (Some(key_id), Some(signature)) = (text("keyid"), text("sig")) else {
                return Err(malformed("a signature has no keyid or no sig"));
            };
            if signatures.iter().any(|(seen, _)| seen == key_id) {
                return Err(Rule::DuplicateKeyId(key_id.to_owned()));
            }
            // A signature that is not hex cannot be valid; it may belong to a key type we do not know.
            signatures.push((key_id.to_owned(), unhex(signature).unwrap_or_default()));
        }
        let value = Value::Object(signed);
        let message = canonical::encode(&value).map_err(|e| Rule::Malformed(e.to_string()))?;
        let Value::Object(signed) = value else { return Err(malformed("it has no signed object")) };
        Ok(Self { signatures, signed, message })
    }

    /// Checks that enough distinct keys of `role` in `root` signed. Two ids of one key count once.
    pub fn check_role(&self, root: &Root, role: Role, signers: &'static str) -> Result<(), Rule> {
        let keys = root.role_keys(role);
        let find = |key_id: &str| {
            let (id, key) = root.keys().get_key_value(&key_id.parse().ok()?)?;
            keys.key_ids.contains(id).then_some(*key)
        };
        self.check(find, keys.threshold, signers)
    }

    /// Checks that `threshold` of `trusted` signed, where `root` (the file itself) may name keys by ids of its own.
    pub fn check_keys(&self, root: &Root, trusted: &[PublicKey], threshold: u32) -> Result<(), Rule> {
        let find = |key_id: &str| {
            let id = key_id.parse().ok()?;
            let named = root.keys().get(&id).copied().filter(|key| trusted.contains(key));
            named.or_else(|| trusted.iter().copied().find(|key| key.ids().contains(&id)))
        };
        self.check(find, threshold, "the configured root keys")
    }

    fn check(
        &self,
        find: impl Fn(&str) -> Option<PublicKey>,
        threshold: u32,
        signers: &'static str,
    ) -> Result<(), Rule> {
        let mut valid = BTreeSet::new();
        for (key_id, signature) in &self.signatures {
            if let Some(key) = find(key_id)
                && !valid.contains(&key)
                && key.verifies(&self.message, signature)
            {
                valid.insert(key);
            }
        }
        let valid = u32::try_from(valid.len()).unwrap_or(u32::MAX);
        if valid < threshold {
            return Err(Rule::Threshold { valid, threshold, signers });
        }
        Ok(())
    }
}
