//! [`ServedRepository`]: one repository's folder, and the [`Summary`] of what its metadata says.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_api::RepositoryName;
use colibri_common::UnixSeconds;
use colibri_metadata::{FileMeta, RepoConfig, Role, RoleName, Root, Targets, TrustedSet};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Serialize;

use crate::blob_folders::BlobFolders;
use crate::config::RepositoryConfig;
use crate::error::OriginError;
use crate::file::Stamp;
use crate::limits::{PAGE_PACKAGES_MAX, SUMMARIES_CACHE_BYTES};
use crate::small_files::SmallFiles;

/// The delegated role of the versioning authority.
const ROLLOUT: &str = "rollout";

/// A repository on disk.
#[derive(Debug)]
pub(crate) struct ServedRepository {
    /// Its name.
    pub name: RepositoryName,
    /// The folder of its metadata.
    pub metadata: PathBuf,
    /// Where its blobs lie.
    pub blobs: BlobFolders,
}

/// What a repository's page says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// The repository.
    pub name: RepositoryName,
    /// Version of the targets role.
    pub targets_version: Option<u32>,
    /// How many packages there are.
    pub package_count: usize,
    /// The first [`PAGE_PACKAGES_MAX`] of them by name.
    pub packages: Vec<PackageLine>,
}

/// One package of a [`Summary`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PackageLine {
    /// `NAME/VARIANT`.
    pub name: String,
    /// The package hash.
    pub hash: Option<String>,
    /// Length of the meta.far in bytes.
    pub meta_far_bytes: Option<u64>,
}

impl ServedRepository {
    /// Finds the metadata of a repository: in `repository/`, else in the folder itself. Blocks.
    pub fn open(config: &RepositoryConfig) -> Result<Self, OriginError> {
        let candidates = [config.path.join("repository"), config.path.clone()];
        let is_metadata =
            |folder: &PathBuf| [Role::Root.file(), "1.root.json"].iter().any(|file| folder.join(file).is_file());
        let metadata = candidates.into_iter().find(is_metadata);
        let metadata = metadata.ok_or_else(|| OriginError::NotARepository(config.path.clone()))?;
        let blobs = BlobFolders::new(&config.path, &metadata);
        Ok(Self { name: config.name.clone(), metadata, blobs })
    }

    /// A file below the metadata folder. `name` comes from a parsed route: its segments cannot leave the folder.
    pub fn metadata_path(&self, name: &str) -> PathBuf {
        self.metadata.join(Path::new(name))
    }

    /// The configuration that tells a device of this repository, at the address it was asked at. Blocks.
    pub fn device_config(&self, files: &SmallFiles, mirror_url: &str) -> Result<RepoConfig, OriginError> {
        let root = self.root(files)?;
        RepoConfig::from_root(self.name.as_str(), &root, mirror_url).map_err(|error| self.unusable(&error))
    }

    fn root(&self, files: &SmallFiles) -> Result<Root, OriginError> {
        let set = TrustedSet::load(self.files(files, &[Role::Root])?).map_err(|error| self.unusable(&error))?;
        Ok(set.root().clone())
    }

    fn files(&self, files: &SmallFiles, roles: &[Role]) -> Result<Vec<(&'static str, Bytes)>, OriginError> {
        let read = |role: &Role| {
            let found = files.get(&self.metadata_path(role.file()));
            found.map(|file| file.map(|file| (role.file(), file.bytes))).transpose()
        };
        roles.iter().filter_map(read).collect()
    }

    /// The set with every delegated role. In the moment in which a release becomes visible, the files may not be those of one
    /// set; then what is at the top is all that is shown, until a moment later.
    fn with_delegated(&self, set: TrustedSet, files: &SmallFiles) -> TrustedSet {
        let numbered = set.root().consistent_snapshot();
        let read = |role: &RoleName, meta: &FileMeta| {
            let name = if numbered { role.numbered_file(meta.version) } else { role.file() };
            files.get(&self.metadata_path(&name)).ok().flatten().map(|file| file.bytes)
        };
        // What has expired is still what the repository offers.
        set.clone().with_delegated(read, UnixSeconds(0)).unwrap_or(set)
    }

    fn unusable(&self, reason: &dyn Display) -> OriginError {
        OriginError::Metadata { repository: self.name.clone(), reason: reason.to_string() }
    }
}

type Versions = (RepositoryName, Vec<Option<Stamp>>);

#[derive(Clone)]
struct ByPackages;

impl Weighter<Versions, Arc<Summary>> for ByPackages {
    fn weight(&self, _: &Versions, summary: &Arc<Summary>) -> u64 {
        512 + 256 * summary.packages.len() as u64
    }
}

/// Maker and memory of summaries: the signatures of a large targets file are not checked for every view of a page.
pub(crate) struct Summaries(Cache<Versions, Arc<Summary>, ByPackages>);

impl Summaries {
    pub fn new() -> Self {
        Self(Cache::with_weighter(64, SUMMARIES_CACHE_BYTES, ByPackages))
    }

    /// The summary of a repository as it is now. Blocks.
    pub fn of(&self, repository: &ServedRepository, files: &SmallFiles) -> Result<Arc<Summary>, OriginError> {
        let stamp =
            |role: Role| files.get(&repository.metadata_path(role.file())).map(|file| file.map(|file| file.stamp));
        let key = (repository.name.clone(), Role::ALL.into_iter().map(stamp).collect::<Result<_, _>>()?);
        self.0.get_or_insert_with(&key, || {
            let stored = repository.files(files, &Role::ALL)?;
            let set = TrustedSet::load(stored).map_err(|error| repository.unusable(&error))?;
            Ok(Arc::new(summarise(repository, &repository.with_delegated(set, files))))
        })
    }
}

/// All that targets and those it delegates to list, the first of it by name. Rollouts choose among packages and are none.
fn summarise(repository: &ServedRepository, set: &TrustedSet) -> Summary {
    let delegated = set.delegated_roles().filter(|(name, _)| name.as_str() != ROLLOUT).map(|(_, role)| role);
    let roles: Vec<_> = set.targets().into_iter().chain(delegated).collect();
    let first = roles.iter().flat_map(|role| role.iter().take(PAGE_PACKAGES_MAX));
    let lines = first.map(|(name, target)| PackageLine {
        name: name.to_string(),
        hash: target.merkle().map(|id| id.to_string()),
        meta_far_bytes: target.size(),
    });
    let mut packages: Vec<_> = lines.collect();
    packages.sort_by(|one, other| one.name.cmp(&other.name));
    packages.truncate(PAGE_PACKAGES_MAX);
    let package_count = roles.iter().map(|role| role.len()).sum();
    let targets_version = set.targets().map(Targets::version);
    Summary { name: repository.name.clone(), targets_version, package_count, packages }
}
