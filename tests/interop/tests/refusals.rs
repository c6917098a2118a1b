//! `repo verify --stock-client`: what a device with the stock client would refuse is told, and nothing else.

use std::fs;
use std::path::Path;

use colibri_common::{BlobId, Clock, SystemClock, UnixSeconds, merkle};
use colibri_package::{AbiRevision, PackageBuild, far};
use colibri_repository::stock_client::refusals;
use colibri_repository::{CreateOptions, Publish, Repository};

/// A repository with package `hello`, signed as of `now`.
fn published(dir: &Path, now: UnixSeconds) -> (Repository, BlobId) {
    let repository = Repository::create(&dir.join("repo"), CreateOptions::new(SystemClock.now())).unwrap();
    let content = b"content";
    let id = merkle::build(content).id;
    let mut build = PackageBuild::new("hello".parse().unwrap(), AbiRevision(1));
    build.add_content("data/file", id).unwrap();
    let meta_far = build.finish().unwrap();
    let files = [(id.to_string(), content.to_vec()), ("meta.far".to_owned(), meta_far.to_vec())];
    let path = dir.join("hello.far");
    fs::write(&path, far::to_bytes(&files.into_iter().collect()).unwrap()).unwrap();
    let publish = Publish { package_archives: vec![path], compression_level: Some(1), ..Publish::new(now) };
    repository.publish(&publish).unwrap();
    (repository, id)
}

#[test]
fn a_good_repository_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, _) = published(dir.path(), SystemClock.now());
    assert_eq!(refusals(repository.dir()).unwrap(), [""; 0]);
}

#[test]
fn each_refusal_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, id) = published(dir.path(), SystemClock.now());
    // The blob is whole, but in a form that such devices do not ask for.
    let blobs = repository.served_dir().join("blobs");
    fs::create_dir(blobs.join("2")).unwrap();
    fs::rename(blobs.join("1").join(id.to_string()), blobs.join("2").join(id.to_string())).unwrap();
    let told = refusals(repository.dir()).unwrap();
    assert!(told.len() == 1 && told[0].contains("hello/0") && told[0].contains("data/file"), "{told:?}");
    // A target that is gone.
    fs::remove_dir_all(repository.served_dir().join("targets")).unwrap();
    let told = refusals(repository.dir()).unwrap();
    assert!(told.len() == 2 && told[0].starts_with("hello/0: "), "{told:?}");
}

#[test]
fn expired_metadata_is_refused_from_either_start() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, _) = published(dir.path(), UnixSeconds(978_307_200));
    let told = refusals(repository.dir()).unwrap();
    assert!(told.len() == 2 && told.iter().all(|line| line.starts_with("starting from ")), "{told:?}");
}
