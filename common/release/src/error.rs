//! [`ReleaseError`]: why a document is not a product release; each variant one line that names the thing at fault.

use colibri_common::BlobId;

use crate::grid::{NotApplicable, PackageSet};
use crate::release::FORMAT;

/// Why a release is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// Not JSON of this form.
    #[error("product release: {0}")]
    Malformed(String),
    /// Written by a newer program.
    #[error("this product release has format {found}; this program reads formats 1 to {FORMAT}: update it")]
    TooNew {
        /// The format that it says.
        found: u64,
    },
    /// Longer than the limit.
    #[error("a product release has at most {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The product has no name, or one that is too long or has control characters.
    #[error("{0:?} is not a product name")]
    ProductName(String),
    /// A trusted repository's root cannot be trusted.
    #[error("repository {url}: {reason}")]
    Root {
        /// The repository.
        url: String,
        /// What is wrong with its root.
        reason: String,
    },
    /// A package or domain of a repository that the release does not trust.
    #[error("{0} is not of a repository that this release trusts: list the repository with its root")]
    Untrusted(String),
    /// A package in a cell of the grid that does not exist.
    #[error("package {url}: {source}")]
    NotApplicable {
        /// The package.
        url: String,
        /// The cell.
        source: NotApplicable,
    },
    /// A package whose fields contradict its package set.
    #[error("package {url} ({set}): {reason}")]
    Package {
        /// The package.
        url: String,
        /// Its package set.
        set: PackageSet,
        /// What is wrong.
        reason: &'static str,
    },
    /// A package of the cache set that is in a package set as well.
    #[error("package {0} is in a package set and in the cache set, which is deprecated: leave it out of the cache set")]
    CachedToo(String),
    /// One package is anchored at two versions.
    #[error("package {url} is anchored at {first} and at {second}: a release has one version of a package")]
    TwoVersions {
        /// The package.
        url: String,
        /// One version.
        first: BlobId,
        /// The other.
        second: BlobId,
    },
    /// A list is not sorted.
    #[error("{0} is not in its place: lists of a release are sorted")]
    Order(String),
    /// A package, domain, blob or the like is listed twice.
    #[error("{0} is listed twice")]
    Duplicate(String),
    /// A package hash whose contents are not told.
    #[error("the contents of package hash {0} are not listed")]
    NoContents(BlobId),
    /// A blob without a row in the table of blobs.
    #[error("blob {0} is used but not described in `blobs`")]
    NoBlob(BlobId),
    /// Contents or a blob that nothing leads to.
    #[error("{what} {id} belongs to no package of this release")]
    Unused {
        /// `contents` or `blob`.
        what: &'static str,
        /// Which.
        id: BlobId,
    },
    /// A blob with impossible sizes.
    #[error("blob {id}: {reason}")]
    Blob {
        /// Which.
        id: BlobId,
        /// What is wrong.
        reason: &'static str,
    },
}
