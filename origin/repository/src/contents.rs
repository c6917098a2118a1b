//! What a package consists of: its blobs and those of its subpackages, read from the meta.fars of a repository, be it one
//! that is published into or one that only lies there.

use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::TrustedSet;
use colibri_package::MetaFar;

use crate::blobs::BlobFolder;
use crate::bundle::RepositorySource;
use crate::error::RepositoryError;
use crate::folders::Folders;
use crate::limits;
use crate::repository::{PackageEntry, Repository};

/// One blob of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageBlob {
    /// Names of the subpackages that lead to it, joined by `/`; empty for the package itself.
    pub subpackage: String,
    /// Path in its package; `meta/` for the meta.far.
    pub path: String,
    /// The blob.
    pub hash: BlobId,
    /// Length of its content in bytes.
    pub size: u64,
    /// When it was stored, as far as the file system tells.
    pub modified: Option<UnixSeconds>,
}

impl Repository {
    /// The package called `NAME` (variant 0) or `NAME/VARIANT`.
    ///
    /// # Errors
    /// There is no such package.
    pub fn package(&self, name: &str) -> Result<PackageEntry, RepositoryError> {
        named(self.packages()?, name)
    }

    /// Every blob of a package, its meta.far first, then subpackages in order of their names, recursively.
    ///
    /// # Errors
    /// There is no such package, or a blob is missing or damaged.
    pub fn package_blobs(&self, name: &str) -> Result<Vec<PackageBlob>, RepositoryError> {
        blobs_of(&self.blobs, self.package(name)?.hash)
    }

    /// The verified content of a stored blob.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn blob_content(&self, id: BlobId) -> Result<Vec<u8>, RepositoryError> {
        self.blobs.content(id)
    }
}

impl RepositorySource {
    /// What a client that begins with the oldest root here believes at `now`.
    ///
    /// # Errors
    /// The metadata is damaged, or some of it has expired.
    pub fn trusted_at(&self, now: UnixSeconds) -> Result<TrustedSet, RepositoryError> {
        self.folders.trusted_at(now)
    }

    /// The packages offered, by name and variant. Targets that are no packages are left out.
    ///
    /// # Errors
    /// The metadata is damaged; it may have expired.
    pub fn packages(&self) -> Result<Vec<PackageEntry>, RepositoryError> {
        let listed = self.folders.listed(&self.folders.trusted()?);
        let entry = |package: crate::folders::Listed| {
            let (name, variant) = package.name.split_once('/')?;
            let length = package.description.size().unwrap_or(package.description.length);
            let (hash, modified) = (package.hash, self.folders.modified(package.hash));
            Some(PackageEntry { name: name.to_owned(), variant: variant.to_owned(), hash, length, modified })
        };
        let mut packages: Vec<PackageEntry> = listed.into_iter().filter_map(entry).collect();
        packages.sort_unstable_by(|left, right| (&left.name, &left.variant).cmp(&(&right.name, &right.variant)));
        Ok(packages)
    }

    /// The package called `NAME` (variant 0) or `NAME/VARIANT`.
    ///
    /// # Errors
    /// There is no such package.
    pub fn package(&self, name: &str) -> Result<PackageEntry, RepositoryError> {
        named(self.packages()?, name)
    }

    /// Every blob of the package with this hash, its meta.far first, then subpackages in order of their names, recursively.
    ///
    /// # Errors
    /// A blob is missing or damaged.
    pub fn blobs_of(&self, package: BlobId) -> Result<Vec<PackageBlob>, RepositoryError> {
        blobs_of(&self.folders, package)
    }

    /// The verified content of a blob.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn blob_content(&self, id: BlobId) -> Result<Vec<u8>, RepositoryError> {
        self.folders.content(id)
    }
}

fn named(packages: Vec<PackageEntry>, name: &str) -> Result<PackageEntry, RepositoryError> {
    let (wanted, variant) = name.split_once('/').unwrap_or((name, "0"));
    let found = packages.into_iter().find(|entry| entry.name == wanted && entry.variant == variant);
    found.ok_or_else(|| RepositoryError::UnknownPackage(name.to_owned()))
}

/// Where blobs are read from.
trait Holds {
    /// The verified content.
    fn content(&self, id: BlobId) -> Result<Vec<u8>, RepositoryError>;
    /// Its length in bytes.
    fn content_bytes(&self, id: BlobId) -> Result<u64, RepositoryError>;
    /// When it was stored, as far as the file system tells.
    fn modified(&self, id: BlobId) -> Option<UnixSeconds>;
}

impl Holds for BlobFolder {
    fn content(&self, id: BlobId) -> Result<Vec<u8>, RepositoryError> {
        self.content(id)
    }

    fn content_bytes(&self, id: BlobId) -> Result<u64, RepositoryError> {
        self.content_bytes(id)
    }

    fn modified(&self, id: BlobId) -> Option<UnixSeconds> {
        self.modified(id)
    }
}

impl Holds for Folders {
    fn content(&self, id: BlobId) -> Result<Vec<u8>, RepositoryError> {
        self.content(id)
    }

    fn content_bytes(&self, id: BlobId) -> Result<u64, RepositoryError> {
        let mut reason = "it is missing".to_owned();
        for form in self.forms(id)? {
            match form.content_bytes() {
                Ok(bytes) => return Ok(bytes),
                Err(error) => reason = error,
            }
        }
        Err(RepositoryError::StoredBlob { id, reason })
    }

    fn modified(&self, id: BlobId) -> Option<UnixSeconds> {
        self.forms(id).ok()?.first()?.modified()
    }
}

fn blobs_of(holder: &impl Holds, package: BlobId) -> Result<Vec<PackageBlob>, RepositoryError> {
    let mut blobs = Vec::new();
    let mut open = vec![(String::new(), package, 0)];
    let mut packages = 0;
    while let Some((subpackage, hash, depth)) = open.pop() {
        packages += 1;
        if depth > limits::SUBPACKAGE_DEPTH_MAX {
            let limit = limits::SUBPACKAGE_DEPTH_MAX;
            return Err(RepositoryError::TooMany { what: "subpackages in a row", limit });
        }
        if packages > limits::PACKAGES_PER_PUBLISH_MAX {
            return Err(RepositoryError::TooMany { what: "subpackages", limit: limits::PACKAGES_PER_PUBLISH_MAX });
        }
        let meta = MetaFar::parse(holder.content(hash)?.into());
        let meta = meta.map_err(|e| RepositoryError::StoredBlob { id: hash, reason: e.to_string() })?;
        let blob = |path: &str, hash| {
            let (size, modified) = (holder.content_bytes(hash)?, holder.modified(hash));
            Ok::<_, RepositoryError>(PackageBlob {
                subpackage: subpackage.clone(),
                path: path.to_owned(),
                hash,
                size,
                modified,
            })
        };
        blobs.push(blob("meta/", hash)?);
        for (path, id) in meta.contents() {
            blobs.push(blob(path.as_str(), *id)?);
        }
        for (name, id) in meta.subpackages().iter().rev() {
            let below = if subpackage.is_empty() { name.to_string() } else { format!("{subpackage}/{name}") };
            open.push((below, *id, depth + 1));
        }
    }
    Ok(blobs)
}
