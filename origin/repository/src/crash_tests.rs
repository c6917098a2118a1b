//! Power loss and a full disk at every operation of a publish (architecture §2, invariants 3 and 6).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_common::{BlobId, UnixSeconds, merkle};
use colibri_metadata::Role;
use colibri_package::{AbiRevision, PackageBuild};
use colibri_store::StoreError;
use colibri_store::testing::{CrashDisk, Fault};
use tempfile::TempDir;

use crate::keys::KeyFolder;
use crate::{CreateOptions, Publish, Repository, RepositoryError};

const NOW: UnixSeconds = UnixSeconds(1_768_003_200);
const DIR: &str = "/repo";

struct Desk {
    dir: TempDir,
}

impl Desk {
    /// Key files and two releases of a package, as archives, on the real disk.
    fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap() };
        for role in Role::ALL {
            KeyFolder::new(desk.keys()).generate(role).unwrap();
        }
        for release in [1, 2] {
            let files = [("data/same", vec![7; 20_000]), ("data/changed", vec![release; 9_000])];
            let mut build = PackageBuild::new("hello".parse().unwrap(), AbiRevision(1));
            let mut archive = std::collections::BTreeMap::new();
            for (path, content) in files {
                let id = merkle::build(&content).id;
                build.add_content(path, id).unwrap();
                archive.insert(id.to_string(), content);
            }
            archive.insert("meta.far".into(), build.finish().unwrap().to_vec());
            let far = colibri_package::far::to_bytes(&archive).unwrap();
            fs::write(desk.archive(release), far).unwrap();
        }
        desk
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    fn archive(&self, release: u8) -> PathBuf {
        self.dir.path().join(format!("{release}.far"))
    }

    fn create(&self, disk: &CrashDisk) -> Result<Repository, RepositoryError> {
        let options = CreateOptions { keys: Some(self.keys()), ..CreateOptions::new(NOW) };
        Repository::create_on(Arc::new(disk.clone()), Path::new(DIR), options)
    }

    fn open(&self, disk: &CrashDisk) -> Result<Repository, RepositoryError> {
        Repository::open_on(Arc::new(disk.clone()), Path::new(DIR), Some(self.keys()))
    }

    fn publish(&self, repository: &Repository, release: u8) -> Result<BlobId, RepositoryError> {
        let publish =
            Publish { package_archives: vec![self.archive(release)], compression_level: Some(1), ..Publish::new(NOW) };
        repository.publish(&publish)?;
        Ok(repository.package("hello")?.hash)
    }
}

/// What is offered, proven whole: nothing, or one release with every byte of it.
fn offered(repository: &Repository) -> Option<BlobId> {
    let package = repository.packages().unwrap().pop()?;
    let path = format!("{}/{}", package.name, package.variant).parse().unwrap();
    repository.check_whole(&path, package.hash, &mut BTreeSet::new()).unwrap();
    for blob in repository.package_blobs("hello").unwrap() {
        assert_eq!(repository.blob_content(blob.hash).unwrap().len() as u64, blob.size);
    }
    Some(package.hash)
}

#[test]
fn after_power_loss_at_any_operation_one_whole_release_is_offered() {
    let desk = Desk::new();
    let disk = CrashDisk::new();
    let repository = desk.create(&disk).unwrap();
    let created = disk.operations();
    let first = desk.publish(&repository, 1).unwrap();
    let published_first = disk.operations();
    let second = desk.publish(&repository, 2).unwrap();
    let end = disk.operations();
    for operations in created..=end {
        for seed in [0, 1] {
            let survivor = disk.crash(operations, seed);
            let repository = desk.open(&survivor).unwrap();
            let found = offered(&repository);
            let expected: &[Option<BlobId>] = match operations {
                n if n == end => &[Some(second)],
                n if n > published_first => &[Some(first), Some(second)],
                n if n == published_first => &[Some(first)],
                _ => &[None, Some(first)],
            };
            assert!(expected.contains(&found), "crash after {operations} of {end}, seed {seed}: {found:?}");
            // And the work goes on from there.
            assert_eq!(desk.publish(&repository, 2).unwrap(), second, "crash after {operations}, seed {seed}");
            assert_eq!(offered(&repository), Some(second));
        }
    }
}

#[test]
fn a_create_that_was_cut_short_can_be_done_again() {
    let desk = Desk::new();
    let disk = CrashDisk::new();
    desk.create(&disk).unwrap();
    for operations in 0..=disk.operations() {
        let survivor = disk.crash(operations, 3);
        match desk.create(&survivor) {
            Ok(_) | Err(RepositoryError::Exists { .. }) => {}
            Err(error) => panic!("crash after {operations}: {error}"),
        }
        assert_eq!(offered(&desk.open(&survivor).unwrap()), None, "crash after {operations}");
    }
}

#[test]
fn a_full_disk_at_any_operation_is_said_and_loses_nothing() {
    let desk = Desk::new();
    let disk = CrashDisk::new();
    let first = desk.publish(&desk.create(&disk).unwrap(), 1).unwrap();
    let before = disk.operations();
    let probe = disk.crash(before, 0);
    let second = desk.publish(&desk.open(&probe).unwrap(), 2).unwrap();
    for changes in 0..probe.operations() {
        let disk = disk.crash(before, 0);
        let repository = desk.open(&disk).unwrap();
        disk.fail_after(changes, Fault::NoSpace);
        match desk.publish(&repository, 2) {
            Ok(hash) => assert_eq!(hash, second),
            Err(RepositoryError::Store(StoreError::NoSpace { .. })) => {
                assert!([Some(first), Some(second)].contains(&offered(&repository)));
            }
            Err(RepositoryError::Read { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "after {changes}");
            }
            Err(error) => panic!("after {changes}: {error}"),
        }
        disk.heal();
        assert_eq!(desk.publish(&repository, 2).unwrap(), second, "after {changes}");
    }
}
