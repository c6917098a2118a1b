//! What the tests inside this package publish: two releases of one package, with keys, on the real disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_common::{BlobId, UnixSeconds, merkle};
use colibri_metadata::Role;
use colibri_package::{AbiRevision, PackageBuild};
use colibri_store::testing::CrashDisk;
use tempfile::TempDir;

use crate::gate::Check;
use crate::keys::{KeyForm, KeyRing, KeySources};
use crate::{CreateOptions, Publish, Repository, RepositoryError};

pub(crate) const NOW: UnixSeconds = UnixSeconds(1_768_003_200);
const DIR: &str = "/repo";

pub(crate) struct Desk {
    pub dir: TempDir,
}

impl Desk {
    /// Key files and two releases of a package, as archives, on the real disk.
    pub fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap() };
        for role in Role::ALL {
            KeyRing::new(desk.keys(), KeySources::default()).generate(role.into(), KeyForm::Plain).unwrap();
        }
        for release in [1, 2] {
            desk.build("hello", release, desk.archive(release));
        }
        desk
    }

    /// Builds a package of two files, one of which is the same in each, as an archive.
    pub fn build(&self, name: &str, release: u8, archive_path: PathBuf) {
        let files = [("data/same", vec![7; 20_000]), ("data/changed", vec![release; 9_000])];
        let mut build = PackageBuild::new(name.parse().unwrap(), AbiRevision(1));
        let mut archive = std::collections::BTreeMap::new();
        for (path, content) in files {
            let id = merkle::build(&content).id;
            build.add_content(path, id).unwrap();
            archive.insert(id.to_string(), content);
        }
        archive.insert("meta.far".into(), build.finish().unwrap().to_vec());
        fs::write(archive_path, colibri_package::far::to_bytes(&archive).unwrap()).unwrap();
    }

    pub fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    pub fn archive(&self, release: u8) -> PathBuf {
        self.dir.path().join(format!("{release}.far"))
    }

    pub fn create(&self, disk: &CrashDisk) -> Result<Repository, RepositoryError> {
        let options = CreateOptions { keys: Some(self.keys()), ..CreateOptions::new(NOW) };
        Repository::create_on(Arc::new(disk.clone()), Path::new(DIR), &options)
    }

    pub fn open(&self, disk: &CrashDisk) -> Result<Repository, RepositoryError> {
        Repository::open_on(Arc::new(disk.clone()), Path::new(DIR), Some(self.keys()))
    }

    pub fn publish(&self, repository: &Repository, release: u8) -> Result<BlobId, RepositoryError> {
        repository.publish(&of_archive(self.archive(release)))?;
        Ok(repository.package("hello")?.hash)
    }
}

/// A quick publish of one archive.
pub(crate) fn of_archive(archive: PathBuf) -> Publish<'static> {
    Publish { package_archives: vec![archive], compression_level: Some(1), ..Publish::new(NOW) }
}

/// What is offered, proven whole: nothing, or one release with every byte of it.
pub(crate) fn offered(repository: &Repository) -> Option<BlobId> {
    let package = repository.packages().unwrap().pop()?;
    let mut check = Check::new(&repository.blobs, NOW);
    check.package("hello", package.hash).unwrap();
    assert_eq!(check.unready, []);
    for blob in repository.package_blobs("hello").unwrap() {
        assert_eq!(repository.blob_content(blob.hash).unwrap().len() as u64, blob.size);
    }
    Some(package.hash)
}
