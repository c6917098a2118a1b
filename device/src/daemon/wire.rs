//! What is said over the socket: bodies of requests and answers, events, and problems.

use std::path::PathBuf;

use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::RepoConfig;
use serde::{Deserialize, Serialize};

use crate::update::{Attempt, Phase, System};

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

/// `GET /sets`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sets {
    /// One for each set of the release.
    pub sets: Vec<SetEntry>,
    /// Packages that came with the boot image, if any did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot: Vec<BootEntry>,
    /// What developers put before all of these, if they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayEntry>,
}

/// A package that came with the boot image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    /// `fuchsia-boot:///NAME`.
    pub url: String,
    /// Its hash.
    pub hash: BlobId,
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
