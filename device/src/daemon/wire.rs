//! What is said over the socket: bodies of requests and answers, events, and problems.

mod chores;
mod packages;
mod repositories;
mod sets;
mod updates;

use colibri_common::UnixSeconds;
use serde::{Deserialize, Serialize};

use crate::update::Attempt;
pub use chores::{Chore, ChoreEntry, Went};
pub use packages::{
    Blamed, Collected, DamagedBlob, EdgeProgress, FetchProgress, LeaseEntry, Materialise, Materialised, Open,
    OpenedPackage, PackageFile, PackageFiles, PackageHash, PackagePresence, Resolve, ResolvedPackage, Verified, Verify,
};
pub use repositories::{
    LaggingEntry, LaggingMirror, MirrorEntry, RepositoryAdded, RepositoryEntry, Rules, TrustedVersions,
};
pub use sets::{
    Automatic, BootEntry, CacheEntry, Fetched, OverlayAdd, OverlayEntry, Provisioned, SetEntry, SetPackageEntry, Sets,
};
pub use updates::{
    Installing, RunningSystem, UpdateCheck, UpdateCommit, UpdateCommitted, UpdateHistory, UpdateInstall,
};

/// What went wrong (RFC 9457), with the resolver's error kind and the status that programs of real devices know it by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `urn:colibri:device:KIND`.
    #[serde(rename = "type")]
    pub type_uri: Box<str>,
    /// The kind in words.
    pub title: Box<str>,
    /// HTTP status.
    pub status: u16,
    /// What, where, and what to do.
    pub detail: Box<str>,
    /// `PackageNotFound` and so on.
    pub kind: Box<str>,
    /// `NOT_FOUND` and so on.
    pub zx_status: Box<str>,
}

/// `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The device's folder.
    pub dir: String,
    /// The process that answers; nothing if the asking program opened the device itself.
    pub daemon: Option<DaemonStatus>,
    /// Product and version of the running release, if there is one.
    pub release: Option<String>,
    /// Whether what runs was committed.
    pub committed: bool,
    /// Configured repositories.
    pub repositories: usize,
    /// Whole blobs here.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Blobs of which a part is here.
    pub unfinished_blobs: u64,
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Packages that are open.
    pub leases: usize,
    /// Resolves, verifications, installations under way.
    pub operations: usize,
    /// What the daemon does by itself; nothing if the asking program opened the device itself.
    #[serde(default)]
    pub chores: Vec<ChoreEntry>,
    /// Mirrors that answered older metadata than what is trusted when they were asked last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lagging: Vec<LaggingMirror>,
}

/// A process that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Since when.
    pub since: UnixSeconds,
}

/// A line of an answer that takes its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// How far a fetch is.
    Progress(FetchProgress),
    /// A mirror was blamed.
    Blamed(Blamed),
    /// The end of a resolve.
    Resolved(ResolvedPackage),
    /// The package is open now.
    Opened(OpenedPackage),
    /// Leases are over because the daemon ends.
    Ended,
    /// How far a verification is, bytes.
    Verifying {
        /// Read.
        bytes: u64,
        /// In all.
        bytes_total: u64,
    },
    /// The end of a verification.
    Verified(Verified),
    /// From here on automatic packages are fetched.
    Running {
        /// Product and version.
        release: String,
    },
    /// The end of fetching automatic packages.
    Automatic(Automatic),
    /// The end of taking a release.
    Provisioned(Provisioned),
    /// How far an installation is.
    Installing(Installing),
    /// The end of an installation.
    Installed(Attempt),
    /// The end of what failed.
    Failed(Problem),
}
