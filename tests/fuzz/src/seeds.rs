//! Seeds: the vectors, what a harness would write itself, and past finds below `regressions/`.

use std::path::{Path, PathBuf};

use colibri_metadata::canonical;
use serde_json::{Value, json};

use crate::signer::{EXPIRES, root as root_of};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors")
}

/// The files of a folder, sorted by name; none if there is no such folder.
fn files(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let chosen = paths.iter().filter(|path| wanted(&name(path)));
    chosen.map(|path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).collect()
}

/// Past finds of a target, and these.
fn with_finds(target: &str, mut seeds: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let finds = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target);
    seeds.extend(files(&finds, |_| true));
    seeds
}

fn texts<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    texts.into_iter().map(|text| text.as_ref().to_vec()).collect()
}

fn metadata() -> Vec<Vec<u8>> {
    files(&vectors().join("tuf-repo"), |name| name.ends_with(".json"))
}

/// The signed part of each metadata file of the vectors that has this type.
fn signed_parts(ty: &str) -> Vec<Vec<u8>> {
    let part = |file: Vec<u8>| canonical::parse(&file).ok()?.get("signed").cloned();
    let of_type = metadata().into_iter().filter_map(part).filter(|part| part["_type"] == ty);
    of_type.map(|part| canonical::encode(&part).expect("signed parts are canonical")).collect()
}

/// The vectors' part and one that the harness would believe, which the fuzzer can vary from.
fn role(target: &str, ty: &str, believable: &Value) -> Vec<Vec<u8>> {
    let mut seeds = signed_parts(ty);
    seeds.push(canonical::encode(believable).expect("canonical"));
    seeds.extend(metadata().into_iter().take(1));
    with_finds(target, seeds)
}

pub fn canonical() -> Vec<Vec<u8>> {
    let mut seeds = metadata();
    seeds.extend(files(&vectors(), |name| name.ends_with(".json")));
    let odd = [
        r#"{"b":[1,-2,true,null],"a":{"z":"\"\\\n\u0001é","y":18446744073709551615}}"#,
        "[-9223372036854775808,\"\\ud83d\\ude00\"]",
    ];
    seeds.extend(texts(odd));
    with_finds("canonical", seeds)
}

pub fn root() -> Vec<Vec<u8>> {
    role("root", "root", &root_of(2, 1, 1))
}

pub fn timestamp() -> Vec<Vec<u8>> {
    let meta = json!({"snapshot.json": {"version": 1, "length": 10, "hashes": {"sha512": "00".repeat(64)}}});
    role("timestamp", "timestamp", &header("timestamp", "meta", &meta))
}

pub fn snapshot() -> Vec<Vec<u8>> {
    let meta = json!({"targets.json": {"version": 1}, "rollout.json": {"version": 7, "length": 9}});
    role("snapshot", "snapshot", &header("snapshot", "meta", &meta))
}

pub fn targets() -> Vec<Vec<u8>> {
    let custom = json!({"merkle": "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b", "size": 5});
    let target = json!({"length": 5, "hashes": {"sha256": "00".repeat(32)}, "custom": custom});
    role("targets", "targets", &header("targets", "targets", &json!({"a/0": target, "ü \"\\": target})))
}

fn header(ty: &str, field: &str, value: &Value) -> Value {
    json!({"_type": ty, "spec_version": "1.0", "version": 3, "expires": EXPIRES, field: value})
}

pub fn root_chain() -> Vec<Vec<u8>> {
    let chains: [&[u8]; 5] = [
        &[3, 1, 3, 0],
        &[3, 2, 3, 0, 12, 2, 15, 0, 12, 1, 4, 0],
        &[3, 2, 3, 0, 3, 1, 1, 0],
        &[1, 1, 1, 1, 3, 0, 3, 2],
        &[15, 5, 15, 0xf2, 15, 4, 15, 0, 1, 1, 15, 0, 1, 1, 1, 0],
    ];
    with_finds("root-chain", texts(chains))
}

pub fn target_name() -> Vec<Vec<u8>> {
    let names = [
        "a",
        "package1/0",
        "..a/b..",
        "a/...",
        "ü/x y",
        "a\\b",
        "\"quoted\"",
        "rollout/x",
        "a//b",
        "a/../b",
        "/a",
        "a/",
    ];
    with_finds("target-name", texts(names))
}

pub fn manifest() -> Vec<Vec<u8>> {
    let hash = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";
    let seeds = texts([
        "meta/package=out/package\nbin/x = host/x\n\nno separator\nlib/a=b=c\n".to_owned(),
        r#"{"version":"1","content":{"/":{"bin/x":"host/x"},"/meta/":{"package":"out/package"}}}"#.to_owned(),
        format!("bin/x={hash}\nlib/y={hash}\n"),
        r#"{"name":"package1","version":"0"}"#.to_owned(),
        format!(r#"{{"version":"1","subpackages":{{"sub":"{hash}"}}}}"#),
        r#"{"version":"1","content":{"manifests":["a.json"],"paths_relative":"file"}}"#.to_owned(),
        format!(
            r#"{{"version":"1","repository":"a.com","package":{{"name":"p","version":"0"}},"blobs":[{{"source_path":"meta.far","path":"meta/","merkle":"{hash}","size":0}}],"blob_sources_relative":"file","subpackages":[{{"name":"s","merkle":"{hash}","manifest_path":"s.json"}}],"delivery_blob_type":1}}"#
        ),
        format!(r#"[{{"name":"s","merkle_file":"m","package_manifest_file":"p.json","x":"{hash}"}}]"#),
    ]);
    with_finds("manifest", seeds)
}

pub fn far() -> Vec<Vec<u8>> {
    with_finds("far", files(&vectors(), |name| name.ends_with(".far")))
}

pub fn delivery() -> Vec<Vec<u8>> {
    with_finds("delivery", files(&vectors(), |name| name.ends_with(".blob")))
}

/// Every string in the tables of URLs, accepted and refused.
pub fn url() -> Vec<Vec<u8>> {
    fn strings(value: &Value, found: &mut Vec<Vec<u8>>) {
        match value {
            Value::String(text) => found.push(text.as_bytes().to_vec()),
            Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
            Value::Object(map) => map.values().for_each(|item| strings(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for file in files(&vectors(), |name| name == "url.json") {
        strings(&serde_json::from_slice(&file).expect("url.json is JSON"), &mut found);
    }
    with_finds("url", found)
}

pub fn release() -> Vec<Vec<u8>> {
    let root = std::fs::read_to_string(vectors().join("tuf-repo/1.root.json")).expect("the vectors' root");
    let hash = |digit: &str| digit.repeat(64);
    let form = |ty| json!({"type": ty, "bytes": 40, "identity": hash("0")});
    let blob = |digit, encoded: Value| json!({"hash": hash(digit), "raw_bytes": 90, "encoded": encoded});
    let package = |name: &str, availability: &str, versioning: &str, hash: Value| json!({"url": format!("fuchsia-pkg://a.com/{name}"), "availability": availability, "versioning": versioning, "hash": hash});
    let document = json!({
        "format": 1, "product": "p", "version": "1.2",
        "repositories": [{"url": "fuchsia-pkg://a.com", "root": root}],
        "packages": [
            package("a", "permanent", "anchored", json!(hash("1"))),
            package("b/0", "automatic", "upgradable", Value::Null),
        ],
        "discoverable": [{"url": "fuchsia-pkg://a.com"}],
        "contents": [
            {"hash": hash("1"), "blobs": [hash("2")], "subpackages": [{"name": "s", "hash": hash("3")}]},
            {"hash": hash("3"), "blobs": []},
        ],
        "blobs": [blob("1", json!([form(1), form(2)])), blob("2", json!([form(1)])), blob("3", json!([form(2)]))],
    });
    let text = serde_json::to_vec(&document).expect("JSON");
    assert!(colibri_release::Release::parse(&text).is_ok(), "the seed is a release");
    with_finds("release", vec![text])
}

pub fn rollout() -> Vec<Vec<u8>> {
    let hash = |digit: &str| digit.repeat(64);
    let documents = [json!({"releases": [hash("1"), hash("2")], "policy": {"permille": 10}}), json!({"releases": []})];
    with_finds("rollout", texts(documents.map(|document| document.to_string())))
}
