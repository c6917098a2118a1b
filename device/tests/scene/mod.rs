//! A publisher, an origin and edges on loopback, and devices in folders of their own.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_cluster::{Cluster, ClusterConfig};
use colibri_common::{BlobId, Clock, SystemClock, merkle};
use colibri_device::{Device, DeviceConfig, Observer};
use colibri_metadata::{RepoConfig, Role};
use colibri_package::delivery::{DeliveryType, Identity};
use colibri_package::manifest::{META_FAR_PATH, ManifestBlob, ManifestSubpackage, PackageManifest, PathsRelative};
use colibri_package::url::AbsolutePackageUrl;
use colibri_package::{AbiRevision, MetaFar, MetaPackage, PackageBuild, PackageVariant};
use colibri_release::{
    Availability, EncodedForm, Missing, PackageContents, Release, ReleaseBlob, ReleaseBuilder, ReleasePackage,
    Versioning,
};
use colibri_repository::{CreateOptions, Profile, Publish, Repository};
use colibri_store::Store;
use tempfile::TempDir;

/// Name of the repository.
pub const HOST: &str = "devhost";

/// A folder with a repository and packages for it.
pub struct Scene {
    pub dir: TempDir,
    pub repository: Repository,
}

/// A built package.
pub struct Built {
    pub name: String,
    pub manifest: PathBuf,
    pub hash: BlobId,
}

impl Scene {
    pub fn new() -> Self {
        Self::of(Profile::Compat)
    }

    /// With an empty repository of this profile.
    pub fn of(profile: Profile) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = CreateOptions { profile, ..CreateOptions::new(SystemClock.now()) };
        let repository = Repository::create(&dir.path().join("repository"), options).unwrap();
        Self { dir, repository }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Builds a package of these files and subpackages.
    pub fn build(&self, name: &str, files: &[(&str, &[u8])], subpackages: &[&Built]) -> Built {
        let dir = self.path("built").join(name);
        fs::create_dir_all(&dir).unwrap();
        let mut build = PackageBuild::new(name.parse().unwrap(), AbiRevision::LATEST);
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        let mut blobs = Vec::new();
        for (path, content) in files {
            let blob = blob(&dir, &path.replace('/', "-"), path, content);
            build.add_content(path, blob.merkle).unwrap();
            blobs.push(blob);
        }
        for subpackage in subpackages {
            build.add_subpackage(subpackage.name.parse().unwrap(), subpackage.hash).unwrap();
        }
        let package = MetaPackage { name: build.name().clone(), variant: PackageVariant::zero() };
        let meta_far = blob(&dir, "meta.far", META_FAR_PATH, &build.finish().unwrap());
        let hash = meta_far.merkle;
        blobs.insert(0, meta_far);
        let subpackage = |built: &&Built| ManifestSubpackage {
            manifest_path: built.manifest.to_str().unwrap().to_owned(),
            name: built.name.parse().unwrap(),
            merkle: built.hash,
        };
        let manifest = PackageManifest {
            repository: None,
            package,
            blobs,
            blob_sources_relative: PathsRelative::File,
            subpackages: subpackages.iter().map(subpackage).collect(),
            delivery_blob_type: None,
            abi_revision: None,
        };
        let path = dir.join("package_manifest.json");
        fs::write(&path, manifest.to_bytes().unwrap()).unwrap();
        Built { name: name.to_owned(), manifest: path, hash }
    }

    /// Publishes built packages.
    pub fn publish(&self, packages: &[&Built]) {
        let manifests = packages.iter().map(|built| built.manifest.clone()).collect();
        let publish = Publish { manifests, compression_level: Some(1), ..Publish::new(SystemClock.now()) };
        self.repository.publish(&publish).unwrap();
    }

    /// Builds and publishes one package; its hash.
    pub fn release(&self, name: &str, files: &[(&str, &[u8])]) -> BlobId {
        let built = self.build(name, files, &[]);
        self.publish(&[&built]);
        built.hash
    }

    /// A release with this one package, upgradable and there on demand, or permanent with a version to fall back to, of at least
    /// this version; what it needs was built here with the one file `a`.
    pub fn upgradable_release(&self, name: &str, fallback: Option<BlobId>, minimum: &str) -> Release {
        let availability = if fallback.is_some() { Availability::Permanent } else { Availability::OnDemand };
        let minimum_version = Some(minimum.parse().unwrap());
        let url = format!("fuchsia-pkg://{HOST}/{name}").parse().unwrap();
        let versioning = Versioning::Upgradable;
        let package = ReleasePackage { url, availability, versioning, hash: fallback, minimum_version };
        self.product_release("1", vec![package], |_| ())
    }

    /// A release of packages that lie as they were built last; `more` adds to it.
    pub fn product_release(
        &self,
        version: &str,
        packages: Vec<ReleasePackage>,
        more: impl FnOnce(&mut ReleaseBuilder),
    ) -> Release {
        let mut builder = ReleaseBuilder::new("lamp", version.parse().unwrap());
        let trusted = self.repository.metadata().unwrap();
        let root = trusted.files().find(|(name, _)| *name == Role::Root.file()).unwrap().1.to_vec();
        builder.repository(format!("fuchsia-pkg://{HOST}").parse().unwrap(), String::from_utf8(root).unwrap());
        packages.into_iter().for_each(|package| builder.package(package));
        more(&mut builder);
        let built =
            fs::read_dir(self.path("built")).unwrap().flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
        let files = built.map(|file| fs::read(file.unwrap().path()).unwrap());
        let files: BTreeMap<_, _> = files.map(|bytes| (merkle::build(&bytes).id, bytes)).collect();
        while let Some(missing) = builder.missing() {
            match missing {
                Missing::Contents(hash) => {
                    let meta_far = MetaFar::parse(files[&hash].clone().into()).unwrap();
                    builder.contents(PackageContents::of(hash, &meta_far));
                }
                Missing::Blob(hash) => {
                    let raw_bytes = files[&hash].len() as u64;
                    let identity = Identity::of_unit_h(hash.as_bytes());
                    let form = EncodedForm { ty: DeliveryType::Type1, bytes: raw_bytes + 100, identity };
                    builder.blob(ReleaseBlob { hash, raw_bytes, encoded: vec![form] });
                }
            }
        }
        builder.finish().unwrap()
    }

    /// The repository behind an origin and this many edges.
    pub fn serve(&self, edges: usize) -> Cluster {
        self.serve_all(vec![(HOST.to_owned(), self.path("repository"))], edges)
    }

    /// Several repositories behind one origin.
    pub fn serve_all(&self, repositories: Vec<(String, PathBuf)>, edges: usize) -> Cluster {
        let config = ClusterConfig {
            repositories,
            edges,
            edge_memory_bytes: 64 << 20,
            edge_disk_bytes: 64 << 20,
            work: self.path("edges"),
            block_udp: false,
        };
        Cluster::start(&config).unwrap()
    }

    /// The configuration of a served repository, under the one name that packages use.
    pub fn config(&self, cluster: &Cluster, served_as: &str) -> RepoConfig {
        let mut config = cluster.device_config(served_as, self.repository.metadata().unwrap().root()).unwrap();
        config.repo_url = format!("fuchsia-pkg://{HOST}");
        config
    }

    /// The device in the folder `name`, knowing the repository.
    pub fn device(&self, name: &str, config: DeviceConfig, repository: RepoConfig) -> (Device, Arc<Store>) {
        let (device, store) = Device::open(&self.path(name), config, Arc::new(SystemClock)).unwrap();
        device.repositories().add(repository).unwrap();
        (device, store)
    }
}

fn blob(dir: &Path, file: &str, path: &str, content: &[u8]) -> ManifestBlob {
    fs::write(dir.join(file), content).unwrap();
    let size = content.len() as u64;
    ManifestBlob { source_path: file.to_owned(), path: path.to_owned(), merkle: merkle::build(content).id, size }
}

/// The URL of a package in the repository.
pub fn url(name: &str) -> AbsolutePackageUrl {
    format!("fuchsia-pkg://{HOST}/{name}").parse().unwrap()
}

/// Bytes that do not compress.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..bytes).map(|_| random.u8(..)).collect()
}

/// Hears nothing.
pub fn nobody() -> Observer {
    Arc::new(|_| ())
}

/// Reads and verifies every blob a device holds; how many.
pub fn scrub(store: &Store) -> usize {
    let ids = store.ids().unwrap();
    for id in &ids {
        store.scrub(*id).unwrap();
    }
    ids.len()
}
