//! [`UpdateError`]: why an update did not happen, in one line each.

use std::path::PathBuf;

use colibri_common::BlobId;
use colibri_fetch::FetchError;
use colibri_release::ota_manifest::OtaManifestError;
use colibri_release::update_package::{UpdatePackageError, UpdateRefused};
use colibri_store::StoreError;

use crate::error::DeviceError;

/// Why an update did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// One at a time.
    #[error("an update is being installed already")]
    Busy,
    /// The fall-back of the last update is still needed.
    #[error("the running system is not committed yet: commit it, or restart into the one before, then update")]
    NotCommitted,
    /// Recovery runs, which commits nothing.
    #[error("recovery runs: there is no system to commit")]
    Recovery,
    /// Not an update.
    #[error("{url}: {error}")]
    Package {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        error: UpdatePackageError,
    },
    /// Where an update should be.
    #[error("`{given}` is no update: {reason}")]
    Source {
        /// As given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody could have signed it.
    #[error(
        "this device has no keys for signed manifests of updates: its config/update-keys.json should name them, or --manifest-key"
    )]
    NoKeys,
    /// The keys for signed manifests.
    #[error("keys for signed manifests of updates, {from}: {reason}")]
    Keys {
        /// Where they are.
        from: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A signed manifest that does not count.
    #[error("{from}: {error}")]
    Manifest {
        /// Where it was.
        from: String,
        /// What is wrong with it.
        error: OtaManifestError,
    },
    /// A signed manifest that cannot be had.
    #[error("the signed manifest at {from} could not be read: {reason}")]
    NoManifest {
        /// Where it should be.
        from: String,
        /// Why not.
        reason: String,
    },
    /// Where a manifest says that its blobs are.
    #[error("{from}: its blobs cannot be at {given:?}: {reason}")]
    BlobAddress {
        /// Where the manifest was.
        from: String,
        /// As it says.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A blob of a manifest could not be had.
    #[error(transparent)]
    Blob(#[from] FetchError),
    /// What was signed contradicts itself.
    #[error("the signed manifest gives blob {blob} {expected} bytes, and it has {found}")]
    BlobLength {
        /// The blob.
        blob: BlobId,
        /// As signed.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// A system with a package that is not whole would not run.
    #[error("package {package} of the signed manifest is not whole: blob {blob} is not listed")]
    PackageNotWhole {
        /// The package hash.
        package: BlobId,
        /// What it names.
        blob: BlobId,
    },
    /// It went while the rest was fetched.
    #[error("blob {0} of the new system is not here any more: install again")]
    BlobGone(BlobId),
    /// Another package.
    #[error("{url} calls itself `{found}`, not `update`: it is no update package")]
    Name {
        /// What was asked for.
        url: String,
        /// The name in its `meta/package`.
        found: String,
    },
    /// Not for this device.
    #[error(transparent)]
    Refused(#[from] UpdateRefused),
    /// An image that its package does not hold.
    #[error("package {package} has no file {path:?}, which should be an image")]
    NoImage {
        /// The package.
        package: BlobId,
        /// The file.
        path: String,
    },
    /// A place that this device does not have.
    #[error("there is no place for image {0} on this device")]
    ImagePlace(String),
    /// What was written is not the image of the update.
    #[error("{}: what was written is not the image with SHA-256 {expected}", path.display())]
    WrongImage {
        /// Where.
        path: PathBuf,
        /// The hash that it should have.
        expected: String,
    },
    /// The disk under an image.
    #[error("image {}: {source}", path.display())]
    Image {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A document of the device's own.
    #[error("the record of {what} cannot be used: {reason}")]
    Damaged {
        /// Which.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The new system is not well.
    #[error("the new system is not healthy: {0}")]
    Unhealthy(String),
    /// Packages or metadata.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device's own files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A background task was lost.
    #[error("an internal task stopped: {0}")]
    Internal(String),
}
