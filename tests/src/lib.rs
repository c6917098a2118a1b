//! Whole-system tests; see the `tests/` folder of this package. Here: a publisher's desk that they share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use colibri_common::{BlobId, Clock, SystemClock, merkle};
use colibri_package::manifest::{META_FAR_PATH, ManifestBlob, PackageManifest, PathsRelative};
use colibri_package::{AbiRevision, MetaPackage, PackageBuild, PackageVariant};
use colibri_repository::{CreateOptions, Publish, PublishReport, Repository, RepositoryError};

/// A folder with packages being built, and a repository to publish them into.
#[derive(Debug)]
pub struct Desk {
    /// Everything below it goes when the desk does.
    pub dir: tempfile::TempDir,
    /// The repository.
    pub repository: Repository,
}

/// Name of the desk's repository.
pub const REPOSITORY: &str = "devhost";

/// Development level: tests do not measure compression.
const LEVEL: i32 = 1;

impl Desk {
    /// An empty repository.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let options = CreateOptions::new(SystemClock.now());
        let repository = Repository::create(&dir.path().join("repository"), options).expect("a new repository");
        Self { dir, repository }
    }

    /// Builds a package of these files; the path of its manifest and its hash.
    pub fn build(&self, name: &str, files: &BTreeMap<String, Vec<u8>>) -> (PathBuf, BlobId) {
        let dir = self.dir.path().join("built").join(name);
        fs::create_dir_all(&dir).expect("a folder");
        let name = name.parse().expect("a package name");
        let mut build = PackageBuild::new(name, AbiRevision::LATEST);
        let mut blobs = Vec::new();
        for (path, content) in files {
            let id = merkle::build(content).id;
            build.add_content(path, id).expect("a content path");
            blobs.push(blob(&dir, &id.to_string(), path, content));
        }
        let package = MetaPackage { name: build.name().clone(), variant: PackageVariant::zero() };
        let meta_far = build.finish().expect("a package");
        blobs.insert(0, blob(&dir, "meta.far", META_FAR_PATH, &meta_far));
        let hash = blobs[0].merkle;
        let manifest = PackageManifest {
            repository: None,
            package,
            blobs,
            blob_sources_relative: PathsRelative::File,
            subpackages: Vec::new(),
            delivery_blob_type: None,
            abi_revision: None,
        };
        let path = dir.join("package_manifest.json");
        fs::write(&path, manifest.to_bytes().expect("a manifest")).expect("a file");
        (path, hash)
    }

    /// Publishes built packages.
    pub fn publish(&self, manifests: Vec<PathBuf>) -> Result<PublishReport, RepositoryError> {
        let publish = Publish { manifests, compression_level: Some(LEVEL), ..Publish::new(SystemClock.now()) };
        self.repository.publish(&publish)
    }

    /// Builds and publishes one package; its hash.
    pub fn release(&self, name: &str, files: &BTreeMap<String, Vec<u8>>) -> BlobId {
        let (manifest, hash) = self.build(name, files);
        self.publish(vec![manifest]).expect("published");
        hash
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

fn blob(dir: &Path, file: &str, path: &str, content: &[u8]) -> ManifestBlob {
    fs::write(dir.join(file), content).expect("a file");
    let size = content.len() as u64;
    ManifestBlob { source_path: file.to_owned(), path: path.to_owned(), merkle: merkle::build(content).id, size }
}

/// Files of a package: text that compresses, noise that does not, one empty, one of several units.
pub fn files(seed: u64) -> BTreeMap<String, Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut noise = |length: usize| (0..length).map(|_| random.u8(..)).collect::<Vec<_>>();
    BTreeMap::from([
        ("bin/app".to_owned(), noise(5_000_000)),
        ("data/empty".to_owned(), Vec::new()),
        ("data/leaf".to_owned(), noise(8192)),
        ("data/small".to_owned(), noise(100)),
        ("data/text".to_owned(), format!("seed {seed}, again and again. ").repeat(200_000).into_bytes()),
    ])
}
