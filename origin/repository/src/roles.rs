//! What the four roles say, written: JSON of `signed`, and the envelope with its signatures (reference §5).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA512, digest};
use bytes::Bytes;
use colibri_common::{UnixSeconds, hex};
use colibri_metadata::{KeyId, Role, canonical, utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::RepositoryError;
use crate::keys::{self, KeyRole, ListedKey, Signer};
use crate::sign_targets;

/// How long what is signed stays valid, in days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expiries {
    /// Root.
    pub root_days: u32,
    /// Targets.
    pub targets_days: u32,
    /// Snapshot.
    pub snapshot_days: u32,
    /// Timestamp.
    pub timestamp_days: u32,
    /// The delegated role `rollout`.
    pub rollout_days: u32,
}

impl Default for Expiries {
    /// Online roles live shortly, because somebody re-signs them: whoever keeps a fleet from news is noticed in a day.
    fn default() -> Self {
        Self { root_days: 365, targets_days: 90, snapshot_days: 7, timestamp_days: 1, rollout_days: 7 }
    }
}

impl Expiries {
    /// As the real tools write them: nobody need re-sign for 30 days.
    pub const fn compat() -> Self {
        Self { root_days: 365, targets_days: 90, snapshot_days: 30, timestamp_days: 30, rollout_days: 30 }
    }

    /// How long `role` lives, in seconds.
    pub fn life_s(&self, role: KeyRole) -> u64 {
        let days = match role {
            KeyRole::Root => self.root_days,
            KeyRole::Targets => self.targets_days,
            KeyRole::Snapshot => self.snapshot_days,
            KeyRole::Timestamp => self.timestamp_days,
            KeyRole::Rollout => self.rollout_days,
        };
        u64::from(days) * 86_400
    }

    /// When `role`, signed now, expires.
    pub(crate) fn at(&self, role: KeyRole, now: UnixSeconds) -> UnixSeconds {
        now.plus(self.life_s(role))
    }
}

/// A signed file, ready to be written.
#[derive(Debug, Clone)]
pub(crate) struct SignedFile {
    /// Its unnumbered name, such as `targets.json`.
    pub file: String,
    pub version: u32,
    pub bytes: Bytes,
    /// Who signed it.
    pub key_ids: Vec<KeyId>,
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

/// Adds what all roles have in common.
pub(crate) fn complete(
    role: KeyRole,
    version: u32,
    expires: UnixSeconds,
    signed: Map<String, Value>,
) -> Result<Value, RepositoryError> {
    let signed = Value::Object(with_header(role, version, expires, signed)?);
    check_text(&signed).map_err(|reason| RepositoryError::Unsignable { role, reason })?;
    Ok(signed)
}

fn with_header(
    role: KeyRole,
    version: u32,
    expires: UnixSeconds,
    mut signed: Map<String, Value>,
) -> Result<Map<String, Value>, RepositoryError> {
    let date = utc::format(expires).ok_or_else(|| {
        RepositoryError::OutOfRange(format!("{role} would expire {} s after 1970, beyond the year 9999", expires.0))
    })?;
    let kind = role.top_level().unwrap_or(Role::Targets).name();
    signed.insert("_type".into(), json!(kind));
    signed.insert("spec_version".into(), json!("1.0"));
    signed.insert("version".into(), json!(version));
    signed.insert("expires".into(), json!(date));
    Ok(signed)
}

/// The `signed` part of a snapshot in canonical form: `rest` is everything in it but `meta`, which is written already.
pub(crate) fn complete_snapshot(
    version: u32,
    expires: UnixSeconds,
    rest: Map<String, Value>,
    meta: &[u8],
) -> Result<Vec<u8>, RepositoryError> {
    let rest = with_header(KeyRole::Snapshot, version, expires, rest)?;
    Ok(sign_targets::write_around(&rest, "meta", meta.len(), |out| {
        out.extend_from_slice(meta);
        Ok(())
    })?)
}

/// Signs what [`complete`] gave, once with each key.
pub(crate) fn sign(
    role: KeyRole,
    version: u32,
    signed: &Value,
    signers: &[Arc<dyn Signer>],
) -> Result<SignedFile, RepositoryError> {
    sign_written(format!("{role}.json"), version, &encode(role, signed)?, signers)
}

/// Signs a `signed` part that is in canonical form already, once with each key.
pub(crate) fn sign_written(
    file: String,
    version: u32,
    signed: &[u8],
    signers: &[Arc<dyn Signer>],
) -> Result<SignedFile, RepositoryError> {
    let mut signatures = Vec::new();
    for signer in signers {
        signatures.push((signer.key().id().clone(), hex(&keys::sign_checked(signer, signed)?)));
    }
    Ok(envelope(file, version, signed, signatures))
}

/// The file of these signatures, over a `signed` part in canonical form.
pub(crate) fn envelope(file: String, version: u32, signed: &[u8], mut signatures: Vec<(KeyId, String)>) -> SignedFile {
    signatures.sort();
    signatures.dedup_by(|one, other| one.0 == other.0);
    let key_ids = signatures.iter().map(|(id, _)| id.clone()).collect();
    SignedFile { file, version, bytes: sign_targets::envelope(signed, &signatures).into(), key_ids }
}

/// Canonical form, or what hinders it.
pub(crate) fn encode(role: KeyRole, value: &Value) -> Result<Vec<u8>, RepositoryError> {
    canonical::encode(value).map_err(|e| RepositoryError::Unsignable { role, reason: e.to_string() })
}

/// Refuses what clients canonicalise in different ways: control characters in any text or name, and floats.
pub(crate) fn check_text(value: &Value) -> Result<(), String> {
    let plain = |text: &str| match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("{text:?} holds the control character U+{:04X}", u32::from(c))),
        None => Ok(()),
    };
    match value {
        Value::String(text) => plain(text),
        Value::Array(items) => items.iter().try_for_each(check_text),
        Value::Object(map) => map.iter().try_for_each(|(name, item)| match item {
            // A key in PEM has lines, in everybody's metadata.
            Value::Object(_) if name == "keyval" => Ok(()),
            item => plain(name).and_then(|()| check_text(item)),
        }),
        Value::Number(number) if number.is_f64() => Err(format!("the number {number} is not an integer")),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// The root of a new repository: consistent snapshots, the given keys and thresholds.
pub(crate) fn first_root(keys: &[(Role, Vec<ListedKey>, u32)]) -> Map<String, Value> {
    let mut listed = Map::new();
    let mut roles = Map::new();
    for (role, keys, threshold) in keys {
        listed.extend(keys.iter().map(|key| (key.id().as_str().to_owned(), key.to_json())));
        let mut ids: Vec<_> = keys.iter().map(ListedKey::id).collect();
        ids.sort();
        ids.dedup();
        roles.insert(role.name().to_owned(), json!({"keyids": ids, "threshold": threshold}));
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
