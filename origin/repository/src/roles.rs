//! What the four roles say, written: JSON of `signed`, and the envelope with its signatures (reference §5).

use aws_lc_rs::digest::{SHA512, digest};
use bytes::Bytes;
use colibri_common::{UnixSeconds, hex};
use colibri_metadata::{Role, canonical, utc};
use serde_json::{Map, Value, json};

use crate::error::RepositoryError;
use crate::keys::SigningKey;

/// How long what is signed stays valid, in days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiries {
    /// Root.
    pub root_days: u32,
    /// Targets.
    pub targets_days: u32,
    /// Snapshot.
    pub snapshot_days: u32,
    /// Timestamp.
    pub timestamp_days: u32,
}

impl Default for Expiries {
    /// As the real tools write them.
    fn default() -> Self {
        Self { root_days: 365, targets_days: 90, snapshot_days: 30, timestamp_days: 30 }
    }
}

impl Expiries {
    /// When `role`, signed now, expires.
    pub(crate) fn at(&self, role: Role, now: UnixSeconds) -> UnixSeconds {
        let days = match role {
            Role::Root => self.root_days,
            Role::Targets => self.targets_days,
            Role::Snapshot => self.snapshot_days,
            Role::Timestamp => self.timestamp_days,
        };
        now.plus(u64::from(days) * 86_400)
    }
}

/// A signed file, ready to be written.
#[derive(Debug, Clone)]
pub(crate) struct SignedFile {
    /// Its unnumbered name, such as `targets.json`.
    pub file: String,
    pub version: u32,
    pub bytes: Bytes,
}

impl SignedFile {
    /// Whether this is the file of a top-level role.
    pub fn is(&self, role: Role) -> bool {
        self.file == role.file()
    }

    /// What the role above says about this file.
    pub fn meta(&self) -> Value {
        let sha512 = hex(digest(&SHA512, &self.bytes).as_ref());
        json!({"hashes": {"sha512": sha512}, "length": self.bytes.len(), "version": self.version})
    }
}

/// Adds what all roles have in common, and signs.
pub(crate) fn sign<'a>(
    role: Role,
    version: u32,
    expires: UnixSeconds,
    mut signed: Map<String, Value>,
    signers: impl IntoIterator<Item = &'a SigningKey>,
) -> Result<SignedFile, RepositoryError> {
    let date = utc::format(expires).ok_or_else(|| {
        RepositoryError::OutOfRange(format!("{role} would expire {} s after 1970, beyond the year 9999", expires.0))
    })?;
    signed.insert("_type".into(), json!(role.name()));
    signed.insert("spec_version".into(), json!("1.0"));
    signed.insert("version".into(), json!(version));
    signed.insert("expires".into(), json!(date));
    let signed = Value::Object(signed);
    let message = encode(&signed)?;
    let mut signatures: Vec<_> = signers.into_iter().map(|key| (key.id(), key.sign(&message))).collect();
    signatures.sort();
    let signatures: Vec<Value> =
        signatures.into_iter().map(|(id, signature)| json!({"keyid": id, "sig": signature})).collect();
    let bytes = encode(&json!({"signatures": signatures, "signed": signed}))?;
    Ok(SignedFile { file: role.file().to_owned(), version, bytes: bytes.into() })
}

fn encode(value: &Value) -> Result<Vec<u8>, RepositoryError> {
    canonical::encode(value).map_err(|e| RepositoryError::OutOfRange(format!("metadata cannot be written: {e}")))
}

/// The root of a new repository: one key per role, threshold 1, consistent snapshots.
pub(crate) fn first_root(keys: &[(Role, SigningKey)]) -> Map<String, Value> {
    let listed: Map<String, Value> =
        keys.iter().map(|(_, key)| (key.id().as_str().to_owned(), key.to_json())).collect();
    let mut roles = Map::new();
    for role in Role::ALL {
        let mut ids: Vec<_> = keys.iter().filter(|(of, _)| *of == role).map(|(_, key)| key.id()).collect();
        ids.sort();
        ids.dedup();
        roles.insert(role.name().to_owned(), json!({"keyids": ids, "threshold": 1}));
    }
    let mut root = Map::new();
    root.insert("consistent_snapshot".into(), json!(true));
    root.insert("keys".into(), Value::Object(listed));
    root.insert("roles".into(), Value::Object(roles));
    root
}

/// The signed part of an existing file, to be carried on with all that it says.
pub(crate) fn signed_part(bytes: &[u8]) -> Option<Map<String, Value>> {
    match canonical::parse(bytes).ok()? {
        Value::Object(mut file) => match file.remove("signed")? {
            Value::Object(signed) => Some(signed),
            _ => None,
        },
        _ => None,
    }
}

/// Sets or removes one key of `custom` in a signed part; `custom` itself goes when it is empty.
pub(crate) fn set_custom(signed: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    let mut custom = match signed.remove("custom") {
        Some(Value::Object(custom)) => custom,
        _ => Map::new(),
    };
    match value {
        Some(value) => _ = custom.insert(key.to_owned(), value),
        None => _ = custom.remove(key),
    }
    if !custom.is_empty() {
        signed.insert("custom".to_owned(), Value::Object(custom));
    }
}
