//! Damage at rest, blobs of other tools, interrupted publishes, concurrent publishers.

use std::fs;

use colibri_common::merkle;
use colibri_metadata::{Role, TrustAnchor};
use colibri_package::delivery::{self, DeliveryType};
use colibri_repository::{Repository, RepositoryError};

use crate::fixture::{Desk, NOW, client, content, publish_of};

#[test]
fn a_damaged_blob_is_never_given_out_and_publishing_again_without_its_receipt_repairs_it() {
    let desk = Desk::new();
    let repository = desk.repository();
    let big = content(7, 100_000);
    let id = merkle::build(&big).id;
    let package = desk.build("hello", &[("bin/hello", &big)], &[]);
    repository.publish(&publish_of(&[&package])).unwrap();
    let path = repository.served_dir().join(format!("blobs/1/{id}"));
    let mut damaged = fs::read(&path).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let error = repository.blob_content(id).unwrap_err();
    assert!(matches!(error, RepositoryError::StoredBlob { .. }) && error.to_string().contains(&id.to_string()));
    // The receipt says that it was proven once; without it the blob is read again and replaced.
    fs::remove_dir_all(repository.dir().join("receipts")).unwrap();
    let report = desk.repository().publish(&publish_of(&[&package])).unwrap();
    assert_eq!(report.blobs_new, 1);
    assert_eq!(repository.blob_content(id).unwrap(), big);
}

#[test]
fn a_blob_put_there_by_another_tool_is_proven_not_compressed_again() {
    let desk = Desk::new();
    let repository = desk.repository();
    let big = content(8, 100_000);
    let id = merkle::build(&big).id;
    let blobs = repository.served_dir().join("blobs/1");
    fs::create_dir_all(&blobs).unwrap();
    let theirs = delivery::encode(&big, DeliveryType::Type1, Some(5)).unwrap();
    fs::write(blobs.join(id.to_string()), &theirs).unwrap();
    let package = desk.build("hello", &[("bin/hello", &big)], &[]);
    let report = repository.publish(&publish_of(&[&package])).unwrap();
    assert_eq!((report.blobs, report.blobs_new), (2, 1));
    assert_eq!(fs::read(blobs.join(id.to_string())).unwrap(), theirs);
    assert!(repository.served_dir().join(format!("blobs/leaves/{id}")).exists());
}

#[test]
fn damaged_metadata_is_named_and_nothing_is_published_over_it() {
    let desk = Desk::new();
    let repository = desk.repository();
    let package = desk.build("hello", &[], &[]);
    for (name, role) in [("1.snapshot.json", Role::Snapshot), ("1.targets.json", Role::Targets)] {
        let path = repository.served_dir().join(name);
        let good = fs::read(&path).unwrap();
        let mut damaged = good.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(&path, damaged).unwrap();
        match repository.publish(&publish_of(&[&package])).unwrap_err() {
            RepositoryError::Metadata { source, .. } => assert_eq!(source.role(), role),
            error => panic!("{name}: {error}"),
        }
        assert!(Repository::open(repository.dir()).is_err());
        fs::write(&path, good).unwrap();
    }
    assert!(repository.publish(&publish_of(&[&package])).is_ok());
}

#[test]
fn files_left_by_an_interrupted_publish_are_stepped_over() {
    let desk = Desk::new();
    let repository = desk.repository();
    let package = desk.build("hello", &[("x", b"x")], &[]);
    // Power went before `timestamp.json`: numbered files and some unnumbered ones are there, never seen by a client.
    let served = repository.served_dir();
    fs::write(served.join("2.targets.json"), b"left over").unwrap();
    fs::write(served.join("targets.json"), b"left over").unwrap();
    fs::write(served.join("2.snapshot.json"), b"left over").unwrap();
    fs::write(served.join("3.snapshot.json"), b"left over").unwrap();
    let repository = Repository::open(repository.dir()).unwrap();
    let versions = repository.publish(&publish_of(&[&package])).unwrap().versions;
    assert_eq!((versions.targets, versions.snapshot, versions.timestamp), (3, 4, 2));
    assert_eq!(fs::read(served.join("2.targets.json")).unwrap(), b"left over", "a numbered file never changes");
    let anchor = TrustAnchor::RootFile(repository.trusted_root_bytes().unwrap());
    let set = client(repository.dir(), anchor, NOW).unwrap();
    assert_eq!(set.find(&"hello/0".parse().unwrap()).unwrap().merkle(), Some(package.hash));
}

#[test]
fn a_root_signed_by_an_interrupted_publish_is_taken_up() {
    let desk = Desk::new();
    let repository = desk.repository();
    let package = desk.build("hello", &[], &[]);
    let old = fs::read(repository.served_dir().join("root.json")).unwrap();
    let publish = colibri_repository::Publish { refresh_root: true, ..publish_of(&[&package]) };
    repository.publish(&publish).unwrap();
    // `2.root.json` was written, `root.json` not yet.
    fs::write(repository.served_dir().join("root.json"), old).unwrap();
    assert_eq!(repository.versions().unwrap().root, 2);
    assert_eq!(repository.publish(&publish).unwrap().versions.root, 3);
}

#[test]
fn concurrent_publishers_take_turns_and_lose_nothing() {
    let desk = Desk::new();
    desk.repository();
    let packages: Vec<_> =
        (0..4).map(|n| desk.build(&format!("p{n}"), &[("x", &content(n, 10_000)), ("same", b"same")], &[])).collect();
    std::thread::scope(|scope| {
        for package in &packages {
            let dir = desk.path("repo");
            scope.spawn(move || Repository::open(&dir).unwrap().publish(&publish_of(&[package])).unwrap());
        }
    });
    let repository = desk.repository();
    assert_eq!(repository.packages().unwrap().len(), 4);
    assert_eq!(repository.versions().unwrap().timestamp, 5);
}

#[test]
fn metadata_that_clients_would_refuse_is_not_published() {
    let desk = Desk::new();
    let repository = desk.repository();
    let package = desk.build("hello", &[], &[]);
    // A clock far ahead of the expiry of the root: devices would refuse the set.
    let publish = colibri_repository::Publish {
        now: NOW.plus(366 * 86_400),
        manifests: vec![package.manifest],
        ..publish_of(&[])
    };
    let before = repository.versions().unwrap();
    match repository.publish(&publish).unwrap_err() {
        RepositoryError::Metadata { source, .. } => assert!(source.is_expired() && source.role() == Role::Root),
        error => panic!("{error}"),
    }
    assert_eq!(repository.versions().unwrap(), before);
    let with_root = colibri_repository::Publish { refresh_root: true, ..publish };
    assert_eq!(repository.publish(&with_root).unwrap().versions.root, 2);
}
