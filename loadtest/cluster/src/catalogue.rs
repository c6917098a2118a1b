//! [`Catalogue`]: a generated repository: a release package that changes from release to release, and others that do not.
//!
//! Everything hangs on the seed, so that two runs publish the same blobs. Publishing is the library that `repo publish` uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use colibri_common::{BlobId, UnixSeconds, merkle};
use colibri_metadata::TrustedSet;
use colibri_package::{AbiRevision, PackageBuild};
use colibri_repository::{CreateOptions, Publish, Repository, RepositoryError};

/// Name of the repository, and host of its URLs.
pub const REPOSITORY: &str = "fleet";

/// Name of the release package.
pub const RELEASE: &str = "system";

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CatalogueConfig {
    /// Seed of all content.
    pub seed: u64,
    /// Packages besides the release.
    pub packages: usize,
    /// Files of the release package.
    pub release_files: usize,
    /// Bytes of each of them.
    pub release_file_bytes: u64,
    /// Share of them that a new release changes.
    pub changed: f64,
    /// Bytes of the file of each other package.
    pub package_bytes: u64,
}

/// Why a catalogue could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Its files.
    #[error("{path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Publishing.
    #[error("publishing: {0}")]
    Publish(#[from] RepositoryError),
    /// A package that cannot be built.
    #[error("building package `{name}`: {reason}")]
    Build {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
}

/// What was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Number of the release, from 1.
    pub release: u32,
    /// Package hash of the release package.
    pub hash: BlobId,
    /// Bytes of blobs that were new, as they are stored.
    pub stored_bytes: u64,
}

/// A repository that makes its own content.
#[derive(Debug)]
pub struct Catalogue {
    repository: Repository,
    staged: PathBuf,
    config: CatalogueConfig,
}

impl Catalogue {
    /// An empty repository in `dir`.
    pub fn create(dir: &Path, config: CatalogueConfig, now: UnixSeconds) -> Result<Self, CatalogueError> {
        let repository = Repository::create(&dir.join("repository"), CreateOptions::new(now))?;
        let staged = dir.join("staged");
        std::fs::create_dir_all(&staged).map_err(|source| CatalogueError::File { path: staged.clone(), source })?;
        Ok(Self { repository, staged, config })
    }

    /// Folder of the repository.
    pub fn dir(&self) -> &Path {
        self.repository.dir()
    }

    /// What is signed.
    pub fn metadata(&self) -> Result<TrustedSet, CatalogueError> {
        Ok(self.repository.metadata()?)
    }

    /// Names of the packages besides the release, the most popular first.
    pub fn package_names(&self) -> Vec<String> {
        (1..=self.config.packages).map(|number| format!("package-{number:04}")).collect()
    }

    /// Publishes release number `release`, from 1. With the first one come all other packages.
    pub fn publish(&self, release: u32, now: UnixSeconds) -> Result<Published, CatalogueError> {
        let mut manifests = Vec::new();
        if release <= 1 {
            for (number, name) in self.package_names().iter().enumerate() {
                let content = self.content(u64::MAX - number as u64, 0, self.config.package_bytes);
                manifests.push(self.stage(name, &[("data/content".to_owned(), content)])?.0);
            }
        }
        let files: Vec<_> = (0..self.config.release_files)
            .map(|file| {
                let version = u64::from(file_version(file, release, self.config.release_files, self.config.changed));
                (format!("data/file-{file:05}"), self.content(file as u64, version, self.config.release_file_bytes))
            })
            .chain([("data/release".to_owned(), format!("{release}\n").into_bytes())])
            .collect();
        let (manifest, hash) = self.stage(RELEASE, &files)?;
        manifests.push(manifest);
        let publish = Publish { manifests, compression_level: Some(1), ..Publish::new(now) };
        let report = self.repository.publish(&publish)?;
        Ok(Published { release, hash, stored_bytes: report.bytes_stored_new })
    }

    fn content(&self, file: u64, version: u64, length_bytes: u64) -> Vec<u8> {
        let seed = self.config.seed ^ file.rotate_left(32) ^ version.rotate_left(16);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut content = vec![0; usize::try_from(length_bytes).unwrap_or(0)];
        random.fill(&mut content);
        content
    }

    /// Builds a package; its manifest and hash.
    fn stage(&self, name: &str, files: &[(String, Vec<u8>)]) -> Result<(PathBuf, BlobId), CatalogueError> {
        let failed =
            |error: &dyn std::fmt::Display| CatalogueError::Build { name: name.to_owned(), reason: error.to_string() };
        let mut build = PackageBuild::new(name.parse().map_err(|error| failed(&error))?, AbiRevision(1));
        let mut blobs = BTreeMap::new();
        for (path, content) in files {
            let id = merkle::build(content).id;
            build.add_content(path, id).map_err(|error| failed(&error))?;
            blobs.insert(path.as_str(), (id, content.as_slice()));
        }
        let meta_far = build.finish().map_err(|error| failed(&error))?.to_vec();
        let hash = merkle::build(&meta_far).id;
        let mut entries = Vec::new();
        // A manifest begins with the meta.far.
        for (path, (id, content)) in std::iter::once(("meta/", (hash, meta_far.as_slice()))).chain(blobs) {
            let source = self.staged.join(id.to_string());
            self.write(&source, content)?;
            let merkle = id.to_string();
            entries.push(
                serde_json::json!({"source_path": source, "path": path, "merkle": merkle, "size": content.len()}),
            );
        }
        let package = serde_json::json!({"name": name, "version": "0"});
        let manifest = serde_json::json!({"version": "1", "package": package, "blobs": entries});
        let path = self.staged.join(format!("{name}-{hash}.json"));
        self.write(&path, manifest.to_string().as_bytes())?;
        Ok((path, hash))
    }

    fn write(&self, path: &Path, content: &[u8]) -> Result<(), CatalogueError> {
        std::fs::write(path, content).map_err(|source| CatalogueError::File { path: path.to_owned(), source })
    }
}

/// How often a file of the release package had changed by a release: each release changes the next ones of the list, round and
/// round.
pub fn file_version(file: usize, release: u32, files: usize, changed: f64) -> u32 {
    let per_release = (files as f64 * changed).ceil() as usize;
    let changes = |release: &usize| (file + files - (release * per_release) % files) % files < per_release;
    (2..=release as usize).filter(changes).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_changes_its_share() {
        let changed = |release| {
            (0..8)
                .filter(move |file| file_version(*file, release, 8, 0.25) != file_version(*file, release - 1, 8, 0.25))
        };
        assert_eq!(changed(2).count(), 2);
        let all: std::collections::BTreeSet<_> = (2..6).flat_map(changed).collect();
        assert_eq!(all.len(), 8, "after four releases each file has changed");
        assert_eq!(file_version(3, 9, 4, 1.0), 8);
        assert_eq!(file_version(3, 9, 4, 0.0), 0);
    }
}
