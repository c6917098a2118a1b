//! The sample repository of the real tools' library (`tests/vectors/tuf-repo`), read in full.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_metadata::{
    Answer, MetadataError, PublicKey, Role, Start, Step, TargetName, TrustAnchor, TrustedSet, Update,
};

/// 2026-01-02: the sample's timestamp expires on 2026-01-31.
const NOW: UnixSeconds = UnixSeconds(1_767_312_000);

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn drive(mut update: Update) -> Result<(TrustedSet, Vec<String>), MetadataError> {
    let mut asked = Vec::new();
    while let Step::Want(want) = update.next() {
        let answer = match std::fs::read(vectors().join("tuf-repo").join(&want.name)) {
            Ok(bytes) => Answer::Found(Bytes::from(bytes)),
            Err(_) => Answer::NotFound,
        };
        asked.push(want.name);
        update.supply(answer)?;
    }
    Ok((update.finish()?, asked))
}

fn root_file() -> Bytes {
    std::fs::read(vectors().join("tuf-repo/root.json")).unwrap().into()
}

fn configured_key() -> PublicKey {
    let keys: serde_json::Value =
        serde_json::from_slice(&std::fs::read(vectors().join("tuf-keys.json")).unwrap()).unwrap();
    keys["repo_private_key"]["public_hex"].as_str().unwrap().parse().unwrap()
}

#[test]
fn the_sample_repository_is_believed() {
    let keys = TrustAnchor::Keys { root_keys: vec![configured_key()], root_threshold: 1, root_version: 1 };
    for (anchor, first) in [(TrustAnchor::RootFile(root_file()), None), (keys, Some("1.root.json"))] {
        let (set, asked) = drive(Update::start(Start::FromAnchor(anchor), NOW)).unwrap();
        let rest = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"];
        assert_eq!(asked, first.into_iter().chain(rest).collect::<Vec<_>>());
        assert!(set.is_whole());
        assert_eq!(Role::ALL.map(|role| set.version(role)), [Some(1); 4]);
        assert_eq!(set.earliest_expiry(), UnixSeconds(1_769_817_600));
        let name: TargetName = "package1/0".parse().unwrap();
        let package = set.find(&name).unwrap();
        let merkle = "2881455493b5870aaea36537d70a2adc635f516ac2092598f4b6056dabc6b25d";
        assert_eq!(package.merkle().unwrap().to_string(), merkle);
        assert_eq!((package.length, package.size()), (24_576, Some(24_576)));
        assert!(set.find(&"package9/0".parse().unwrap()).is_none());
    }
}

#[test]
fn a_stored_set_comes_back_and_an_unchanged_repository_costs_two_questions() {
    let anchor = TrustAnchor::RootFile(root_file());
    let (set, _) = drive(Update::start(Start::FromAnchor(anchor), NOW)).unwrap();
    let stored: Vec<(String, Bytes)> = set.files().map(|(name, bytes)| (name.into_owned(), bytes.clone())).collect();
    let loaded = TrustedSet::load(stored).unwrap();
    assert!(loaded.is_whole() && loaded.set_aside().is_empty());
    let (again, asked) = drive(Update::start(Start::FromSet(loaded), NOW)).unwrap();
    assert_eq!(asked, ["2.root.json", "timestamp.json"]);
    assert!(again.is_whole());
}

#[test]
fn the_sample_is_expired_after_its_timestamps_date() {
    for (now, file) in [(1_769_817_600, "timestamp.json"), (1_798_761_600, "1.root.json")] {
        let start = Start::FromAnchor(TrustAnchor::RootFile(root_file()));
        let error = drive(Update::start(start, UnixSeconds(now))).unwrap_err();
        assert!(error.is_expired(), "{error}");
        assert_eq!(error.file(), file);
        assert!(error.can_retry_elsewhere());
    }
    let last_good = UnixSeconds(1_769_817_599);
    assert!(drive(Update::start(Start::FromAnchor(TrustAnchor::RootFile(root_file())), last_good)).is_ok());
}
