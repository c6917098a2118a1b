//! Repositories, their mirrors and rewrite rules as they are spoken of over the socket.

use colibri_common::UnixSeconds;
use colibri_metadata::RepoConfig;
use serde::{Deserialize, Serialize};

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryEntry {
    /// Its configuration.
    pub config: RepoConfig,
    /// The device was shipped with it.
    pub shipped: bool,
    /// What is trusted, if anything is yet.
    pub trusted: Option<TrustedVersions>,
    /// Why its trusted metadata cannot be used, if so.
    pub damage: Option<String>,
    /// When its metadata was last checked.
    pub checked_at: Option<UnixSeconds>,
    /// Its mirrors as they were found to be.
    pub mirrors: Vec<MirrorEntry>,
}

/// Versions of trusted metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedVersions {
    /// Of the root.
    pub root: Option<u32>,
    /// Of the targets.
    pub targets: Option<u32>,
    /// Of the snapshot.
    pub snapshot: Option<u32>,
    /// Of the timestamp.
    pub timestamp: Option<u32>,
    /// When the first of them expires.
    pub expires: Option<String>,
}

/// What is known of a mirror since the device was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorEntry {
    /// Its host and port.
    pub source: String,
    /// Requests to it.
    pub requests: u64,
    /// Body bytes from it.
    pub body_bytes: u64,
    /// Times it served bad bytes.
    pub blames: u64,
    /// Other failures.
    pub failures: u64,
    /// It answers older metadata than what is trusted, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lagging: Option<LaggingEntry>,
}

/// How a mirror lags behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaggingEntry {
    /// Since when it was found so whenever it was asked.
    pub since: UnixSeconds,
    /// When it was found so last.
    pub last: UnixSeconds,
    /// What it answered, and what is known better.
    pub what: String,
}

/// A mirror that lags behind, in [`Status`](super::Status).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaggingMirror {
    /// `fuchsia-pkg://HOST`.
    pub repository: String,
    /// The mirror's host and port.
    pub source: String,
    /// How.
    #[serde(flatten)]
    pub lagging: LaggingEntry,
}

/// Answer to `POST /repositories`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryAdded {
    /// The repository now.
    pub added: RepositoryEntry,
    /// The configuration that was replaced.
    pub replaced: Option<RepoConfig>,
}

/// `GET /rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// All, in the order in which they are tried; each as in a rules file.
    pub all: Vec<serde_json::Value>,
    /// Those that were set, as a rules file.
    pub dynamic: serde_json::Value,
}
