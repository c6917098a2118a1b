//! Systems and their updates as they are spoken of over the socket.

use colibri_common::BlobId;
use serde::{Deserialize, Serialize};

use crate::update::{Attempt, Phase, System};

/// How far an installation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installing {
    /// What it does.
    pub phase: Phase,
    /// Content bytes fetched.
    pub fetched_bytes: u64,
    /// Image bytes written, or found to be there.
    pub image_bytes: u64,
    /// Image bytes in all; 0 until they are known.
    pub image_bytes_total: u64,
    /// Packages that are here.
    pub packages: u64,
    /// Packages in all; 0 until they are known.
    pub packages_total: u64,
    /// Bytes of blobs that are here, if the update says sizes.
    pub content_bytes: u64,
    /// Bytes of all of its blobs; 0 if it says no sizes.
    pub content_bytes_total: u64,
}

/// `POST /update/install`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateInstall {
    /// An update package (`fuchsia-pkg://…`) or a signed manifest (`https://…`, `file:///…`).
    pub update: String,
}

/// `GET /update/check?update=URL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateCheck {
    /// The update that is offered.
    pub offered: BlobId,
    /// Its version.
    pub version: String,
    /// What runs, if that is known.
    pub running: Option<RunningSystem>,
    /// They differ.
    pub update_available: bool,
    /// What it would cost, if that is known before it is fetched; as the answer to `POST /plan`.
    pub plan: Option<serde_json::Value>,
}

/// The system that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningSystem {
    /// Its update package.
    pub update: BlobId,
    /// Its version.
    pub version: String,
}

/// `POST /update/commit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateCommit {
    /// Why the system is not well; nothing if it is.
    #[serde(default)]
    pub unhealthy: Option<String>,
}

/// Answer to `POST /update/commit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateCommitted {
    /// Always true.
    pub committed: bool,
    /// The version that runs, if that is known.
    pub version: Option<String>,
}

/// `GET /update/history`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateHistory {
    /// What runs.
    pub running: System,
    /// What starts next.
    pub next: System,
    /// What runs was committed.
    pub committed: bool,
    /// The version that runs, if that is known.
    pub version: Option<String>,
    /// Attempts, oldest first.
    pub attempts: Vec<Attempt>,
}
