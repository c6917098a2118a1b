//! What the four top-level roles say, parsed: [`Root`], [`Timestamp`], [`Snapshot`], [`Targets`] (TUF specification §4).
//!
//! Parsing believes nothing: whether a role is to be believed is decided in `rules` and [`crate::update`].

use std::collections::BTreeMap;
use std::fmt;

use colibri_common::UnixSeconds;
use serde_json::{Map, Value};

use crate::error::Rule;
use crate::key::{KeyId, PublicKey};
use crate::target::{Hashes, TargetDescription, TargetName};
use crate::{limits, utc};

/// One of the four top-level roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Names the keys of all roles.
    Root,
    /// Names the newest snapshot.
    Timestamp,
    /// Names the versions of all targets files.
    Snapshot,
    /// Names the targets.
    Targets,
}

impl Role {
    /// All four, in the order in which an update reads them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Timestamp, Self::Snapshot, Self::Targets];

    /// The role's name, as in `_type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
        }
    }

    /// The role's unnumbered file.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Root => "root.json",
            Self::Timestamp => "timestamp.json",
            Self::Snapshot => "snapshot.json",
            Self::Targets => "targets.json",
        }
    }

    /// The role's numbered file.
    pub fn numbered_file(self, version: u32) -> String {
        format!("{version}.{}", self.file())
    }

    /// Largest file of this role in bytes.
    pub const fn bytes_max(self) -> u64 {
        match self {
            Self::Root => limits::ROOT_BYTES_MAX,
            Self::Timestamp => limits::TIMESTAMP_BYTES_MAX,
            Self::Snapshot => limits::SNAPSHOT_BYTES_MAX,
            Self::Targets => limits::TARGETS_BYTES_MAX,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The keys of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleKeys {
    /// Ids of the keys, without repetition.
    pub key_ids: Vec<KeyId>,
    /// How many of them must sign, at least one.
    pub threshold: u32,
}

/// The root role.
#[derive(Debug, Clone, PartialEq)]
pub struct Root {
    version: u32,
    expires: UnixSeconds,
    consistent_snapshot: bool,
    keys: BTreeMap<KeyId, PublicKey>,
    roles: [RoleKeys; 4],
}

/// What one role says about the file of another.
#[derive(Debug, Clone, PartialEq)]
pub struct FileMeta {
    /// Its version.
    pub version: u32,
    /// Its length in bytes, if given.
    pub length: Option<u64>,
    /// Its hashes, if given.
    pub hashes: Option<Hashes>,
}

/// The timestamp role.
#[derive(Debug, Clone, PartialEq)]
pub struct Timestamp {
    version: u32,
    expires: UnixSeconds,
    snapshot: FileMeta,
}

/// The snapshot role.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    version: u32,
    expires: UnixSeconds,
    meta: BTreeMap<String, FileMeta>,
}

/// The top-level targets role.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    version: u32,
    expires: UnixSeconds,
    targets: BTreeMap<TargetName, TargetDescription>,
}

/// What every role has in common.
pub(crate) trait Document: Sized {
    const ROLE: Role;

    /// Reads the `signed` part.
    fn from_signed(signed: &Map<String, Value>) -> Result<Self, Rule>;

    fn version(&self) -> u32;

    fn expires(&self) -> UnixSeconds;
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

    /// Whether snapshot and targets files are numbered.
    pub fn consistent_snapshot(&self) -> bool {
        self.consistent_snapshot
    }

    /// The usable keys by id: ed25519, with an id that fits the key.
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

    /// The usable public keys of `role`.
    pub fn public_keys(&self, role: Role) -> impl Iterator<Item = PublicKey> + '_ {
        self.role_keys(role).key_ids.iter().filter_map(|id| self.keys.get(id).copied())
    }
}

impl Timestamp {
    /// Version, at least 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// When it expires.
    pub fn expires(&self) -> UnixSeconds {
        self.expires
    }

    /// What it says about `snapshot.json`.
    pub fn snapshot(&self) -> &FileMeta {
        &self.snapshot
    }
}

impl Snapshot {
    /// Version, at least 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// When it expires.
    pub fn expires(&self) -> UnixSeconds {
        self.expires
    }

    /// What it says about each targets file, by unnumbered file name.
    pub fn meta(&self) -> &BTreeMap<String, FileMeta> {
        &self.meta
    }
}

impl Targets {
    /// Version, at least 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// When it expires.
    pub fn expires(&self) -> UnixSeconds {
        self.expires
    }

    /// All targets by name.
    pub fn targets(&self) -> &BTreeMap<TargetName, TargetDescription> {
        &self.targets
    }
}

fn malformed(text: impl Into<String>) -> Rule {
    Rule::Malformed(text.into())
}

/// One object and how to call it in an error.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    of: String,
}

impl<'a> Fields<'a> {
    fn new(value: &'a Value, of: impl Into<String>) -> Result<Self, Rule> {
        let of = of.into();
        match value.as_object() {
            Some(map) => Ok(Self { map, of }),
            None => Err(malformed(format!("{of} is not an object"))),
        }
    }

    fn get<T>(&self, name: &str, what: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T, Rule> {
        let value = self.map.get(name).ok_or_else(|| malformed(format!("{} has no {name}", self.of)))?;
        read(value).ok_or_else(|| malformed(format!("{name} of {} is not {what}", self.of)))
    }

    fn object(&self, name: &str) -> Result<Fields<'a>, Rule> {
        let map = self.get(name, "an object", Value::as_object)?;
        Ok(Fields { map, of: format!("{name} of {}", self.of) })
    }

    fn version(&self) -> Result<u32, Rule> {
        let at_least_one = |value: &Value| u32::try_from(value.as_u64()?).ok().filter(|version| *version > 0);
        self.get("version", "an integer from 1 to 4294967295", at_least_one)
    }

    fn file_meta(&self) -> Result<FileMeta, Rule> {
        let optional_length = match self.map.get("length") {
            None => None,
            Some(_) => Some(self.get("length", "a length in bytes", Value::as_u64)?),
        };
        let hashes = self.map.get("hashes").map(Hashes::from_json).transpose();
        let hashes = hashes.map_err(|e| malformed(format!("{}: {e}", self.of)))?;
        Ok(FileMeta { version: self.version()?, length: optional_length, hashes })
    }
}

/// Checks `_type` and `spec_version`; gives the fields with version and expiry.
fn header(signed: &Map<String, Value>, role: Role) -> Result<(Fields<'_>, u32, UnixSeconds), Rule> {
    let fields = Fields { map: signed, of: "signed".into() };
    let kind = fields.get("_type", "a string", Value::as_str)?;
    if kind != role.name() {
        return Err(Rule::WrongType(kind.to_owned()));
    }
    let spec = fields.get("spec_version", "a string", Value::as_str)?;
    let mut parts = spec.split('.');
    let numeric = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
    if parts.next() != Some("1") || !parts.clone().all(numeric) || parts.count() > 2 {
        return Err(Rule::SpecVersion(spec.to_owned()));
    }
    let version = fields.version()?;
    let expires = fields.get("expires", "a date like 2026-01-31T00:00:00Z", |v| utc::parse(v.as_str()?))?;
    Ok((fields, version, expires))
}

impl Document for Root {
    const ROLE: Role = Role::Root;

    fn from_signed(signed: &Map<String, Value>) -> Result<Self, Rule> {
        let (fields, version, expires) = header(signed, Role::Root)?;
        let consistent_snapshot = match signed.get("consistent_snapshot") {
            None => false,
            Some(_) => fields.get("consistent_snapshot", "true or false", Value::as_bool)?,
        };
        let listed = fields.object("keys")?;
        if listed.map.len() as u64 > limits::KEYS_MAX {
            return Err(malformed(format!("more than {} keys", limits::KEYS_MAX)));
        }
        let keys = listed.map.iter().filter_map(|(id, key)| usable_key(id, key)).collect();
        let roles = fields.object("roles")?;
        let role_keys = |role: Role| role_keys(&roles.object(role.name())?, listed.map);
        let [root, timestamp, snapshot, targets] = Role::ALL;
        let roles = [role_keys(root)?, role_keys(timestamp)?, role_keys(snapshot)?, role_keys(targets)?];
        Ok(Self { version, expires, consistent_snapshot, keys, roles })
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}

/// A key that can verify something: ed25519, under the id that its JSON has (`keyid_hash_algorithms` included, §5 of the
/// reference). Others stay listed but never count, as in the stock client.
fn usable_key(id: &str, key: &Value) -> Option<(KeyId, PublicKey)> {
    let is = |name: &str| key.get(name).and_then(Value::as_str) == Some("ed25519");
    if !is("keytype") || !is("scheme") {
        return None;
    }
    let public = key.get("keyval")?.get("public")?.as_str()?.parse().ok()?;
    let named: KeyId = id.parse().ok()?;
    // The id covers the key's own fields only; a later field that we do not know takes no part in it.
    let known = ["keyid_hash_algorithms", "keytype", "scheme"];
    let mut own: Map<String, Value> =
        known.iter().filter_map(|name| Some(((*name).to_owned(), key.get(name)?.clone()))).collect();
    own.insert("keyval".into(), serde_json::json!({"public": key.get("keyval")?.get("public")?}));
    (KeyId::of(&Value::Object(own))? == named).then_some((named, public))
}

fn role_keys(fields: &Fields<'_>, listed: &Map<String, Value>) -> Result<RoleKeys, Rule> {
    let ids = fields.get("keyids", "a list", Value::as_array)?;
    let mut key_ids: Vec<KeyId> = Vec::with_capacity(ids.len());
    for id in ids {
        let text = id.as_str().ok_or_else(|| malformed(format!("keyids of {} holds no strings", fields.of)))?;
        let id: KeyId = text.parse().map_err(|e| malformed(format!("keyids of {}: {e}", fields.of)))?;
        if key_ids.contains(&id) {
            return Err(Rule::DuplicateKeyId(id.to_string()));
        }
        if !listed.contains_key(text) {
            return Err(malformed(format!("{} names the key {id}, which keys does not list", fields.of)));
        }
        key_ids.push(id);
    }
    let at_least_one = |value: &Value| u32::try_from(value.as_u64()?).ok().filter(|threshold| *threshold > 0);
    let threshold = fields.get("threshold", "an integer of at least 1", at_least_one)?;
    if threshold as usize > key_ids.len() {
        return Err(malformed(format!("{} asks for {threshold} of {} keys", fields.of, key_ids.len())));
    }
    Ok(RoleKeys { key_ids, threshold })
}

impl Document for Timestamp {
    const ROLE: Role = Role::Timestamp;

    fn from_signed(signed: &Map<String, Value>) -> Result<Self, Rule> {
        let (fields, version, expires) = header(signed, Role::Timestamp)?;
        let snapshot = fields.object("meta")?.object(Role::Snapshot.file())?.file_meta()?;
        Ok(Self { version, expires, snapshot })
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}

impl Document for Snapshot {
    const ROLE: Role = Role::Snapshot;

    fn from_signed(signed: &Map<String, Value>) -> Result<Self, Rule> {
        let (fields, version, expires) = header(signed, Role::Snapshot)?;
        let listed = fields.object("meta")?;
        let mut meta = BTreeMap::new();
        for (name, value) in listed.map {
            meta.insert(name.clone(), Fields::new(value, format!("{name} of meta"))?.file_meta()?);
        }
        if !meta.contains_key(Role::Targets.file()) {
            return Err(malformed("meta has no targets.json"));
        }
        Ok(Self { version, expires, meta })
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}

impl Document for Targets {
    const ROLE: Role = Role::Targets;

    fn from_signed(signed: &Map<String, Value>) -> Result<Self, Rule> {
        let (fields, version, expires) = header(signed, Role::Targets)?;
        let mut targets = BTreeMap::new();
        for (name, value) in fields.object("targets")?.map {
            let parsed: TargetName = name.parse().map_err(|reason| Rule::TargetName { name: name.clone(), reason })?;
            let target = Fields::new(value, format!("target {name}"))?;
            let length = target.get("length", "a length in bytes", Value::as_u64)?;
            let hashes = target.get("hashes", "an object", Some)?;
            let hashes = Hashes::from_json(hashes).map_err(|e| malformed(format!("target {name}: {e}")))?;
            let custom = target.map.get("custom").cloned().unwrap_or(Value::Null);
            targets.insert(parsed, TargetDescription { length, hashes, custom });
        }
        Ok(Self { version, expires, targets })
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}
