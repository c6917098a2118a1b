//! Seeds: the vectors, what a harness would write itself, and past finds below `regressions/`.

use std::path::{Path, PathBuf};

use colibri_metadata::canonical;
use serde_json::{Value, json};

use crate::signer::{EXPIRES, KEYS, root as root_of};

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

/// Top-level targets that leave names to others, in every form that there is.
pub fn delegations() -> Vec<Vec<u8>> {
    let keys = json!({KEYS[0].id.to_string(): KEYS[0].json, KEYS[1].id.to_string(): KEYS[1].json});
    let role = |name: &str, key: usize, terminating: bool, field: &str, covers: Value| {
        let mut role = json!({"name": name, "keyids": [KEYS[key].id], "threshold": 1, "terminating": terminating});
        role[field] = covers;
        role
    };
    let listed = [
        json!([role("rollout", 0, true, "paths", json!(["rollout/*"]))]),
        json!([role("x", 1, false, "paths", json!(["a/?", "*.far"])), role("../ü", 0, true, "paths", json!(["*/*"]))]),
        json!([role("p", 0, false, "path_hash_prefixes", json!(["0", "a1", "f", "c", "8", "5", "00ff"]))]),
        json!([]),
    ];
    let bins = [1, 4, 11, 32]
        .map(|bits| json!({"bit_length": bits, "name_prefix": "bin", "keyids": [KEYS[0].id], "threshold": 1}));
    let listed = listed.map(|roles| json!({"keys": keys, "roles": roles}));
    let bins = bins.map(|bins| json!({"keys": keys, "succinct_roles": bins}));
    let document = |delegations: Value| {
        let mut value = header("targets", "targets", &json!({}));
        value["delegations"] = delegations;
        canonical::encode(&value).expect("canonical")
    };
    with_finds("delegations", listed.into_iter().chain(bins).map(document).collect())
}

/// Eight bytes of head, then a delegation in each four: ends, what it covers, keys, terminating.
pub fn search() -> Vec<Vec<u8>> {
    let graphs: [&[u8]; 9] = [
        // The top has it.
        &[0, 0, 0, 1, 0, 0, 0, 0],
        // top → a → rollout, which has it.
        &[0x20, 0, 0, 0, 0, 0, 0, 0, 0x08, 0, 0, 0, 0x50, 1, 0, 1],
        // top → ü directly and through a, whose word ends the search or does not.
        &[0x10, 0, 0, 0, 0, 0, 0, 0, 0x08, 3, 0, 0, 0x48, 4, 0, 0],
        &[0x10, 0, 0, 0, 0, 0, 0, 0, 0x08, 0, 0, 1, 0x48, 0, 0, 0],
        // A circle.
        &[0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0, 0, 0, 0x30, 0, 0, 0, 0x03, 0, 0, 0],
        // Bins of one bit; of four.
        &[0x02, 0, 0, 0, 0, 0, 0, 0, 0x08, 0, 0, 0x80],
        &[0x04, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x18, 0, 0x80],
        // Another key signed; not listed; absent.
        &[0x01, 0, 0, 0, 2, 0, 0, 0, 0x08, 0, 0, 0],
        &[0x03, 1, 2, 0, 0, 0, 0, 0, 0x18, 0, 0, 0, 0x08, 0, 0, 0],
    ];
    with_finds("search", texts(graphs))
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

/// The sound bundle, and short inputs that are edits to it.
pub fn bundle() -> Vec<Vec<u8>> {
    let edits: [&[u8]; 7] = [
        &[0, 0, 0, 10, 1],
        &[0, 3, 0, 40, 0x80, 2, 5, 0, 9, 0],
        &[3, 9, 0, 0, b' '],
        &[5, 2, 0, 0, 0],
        &[6, 1, 0, 4, 0],
        &[7, 0, 0, 0, 0x33],
        &[4, 12, 0, 0, 0],
    ];
    let mut seeds = texts(edits);
    seeds.push(crate::bundle::sound());
    with_finds("bundle", seeds)
}

pub fn rollout() -> Vec<Vec<u8>> {
    let hash = |digit: &str| digit.repeat(64);
    let documents = [json!({"releases": [hash("1"), hash("2")], "policy": {"permille": 10}}), json!({"releases": []})];
    with_finds("rollout", texts(documents.map(|document| document.to_string())))
}

pub fn update_package() -> Vec<Vec<u8>> {
    let hash = "1".repeat(64);
    let url = format!("fuchsia-pkg://a.com/images/0?hash={hash}");
    let image = |slot: &str, kind: &str| json!({"slot": slot, "type": kind, "size": 9, "hash": hash, "url": format!("{url}#{kind}")});
    let packages = json!({"version": "1", "content": [url]});
    let update = |partitions: Value, mode: &str| {
        let images = json!({"version": "1", "contents": {"partitions": partitions, "firmware": []}});
        let mode = json!({"version": "1", "content": {"mode": mode}});
        format!("{packages}\0{images}\x001.2\0board\0{}\0{mode}", json!({"version": "1", "epoch": 2}))
    };
    let normal = json!([image("fuchsia", "zbi"), image("fuchsia", "vbmeta")]);
    let seeds = [update(normal, "normal"), update(json!([image("recovery", "zbi")]), "force-recovery")];
    with_finds("update-package", texts(seeds))
}

pub fn ota_manifest() -> Vec<Vec<u8>> {
    let blob = [&[0x0a, 32][..], &[7; 32], &[0x10, 9]].concat();
    let field = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
    let image = [vec![0x08, 0, 0x18, 0], field(0x22, &[3; 32]), field(0x2a, &blob)].concat();
    let manifest = [
        field(0x0a, b"1.2"),
        field(0x12, b"board"),
        vec![0x18, 2, 0x20, 0],
        field(0x2a, b"blobs/1"),
        field(0x32, &image),
        field(0x3a, &blob),
    ];
    with_finds("ota-manifest", vec![manifest.concat(), Vec::new()])
}

pub fn omaha() -> Vec<Vec<u8>> {
    let package = json!({"name": "update?hash=1", "required": true});
    let manifest = json!({"version": "1.2.3.4", "packages": {"package": [package]}});
    let urls = json!({"url": [{"codebase": "fuchsia-pkg://a.com/"}]});
    let check = json!({"status": "ok", "urls": urls, "manifest": manifest, "_urgent_update": true});
    let apps = json!([
        {"appid": "a", "status": "ok", "updatecheck": check},
        {"appid": "b", "status": "ok", "updatecheck": {"status": "noupdate"}},
    ]);
    let answer = json!({"response": {"protocol": "3.0", "app": apps}}).to_string();
    with_finds("omaha", texts([answer.clone(), format!(")]}}'\n{answer}")]))
}

pub fn cup() -> Vec<Vec<u8>> {
    let vector: Value = serde_json::from_slice(include_bytes!("../../vectors/cup.json")).expect("the vector is JSON");
    let etag = vector["etag"].as_str().expect("a text").to_owned();
    with_finds("cup", texts([etag.clone(), format!("W/\"{etag}\""), etag[1..].to_owned()]))
}
