//! A small signing repository: every part can be changed before, and every byte after signing.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use bytes::Bytes;
use colibri_common::{UnixSeconds, hex};
use colibri_metadata::{
    Answer, KeyId, MetadataError, PublicKey, Role, Start, Step, TrustAnchor, TrustedSet, Update, canonical, utc,
};
use serde_json::{Map, Value, json};

/// 2026-01-10T00:00:00Z.
pub const NOW: UnixSeconds = UnixSeconds(1_768_003_200);
/// A day in seconds.
pub const DAY: u64 = 86_400;

/// A signing key made from one byte.
#[derive(Clone)]
pub struct Key {
    pub seed: [u8; 32],
    /// `keyid_hash_algorithms`, which changes the id but not the key.
    pub algorithms: Option<Value>,
}

impl Key {
    pub fn new(seed: u8) -> Self {
        Self { seed: [seed; 32], algorithms: None }
    }

    fn pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.seed).unwrap()
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.pair().public_key().as_ref().try_into().unwrap())
    }

    pub fn json(&self) -> Value {
        let mut key = self.public().to_json();
        if let Some(algorithms) = &self.algorithms {
            key["keyid_hash_algorithms"] = algorithms.clone();
        }
        key
    }

    pub fn id(&self) -> KeyId {
        KeyId::of(&self.json()).unwrap()
    }

    pub fn signature(&self, signed: &Value) -> Value {
        let message = canonical::encode(signed).unwrap();
        json!({"keyid": self.id(), "sig": hex(&self.sign(&message))})
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair().sign(message).as_ref().to_vec()
    }
}

pub fn date(at: UnixSeconds) -> String {
    utc::format(at).unwrap()
}

/// Wraps and signs.
pub fn envelope(signed: &Value, keys: &[Key]) -> Bytes {
    let signatures: Vec<Value> = keys.iter().map(|key| key.signature(signed)).collect();
    canonical::encode(&json!({"signatures": signatures, "signed": signed})).unwrap().into()
}

/// Keys and thresholds per role.
#[derive(Clone)]
pub struct RoleSetup {
    pub keys: Vec<Key>,
    pub threshold: u32,
}

/// A repository as its owner holds it: [`Repo::publish`] signs a set, [`Repo::files`] is what is served.
#[derive(Clone)]
pub struct Repo {
    pub roles: BTreeMap<Role, RoleSetup>,
    pub versions: BTreeMap<Role, u32>,
    pub expires: BTreeMap<Role, UnixSeconds>,
    pub targets: Map<String, Value>,
    pub consistent: bool,
    /// Whether length and hashes are given.
    pub hashes: bool,
    pub files: BTreeMap<String, Bytes>,
}

impl Repo {
    /// A repository with one key per role (root 1, timestamp 2, snapshot 3, targets 4), published at version 1.
    pub fn new() -> Self {
        let setup = |seed: u8| RoleSetup { keys: vec![Key::new(seed)], threshold: 1 };
        let roles = Role::ALL.into_iter().zip(1..).map(|(role, seed)| (role, setup(seed))).collect();
        let mut repo = Self {
            roles,
            versions: Role::ALL.into_iter().map(|role| (role, 1)).collect(),
            expires: Role::ALL.into_iter().map(|role| (role, NOW.plus(30 * DAY))).collect(),
            targets: Map::new(),
            consistent: true,
            hashes: true,
            files: BTreeMap::new(),
        };
        repo.add_target("hello/0", &[7; 100]);
        repo.publish_root(&[]);
        repo.publish();
        repo
    }

    pub fn add_target(&mut self, name: &str, content: &[u8]) {
        let merkle = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";
        let target = json!({
            "length": content.len(),
            "hashes": {"sha512": hex(digest(&SHA512, content).as_ref())},
            "custom": {"merkle": merkle, "size": content.len()},
        });
        self.targets.insert(name.to_owned(), target);
    }

    pub fn keys(&self, role: Role) -> &[Key] {
        &self.roles[&role].keys
    }

    pub fn bump(&mut self, role: Role) {
        *self.versions.get_mut(&role).unwrap() += 1;
    }

    fn common(&self, role: Role) -> Map<String, Value> {
        Map::from_iter([
            ("_type".into(), json!(role.name())),
            ("spec_version".into(), json!("1.0")),
            ("version".into(), json!(self.versions[&role])),
            ("expires".into(), json!(date(self.expires[&role]))),
        ])
    }

    pub fn root_signed(&self) -> Value {
        let mut signed = self.common(Role::Root);
        let mut keys = Map::new();
        let mut roles = Map::new();
        for (role, setup) in &self.roles {
            for key in &setup.keys {
                keys.insert(key.id().to_string(), key.json());
            }
            let ids: Vec<KeyId> = setup.keys.iter().map(Key::id).collect();
            roles.insert(role.name().into(), json!({"keyids": ids, "threshold": setup.threshold}));
        }
        signed.insert("consistent_snapshot".into(), json!(self.consistent));
        signed.insert("keys".into(), Value::Object(keys));
        signed.insert("roles".into(), Value::Object(roles));
        Value::Object(signed)
    }

    /// Signs root with its own keys and `also`.
    pub fn publish_root(&mut self, also: &[Key]) {
        let signers: Vec<Key> = self.keys(Role::Root).iter().chain(also).cloned().collect();
        let bytes = envelope(&self.root_signed(), &signers);
        self.files.insert(Role::Root.numbered_file(self.versions[&Role::Root]), bytes.clone());
        self.files.insert("root.json".into(), bytes);
    }

    /// The next root version, signed by old and new keys, after `change`.
    pub fn rotate(&mut self, change: impl FnOnce(&mut Self)) {
        let old = self.keys(Role::Root).to_vec();
        change(self);
        self.bump(Role::Root);
        let ids: Vec<KeyId> = self.keys(Role::Root).iter().map(Key::id).collect();
        let also: Vec<Key> = old.into_iter().filter(|key| !ids.contains(&key.id())).collect();
        self.publish_root(&also);
    }

    fn meta(&self, role: Role, bytes: &Bytes) -> Value {
        let version = self.versions[&role];
        if !self.hashes {
            return json!({"version": version});
        }
        let hashes = json!({
            "sha256": hex(digest(&SHA256, bytes).as_ref()),
            "sha512": hex(digest(&SHA512, bytes).as_ref()),
        });
        json!({"version": version, "length": bytes.len(), "hashes": hashes})
    }

    pub fn targets_signed(&self) -> Value {
        let mut signed = self.common(Role::Targets);
        signed.insert("targets".into(), Value::Object(self.targets.clone()));
        Value::Object(signed)
    }

    pub fn snapshot_signed(&self, targets: &Bytes) -> Value {
        let mut signed = self.common(Role::Snapshot);
        signed.insert("meta".into(), json!({"targets.json": self.meta(Role::Targets, targets)}));
        Value::Object(signed)
    }

    pub fn timestamp_signed(&self, snapshot: &Bytes) -> Value {
        let mut signed = self.common(Role::Timestamp);
        signed.insert("meta".into(), json!({"snapshot.json": self.meta(Role::Snapshot, snapshot)}));
        Value::Object(signed)
    }

    fn serve(&mut self, role: Role, bytes: Bytes) {
        let numbered = self.consistent && role != Role::Timestamp;
        let name = if numbered { role.numbered_file(self.versions[&role]) } else { role.file().to_owned() };
        self.files.insert(name, bytes);
    }

    /// Signs and serves targets, snapshot and timestamp as they now are.
    pub fn publish(&mut self) {
        self.publish_with(|_, _| {});
    }

    /// As [`Self::publish`]; `change` sees each signed part before it is signed.
    pub fn publish_with(&mut self, change: impl Fn(Role, &mut Value)) {
        let mut signed = self.targets_signed();
        change(Role::Targets, &mut signed);
        let targets = envelope(&signed, self.keys(Role::Targets));
        self.serve(Role::Targets, targets.clone());
        let mut signed = self.snapshot_signed(&targets);
        change(Role::Snapshot, &mut signed);
        let snapshot = envelope(&signed, self.keys(Role::Snapshot));
        self.serve(Role::Snapshot, snapshot.clone());
        let mut signed = self.timestamp_signed(&snapshot);
        change(Role::Timestamp, &mut signed);
        let timestamp = envelope(&signed, self.keys(Role::Timestamp));
        self.serve(Role::Timestamp, timestamp);
    }

    /// Next versions of the three lower roles, published.
    pub fn republish(&mut self) {
        for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
            self.bump(role);
        }
        self.publish();
    }

    pub fn anchor(&self) -> TrustAnchor {
        TrustAnchor::RootFile(self.files["1.root.json"].clone())
    }
}

/// The outcome of driving an update to its end.
pub struct Driven {
    pub result: Result<TrustedSet, MetadataError>,
    /// What survives a failure.
    pub floor: Option<TrustedSet>,
    pub asked: Vec<String>,
}

impl Driven {
    #[track_caller]
    pub fn set(self) -> TrustedSet {
        self.result.expect("the update must succeed")
    }

    #[track_caller]
    pub fn error(&self) -> &MetadataError {
        self.result.as_ref().expect_err("the update must fail")
    }
}

pub fn drive(start: Start, repo: &Repo, now: UnixSeconds) -> Driven {
    let mut update = Update::start(start, now);
    let mut asked = Vec::new();
    while let Step::Want(want) = update.next() {
        let answer = repo.files.get(&want.name).map_or(Answer::NotFound, |bytes| Answer::Found(bytes.clone()));
        asked.push(want.name);
        if let Err(error) = update.supply(answer) {
            assert_eq!(update.next(), Step::Done, "a failed update wants nothing");
            return Driven { result: Err(error), floor: update.into_floor(), asked };
        }
    }
    Driven { result: update.finish(), floor: None, asked }
}

/// From the repository's first root, now.
pub fn fresh(repo: &Repo) -> Driven {
    drive(Start::FromAnchor(repo.anchor()), repo, NOW)
}

/// From what a client already trusts, now.
pub fn again(set: &TrustedSet, repo: &Repo) -> Driven {
    drive(Start::FromSet(set.clone()), repo, NOW)
}
