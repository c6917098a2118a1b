//! A repository with one package of one large blob, in a folder that any file server can serve, and devices that know it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_common::{BlobId, Clock, SystemClock, merkle};
use colibri_device::{Device, DeviceConfig};
use colibri_metadata::RepoConfig;
use colibri_package::manifest::{META_FAR_PATH, ManifestBlob, PackageManifest, PathsRelative};
use colibri_package::{AbiRevision, MetaPackage, PackageBuild, PackageVariant};
use colibri_repository::{CreateOptions, Publish, Repository};

use super::edge::Edge;

/// The package.
pub const URL: &str = "fuchsia-pkg://bench/large";

/// What is served.
pub struct World {
    /// The folder.
    pub dir: PathBuf,
    /// The large blob.
    pub id: BlobId,
    repository: Repository,
}

impl World {
    /// A blob of so many bytes that do not compress, in raw form and as a delivery blob.
    pub fn make(dir: &Path, bytes: u64, seed: u64) -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all(dir)?;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut content = vec![0; usize::try_from(bytes)?];
        random.fill(&mut content);
        let id = merkle::build(&content).id;
        let built = dir.join("built");
        fs::create_dir(&built)?;
        fs::write(built.join("large"), content)?;
        let mut build = PackageBuild::new("large".parse()?, AbiRevision::LATEST);
        build.add_content("large", id)?;
        let meta_far = build.finish()?;
        fs::write(built.join("meta.far"), &meta_far)?;
        let blob = |path: &str, file: &str, merkle, size| ManifestBlob {
            source_path: file.to_owned(),
            path: path.to_owned(),
            merkle,
            size,
        };
        let hash = merkle::build(&meta_far).id;
        let manifest = PackageManifest {
            repository: None,
            package: MetaPackage { name: "large".parse()?, variant: PackageVariant::zero() },
            blobs: vec![
                blob(META_FAR_PATH, "meta.far", hash, meta_far.len() as u64),
                blob("large", "large", id, bytes),
            ],
            blob_sources_relative: PathsRelative::File,
            subpackages: Vec::new(),
            delivery_blob_type: None,
            abi_revision: None,
        };
        let path = built.join("package_manifest.json");
        fs::write(&path, manifest.to_bytes()?)?;
        let served = dir.join("served");
        let repository = Repository::create(&served, CreateOptions::new(SystemClock.now()))?;
        let publish = Publish { manifests: vec![path], compression_level: Some(1), ..Publish::new(SystemClock.now()) };
        repository.publish(&publish)?;
        let served = find_served(&served)?;
        fs::rename(built.join("large"), served.join("blobs").join(id.to_string()))?;
        fs::rename(built.join("meta.far"), served.join("blobs").join(hash.to_string()))?;
        Ok(Self { dir: served, id, repository })
    }

    /// A configuration that names these mirrors.
    pub fn config(&self, edges: &[&Edge]) -> Result<RepoConfig, Box<dyn Error>> {
        let url = |edge: &&Edge| format!("https://{}", edge.authority);
        let metadata = self.repository.metadata()?;
        let mut config = RepoConfig::from_root("bench", metadata.root(), &url(&edges[0]))?;
        let template = config.mirrors[0].clone();
        config.mirrors.extend(edges[1..].iter().map(|edge| {
            let mut mirror = template.clone();
            mirror.mirror_url = url(edge);
            mirror
        }));
        Ok(config)
    }
}

/// The folder with the metadata.
fn find_served(dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let candidates = [dir.to_owned(), dir.join("repository")];
    let found = candidates.into_iter().find(|dir| dir.join("timestamp.json").is_file());
    Ok(found.ok_or("the repository has no timestamp.json")?)
}

/// Resolves the package on a new device in `dir`.
pub async fn resolve(dir: &Path, config: DeviceConfig, repository: RepoConfig) -> Result<(), Box<dyn Error>> {
    let (device, _store) = Device::open(dir, config, Arc::new(SystemClock))?;
    device.repositories().add(repository)?;
    let resolved = device.resolve(&URL.parse()?, Arc::new(|_| ())).await?;
    if resolved.report.fetched != 2 {
        return Err("the device was not new".into());
    }
    Ok(())
}
