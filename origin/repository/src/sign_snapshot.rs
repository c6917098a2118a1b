//! What a snapshot lists, carried on from the one before straight in canonical form: a repository with hash bins lists thousands
//! of files, of which a publish changes one.
//!
//! Deliberately absent: which files change (`offer`), the other fields and the signature (`draft`, `roles`).

use std::collections::BTreeMap;

use colibri_common::hex;
use colibri_metadata::{FileMeta, Role, TrustedSet};
use serde_json::{Map, Value};

use crate::error::RepositoryError;
use crate::keys::KeyRole;
use crate::roles;
use crate::sign_targets::write_text;

/// How a field that is an object begins in canonical form.
const META: &[u8] = b"\"meta\":";

/// The parts of the next snapshot.
#[derive(Debug)]
pub(crate) struct CarriedOn {
    /// Everything in it but what it lists, as the committed one says it.
    pub rest: Map<String, Value>,
    /// What it lists, in canonical form.
    pub meta: Vec<u8>,
}

/// What the next snapshot says of files, in canonical form, and what else the committed one says; nothing if that cannot be
/// read.
pub(crate) fn carry_on(
    committed: &TrustedSet,
    listed: &Map<String, Value>,
) -> Result<Option<CarriedOn>, RepositoryError> {
    let Some(snapshot) = committed.snapshot() else { return Ok(None) };
    let file = committed.files().find(|(name, _)| *name == Role::Snapshot.file());
    let Some((_, file)) = file else { return Ok(None) };
    let kept = write(snapshot.meta(), &Map::new())?;
    if let Some(rest) = without(file, &kept) {
        return Ok(Some(CarriedOn { rest, meta: write(snapshot.meta(), listed)? }));
    }
    // Another program wrote it, in another form or with more in it than we know.
    let Some(mut signed) = roles::signed_part(file) else { return Ok(None) };
    let Some(Value::Object(mut meta)) = signed.remove("meta") else { return Ok(None) };
    meta.extend(listed.clone());
    let meta = Value::Object(meta);
    let role = KeyRole::Snapshot;
    roles::check_text(&meta).map_err(|reason| RepositoryError::Unsignable { role, reason })?;
    Ok(Some(CarriedOn { rest: signed, meta: roles::encode(role, &meta)? }))
}

/// The signed part of a file but for what it lists, if `meta` is all that it lists, byte for byte.
fn without(file: &[u8], meta: &[u8]) -> Option<Map<String, Value>> {
    let listed = [META, meta].concat();
    let at = file.windows(listed.len()).position(|window| window == listed)?;
    let small = [&file[..at], META, b"{}", &file[at + listed.len()..]].concat();
    let mut signed = roles::signed_part(&small)?;
    // Another field might hold the same.
    let is_empty = |meta: Value| meta.as_object().is_some_and(Map::is_empty);
    signed.remove("meta").is_some_and(is_empty).then_some(signed)
}

/// `meta` with what is `listed` instead of what it says of the same files.
fn write(meta: &BTreeMap<String, FileMeta>, listed: &Map<String, Value>) -> Result<Vec<u8>, RepositoryError> {
    let mut files: BTreeMap<&str, Option<&FileMeta>> =
        meta.iter().map(|(name, meta)| (name.as_str(), Some(meta))).collect();
    files.extend(listed.keys().map(|name| (name.as_str(), None)));
    let mut out = Vec::with_capacity(files.len() * 32);
    out.push(b'{');
    for (index, (name, meta)) in files.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(name, "the name of a file", &mut out)?;
        out.push(b':');
        match meta {
            Some(meta) => write_meta(meta, &mut out),
            None => out.extend_from_slice(&roles::encode(KeyRole::Snapshot, &listed[name])?),
        }
    }
    out.push(b'}');
    Ok(out)
}

/// METAFILES of one file (specification §4.4).
fn write_meta(meta: &FileMeta, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(hashes) = &meta.hashes {
        out.extend_from_slice(b"\"hashes\":{");
        let listed = [("sha256", &hashes.sha256), ("sha512", &hashes.sha512)];
        let listed = listed.into_iter().filter_map(|(name, hash)| Some((name, hash.as_ref()?)));
        let listed: Vec<_> = listed.map(|(name, hash)| format!("\"{name}\":\"{}\"", hex(hash))).collect();
        out.extend_from_slice(listed.join(",").as_bytes());
        out.extend_from_slice(b"},");
    }
    if let Some(length) = meta.length {
        out.extend_from_slice(format!("\"length\":{length},").as_bytes());
    }
    out.extend_from_slice(b"\"version\":");
    out.extend_from_slice(meta.version.to_string().as_bytes());
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use colibri_metadata::canonical;
    use serde_json::json;

    use super::*;

    fn meta(value: &Value) -> BTreeMap<String, FileMeta> {
        let unhex =
            |value: &Value, name: &str| value.get("hashes")?.get(name)?.as_str().and_then(colibri_common::unhex);
        let meta = |value: &Value| FileMeta {
            version: value["version"].as_u64().unwrap() as u32,
            length: value.get("length").and_then(Value::as_u64),
            hashes: value
                .get("hashes")
                .map(|_| colibri_metadata::Hashes { sha256: unhex(value, "sha256"), sha512: unhex(value, "sha512") }),
        };
        value.as_object().unwrap().iter().map(|(name, value)| (name.clone(), meta(value))).collect()
    }

    /// What is written straight is what the canonical encoder makes of the tree.
    #[test]
    fn a_list_is_carried_on_byte_for_byte() {
        let before = json!({
            "targets.json": {"version": 7, "length": 12, "hashes": {"sha512": "ab".repeat(64), "sha256": "cd".repeat(32)}},
            "bin-000.json": {"version": 1},
            "a \"b\" \u{1F426}.json": {"version": 4_294_967_295_u32, "length": 0},
            "ﬀ.json": {"version": 2, "hashes": {"sha256": "00".repeat(32)}},
        });
        let listed = json!({"bin-000.json": {"version": 2}, "new.json": {"version": 1, "length": 3}});
        let mut after = before.as_object().unwrap().clone();
        after.extend(listed.as_object().unwrap().clone());
        let written = write(&meta(&before), listed.as_object().unwrap()).unwrap();
        assert_eq!(written, canonical::encode(&Value::Object(after)).unwrap());
        let kept = write(&meta(&before), &Map::new()).unwrap();
        assert_eq!(kept, canonical::encode(&before).unwrap());
        assert!(write(&meta(&json!({"a\n": {"version": 1}})), &Map::new()).is_err());
    }

    #[test]
    fn what_else_a_snapshot_says_is_kept_and_what_is_not_understood_is_not_lost() {
        let listed = json!({"targets.json": {"version": 1}});
        let kept = write(&meta(&listed), &Map::new()).unwrap();
        let file = |signed: &Value| canonical::encode(&json!({"signatures": [], "signed": signed})).unwrap();
        let plain =
            json!({"custom": {"text": "\"meta\":{\"targets.json\":{\"version\":1}}"}, "meta": listed, "x": [1]});
        let rest = without(&file(&plain), &kept).unwrap();
        let mut expected = plain.as_object().unwrap().clone();
        expected.remove("meta");
        assert_eq!(rest, expected);
        // More in the list, or the same list elsewhere: the tree is asked.
        for other in [
            json!({"meta": {"targets.json": {"version": 1, "other": 2}}}),
            json!({"custom": {"meta": listed}, "meta": listed}),
            json!({"custom": {"meta": listed}}),
        ] {
            assert_eq!(without(&file(&other), &kept), None, "{other}");
        }
        let pretty = serde_json::to_vec_pretty(&json!({"signatures": [], "signed": plain})).unwrap();
        assert_eq!(without(&pretty, &kept), None);
    }
}
