//! Delegations as a document: the input is the signed part of the top-level targets, and the search follows what it says.
//!
//! Held against the input itself: who covers a name first, by matchers that are slow and obvious, and whether that role's keys
//! signed. Every delegated role that is asked for exists and has the target, so the first that covers the name is the answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_common::{hex, merkle};
use colibri_metadata::{Answer, Delegations, PublicKey, Role, RoleName, Search, Step, TargetName, canonical};
use serde_json::{Map, Value, json};

use crate::roles::refresh;
use crate::signer::{EXPIRES, KEYS, NOW, sign};

/// Names that are searched for.
const NAMES: [&str; 4] = ["a/0", "rollout/x", "ü \"\\", "b/c/d.far"];

/// How long the file of the target is that every delegated role has.
const LENGTH: u64 = 77;

/// The document, its delegations, and a search for each name.
pub fn delegations(data: &[u8]) {
    let Ok(value) = canonical::parse(data) else { return };
    // Which roles a snapshot must list is known only after reading: once without them, once with.
    let Some(listed) = roles_of(&value) else { return };
    let Some(files) = repository(&value, &listed) else { return };
    let (set, whole) = refresh(&files);
    let (true, Some(delegations)) = (whole, set.targets().and_then(|targets| targets.delegations())) else { return };
    reads_as_written(delegations, &value["delegations"]);
    for name in NAMES {
        let target: TargetName = name.parse().expect("a target name");
        let expected = expected(delegations, &value, &target);
        let mut search = Search::start(set.clone(), target, NOW);
        while let Step::Want(want) = search.next() {
            let role = RoleName::of_file(&want.name).expect("a delegated role's file");
            assert!(listed.contains(&role), "{role:?} is not listed");
            if search.supply(Answer::Found(delegated_role())).is_err() {
                break;
            }
        }
        let found = match search.finish() {
            Ok((_, Some(found))) => Outcome::Found(found.role, found.target.length),
            Ok((_, None)) => Outcome::Nothing,
            Err(_) => Outcome::Refused,
        };
        assert_eq!(found, expected, "{name:?}");
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Found(Option<RoleName>, u64),
    Nothing,
    Refused,
}

/// A role that has every target of [`NAMES`], signed by the first key.
fn delegated_role() -> Bytes {
    let target = json!({"length": LENGTH, "hashes": {"sha256": "00".repeat(32)}});
    let targets: Map<String, Value> = NAMES.iter().map(|name| ((*name).to_owned(), target.clone())).collect();
    let role = json!({"_type": "targets", "spec_version": "1.0", "version": 1, "expires": EXPIRES, "targets": targets});
    sign(&role, [&KEYS[0]]).expect("canonical").into()
}

/// The delegated roles that one of the names may lead to; nothing if the document is not believed at all.
fn roles_of(value: &Value) -> Option<Vec<RoleName>> {
    let (set, whole) = refresh(&repository(value, &[])?);
    let delegations = set.targets().filter(|_| whole)?.delegations()?;
    let mut roles: Vec<RoleName> = delegations.roles().iter().map(|role| role.name.clone()).collect();
    let bins = delegations.succinct_roles();
    roles.extend(bins.iter().flat_map(|bins| NAMES.map(|name| bins.role_of(&name.parse().expect("a target name")))));
    Some(roles)
}

/// A repository with this top-level targets; nothing if it has no canonical form.
fn repository(targets: &Value, listed: &[RoleName]) -> Option<BTreeMap<String, Bytes>> {
    let version = targets.get("version").and_then(Value::as_u64).unwrap_or(1);
    let mut meta: Map<String, Value> = listed.iter().map(|role| (role.listed_as(), json!({"version": 1}))).collect();
    meta.insert("targets.json".to_owned(), json!({"version": version}));
    let head = |ty: &str, meta: Value| json!({"_type": ty, "spec_version": "1.0", "version": 1, "expires": EXPIRES, "meta": meta});
    let snapshot = head("snapshot", meta.into());
    let timestamp = head("timestamp", json!({"snapshot.json": {"version": 1}}));
    let files = [(Role::Targets, targets), (Role::Snapshot, &snapshot), (Role::Timestamp, &timestamp)];
    let files = files.map(|(role, value)| Some((role.file().to_owned(), sign(value, [&KEYS[0]])?.into())));
    files.into_iter().collect()
}

/// Every delegation is one of the document, in its order, with nothing added or lost.
fn reads_as_written(delegations: &Delegations, value: &Value) {
    if let Some(bins) = delegations.succinct_roles() {
        let said = &value["succinct_roles"];
        assert_eq!(
            (said["bit_length"].as_u64(), said["name_prefix"].as_str()),
            (Some(bins.bit_length.into()), Some(&*bins.name_prefix))
        );
        assert!(value.get("roles").is_none() && delegations.roles().is_empty());
        return;
    }
    let said = value["roles"].as_array().expect("roles, if there are no bins");
    assert_eq!(said.len(), delegations.roles().len());
    let mut files = Vec::new();
    for (said, role) in said.iter().zip(delegations.roles()) {
        assert_eq!(said["name"].as_str(), Some(role.name.as_str()));
        assert_eq!(said["terminating"].as_bool(), Some(role.terminating));
        assert_eq!(said["threshold"].as_u64(), Some(role.keys.threshold.into()));
        let ids: Vec<&str> = role.keys.key_ids.iter().map(colibri_metadata::KeyId::as_str).collect();
        assert_eq!(said["keyids"], json!(ids));
        assert_eq!(delegations.role_keys(&role.name), Some(&role.keys));
        let file = role.name.file();
        assert!(!file.contains('/') && Role::ALL.iter().all(|top| top.file() != file), "{file}");
        assert_eq!(RoleName::of_file(&file).as_ref(), Some(&role.name));
        files.push(file);
    }
    let count = files.len();
    files.sort();
    files.dedup();
    assert_eq!(files.len(), count, "two roles have one file");
}

/// What a search for `name` comes to.
fn expected(delegations: &Delegations, value: &Value, name: &TargetName) -> Outcome {
    if let Some(target) = value["targets"].get(name.as_str()) {
        return Outcome::Found(None, target["length"].as_u64().expect("believed"));
    }
    let digest = hex(merkle::sha256(name.as_str().as_bytes()).as_ref());
    let (role, keys) = if let Some(bins) = delegations.succinct_roles() {
        (bin(&digest, bins.bit_length, &bins.name_prefix), &value["delegations"]["succinct_roles"])
    } else {
        let roles = value["delegations"]["roles"].as_array().expect("read");
        let Some(role) = roles.iter().find(|role| covers(role, name.as_str(), &digest)) else {
            return Outcome::Nothing;
        };
        (role["name"].as_str().expect("read").to_owned(), role)
    };
    let ours = KEYS[0].id.to_string();
    let is_named = keys["keyids"].as_array().is_some_and(|ids| ids.contains(&json!(ours)));
    let key = value["delegations"]["keys"].get(&ours).and_then(|key| PublicKey::from_json(key).ok());
    let is_ours = key == PublicKey::from_json(&KEYS[0].json).ok();
    if is_named && is_ours && keys["threshold"] == 1 {
        return Outcome::Found(role.parse().ok(), LENGTH);
    }
    Outcome::Refused
}

/// The bin, by the bits of the digest one after another.
fn bin(digest: &str, bits: u32, prefix: &str) -> String {
    let digit = |at: usize| u64::from_str_radix(&digest[at..=at], 16).expect("hex");
    let number = (0..bits as usize).fold(0, |number, bit| number * 2 + (digit(bit / 4) >> (3 - bit % 4) & 1));
    let digits = (bits as usize).div_ceil(4);
    format!("{prefix}-{number:0digits$x}")
}

fn covers(role: &Value, name: &str, digest: &str) -> bool {
    let texts = |field: &str| role.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("read").to_owned();
    texts("paths").iter().any(|pattern| matches(&text(pattern), name))
        || texts("path_hash_prefixes").iter().any(|prefix| digest.starts_with(&text(prefix)))
}

/// A table of which beginnings of the pattern match which beginnings of the name.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let mut row = vec![false; name.len() + 1];
    row[0] = true;
    for wanted in pattern {
        let mut next = vec![false; name.len() + 1];
        next[0] = wanted == '*' && row[0];
        for (at, found) in name.iter().enumerate() {
            next[at + 1] = match wanted {
                '*' => row[at + 1] || (next[at] && *found != '/'),
                '?' => row[at] && *found != '/',
                _ => row[at] && wanted == *found,
            };
        }
        row = next;
    }
    row[name.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    /// A harness that never lets anything through would hold every property.
    #[test]
    fn the_seeds_lead_to_delegated_roles() {
        let found = |seed: &Vec<u8>| {
            let value = canonical::parse(seed).expect("JSON");
            let listed = roles_of(&value).expect("believed");
            let (set, _) = refresh(&repository(&value, &listed).expect("canonical"));
            let delegations = set.targets().expect("believed").delegations().expect("some").clone();
            NAMES.iter().any(|name| {
                matches!(expected(&delegations, &value, &name.parse().expect("a name")), Outcome::Found(Some(_), _))
            })
        };
        assert!(seeds::delegations().iter().filter(|seed| found(seed)).count() >= 3);
        assert!(matches("a*b?", "axxbc") && !matches("a*", "a/") && matches("*/?", "x/y") && !matches("?", "ab"));
        assert_eq!(bin("55ae75d9", 11, "bin"), "bin-2ad");
    }
}
