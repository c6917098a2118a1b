//! A release bundle: one sound bundle is signed, and what is accepted, whatever the input, says that and nothing else.
//!
//! The input is read twice: as the archive itself, and as edits to the files of the sound bundle, which is then packed anew, so
//! that more than the archive's own structure is tried. No signing happens after the edits.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::LazyLock;

use bytes::Bytes;
use colibri_common::merkle::{self, Leaves};
use colibri_common::{BlobId, hex};
use colibri_metadata::{Start, TrustAnchor, canonical};
use colibri_package::delivery::{self, DeliveryType};
use colibri_package::far::{self, FarBytes};
use colibri_package::{AbiRevision, PackageBuild};
use colibri_release::bundle::{BUNDLE_DELIVERY_TYPE, BUNDLE_FORMAT, BundleHead, Checked, HEAD_PATH, path};
use colibri_release::{
    Availability, Bundle, EncodedForm, Missing, PackageContents, Release, ReleaseBlob, ReleaseBuilder, ReleasePackage,
    Versioning,
};
use serde_json::{Value, json};

use crate::signer::{EXPIRES, KEYS, NOW, root as root_of, sign};

/// Most edits of one input.
const EDITS_MAX: usize = 16;
/// Bytes of one edit.
const EDIT_BYTES: usize = 5;

type Files = BTreeMap<String, Bytes>;

/// The sound bundle.
struct Sound {
    files: Files,
    root: Bytes,
    release: Release,
    blobs: BTreeSet<BlobId>,
}

static SOUND: LazyLock<Sound> = LazyLock::new(Sound::new);

impl Sound {
    fn new() -> Self {
        let mut root = root_of(1, 1, 1);
        root["consistent_snapshot"] = true.into();
        let root = signed(&root);
        let mut files = Files::from([(path::metadata("1.root.json"), root.clone())]);
        let mut blobs = BTreeMap::new();
        // One blob of two leaves that compresses, one of a few bytes, and the package that names them.
        let contents: [Bytes; 2] = [vec![7; 9_000].into(), b"few".as_slice().into()];
        let app = package("app", &[("data/long", &contents[0]), ("data/few", &contents[1])], &mut blobs);
        let mut builder = ReleaseBuilder::new("p", "1.2".parse().expect("a version"));
        let text = String::from_utf8(root.to_vec()).expect("JSON is text");
        builder.repository("fuchsia-pkg://a.com".parse().expect("a repository"), text);
        builder.package(ReleasePackage {
            url: "fuchsia-pkg://a.com/app".parse().expect("a package"),
            availability: Availability::Permanent,
            versioning: Versioning::Anchored,
            hash: Some(app),
            minimum_version: None,
        });
        while let Some(missing) = builder.missing() {
            match missing {
                Missing::Contents(hash) => {
                    let meta = colibri_package::MetaFar::parse(blobs[&hash].clone()).expect("a package");
                    builder.contents(PackageContents::of(hash, &meta));
                }
                Missing::Blob(hash) => builder.blob(described(hash, &blobs[&hash])),
            }
        }
        let release = builder.finish().expect("a release");
        let document: Bytes = release.to_bytes().expect("a release is JSON").into();
        let carrier = package("carrier", &[(Release::PATH, &document)], &mut blobs);
        let head = BundleHead { format: BUNDLE_FORMAT, package: "carrier/0".parse().expect("a path"), hash: carrier };
        files.insert(HEAD_PATH.to_owned(), serde_json::to_vec(&head).expect("JSON").into());
        files.extend(metadata(carrier, &blobs[&carrier]));
        for (id, content) in &blobs {
            files.insert(path::leaves(*id), merkle::build(content).leaves.wire());
            files.insert(path::blob(*id), encoded(content));
        }
        Self { files, root, release, blobs: blobs.into_keys().collect() }
    }
}

fn signed(value: &Value) -> Bytes {
    sign(value, [&KEYS[0]]).expect("canonical").into()
}

fn encoded(content: &[u8]) -> Bytes {
    delivery::encode(content, BUNDLE_DELIVERY_TYPE, None).expect("small enough").into()
}

/// A package of these files, added with them to the blobs.
fn package(name: &str, files: &[(&str, &Bytes)], blobs: &mut BTreeMap<BlobId, Bytes>) -> BlobId {
    let mut build = PackageBuild::new(name.parse().expect("a name"), AbiRevision(7));
    for (path, content) in files {
        let id = merkle::build(content).id;
        build.add_content(path, id).expect("a path");
        blobs.insert(id, Bytes::clone(content));
    }
    let meta = build.finish().expect("a package");
    let id = merkle::build(&meta).id;
    blobs.insert(id, meta);
    id
}

fn described(hash: BlobId, content: &[u8]) -> ReleaseBlob {
    let encoded = encoded(content);
    let leaves = merkle::build(content).leaves;
    let layout = delivery::Layout::from_unit_h(BUNDLE_DELIVERY_TYPE, leaves, &encoded).expect("our own");
    let identity = layout.identity().expect("a delivery blob has one");
    let form = EncodedForm { ty: DeliveryType::Type1, bytes: encoded.len() as u64, identity };
    ReleaseBlob { hash, raw_bytes: content.len() as u64, encoded: vec![form] }
}

/// The current set: targets with the carrier, and a delegated role.
fn metadata(carrier: BlobId, meta_far: &[u8]) -> Files {
    let head = |ty: &str, version: u64, field: &str, value: Value| json!({"_type": ty, "spec_version": "1.0", "version": version, "expires": EXPIRES, field: value});
    let target = json!({
        "length": meta_far.len(), "hashes": {"sha256": hex(merkle::sha256(meta_far).as_ref())},
        "custom": {"merkle": carrier, "size": meta_far.len()},
    });
    let mut targets = head("targets", 3, "targets", json!({"carrier/0": target}));
    targets["delegations"] = json!({
        "keys": {KEYS[1].id.to_string(): KEYS[1].json},
        "roles": [{"name": "rollout", "keyids": [KEYS[1].id], "threshold": 1, "terminating": true, "paths": ["rollout/*"]}],
    });
    let rollout = sign(&head("targets", 4, "targets", json!({})), [&KEYS[1]]).expect("canonical");
    let listed = json!({"targets.json": {"version": 3}, "rollout.json": {"version": 4}});
    let named = json!({"snapshot.json": {"version": 2}});
    [
        ("timestamp.json", signed(&head("timestamp", 1, "meta", named))),
        ("2.snapshot.json", signed(&head("snapshot", 2, "meta", listed))),
        ("3.targets.json", signed(&targets)),
        ("4.rollout.json", rollout.into()),
    ]
    .map(|(name, bytes)| (path::metadata(name), bytes))
    .into()
}

/// The sound bundle as an archive.
pub fn sound() -> Vec<u8> {
    far::to_bytes(&SOUND.files).expect("names of files")
}

fn check(archive: &[u8]) -> Option<Checked> {
    let start = Start::FromAnchor(TrustAnchor::RootFile(SOUND.root.clone()));
    Bundle::open(Cursor::new(archive)).ok()?.check(start, NOW).ok()
}

/// The input as a bundle, and as edits to one.
pub fn bundle(data: &[u8]) {
    if let Some(checked) = check(data) {
        accepted(data, &checked);
    }
    edited(data);
}

/// What was accepted is what was signed, and its blobs are what their ids say.
fn accepted(archive: &[u8], checked: &Checked) {
    assert_eq!(checked.release, SOUND.release);
    assert_eq!(checked.blobs, SOUND.blobs);
    let archive = FarBytes::parse(Bytes::copy_from_slice(archive)).expect("it was opened");
    for id in &checked.blobs {
        let file = |name: String| archive.get(name.as_bytes()).expect("a needed blob is there");
        let content = delivery::decode_verified(*id, &file(path::blob(*id))).expect("it is the blob of its id");
        let leaves = Leaves::check(*id, file(path::leaves(*id))).expect("they are its leaves");
        assert_eq!(leaves.wire(), merkle::build(&content).leaves.wire());
    }
    let blobs = archive.entries().iter().filter(|entry| entry.name().starts_with(path::BLOBS.as_bytes()));
    assert_eq!(blobs.count(), checked.blobs.len(), "no other blob is carried");
    let signed_part = |bytes: &[u8]| canonical::parse(bytes).expect("metadata is JSON")["signed"].clone();
    let said: Vec<Value> =
        SOUND.files.iter().filter(|(name, _)| name.starts_with(path::METADATA)).map(|(_, f)| signed_part(f)).collect();
    assert_eq!(checked.set.files().count(), said.len());
    for (name, bytes) in checked.set.files() {
        assert!(said.contains(&signed_part(bytes)), "{name} was not signed");
    }
}

/// The sound bundle after the edits that the input describes.
fn edited(data: &[u8]) {
    let mut files = SOUND.files.clone();
    for edit in data.as_chunks::<EDIT_BYTES>().0.iter().take(EDITS_MAX) {
        apply(edit, &mut files);
    }
    let is_whole = SOUND.files.keys().all(|name| files.contains_key(name));
    let archive = far::to_bytes(&files).expect("names of files");
    match check(&archive) {
        Some(checked) => {
            assert!(is_whole, "accepted without one of its files: {data:02x?}");
            accepted(&archive, &checked);
        }
        None => assert!(files != SOUND.files, "the sound bundle was refused"),
    }
}

/// One edit: what to do, to which file, where (two bytes), and with what.
fn apply([what, which, high, low, with]: &[u8; EDIT_BYTES], files: &mut Files) {
    let Some(name) = files.keys().nth(usize::from(*which) % files.len().max(1)).cloned() else { return };
    let mut content = files[&name].to_vec();
    let at = usize::from(u16::from_be_bytes([*high, *low]));
    match what % 8 {
        0 | 1 => {
            let Some(byte) = content.get_mut(at) else { return };
            *byte ^= with;
        }
        2 => content.truncate(at),
        3 => content.insert(at.min(content.len()), *with),
        4 => content.extend_from_slice(&[*with; 40]),
        5 => {
            files.remove(&name);
            return;
        }
        // The content of another file.
        6 => content = files.values().nth(at % files.len()).expect("a number of a file").to_vec(),
        _ => {
            let digest = hex(&[*with; 32]);
            let folder = [path::BLOBS, path::LEAVES, path::METADATA, "other/"][at % 4];
            files.insert(format!("{folder}{digest}"), content.into());
            return;
        }
    }
    files.insert(name, content.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_bundle_is_accepted_and_edits_are_not() {
        accepted(&sound(), &check(&sound()).expect("sound"));
        for which in 0..SOUND.files.len() {
            let mut files = SOUND.files.clone();
            apply(&[5, u8::try_from(which).expect("few files"), 0, 0, 0], &mut files);
            assert!(check(&far::to_bytes(&files).expect("names")).is_none(), "without file {which}");
        }
    }
}
