//! [`Root`]: whose keys speak for which role (specification §4.3).

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use serde_json::{Map, Value};

use crate::envelope::Keyring;
use crate::error::Rule;
use crate::fields::{Fields, Header, header, malformed};
use crate::json::Reader;
use crate::key::PublicKey;
use crate::key_id::KeyId;
use crate::limits;
use crate::role::{Document, ReadError, Role, RoleKeys, read_tree};

/// The root role.
#[derive(Debug, Clone, PartialEq)]
pub struct Root {
    version: u32,
    expires: UnixSeconds,
    consistent_snapshot: bool,
    keys: BTreeMap<KeyId, PublicKey>,
    roles: [RoleKeys; 4],
}

impl Root {
    /// Version, at least 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// When it expires.
    pub fn expires(&self) -> UnixSeconds {
        self.expires
    }

    /// Whether snapshot and targets files are numbered, and targets carry a hash in their names.
    pub fn consistent_snapshot(&self) -> bool {
        self.consistent_snapshot
    }

    /// The usable keys by id: those of a type that we know.
    pub fn keys(&self) -> &BTreeMap<KeyId, PublicKey> {
        &self.keys
    }

    /// Key ids and threshold of `role`.
    pub fn role_keys(&self, role: Role) -> &RoleKeys {
        let [root, timestamp, snapshot, targets] = &self.roles;
        match role {
            Role::Root => root,
            Role::Timestamp => timestamp,
            Role::Snapshot => snapshot,
            Role::Targets => targets,
        }
    }

    /// The usable public keys of `role`. Two ids of one key give it twice.
    pub fn public_keys(&self, role: Role) -> impl Iterator<Item = PublicKey> + '_ {
        self.role_keys(role).key_ids.iter().filter_map(|id| self.keys.get(id).cloned())
    }

    /// The keys of `role`, for checking a signature.
    pub(crate) fn keyring(&self, role: Role) -> Keyring<'_> {
        Keyring { keys: &self.keys, role: self.role_keys(role) }
    }

    fn from_signed(signed: &Map<String, Value>) -> Result<Self, Rule> {
        let Header { fields, version, expires } = header(signed, Role::Root)?;
        let consistent_snapshot = match signed.get("consistent_snapshot") {
            None => false,
            Some(_) => fields.get("consistent_snapshot", "true or false", Value::as_bool)?,
        };
        let keys = usable_keys(&fields)?;
        let roles = fields.object("roles")?;
        let role_keys = |role: Role| role_keys(&roles.object(role.name())?);
        let [root, timestamp, snapshot, targets] = Role::ALL;
        let roles = [role_keys(root)?, role_keys(timestamp)?, role_keys(snapshot)?, role_keys(targets)?];
        Ok(Self { version, expires, consistent_snapshot, keys, roles })
    }
}

impl Document for Root {
    const ROLE: Role = Role::Root;

    fn read(reader: &mut Reader<'_>, _: &Bytes) -> Result<Self, ReadError> {
        read_tree(reader, Self::from_signed)
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}

/// The keys in `keys` that can verify something. Others stay listed but never count (§4.2: a client may ignore what it does
/// not support).
pub(crate) fn usable_keys(fields: &Fields<'_>) -> Result<BTreeMap<KeyId, PublicKey>, Rule> {
    let listed = fields.object("keys")?;
    if listed.map.len() as u64 > limits::KEYS_MAX {
        return Err(malformed(format!("more than {} keys", limits::KEYS_MAX)));
    }
    let usable = |(id, key): (&String, &Value)| Some((id.parse().ok()?, PublicKey::from_json(key).ok()?));
    Ok(listed.map.iter().filter_map(usable).collect())
}

/// `keyids` and `threshold` of a role.
pub(crate) fn role_keys(fields: &Fields<'_>) -> Result<RoleKeys, Rule> {
    let ids = fields.texts("keyids")?.ok_or_else(|| malformed(format!("{} has no keyids", fields.of)))?;
    if ids.len() as u64 > limits::KEYS_MAX {
        return Err(malformed(format!("{} names more than {} keys", fields.of, limits::KEYS_MAX)));
    }
    let mut key_ids: Vec<KeyId> = Vec::with_capacity(ids.len());
    for text in ids {
        let id: KeyId = text.parse().map_err(|e| malformed(format!("keyids of {}: {e}", fields.of)))?;
        // §4.3: ids are unique.
        if key_ids.contains(&id) {
            return Err(Rule::DuplicateKeyId(id.to_string()));
        }
        key_ids.push(id);
    }
    let threshold = fields.at_least_one("threshold", "an integer of at least 1")?;
    Ok(RoleKeys { key_ids, threshold })
}
