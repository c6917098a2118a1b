//! [`RepositoryError`]: each variant one line that names the file or package at fault.

use std::io;
use std::path::{Path, PathBuf};

use colibri_common::BlobId;
use colibri_metadata::{MetadataError, RepoConfigError, Role, TargetNameError};
use colibri_package::delivery::DeliveryError;
use colibri_release::BundleError;
use colibri_store::StoreError;

use crate::gate::UnreadyBlob;
use crate::keys::KeyRole;
use crate::sign_targets::Unfit;

/// Why a repository could not be made, read or changed. A failed publish leaves what was published before as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// The folder already holds a repository.
    #[error("{path} already holds a repository: publish into it, or choose an empty folder")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds no repository.
    #[error("{path} holds no repository (there is no repository/root.json below it): make one with `repo create`")]
    NotARepository {
        /// The folder.
        path: PathBuf,
    },
    /// Another program is publishing.
    #[error("{path} is locked by another publish, still after {waited_s} s: wait for it or stop it")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long this one waited, in seconds.
        waited_s: u64,
    },
    /// A file of the publisher cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the publisher is larger than allowed.
    #[error("{path} has {bytes} bytes, more than the {bytes_max} allowed")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A manifest, list or archive does not parse.
    #[error("{path}: {reason}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A blob's source file is missing.
    #[error("{path}, named by {manifest} for {blob_path}, does not exist: build the package again")]
    MissingBlob {
        /// The source file.
        path: PathBuf,
        /// Who names it.
        manifest: PathBuf,
        /// Its path in the package.
        blob_path: String,
    },
    /// A source file is not the blob that the manifest claims.
    #[error(
        "{path} has changed since {manifest} was written: it is blob {found}, not {claimed}; build the package again"
    )]
    WrongBlob {
        /// The source file.
        path: PathBuf,
        /// Who claims it.
        manifest: PathBuf,
        /// Claimed id.
        claimed: BlobId,
        /// Id of what is there.
        found: BlobId,
    },
    /// A manifest claims another size than the source file has.
    #[error("{path} has {found} bytes, but {manifest} says {claimed}; build the package again")]
    WrongSize {
        /// The source file.
        path: PathBuf,
        /// Who claims it.
        manifest: PathBuf,
        /// Claimed size in bytes.
        claimed: u64,
        /// Size of what is there in bytes.
        found: u64,
    },
    /// Two packages of one publish have one name and different content.
    #[error("package {package} appears twice in this publish, as {first} and as {second}:\n{differences}")]
    Conflict {
        /// `NAME/VARIANT`.
        package: String,
        /// Where it was first.
        first: PathBuf,
        /// Where it was again.
        second: PathBuf,
        /// File by file.
        differences: String,
    },
    /// Subpackages form a cycle.
    #[error("{path} is a subpackage of itself: {chain}")]
    SubpackageCycle {
        /// The manifest.
        path: PathBuf,
        /// How it was reached.
        chain: String,
    },
    /// A subpackage's manifest is not of the package that the parent names.
    #[error("{path} is package {found}, but its parent {parent} names {claimed}; build the parent again")]
    WrongSubpackage {
        /// The subpackage's manifest.
        path: PathBuf,
        /// The parent's manifest.
        parent: PathBuf,
        /// Package hash that the parent names.
        claimed: BlobId,
        /// Package hash of the manifest.
        found: BlobId,
    },
    /// A package's own meta.far names something that is not at hand.
    #[error(
        "package {package} names {what} {id}, which neither this publish nor the repository has: a release is visible only when whole"
    )]
    Incomplete {
        /// The package.
        package: String,
        /// `blob PATH` or `subpackage NAME`.
        what: String,
        /// The missing blob.
        id: BlobId,
    },
    /// Repositories that are to be merged have packages of one name and different content.
    #[error("{count} packages of one name differ:\n{named}")]
    MergeConflict {
        /// How many.
        count: usize,
        /// A line each: the name, and what each repository has.
        named: String,
    },
    /// A repository that is to be transferred is not whole.
    #[error("{count} blobs that its packages name cannot be had from it, among them:\n{named}")]
    Lacking {
        /// How many.
        count: usize,
        /// Some of them, a line each, with who uses them and why they cannot be had.
        named: String,
    },
    /// Blobs of what would be offered are absent or wrong.
    #[error(
        "{count} blobs of what would be offered are not ready, and a release is visible only when whole:{}\npublish or upload them, or say why it must be offered all the same", listed(.blobs)
    )]
    Unready {
        /// The first of them.
        blobs: Vec<UnreadyBlob>,
        /// How many there are.
        count: u64,
    },
    /// An upload that cannot become the blob it says it is.
    #[error("upload of blob {id}: {reason}: begin it again")]
    Upload {
        /// The blob.
        id: BlobId,
        /// What is wrong.
        reason: String,
    },
    /// Bytes of an upload that do not follow those before.
    #[error("upload of blob {id}: bytes from {expected} on are due, not from {found}: go on from there")]
    UploadOffset {
        /// The blob.
        id: BlobId,
        /// Where the next bytes begin.
        expected: u64,
        /// Where those given began.
        found: u64,
    },
    /// A pin that cannot be made.
    #[error("pin {name:?}: {reason}")]
    BadPin {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Collection where nobody can be kept from publishing.
    #[error("{path} has no locks, so nothing can be collected there safely")]
    NoLocks {
        /// The repository.
        path: PathBuf,
    },
    /// What is here would be refused by every client.
    #[error(
        "metadata in {path}: {source}; devices refuse it too: whoever has the keys signs it again with `repo publish REPOSITORY`, without any package; `repo list REPOSITORY` shows the dates of all roles"
    )]
    Expired {
        /// Folder of the metadata.
        path: PathBuf,
        /// What expired.
        source: MetadataError,
    },
    /// A folder of blobs that cannot be used as such.
    #[error("{path} cannot be where the blobs of {repository} lie: {reason}")]
    BlobsElsewhere {
        /// The repository.
        repository: PathBuf,
        /// The folder of blobs.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Nobody can say here which blobs nobody needs.
    #[error(
        "the blobs of {path} lie in {blobs}, which other repositories may use too: nothing is collected there, because nobody can say here what the others need"
    )]
    SharedBlobs {
        /// The repository.
        path: PathBuf,
        /// Where its blobs lie.
        blobs: PathBuf,
    },
    /// A reason that cannot be signed.
    #[error("the reason for offering what is not proven is refused: {fault}")]
    BadReason {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// No edge shows anything that can be taken back.
    #[error("no edge shows metadata that this repository's root vouches for:{heard}")]
    NoWitness {
        /// What each showed.
        heard: String,
    },
    /// This repository has gone on since it was restored, into another history than the one that edges have seen.
    #[error(
        "{name} is here with another content than edges have seen: this repository was published to after it was restored; restore the backup again, recover, and then publish"
    )]
    Forked {
        /// The file.
        name: String,
    },
    /// This program is ending.
    #[error("stopped")]
    Stopped,
    /// Somebody else has published in between.
    #[error("{role} has version {found}, not {expected}: somebody else has published; look again and try again")]
    Moved {
        /// The role that was looked at.
        role: Role,
        /// Its version.
        found: u32,
        /// The version that the caller saw.
        expected: u32,
    },
    /// The gate that the publisher set does not open.
    #[error("nothing was signed: {reason}")]
    Held {
        /// What the gate said.
        reason: String,
    },
    /// A file of a `compat` repository would be larger than the stock client reads.
    #[error(
        "{} would have {bytes} bytes; devices with the stock client read at most {bytes_max}: publish fewer packages, or make a new repository with the profile scale (`repo create --profile scale`)",
        role.file()
    )]
    OverCap {
        /// Which file.
        role: Role,
        /// Its length in bytes.
        bytes: u64,
        /// The largest that the stock client reads, in bytes.
        bytes_max: u64,
    },
    /// A text is not the name of a target.
    #[error("target {name:?}: {reason}")]
    TargetName {
        /// The text.
        name: String,
        /// What is wrong.
        reason: TargetNameError,
    },
    /// A name for which the stock client refuses a whole targets file.
    #[error(
        "target '{name}' has the character {character} in its name, and devices with the stock client refuse all targets of a repository for it: give it another name, or publish it into a repository with the profile scale (`repo create --profile scale`)"
    )]
    NameNotCompat {
        /// The name.
        name: String,
        /// What is in it.
        character: char,
    },
    /// One publish names a target twice.
    #[error("target {0:?} is named twice in one publish")]
    TargetTwice(String),
    /// Something cannot be signed.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// More than a limit.
    #[error("{what}: more than {limit} in one publish")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A private key is needed and not there.
    #[error(
        "{dir} has {found} of the {needed} private keys needed to sign {role} metadata (expected key ids: {expected})"
    )]
    NoKey {
        /// The folder of key files.
        dir: PathBuf,
        /// The role.
        role: KeyRole,
        /// Usable keys found.
        found: u32,
        /// Threshold of the role.
        needed: u32,
        /// Ids that the root names.
        expected: String,
    },
    /// A key file is not of the known form. Never shows its content.
    #[error("key file {path}: {reason}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An encrypted key file cannot be opened. Never shows the passphrase.
    #[error(
        "key file {path}: {reason}; give the passphrase in COLIBRI_KEY_PASSPHRASE, with --passphrase-file, or at a terminal"
    )]
    LockedKey {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A variable that looks like one for keys.
    #[error(
        "{name} is no variable for keys: there are COLIBRI_KEY_ROOT, _TARGETS, _SNAPSHOT, _TIMESTAMP, _ROLLOUT and _PASSPHRASE"
    )]
    KeyVariable {
        /// Its name.
        name: String,
    },
    /// A key did not sign, or what it signed is wrong.
    #[error("signing with {origin} failed: {reason}")]
    Signer {
        /// Where the key is.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// What would be signed has no form that all clients agree on.
    #[error("{role} metadata cannot be signed: {reason}")]
    Unsignable {
        /// The role.
        role: KeyRole,
        /// What is wrong and where.
        reason: String,
    },
    /// A line of the audit log cannot be written.
    #[error("the audit log cannot tell of this: {0}")]
    AuditText(String),
    /// A file signed elsewhere, or a change of keys, cannot be taken over.
    #[error("{0}")]
    Ceremony(String),
    /// A rollout cannot be signed.
    #[error("rollout {0}")]
    Rollout(String),
    /// The cryptography library refused to make a key.
    #[error("no random numbers for a new key: {0}")]
    Random(&'static str),
    /// The repository's own metadata is damaged, or what was about to be published would be refused by clients.
    #[error("repository {path}: {source}")]
    Metadata {
        /// The repository.
        path: PathBuf,
        /// The rule that is broken.
        source: MetadataError,
    },
    /// Metadata of the repository that cannot be carried on.
    #[error("repository {path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something was written by a newer version of this program.
    #[error("{path}: format {found} is newer than {known}, the newest this program knows: use a newer colibri")]
    TooNew {
        /// What was read.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Other publishers were always first.
    #[error("repository {path}: other publishers were first {attempts} times in a row: try again when they are done")]
    Contended {
        /// The repository.
        path: PathBuf,
        /// How often this one tried.
        attempts: u64,
    },
    /// A version number cannot grow any more, or a date lies beyond the year 9999.
    #[error("{0}")]
    OutOfRange(String),
    /// A stored blob is missing or is not the blob of its name.
    #[error("stored blob {id}: {reason}: publish its package again")]
    StoredBlob {
        /// The blob.
        id: BlobId,
        /// What is wrong.
        reason: String,
    },
    /// The repository has no such package.
    #[error("the repository has no package {0}")]
    UnknownPackage(String),
    /// A blob cannot be encoded or decoded.
    #[error("{path}: {source}")]
    Delivery {
        /// The source file.
        path: PathBuf,
        /// What is wrong.
        source: DeliveryError,
    },
    /// A release cannot be bundled.
    #[error(transparent)]
    Bundle(Box<BundleError>),
    /// A device configuration cannot be written.
    #[error(transparent)]
    Config(#[from] RepoConfigError),
    /// The disk did not do what was asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Unready blobs named in one message.
const UNREADY_SHOWN_MAX: usize = 10;

fn listed(blobs: &[UnreadyBlob]) -> String {
    blobs.iter().take(UNREADY_SHOWN_MAX).map(|blob| format!("\n  {blob}")).collect()
}

impl From<BundleError> for RepositoryError {
    fn from(error: BundleError) -> Self {
        Self::Bundle(Box::new(error))
    }
}

impl RepositoryError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn manifest(path: &Path, reason: &dyn std::fmt::Display) -> Self {
        Self::Manifest { path: path.to_owned(), reason: reason.to_string() }
    }
}
