//! Packages built in a temporary folder, a repository beside them, and a client over its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_common::{BlobId, UnixSeconds, merkle};
use colibri_metadata::{Answer, MetadataError, Start, Step, TrustAnchor, TrustedSet, Update};
use colibri_package::manifest::{ManifestBlob, ManifestSubpackage, PackageManifest, PathsRelative};
use colibri_package::{AbiRevision, MetaPackage, PackageBuild};
use colibri_repository::{CreateOptions, Publish, Repository};
use tempfile::TempDir;

/// 2026-01-10T00:00:00Z.
pub const NOW: UnixSeconds = UnixSeconds(1_768_003_200);

/// A built package on disk.
#[derive(Clone)]
pub struct Built {
    pub name: String,
    pub manifest: PathBuf,
    pub hash: BlobId,
}

/// A folder for packages, and a repository.
pub struct Desk {
    pub dir: TempDir,
}

impl Desk {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn repository(&self) -> Repository {
        let dir = self.path("repo");
        if dir.join("repository").exists() {
            return Repository::open(&dir).unwrap();
        }
        Repository::create(&dir, CreateOptions::new(NOW)).unwrap()
    }

    /// Builds NAME from files and subpackages into `packages/NAME`.
    pub fn build(&self, name: &str, files: &[(&str, &[u8])], subpackages: &[&Built]) -> Built {
        let dir = self.path("packages").join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let abi = AbiRevision(0xECCE_A2F7_0ACD_6FC0);
        let mut build = PackageBuild::new(name.parse().unwrap(), abi);
        let mut blobs = BTreeMap::new();
        for (path, content) in files {
            let id = merkle::build(content).id;
            build.add_content(path, id).unwrap();
            let file = path.replace('/', "-");
            fs::write(dir.join(&file), content).unwrap();
            blobs.insert((*path).to_owned(), (file, id, content.len()));
        }
        for subpackage in subpackages {
            build.add_subpackage(subpackage.name.parse().unwrap(), subpackage.hash).unwrap();
        }
        let meta_far = build.finish().unwrap();
        let hash = merkle::build(&meta_far).id;
        fs::write(dir.join("meta.far"), &meta_far).unwrap();
        let entry = |path: &str, file: &str, merkle: BlobId, size: usize| ManifestBlob {
            source_path: file.to_owned(),
            path: path.to_owned(),
            merkle,
            size: size as u64,
        };
        let mut listed = vec![entry("meta/", "meta.far", hash, meta_far.len())];
        listed.extend(blobs.iter().map(|(path, (file, id, size))| entry(path, file, *id, *size)));
        let manifest = PackageManifest {
            repository: None,
            package: MetaPackage { name: name.parse().unwrap(), variant: "0".parse().unwrap() },
            blobs: listed,
            blob_sources_relative: PathsRelative::File,
            subpackages: subpackages
                .iter()
                .map(|subpackage| ManifestSubpackage {
                    manifest_path: subpackage.manifest.to_str().unwrap().to_owned(),
                    name: subpackage.name.parse().unwrap(),
                    merkle: subpackage.hash,
                })
                .collect(),
            delivery_blob_type: None,
            abi_revision: Some(abi),
        };
        let path = dir.join("package_manifest.json");
        fs::write(&path, manifest.to_bytes().unwrap()).unwrap();
        Built { name: name.to_owned(), manifest: path, hash }
    }
}

/// A quick publish of these packages.
pub fn publish_of<'a>(packages: &[&Built]) -> Publish<'a> {
    Publish {
        manifests: packages.iter().map(|package| package.manifest.clone()).collect(),
        compression_level: Some(1),
        ..Publish::new(NOW)
    }
}

/// The given publish after `change` to one package's manifest.
pub fn edit_manifest(built: &Built, change: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::from_slice(&fs::read(&built.manifest).unwrap()).unwrap();
    change(&mut json);
    fs::write(&built.manifest, serde_json::to_vec(&json).unwrap()).unwrap();
}

/// Content that compresses a little: numbered lines.
pub fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + (state % 16) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// What a device says about the files of `repository` as they lie there.
pub fn client(dir: &Path, anchor: TrustAnchor, now: UnixSeconds) -> Result<TrustedSet, MetadataError> {
    refresh(dir, Start::FromAnchor(anchor), now)
}

pub fn refresh(dir: &Path, start: Start, now: UnixSeconds) -> Result<TrustedSet, MetadataError> {
    let mut update = Update::start(start, now);
    while let Step::Want(want) = update.next() {
        let answer = match fs::read(dir.join("repository").join(&want.name)) {
            Ok(bytes) => Answer::Found(Bytes::from(bytes)),
            Err(_) => Answer::NotFound,
        };
        update.supply(answer)?;
    }
    update.finish()
}

/// Every file below `dir` and its bytes.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}
