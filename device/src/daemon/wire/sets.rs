//! Package sets and releases as they are spoken of over the socket.

use colibri_common::BlobId;
use serde::{Deserialize, Serialize};

/// `GET /sets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sets {
    /// One for each set of the release.
    pub sets: Vec<SetEntry>,
    /// Packages that came with the boot image, and those of the release that did not, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot: Vec<BootEntry>,
    /// The cache set of the release, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheEntry>,
    /// What developers put before all of these, if they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayEntry>,
}

/// The cache set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntry {
    /// True: RFC-0212 has permanent & upgradable packages in its place.
    pub deprecated: bool,
    /// How many there are.
    pub eligible: usize,
    /// How many of them are wholly here.
    pub delivered: usize,
    /// Its packages.
    pub packages: Vec<SetPackageEntry>,
}

/// A package that came with the boot image, or should have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    /// `fuchsia-boot:///NAME`.
    pub url: String,
    /// Its hash.
    pub hash: BlobId,
    /// It came with the boot image.
    pub delivered: bool,
    /// The running release has it so.
    pub eligible: bool,
}

/// `GET /overlay`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayEntry {
    /// URLs of packages.
    pub packages: Vec<String>,
    /// URLs of repositories any package of which is meant.
    pub repositories: Vec<String>,
    /// Whether it counts.
    pub in_force: bool,
    /// Why not.
    pub refused: Option<String>,
}

/// `POST /overlay`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OverlayAdd {
    /// URL of a package.
    Package(String),
    /// URL of a repository.
    Repository(String),
}

/// One package set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetEntry {
    /// Its name.
    pub set: String,
    /// Packages in it.
    pub eligible: usize,
    /// Of these, wholly here.
    pub delivered: usize,
    /// Domains any package of which is in it.
    pub domains: Vec<String>,
    /// Its packages.
    pub packages: Vec<SetPackageEntry>,
}

/// One package of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPackageEntry {
    /// Its URL.
    pub url: String,
    /// The version in use.
    pub hash: Option<BlobId>,
    /// Who set it.
    pub version_by: String,
    /// It is wholly here.
    pub delivered: bool,
}

/// The end of taking a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// Product and version.
    pub release: String,
    /// What was fetched before it ran.
    pub permanent: Fetched,
    /// What was fetched since.
    pub automatic: Automatic,
}

/// What a fetch did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Packages.
    pub packages: usize,
    /// Their blobs.
    pub blobs: usize,
    /// Of these, fetched now.
    pub fetched: usize,
    /// Their bytes.
    pub fetched_content_bytes: u64,
}

/// What became of automatic packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Automatic {
    /// Here.
    pub delivered: Vec<BlobId>,
    /// There is no space for them.
    pub deferred: Vec<BlobId>,
    /// They could not be fetched, and why.
    pub failed: Vec<(BlobId, String)>,
}
