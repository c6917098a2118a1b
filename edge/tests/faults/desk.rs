//! A publisher's repository for tests, and what an upstream serves of it at each point in time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{BlobId, ManualClock, UnixSeconds, merkle};
use colibri_edge::{Edge, EdgeConfig, FollowedConfig};
use colibri_package::manifest::{ManifestBlob, ManifestSubpackage, PackageManifest, PathsRelative};
use colibri_package::{AbiRevision, MetaPackage, PackageBuild};
use colibri_repository::{CreateOptions, Publish, Repository};
use colibri_service::metrics::Registry;
use tempfile::TempDir;

use crate::upstream::Upstream;

/// 2026-01-10T00:00:00Z.
pub const NOW: UnixSeconds = UnixSeconds(1_768_003_200);

pub const HOUR_S: u64 = 3600;

/// A package that was built.
#[derive(Debug, Clone)]
pub struct Built {
    pub name: String,
    pub manifest: PathBuf,
    pub hash: BlobId,
}

/// A repository, known to edges as `repo`.
pub struct Desk {
    pub dir: TempDir,
    pub repository: Repository,
}

/// Files of a repository by path, as a server has them.
pub type Site = BTreeMap<String, Bytes>;

impl Desk {
    pub fn new() -> Self {
        Self::with(CreateOptions::new(NOW))
    }

    pub fn with(options: CreateOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::create(&dir.path().join("repository"), options).unwrap();
        Self { dir, repository }
    }

    /// Signs again so many hours after the beginning: the newest set of all.
    pub fn moves_on(&self, hours: u64) -> Site {
        self.repository.refresh(UnixSeconds(NOW.0 + hours * HOUR_S)).unwrap();
        self.site()
    }

    /// Everything that a server has of it now.
    pub fn site(&self) -> Site {
        let mut site = Site::new();
        collect(&self.repository.served_dir(), "/repo", &mut site);
        site
    }

    /// Builds a package of files and subpackages.
    pub fn build(&self, name: &str, files: &[(&str, &[u8])], subpackages: &[&Built]) -> Built {
        let dir = self.dir.path().join("packages").join(name);
        _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let abi = AbiRevision(0xECCE_A2F7_0ACD_6FC0);
        let mut build = PackageBuild::new(name.parse().unwrap(), abi);
        let mut blobs = Vec::new();
        let entry = |path: &str, file: &str, merkle, size: usize| ManifestBlob {
            source_path: file.to_owned(),
            path: path.to_owned(),
            merkle,
            size: size as u64,
        };
        for (path, content) in files {
            let id = merkle::build(content).id;
            build.add_content(path, id).unwrap();
            let file = path.replace('/', "-");
            fs::write(dir.join(&file), content).unwrap();
            blobs.push(entry(path, &file, id, content.len()));
        }
        for subpackage in subpackages {
            build.add_subpackage(subpackage.name.parse().unwrap(), subpackage.hash).unwrap();
        }
        let meta_far = build.finish().unwrap();
        let hash = merkle::build(&meta_far).id;
        fs::write(dir.join("meta.far"), &meta_far).unwrap();
        blobs.insert(0, entry("meta/", "meta.far", hash, meta_far.len()));
        let subpackages = subpackages.iter().map(|subpackage| ManifestSubpackage {
            manifest_path: subpackage.manifest.to_str().unwrap().to_owned(),
            name: subpackage.name.parse().unwrap(),
            merkle: subpackage.hash,
        });
        let manifest = PackageManifest {
            repository: None,
            package: MetaPackage { name: name.parse().unwrap(), variant: "0".parse().unwrap() },
            blobs,
            blob_sources_relative: PathsRelative::File,
            subpackages: subpackages.collect(),
            delivery_blob_type: None,
            abi_revision: Some(abi),
        };
        let path = dir.join("package_manifest.json");
        fs::write(&path, manifest.to_bytes().unwrap()).unwrap();
        Built { name: name.to_owned(), manifest: path, hash }
    }

    pub fn publish(&self, packages: &[&Built]) -> Site {
        let manifests = packages.iter().map(|package| package.manifest.clone()).collect();
        let publish = Publish { manifests, compression_level: Some(1), ..Publish::new(NOW) };
        self.repository.publish(&publish).unwrap();
        self.site()
    }

    /// The configuration that follows it from its first root.
    pub fn followed(&self, upstreams: &[&Upstream]) -> EdgeConfig {
        let root = fs::read_to_string(self.repository.served_dir().join("1.root.json")).unwrap();
        let repository = FollowedConfig { name: "repo".parse().unwrap(), root: Some(root), root_file: None };
        EdgeConfig { repositories: vec![repository], metadata_max_age_s: 0, ..crate::site::config(upstreams) }
    }
}

/// An edge at the time of `clock`.
pub fn build_at(config: &EdgeConfig, clock: &Arc<ManualClock>) -> Edge {
    Edge::build_with_clock(config, &Registry::new(), clock.clone()).unwrap()
}

/// A clock that shows so many hours after the beginning.
pub fn clock(hours: u64) -> Arc<ManualClock> {
    Arc::new(ManualClock::new(UnixSeconds(NOW.0 + hours * HOUR_S)))
}

fn collect(dir: &Path, prefix: &str, site: &mut Site) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &path, site);
        } else {
            site.insert(path, fs::read(entry.path()).unwrap().into());
        }
    }
}

impl Upstream {
    /// Serves this and nothing else.
    pub fn serves(&self, site: &Site) {
        self.clear();
        site.iter().for_each(|(path, bytes)| self.put(path, bytes.clone()));
    }
}
