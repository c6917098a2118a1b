//! A small repository with delegated roles, and driving a search through it.

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_metadata::{
    Answer, Found, MetadataError, Role, RoleName, Search, Start, Step, TargetName, TrustedSet, Update,
};
use serde_json::{Map, Value, json};

use crate::fixture::{DAY, Key, NOW, Repo, date, envelope};

/// One delegated role as its owner holds it.
#[derive(Clone)]
pub struct Delegate {
    pub keys: Vec<Key>,
    pub version: u32,
    pub expires: UnixSeconds,
    pub targets: Vec<String>,
    pub delegations: Option<Value>,
    /// Whether the snapshot lists it.
    pub listed: bool,
}

/// A repository whose targets role delegates.
#[derive(Clone)]
pub struct Site {
    pub repo: Repo,
    pub delegations: Value,
    pub roles: BTreeMap<String, Delegate>,
}

/// An entry of `delegations.roles`; `covers` has `paths` or `path_hash_prefixes`.
pub fn entry(name: &str, keys: &[Key], threshold: u32, terminating: bool, covers: &Value) -> Value {
    let ids: Vec<_> = keys.iter().map(Key::id).collect();
    let mut entry = json!({"name": name, "keyids": ids, "threshold": threshold, "terminating": terminating});
    for (field, value) in covers.as_object().unwrap() {
        entry[field] = value.clone();
    }
    entry
}

/// `delegations` with these roles and all keys of `keys`.
pub fn delegations(keys: &[Key], roles: &[Value]) -> Value {
    let keys: Map<String, Value> = keys.iter().map(|key| (key.id().to_string(), key.json())).collect();
    json!({"keys": keys, "roles": roles})
}

/// Everything below `*` and `*/*`.
pub fn everything() -> Value {
    json!({"paths": ["*", "*/*"]})
}

/// One key as a list.
pub fn only(key: &Key) -> &[Key] {
    std::slice::from_ref(key)
}

pub fn key_of(name: &str) -> Key {
    Key::new(name.bytes().fold(100, u8::wrapping_add))
}

pub fn delegate(name: &str, targets: &[&str]) -> Delegate {
    Delegate {
        keys: vec![key_of(name)],
        version: 1,
        expires: NOW.plus(30 * DAY),
        targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        delegations: None,
        listed: true,
    }
}

/// Delegates everything to each of `names`, by a key of its own; a name that ends in `!` is terminating.
pub fn to(names: &[&str]) -> Value {
    let plain = |name: &&str| name.trim_end_matches('!').to_owned();
    let keys: Vec<Key> = names.iter().map(|name| key_of(&plain(name))).collect();
    let roles: Vec<Value> = names
        .iter()
        .zip(&keys)
        .map(|(name, key)| entry(&plain(name), only(key), 1, name.ends_with('!'), &everything()))
        .collect();
    delegations(&keys, &roles)
}

impl Delegate {
    pub fn signed(&self) -> Value {
        let target = json!({"length": 3, "hashes": {"sha256": "ab".repeat(32)}});
        let targets: Map<String, Value> = self.targets.iter().map(|name| (name.clone(), target.clone())).collect();
        let mut signed = json!({
            "_type": "targets", "spec_version": "1.0", "version": self.version, "expires": date(self.expires),
            "targets": targets,
        });
        if let Some(delegations) = &self.delegations {
            signed["delegations"] = delegations.clone();
        }
        signed
    }
}

impl Site {
    pub fn new(delegations: Value, roles: &[(&str, Delegate)]) -> Self {
        let roles = roles.iter().map(|(name, role)| ((*name).to_owned(), role.clone())).collect();
        let mut site = Self { repo: Repo::new(), delegations, roles };
        site.publish();
        site
    }

    /// A graph: each role with whom it delegates to.
    pub fn graph(top: &[&str], edges: &[(&str, &[&str])]) -> Self {
        let mut roles: Vec<(&str, Delegate)> = Vec::new();
        for (name, below) in edges {
            let mut role = delegate(name, &[]);
            role.delegations = (!below.is_empty()).then(|| to(below));
            roles.push((name, role));
        }
        Self::new(to(top), &roles)
    }

    /// Signs and serves everything as it now is, at the next versions.
    pub fn publish(&mut self) {
        let mut meta = Map::new();
        for (name, role) in &self.roles {
            let file: RoleName = name.parse().unwrap();
            let bytes = envelope(&role.signed(), &role.keys);
            self.repo.files.insert(file.numbered_file(role.version), bytes);
            if role.listed {
                meta.insert(file.listed_as(), json!({"version": role.version}));
            }
        }
        for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
            self.repo.bump(role);
        }
        let delegations = self.delegations.clone();
        self.repo.publish_with(|role, signed| match role {
            Role::Targets => signed["delegations"] = delegations.clone(),
            Role::Snapshot => {
                for (name, entry) in &meta {
                    signed["meta"][name] = entry.clone();
                }
            }
            _ => {}
        });
    }

    /// Replaces what is served as a delegated role's file.
    pub fn serve(&mut self, name: &str, bytes: Bytes) {
        let file = name.parse::<RoleName>().unwrap().numbered_file(self.roles[name].version);
        self.repo.files.insert(file, bytes);
    }

    pub fn refreshed(&self) -> TrustedSet {
        crate::fixture::fresh(&self.repo).set()
    }
}

/// How a search ended.
pub struct Searched {
    pub result: Result<Option<Found>, MetadataError>,
    pub set: TrustedSet,
    /// Delegated roles' files, as they were asked for.
    pub asked: Vec<String>,
}

impl Searched {
    /// The role that gave the target.
    #[track_caller]
    pub fn role(&self) -> Option<String> {
        let found = self.result.as_ref().expect("the search must succeed").as_ref();
        found.map(|found| found.role.as_ref().map_or("targets".to_owned(), ToString::to_string))
    }

    #[track_caller]
    pub fn error(&self) -> &MetadataError {
        self.result.as_ref().expect_err("the search must fail")
    }
}

pub fn search_at(set: TrustedSet, repo: &Repo, name: &str, now: UnixSeconds) -> Searched {
    let name: TargetName = name.parse().unwrap();
    let mut search = Search::start(set.clone(), name, now);
    let mut asked = Vec::new();
    while let Step::Want(want) = search.next() {
        assert_eq!(search.next(), Step::Want(want.clone()), "asking twice changes nothing");
        let answer = repo.files.get(&want.name).map_or(Answer::NotFound, |bytes| Answer::Found(bytes.clone()));
        asked.push(want.name);
        if let Err(error) = search.supply(answer) {
            assert_eq!(search.next(), Step::Done, "a failed search wants nothing");
            return Searched { result: Err(error), set: search.into_set(), asked };
        }
    }
    match search.finish() {
        Ok((set, found)) => Searched { result: Ok(found), set, asked },
        Err(error) => Searched { result: Err(error), set, asked },
    }
}

/// After a fresh refresh, now.
pub fn search(site: &Site, name: &str) -> Searched {
    search_at(site.refreshed(), &site.repo, name, NOW)
}

/// A refresh that must fail, and what it says.
pub fn refused(site: &Site) -> MetadataError {
    let mut update = Update::start(Start::FromAnchor(site.repo.anchor()), NOW);
    while let Step::Want(want) = update.next() {
        let found = site.repo.files.get(&want.name);
        if let Err(error) = update.supply(found.map_or(Answer::NotFound, |bytes| Answer::Found(bytes.clone()))) {
            return error;
        }
    }
    panic!("the refresh must fail");
}
