//! What the tests here publish, and our own client over the same files. Each program of tests uses its part of it.
//!
//! Other people's clients ask the machine for the time, so these repositories are signed now.

#![allow(dead_code, reason = "each program of tests uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA512, digest};
use bytes::Bytes;
use colibri_common::{BlobId, Clock, SystemClock, hex, merkle};
use colibri_metadata::{Answer, MetadataError, Search, Start, Step, TargetName, TrustAnchor, TrustedSet, Update};
use colibri_package::{AbiRevision, PackageBuild, far};
use colibri_repository::{CreateOptions, ExtraTarget, Profile, Publish, Repository, RepositoryError};
use serde_json::json;

/// What a device is told of the repository.
pub fn anchor(repository: &Repository) -> Start {
    let root_keys = repository.root_keys().unwrap();
    Start::FromAnchor(TrustAnchor::Keys { root_keys, root_threshold: 1, root_version: 1 })
}

/// Our client over the same files.
pub fn ours(repository: &Repository, start: Start) -> Result<TrustedSet, MetadataError> {
    let mut update = Update::start(start, SystemClock.now());
    while let Step::Want(want) = update.next() {
        let answer = fs::read(repository.served_dir().join(&want.name));
        update.supply(answer.map_or(Answer::NotFound, |bytes| Answer::Found(Bytes::from(bytes))))?;
    }
    update.finish()
}

/// A package archive of NAME with one file.
pub fn archive(dir: &Path, name: &str, content: &[u8]) -> (std::path::PathBuf, BlobId) {
    let id = merkle::build(content).id;
    let mut build = PackageBuild::new(name.parse().unwrap(), AbiRevision(1));
    build.add_content("data/file", id).unwrap();
    let meta_far = build.finish().unwrap();
    let files = [(id.to_string(), content.to_vec()), ("meta.far".to_owned(), meta_far.to_vec())];
    let path = dir.join(format!("{name}.far"));
    fs::write(&path, far::to_bytes(&files.into_iter().collect()).unwrap()).unwrap();
    (path, merkle::build(&meta_far).id)
}

pub fn publish(repository: &Repository, archives: &[&Path], refresh_root: bool) {
    let publish = Publish {
        package_archives: archives.iter().map(|path| path.to_path_buf()).collect(),
        compression_level: Some(1),
        refresh_root,
        ..Publish::new(SystemClock.now())
    };
    repository.publish(&publish).unwrap();
}

/// A repository with one published package, and that package.
pub fn published(dir: &Path) -> (Repository, BlobId) {
    let repository = Repository::create(&dir.join("repo"), CreateOptions::new(SystemClock.now())).unwrap();
    let (path, hash) = archive(dir, "hello", b"one");
    publish(&repository, &[&path], false);
    (repository, hash)
}

/// What one client says of a target: length and SHA-512 of what it downloaded and verified, and the package hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Length in bytes.
    pub length: u64,
    /// Of the content.
    pub sha512: String,
    /// `custom.merkle`.
    pub merkle: Option<String>,
}

/// What every client is asked: a name, or that there is no such target.
pub type Answers = BTreeMap<String, Option<Said>>;

/// What our own client says, delegated roles included; the content comes from where other clients look for it.
pub fn our_answers(repository: &Repository, names: &[&str]) -> Answers {
    let now = SystemClock.now();
    let mut set = ours(repository, anchor(repository)).unwrap();
    let mut answers = Answers::new();
    for name in names {
        let target: TargetName = name.parse().unwrap();
        let mut search = Search::start(set.clone(), target.clone(), now);
        while let Step::Want(want) = search.next() {
            let found = fs::read(repository.served_dir().join(&want.name)).unwrap();
            search.supply(Answer::Found(found.into())).unwrap();
        }
        let (with_roles, found) = search.finish().unwrap();
        set = with_roles;
        let said = found.map(|found| {
            let path = repository.served_dir().join("targets").join(target.with_hash(&found.target.hashes));
            let content = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(found.target.hashes.check(&content).is_ok());
            said(&content, found.target.merkle().map(|hash| hash.to_string()))
        });
        answers.insert((*name).to_owned(), said);
    }
    answers
}

/// Of content that a client verified.
pub fn said(content: &[u8], merkle: Option<String>) -> Said {
    Said { length: content.len() as u64, sha512: hex(digest(&SHA512, content).as_ref()), merkle }
}

/// Names of targets that clients might write differently: not ASCII, what addresses give a meaning to.
const ODD_NAMES: [&str; 6] = ["plain", "ünï/ç ö", "日本語/🐦", "e\u{301}/é", "100%/25%20", "a#b;c&d'e"];

/// More of them, which `compat` does not take, because the stock client refuses a whole repository for one of them.
const ODDER_NAMES: [&str; 5] = ["quote\"d", "back\\slash", "both/\\\"/x", "a?b#c;d&e", "<a|b>:c"];

/// The odd names that a repository of this profile takes.
pub fn odd_names(profile: Profile) -> Vec<&'static str> {
    match profile {
        Profile::Compat => ODD_NAMES.to_vec(),
        Profile::Scale => [&ODD_NAMES[..], &ODDER_NAMES].concat(),
    }
}

/// A repository with a package and with targets of these names, each with content and `custom` of its own.
pub fn with_targets(dir: &Path, profile: Profile, names: &[&str]) -> Repository {
    try_with_targets(dir, profile, names).unwrap()
}

/// The same, or why it was refused.
pub fn try_with_targets(dir: &Path, profile: Profile, names: &[&str]) -> Result<Repository, RepositoryError> {
    let options = CreateOptions { profile, ..CreateOptions::new(SystemClock.now()) };
    let repository = Repository::create(&dir.join("repo"), options).unwrap();
    let (path, _) = archive(dir, "hello", b"one");
    let extra = |name: &&str| ExtraTarget {
        name: (*name).to_owned(),
        content: format!("content of {name}").into(),
        custom: Some(json!({"said of": name, "n": [1, -2, {"ü": "\\\""}]})),
    };
    let publish = Publish {
        package_archives: vec![path],
        extra_targets: names.iter().map(extra).collect(),
        compression_level: Some(1),
        ..Publish::new(SystemClock.now())
    };
    repository.publish(&publish)?;
    Ok(repository)
}
