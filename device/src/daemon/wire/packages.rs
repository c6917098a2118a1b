//! Packages and blobs as they are spoken of over the socket: looking, resolving, opening, verifying, collecting.

use std::path::PathBuf;

use colibri_common::{BlobId, UnixSeconds};
use serde::{Deserialize, Serialize};

/// `GET /hash?url=URL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageHash {
    /// As asked.
    pub url: String,
    /// The package hash.
    pub hash: BlobId,
}

/// `GET /package-status?url=URL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagePresence {
    /// As asked.
    pub url: String,
    /// The repository lists it.
    pub in_repository: bool,
    /// The hash that it lists.
    pub merkle: Option<BlobId>,
    /// Whether it is wholly here; nothing if no repository lists it.
    pub on_disk: Option<bool>,
}

/// `GET /packages/HASH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFiles {
    /// The package hash.
    pub hash: BlobId,
    /// Its files, by path.
    pub contents: Vec<PackageFile>,
    /// Packages that it contains, by name.
    pub subpackages: Vec<(String, BlobId)>,
}

/// One file of a package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageFile {
    /// Its path.
    pub path: String,
    /// Its content; nothing if it is inside the package's meta.far.
    pub blob: Option<BlobId>,
}

/// `POST /resolve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// The package URL.
    pub url: String,
}

/// `POST /open`: one or the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Open {
    /// Packages that are here.
    pub packages: Vec<BlobId>,
    /// A package to be resolved first.
    pub url: Option<String>,
}

/// `POST /materialise`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Materialise {
    /// The package hash.
    pub hash: BlobId,
    /// The new folder, absolute.
    pub dir: PathBuf,
}

/// Answer to `POST /materialise`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Materialised {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How far a fetch is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchProgress {
    /// Blobs that are known to be needed.
    pub blobs: u64,
    /// Of these, here.
    pub blobs_done: u64,
    /// Bytes of content fetched and verified.
    pub content_bytes: u64,
    /// The rate of the last seconds.
    pub bytes_per_s: u64,
    /// What came from each mirror meanwhile, whoever asked for it.
    pub edges: Vec<EdgeProgress>,
}

/// What came from one mirror.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeProgress {
    /// Its host and port.
    pub source: String,
    /// Bytes of bodies.
    pub body_bytes: u64,
}

/// A mirror that served bytes which are provably wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blamed {
    /// Its host and port.
    pub source: String,
    /// What was wrong.
    pub reason: String,
}

/// A package that was resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedPackage {
    /// As asked.
    pub url: String,
    /// What it stands for.
    pub resolved_url: String,
    /// The package hash.
    pub hash: BlobId,
    /// Who said that it is this one.
    pub version_by: String,
    /// Packages, subpackages included.
    pub packages: usize,
    /// Their distinct blobs.
    pub blobs: usize,
    /// Of these, fetched now.
    pub fetched: usize,
    /// Content bytes of these.
    pub fetched_content_bytes: u64,
    /// Of these, bytes that an earlier version had.
    pub reused_content_bytes: u64,
}

/// A package that stays while the connection does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedPackage {
    /// The package hash.
    pub hash: BlobId,
    /// Its read-only tree of files.
    pub path: PathBuf,
}

/// `POST /verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// Read at most so many bytes per second.
    pub bytes_per_s: Option<std::num::NonZeroU64>,
    /// Repair nothing.
    pub only_look: bool,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Blobs read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were damaged.
    pub damaged: Vec<DamagedBlob>,
    /// Trees removed because they may share damaged bytes.
    pub trees_removed: u64,
}

/// A blob that was damaged at rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedBlob {
    /// The blob.
    pub blob: BlobId,
    /// Its first bad byte or one of the leaf that it is in.
    pub offset: u64,
    /// It is well again.
    pub repaired: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Answer to `POST /gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Blobs removed.
    pub blobs_removed: Vec<BlobId>,
    /// Their bytes.
    pub bytes_removed: u64,
    /// Unfinished blobs removed.
    pub unfinished_removed: u64,
    /// Packages that were given up though something named them.
    pub packages_evicted: Vec<BlobId>,
    /// Trees removed.
    pub trees_removed: u64,
}

/// One package that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseEntry {
    /// The package hash.
    pub package: BlobId,
    /// Who has it open, in words.
    pub holder: String,
    /// The process that connected, if it is one.
    pub pid: Option<i32>,
    /// Its user.
    pub uid: Option<u32>,
    /// Since when.
    pub since: UnixSeconds,
}
