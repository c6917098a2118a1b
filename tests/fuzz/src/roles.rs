//! Each role through the whole client workflow: the input becomes the signed part of that role's file, the rest is sound.
//!
//! What the client believes must be what the input says, in the version asked for, fresh, of the right type; bytes that
//! nobody signed are never believed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use colibri_metadata::{Answer, Role, Start, Step, TargetName, TrustAnchor, TrustedSet, Update, canonical};
use serde_json::{Value, json};

use crate::signer::{EXPIRES, KEYS, NOW, NOW_TEXT, root as root_of, sign};

/// The signed part of a sound file.
fn sound(role: Role, version_below: u64) -> Value {
    match role {
        Role::Root => root_of(2, 1, 1),
        Role::Timestamp => json!({
            "_type": "timestamp", "spec_version": "1.0", "version": 1, "expires": EXPIRES,
            "meta": {"snapshot.json": {"version": version_below}},
        }),
        Role::Snapshot => json!({
            "_type": "snapshot", "spec_version": "1.0", "version": 1, "expires": EXPIRES,
            "meta": {"targets.json": {"version": version_below}},
        }),
        Role::Targets => json!({
            "_type": "targets", "spec_version": "1.0", "version": 1, "expires": EXPIRES, "targets": {},
        }),
    }
}

fn signed(value: &Value) -> Option<Bytes> {
    Some(sign(value, [&KEYS[0]])?.into())
}

static FIRST_ROOT: LazyLock<Bytes> = LazyLock::new(|| signed(&root_of(1, 1, 1)).expect("a root"));

/// One refresh over `files`; what was proven, and whether all of it was.
pub(crate) fn refresh(files: &BTreeMap<String, Bytes>) -> (TrustedSet, bool) {
    let start = Start::FromAnchor(TrustAnchor::RootFile(FIRST_ROOT.clone()));
    let mut update = Update::start(start, NOW);
    while let Step::Want(want) = update.next() {
        let answer = files.get(&want.name).map_or(Answer::NotFound, |bytes| Answer::Found(bytes.clone()));
        if update.supply(answer).is_err() {
            let floor = update.into_floor().expect("the first root stays");
            return (floor, false);
        }
    }
    (update.finish().expect("no step failed"), true)
}

/// The files of a repository in which `role` is `file`, and the roles above it fit.
fn repository(role: Role, file: Bytes, version: u64) -> BTreeMap<String, Bytes> {
    let below = |of: Role| if role == of { version } else { 1 };
    let mut files = BTreeMap::new();
    for (other, below) in
        [(Role::Timestamp, below(Role::Snapshot)), (Role::Snapshot, below(Role::Targets)), (Role::Targets, 0)]
    {
        let bytes = signed(&sound(other, below)).expect("sound");
        files.insert(other.file().to_owned(), bytes);
    }
    let name = if role == Role::Root { role.numbered_file(2) } else { role.file().to_owned() };
    files.insert(name, file);
    files
}

fn version_of(set: &TrustedSet, role: Role) -> Option<u64> {
    set.version(role).map(u64::from)
}

/// The set and the input, if the client believed it.
fn believed(role: Role, data: &[u8]) -> Option<(TrustedSet, Value)> {
    // As it is: there is no signature of ours in it.
    let (set, whole) = refresh(&repository(role, Bytes::copy_from_slice(data), 1));
    let before = (role == Role::Root).then_some(1);
    assert!(!whole || role == Role::Root, "unsigned bytes were believed");
    assert_eq!(version_of(&set, role), before, "unsigned bytes were believed");
    // Signed.
    let value = canonical::parse(data).ok()?;
    let file = signed(&value)?;
    let version = value.get("version").and_then(Value::as_u64).unwrap_or(1);
    let (set, whole) = refresh(&repository(role, file.clone(), version));
    if version_of(&set, role) == before {
        assert!(!whole || role == Role::Root, "a whole set has all roles");
        return None;
    }
    assert_eq!(version_of(&set, role), Some(version));
    assert_eq!(value["_type"], json!(role.name()));
    // "1" alone is how the Fuchsia document writes it.
    assert!(value["spec_version"].as_str().is_some_and(|version| version == "1" || version.starts_with("1.")));
    let stored = set.files().find(|(name, _)| *name == role.file()).map(|(_, bytes)| bytes.clone());
    assert_eq!(stored, Some(file), "kept byte for byte");
    if whole {
        // Dates of the form that metadata has sort as text.
        assert!(value["expires"].as_str().is_some_and(|expires| expires > NOW_TEXT), "fresh");
        let again = TrustedSet::load(set.files().map(|(name, bytes)| (name, bytes.clone()))).expect("a set is a set");
        assert!(again.set_aside().is_empty() && again.is_whole());
    }
    Some((set, value))
}

/// The root after the first.
pub fn root(data: &[u8]) {
    let Some((set, value)) = believed(Role::Root, data) else { return };
    assert_eq!(set.root().version(), 2);
    let threshold = &value["roles"]["root"]["threshold"];
    assert_eq!(Some(u64::from(set.root().role_keys(Role::Root).threshold)), threshold.as_u64());
    let listed = value["roles"]["root"]["keyids"].as_array().expect("a list of key ids");
    assert!(listed.contains(&json!(KEYS[0].id)), "the key that signed it is one of its own");
}

/// The timestamp.
pub fn timestamp(data: &[u8]) {
    let Some((set, value)) = believed(Role::Timestamp, data) else { return };
    let snapshot = value["meta"]["snapshot.json"]["version"].as_u64();
    assert_eq!(set.timestamp().map(|timestamp| u64::from(timestamp.snapshot().version)), snapshot);
}

/// The snapshot.
pub fn snapshot(data: &[u8]) {
    let Some((set, value)) = believed(Role::Snapshot, data) else { return };
    let meta = set.snapshot().expect("believed").meta();
    for (name, said) in value["meta"].as_object().expect("an object") {
        assert_eq!(meta.get(name.as_str()).map(|meta| u64::from(meta.version)), said["version"].as_u64());
    }
}

/// The top-level targets.
pub fn targets(data: &[u8]) {
    let Some((set, value)) = believed(Role::Targets, data) else { return };
    for (name, said) in value["targets"].as_object().expect("an object") {
        let name: TargetName = name.parse().expect("accepted targets have target names");
        let found = set.find(&name).expect("a target of a whole set is found");
        assert_eq!(Some(found.length), said["length"].as_u64());
        let merkle = said.get("custom").and_then(|custom| custom.get("merkle")).and_then(Value::as_str);
        assert_eq!(found.merkle(), merkle.and_then(|text| text.parse().ok()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    /// A harness that never lets anything through would hold every property.
    #[test]
    fn what_is_sound_is_believed() {
        for (role, seeds) in [
            (Role::Root, seeds::root()),
            (Role::Timestamp, seeds::timestamp()),
            (Role::Snapshot, seeds::snapshot()),
            (Role::Targets, seeds::targets()),
        ] {
            assert!(seeds.iter().any(|seed| believed(role, seed).is_some()), "{role}");
        }
    }
}
