//! Publishing: what devices see, deduplication, versions, listing, signing again.

use std::cell::RefCell;
use std::fs;

use colibri_common::merkle::{self, Leaves};
use colibri_metadata::{Role, Start, TrustAnchor};
use colibri_package::delivery::{self, DeliveryType};
use colibri_repository::{Publish, PublishProgress, Repository};

use crate::fixture::{Built, Desk, NOW, client, content, publish_of, refresh, tree};

fn anchor(repository: &Repository) -> TrustAnchor {
    repository.device_config("devhost", "http://h/devhost").unwrap().trust_anchor()
}

#[test]
fn a_device_finds_what_was_published() {
    let desk = Desk::new();
    let repository = desk.repository();
    let big = content(1, 300_000);
    let package = desk.build("hello", &[("bin/hello", &big), ("data/empty", b""), ("data/x", b"x")], &[]);
    let heard = RefCell::new(Vec::new());
    let hear = |progress: PublishProgress| heard.borrow_mut().push(progress);
    let publish = Publish { progress: Some(&hear), ..publish_of(&[&package]) };
    let report = repository.publish(&publish).unwrap();
    assert_eq!((report.packages, report.blobs, report.blobs_new), (1, 4, 4));
    let meta_far = fs::read(desk.path("packages/hello/meta.far")).unwrap();
    assert_eq!(report.bytes_raw, 300_001 + meta_far.len() as u64);
    assert_eq!(report.bytes_deduplicated, 0);
    let heard = heard.into_inner();
    assert_eq!(heard.len(), 4);
    assert_eq!(heard.last().unwrap().bytes_done, report.bytes_raw);
    assert_eq!(heard.last().unwrap().bytes_total, report.bytes_raw);
    assert_eq!(repository.versions().unwrap(), report.versions);
    assert_eq!(report.versions.timestamp, 2);

    let set = client(repository.dir(), anchor(&repository), NOW).unwrap();
    let target = set.find(&"hello/0".parse().unwrap()).unwrap();
    assert_eq!(target.merkle(), Some(package.hash));
    assert_eq!((target.length, target.size()), (meta_far.len() as u64, Some(meta_far.len() as u64)));
    assert!(target.hashes.check(&meta_far).is_ok() && target.hashes.sha512.is_some());
    let sha512 = colibri_common::hex(target.hashes.sha512.as_ref().unwrap());
    let as_target = repository.served_dir().join(format!("targets/hello/{sha512}.0"));
    assert_eq!(fs::read(as_target).unwrap(), meta_far);

    let stored: u64 = [&big[..], b"", b"x", &meta_far].map(|content| check_blob(&repository, content)).iter().sum();
    assert_eq!(stored, report.bytes_stored_new);
    let signed: serde_json::Value =
        serde_json::from_slice(&fs::read(repository.served_dir().join("targets.json")).unwrap()).unwrap();
    assert_eq!(signed["signed"]["custom"]["fuchsia_spec_version"], 1);
    assert_eq!(signed["signed"]["spec_version"], "1.0");
}

/// Delivery blob and leaves of `content` are there and right; gives the delivery blob's length.
fn check_blob(repository: &Repository, content: &[u8]) -> u64 {
    let tree = merkle::build(content);
    let blobs = repository.served_dir().join("blobs");
    let encoded = fs::read(blobs.join(format!("1/{}", tree.id))).unwrap();
    assert_eq!(delivery::decode_verified(tree.id, &encoded).unwrap(), content);
    let leaves = fs::read(blobs.join(format!("leaves/{}", tree.id))).unwrap();
    let count = Leaves::check(tree.id, leaves.into()).unwrap().count();
    assert_eq!(count, merkle::leaf_count(content.len() as u64));
    encoded.len() as u64
}

#[test]
fn the_second_release_stores_only_what_changed() {
    let desk = Desk::new();
    let repository = desk.repository();
    let (shared, old, new) = (content(1, 50_000), content(2, 40_000), content(3, 30_000));
    let one = desk.build("one", &[("lib/shared", &shared), ("bin/one", &old)], &[]);
    let two = desk.build("two", &[("lib/shared", &shared)], &[]);
    let first = repository.publish(&publish_of(&[&one, &two])).unwrap();
    assert_eq!((first.packages, first.blobs, first.blobs_new), (2, 4, 4));
    assert_eq!(first.bytes_deduplicated, 50_000, "two packages share a blob");
    let set = client(repository.dir(), anchor(&repository), NOW).unwrap();
    let before = tree(&repository.served_dir().join("blobs"));

    let one = desk.build("one", &[("lib/shared", &shared), ("bin/one", &new)], &[]);
    let second = repository.publish(&publish_of(&[&one])).unwrap();
    assert_eq!((second.packages, second.blobs, second.blobs_new), (1, 3, 2));
    assert_eq!(second.bytes_deduplicated, 50_000);
    let after = tree(&repository.served_dir().join("blobs"));
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "published blobs do not change");
    assert_eq!(after.len(), before.len() + 4, "two blobs with their leaves");

    // The device that has the first release goes on to the second; `two` is still offered.
    let set = refresh(repository.dir(), Start::FromSet(set), NOW).unwrap();
    assert_eq!(set.find(&"one/0".parse().unwrap()).unwrap().merkle(), Some(one.hash));
    assert_eq!(set.find(&"two/0".parse().unwrap()).unwrap().merkle(), Some(two.hash));
    assert_eq!(set.version(Role::Targets), Some(3));
    for version in 1..=3 {
        assert!(repository.served_dir().join(format!("{version}.targets.json")).exists(), "old sets stay readable");
    }

    let clean = Publish { clean: true, ..publish_of(&[&one]) };
    let third = repository.publish(&clean).unwrap();
    assert_eq!((third.blobs_new, third.bytes_stored_new), (0, 0));
    assert_eq!(third.bytes_deduplicated, third.bytes_raw);
    let names: Vec<String> = repository.packages().unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["one"]);
}

#[test]
fn subpackages_bring_blobs_but_no_targets() {
    let desk = Desk::new();
    let repository = desk.repository();
    let inner = desk.build("inner", &[("data/inner", b"inner")], &[]);
    let middle = desk.build("middle", &[("data/middle", b"middle")], &[&inner]);
    let outer = desk.build("outer", &[("data/outer", b"outer")], &[&inner, &middle]);
    let report = repository.publish(&publish_of(&[&outer])).unwrap();
    assert_eq!((report.packages, report.blobs), (1, 6));
    let packages = repository.packages().unwrap();
    assert_eq!(packages.len(), 1);
    assert_eq!((packages[0].name.as_str(), packages[0].hash), ("outer", outer.hash));
    assert!(packages[0].modified.is_some());
    let blobs = repository.package_blobs("outer").unwrap();
    let seen: Vec<(&str, &str, u64)> =
        blobs.iter().map(|blob| (blob.subpackage.as_str(), blob.path.as_str(), blob.size)).collect();
    let far = |built: &Built| fs::metadata(built.manifest.with_file_name("meta.far")).unwrap().len();
    assert_eq!(
        seen,
        [
            ("", "meta/", far(&outer)),
            ("", "data/outer", 5),
            ("inner", "meta/", far(&inner)),
            ("inner", "data/inner", 5),
            ("middle", "meta/", far(&middle)),
            ("middle", "data/middle", 6),
            ("middle/inner", "meta/", far(&inner)),
            ("middle/inner", "data/inner", 5),
        ]
    );
    assert!(repository.package_blobs("inner").unwrap_err().to_string().contains("inner"));
    assert!(repository.package_blobs("outer/1").is_err());
}

#[test]
fn sizes_of_all_shapes_are_listed_without_the_content() {
    let desk = Desk::new();
    let repository = desk.repository();
    let sizes = [0, 1, 8192, 8193, 100_000, 3 << 20];
    let contents: Vec<Vec<u8>> = sizes.iter().map(|size| content(9, *size)).collect();
    let names: Vec<String> = sizes.iter().map(|size| format!("data/{size}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
    let package = desk.build("sizes", &files, &[]);
    repository.publish(&publish_of(&[&package])).unwrap();
    for blob in repository.package_blobs("sizes").unwrap().iter().skip(1) {
        assert_eq!(blob.path, format!("data/{}", blob.size));
        assert_eq!(repository.blob_content(blob.hash).unwrap().len() as u64, blob.size);
    }
}

#[test]
fn type_2_is_stored_beside_type_1() {
    let desk = Desk::new();
    let repository = desk.repository();
    let package = desk.build("hello", &[("bin/hello", &content(4, 20_000))], &[]);
    repository.publish(&publish_of(&[&package])).unwrap();
    let publish = Publish { delivery_type: DeliveryType::Type2, ..publish_of(&[&package]) };
    assert_eq!(repository.publish(&publish).unwrap().blobs_new, 2);
    assert_eq!(repository.publish(&publish).unwrap().blobs_new, 0);
    let count = |ty: &str| fs::read_dir(repository.served_dir().join("blobs").join(ty)).unwrap().count();
    assert_eq!((count("1"), count("2"), count("leaves")), (2, 2, 2));
}

#[test]
fn versions_grow_by_one_or_with_time_and_the_root_only_when_asked() {
    let desk = Desk::new();
    let repository = desk.repository();
    let package = desk.build("hello", &[], &[]);
    let with_root = Publish { refresh_root: true, ..publish_of(&[&package]) };
    let versions = repository.publish(&with_root).unwrap().versions;
    assert_eq!((versions.root, versions.targets, versions.timestamp), (2, 2, 2));
    assert!(repository.served_dir().join("2.root.json").exists());
    let timed = Publish { time_versioning: true, ..publish_of(&[&package]) };
    let now = u32::try_from(NOW.0).unwrap();
    let versions = repository.publish(&timed).unwrap().versions;
    assert_eq!((versions.root, versions.targets, versions.snapshot, versions.timestamp), (2, now, now, now));
    let versions = repository.publish(&timed).unwrap().versions;
    assert_eq!(versions.timestamp, now + 1, "the same second again");
    // A device that knew only the first root follows.
    let first = fs::read(repository.served_dir().join("1.root.json")).unwrap();
    let set = client(repository.dir(), TrustAnchor::RootFile(first.into()), NOW).unwrap();
    assert_eq!(set.version(Role::Root), Some(2));
}

#[test]
fn signing_again_gives_new_life_without_changing_what_is_offered() {
    let desk = Desk::new();
    let repository = desk.repository();
    let package = desk.build("hello", &[("x", b"x")], &[]);
    repository.publish(&publish_of(&[&package])).unwrap();
    let before = repository.metadata().unwrap();
    // After 20 days only snapshot and timestamp.
    let later = NOW.plus(20 * 86_400);
    let versions = repository.refresh(later).unwrap();
    assert_eq!((versions.root, versions.targets, versions.snapshot, versions.timestamp), (1, 2, 3, 3));
    // After 80 days two thirds of the life of targets are over; after 400 days everything has expired.
    let versions = repository.refresh(NOW.plus(80 * 86_400)).unwrap();
    assert_eq!((versions.root, versions.targets), (1, 3));
    let late = NOW.plus(400 * 86_400);
    let versions = repository.refresh(late).unwrap();
    assert_eq!((versions.root, versions.targets), (2, 4));
    let set = refresh(repository.dir(), Start::FromSet(before.clone()), late).unwrap();
    assert!(set.targets().unwrap().iter().eq(before.targets().unwrap().iter()));
}

#[test]
fn what_others_signed_into_the_metadata_is_carried_on() {
    let desk = Desk::new();
    let repository = desk.repository();
    let package = desk.build("hello", &[], &[]);
    repository.publish(&publish_of(&[&package])).unwrap();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(repository.served_dir().join(name)).unwrap()).unwrap()
    };
    let before = read("targets.json")["signed"]["targets"]["hello/0"].clone();
    let other = desk.build("other", &[], &[]);
    repository.publish(&publish_of(&[&other])).unwrap();
    assert_eq!(read("targets.json")["signed"]["targets"]["hello/0"], before);
    assert_eq!(read("targets.json"), read("3.targets.json"));
    assert_eq!(read("snapshot.json"), read("3.snapshot.json"));
}

#[test]
fn a_device_configuration_leads_a_device_here() {
    let desk = Desk::new();
    let repository = desk.repository();
    let config = repository.device_config("devhost", "https://edge.example:4443/devhost").unwrap();
    assert_eq!(config.repo_url, "fuchsia-pkg://devhost");
    assert_eq!(config.mirrors[0].blob_url(), "https://edge.example:4443/devhost/blobs");
    assert_eq!(config.root_keys[0].0, repository.root_keys().unwrap()[0]);
    assert_eq!(config.root_keys[0].0.id(), repository.root_key_ids().unwrap()[0]);
    assert!(client(repository.dir(), config.trust_anchor(), NOW).is_ok());
    assert!(repository.device_config("Dev Host", "https://h").is_err());
}
