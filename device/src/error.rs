//! How a device fails. [`DeviceError::kind`] is the resolver's error of the reference ("Fuchsia device side" §7.5).

use colibri_common::BlobId;
use colibri_fetch::FetchError;
use colibri_metadata::RepoConfigError;
use colibri_release::RolloutError;
use colibri_store::StoreError;
use colibri_transport::TransportError;

use crate::boot_packages::BootError;
use crate::clock_floor::FloorError;
use crate::eager::EagerError;
use crate::keep::KeepError;
use crate::rewrite::RewriteError;
use crate::sets::{CannotFit, ProvisionError, SetError};

/// Why a device could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The URL is not one of a package.
    #[error("`{url}`: {reason}")]
    InvalidUrl {
        /// As given.
        url: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// No repository of that host is configured.
    #[error("no repository `{0}` is configured: add it with `device repo add`")]
    RepositoryNotFound(String),
    /// Another configuration took its place, or none.
    #[error("repository `{0}` was removed or configured anew in the middle of a refresh: try again")]
    RepositoryReplaced(String),
    /// What was trusted cannot be read: going on without it could mean going back.
    #[error(
        "repository `{repository}` cannot be used: {reason}; to begin anew, and forget which versions were seen, `device repo rm` it and add it again"
    )]
    DamagedTrust {
        /// Host of the repository.
        repository: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository does not list the package.
    #[error("repository `{repository}` lists no package `{package}`")]
    PackageNotFound {
        /// Host of the repository.
        repository: String,
        /// `NAME/VARIANT`.
        package: String,
    },
    /// A boot package.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The running release trusts others.
    #[error("release {release} does not trust repository `{repository}`: {reason}")]
    UntrustedRepository {
        /// Host of the repository.
        repository: String,
        /// Product and version.
        release: String,
        /// Why not.
        reason: &'static str,
    },
    /// Overlays are for developers.
    #[error("developer overlays need engineering mode: set `engineering = true` in this device's configuration")]
    NotEngineering,
    /// The release does not want them.
    #[error("release {0} forbids developer overlays, also in engineering mode")]
    OverlayForbidden(String),
    /// An eager package without an answer.
    #[error("no verified answer says which version of the eager package `{0}` to use")]
    EagerNotFound(String),
    /// The target's `custom` has no merkle root.
    #[error("repository `{repository}`: target `{package}` carries no merkle root")]
    TargetWithoutHash {
        /// Host of the repository.
        repository: String,
        /// `NAME/VARIANT`.
        package: String,
    },
    /// The repository has no such rollout.
    #[error("repository `{repository}` has no rollout `{rollout}`")]
    RolloutNotFound {
        /// Host of the repository.
        repository: String,
        /// Its name.
        rollout: String,
    },
    /// A rollout that must not be followed, whoever signed it.
    #[error("repository `{repository}`, rollout `{rollout}`: {error}")]
    Rollout {
        /// Host of the repository.
        repository: String,
        /// Its name.
        rollout: String,
        /// Why not.
        error: RolloutError,
    },
    /// Metadata could not be had or believed.
    #[error("metadata of repository `{repository}`: {error}")]
    Metadata {
        /// Host of the repository.
        repository: String,
        /// What went wrong.
        error: FetchError,
    },
    /// A blob could not be had.
    #[error(transparent)]
    Blob(FetchError),
    /// A package's meta.far is not one.
    #[error("package {hash}: {reason}")]
    BadPackage {
        /// The package hash.
        hash: BlobId,
        /// What is wrong.
        reason: String,
    },
    /// The package is not on this device, or not all of it.
    #[error("package {0} is not on this device: resolve it first")]
    NotOnDevice(BlobId),
    /// The store failed.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// Nothing may be collected yet.
    #[error(
        "the running release is not committed yet: until it is, the release before it may be needed, so nothing is collected"
    )]
    PendingCommit,
    /// Without knowing what to keep nothing may be collected.
    #[error(
        "the record of what this device keeps cannot be used ({reason}): nothing is collected until the running release is set anew"
    )]
    DamagedCache {
        /// What is wrong with it.
        reason: String,
    },
    /// A synthetic device keeps hashes, not blobs.
    #[error("this device has no store on a disk")]
    NoStore,
    /// Package sets are those of a release.
    #[error("this device follows no product release yet")]
    NoRelease,
    /// A release commits when its permanent packages are here.
    #[error(
        "release {release} cannot be committed: {count} of its permanent packages are not wholly here, {first} for one"
    )]
    NotWhole {
        /// Product and version.
        release: String,
        /// How many are missing.
        count: usize,
        /// One of them.
        first: BlobId,
    },
    /// An answer about an eager package does not count.
    #[error(transparent)]
    Eager(#[from] EagerError),
    /// The package sets refuse it.
    #[error(transparent)]
    Set(#[from] SetError),
    /// A bundle was not taken.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// A release does not fit.
    #[error(transparent)]
    CannotFit(Box<CannotFit>),
    /// A package has no tree.
    #[error("the tree of package {package}: {reason}")]
    Tree {
        /// The package hash.
        package: BlobId,
        /// What is wrong.
        reason: String,
    },
    /// A repository that the device was shipped with.
    #[error(
        "repository `{0}` belongs to what this device was shipped with: it can be overridden with `device repo add`, not removed"
    )]
    StaticRepository(String),
    /// Repositories and rules are as shipped.
    #[error(
        "this device keeps to the repositories and rewrite rules that it was shipped with: its config/config.json says so"
    )]
    StaticOnly,
    /// A context for subpackages that is none.
    #[error("the context for a subpackage cannot be used: {0}")]
    InvalidContext(String),
    /// A subpackage is resolved while its package is open, or not at all.
    #[error("package {0} is not open any more: its subpackages are resolved while it is")]
    SuperpackageClosed(BlobId),
    /// A package without such a subpackage.
    #[error("package {package} has no subpackage `{name}`")]
    SubpackageNotFound {
        /// The package hash.
        package: BlobId,
        /// The name.
        name: String,
    },
    /// How late it was at least.
    #[error(transparent)]
    Clock(#[from] FloorError),
    /// A rewrite rule, or a list of them.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// A repository configuration cannot be used.
    #[error("repository configuration: {0}")]
    RepoConfig(#[from] RepoConfigError),
    /// A bound of [`crate::limits`] was reached.
    #[error("{0}")]
    TooMuch(String),
    /// The device's own files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Sockets or trust anchors.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A background task was lost.
    #[error("an internal task stopped: {0}")]
    Internal(String),
}

impl DeviceError {
    /// The name of the resolver's error.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } | Self::Set(SetError::PinnedUpgradable(_)) => "InvalidUrl",
            Self::StaticRepository(_)
            | Self::StaticOnly
            | Self::UntrustedRepository { .. }
            | Self::NotEngineering
            | Self::OverlayForbidden(_) => "AccessDenied",
            Self::Boot(BootError::Url { .. }) => "InvalidUrl",
            Self::Boot(BootError::NotFound(_) | BootError::SubpackageNotFound { .. }) => "PackageNotFound",
            Self::Boot(_) => "Io",
            Self::RepositoryNotFound(_) => "RepoNotFound",
            Self::PackageNotFound { .. } | Self::EagerNotFound(_) | Self::SubpackageNotFound { .. } | Self::Set(_) => {
                "PackageNotFound"
            }
            Self::InvalidContext(_) => "InvalidContext",
            Self::NotOnDevice(_) => "BlobNotFound",
            Self::Blob(FetchError::AllFailed { rate_limited: true, .. }) => "Io",
            Self::Blob(_) => "UnavailableBlob",
            Self::Keep(KeepError::NoSpace(_)) | Self::CannotFit(_) => "NoSpace",
            Self::Keep(_) | Self::Store(_) => "Io",
            _ => "Internal",
        }
    }

    /// The status that programs of real devices know this error by.
    pub fn zx_status(&self) -> &'static str {
        match self.kind() {
            "AccessDenied" => "ACCESS_DENIED",
            "Io" => "IO",
            "PackageNotFound" | "RepoNotFound" | "BlobNotFound" => "NOT_FOUND",
            "NoSpace" => "NO_SPACE",
            "UnavailableBlob" => "UNAVAILABLE",
            "InvalidUrl" | "InvalidContext" => "INVALID_ARGS",
            _ => "INTERNAL",
        }
    }
}
