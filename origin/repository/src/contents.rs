//! What a published package consists of: its blobs and those of its subpackages, read from the stored meta.fars.

use colibri_common::{BlobId, UnixSeconds};
use colibri_package::MetaFar;

use crate::error::RepositoryError;
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
        let (wanted, variant) = name.split_once('/').unwrap_or((name, "0"));
        let found = self.packages()?.into_iter().find(|entry| entry.name == wanted && entry.variant == variant);
        found.ok_or_else(|| RepositoryError::UnknownPackage(name.to_owned()))
    }

    /// Every blob of a package, its meta.far first, then subpackages in order of their names, recursively.
    ///
    /// # Errors
    /// There is no such package, or a blob is missing or damaged.
    pub fn package_blobs(&self, name: &str) -> Result<Vec<PackageBlob>, RepositoryError> {
        let package = self.package(name)?;
        let mut blobs = Vec::new();
        let mut open = vec![(String::new(), package.hash, 0)];
        let mut packages = 0;
        while let Some((subpackage, hash, depth)) = open.pop() {
            packages += 1;
            if depth > limits::SUBPACKAGE_DEPTH_MAX {
                return Err(RepositoryError::TooMany {
                    what: "subpackages in a row",
                    limit: limits::SUBPACKAGE_DEPTH_MAX,
                });
            }
            if packages > limits::PACKAGES_PER_PUBLISH_MAX {
                return Err(RepositoryError::TooMany { what: "subpackages", limit: limits::PACKAGES_PER_PUBLISH_MAX });
            }
            let meta = MetaFar::parse(self.blobs.content(hash)?.into());
            let meta = meta.map_err(|e| RepositoryError::StoredBlob { id: hash, reason: e.to_string() })?;
            blobs.push(self.package_blob(&subpackage, "meta/", hash)?);
            for (path, id) in meta.contents() {
                blobs.push(self.package_blob(&subpackage, path.as_str(), *id)?);
            }
            for (name, id) in meta.subpackages().iter().rev() {
                let below = if subpackage.is_empty() { name.to_string() } else { format!("{subpackage}/{name}") };
                open.push((below, *id, depth + 1));
            }
        }
        Ok(blobs)
    }

    fn package_blob(&self, subpackage: &str, path: &str, hash: BlobId) -> Result<PackageBlob, RepositoryError> {
        Ok(PackageBlob {
            subpackage: subpackage.to_owned(),
            path: path.to_owned(),
            hash,
            size: self.blobs.content_bytes(hash)?,
            modified: self.blobs.modified(hash),
        })
    }

    /// The verified content of a stored blob.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn blob_content(&self, id: BlobId) -> Result<Vec<u8>, RepositoryError> {
        self.blobs.content(id)
    }
}
