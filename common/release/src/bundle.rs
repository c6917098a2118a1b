//! [`Bundle`]: a release as one file that can be carried to where there is no network; reading and checking one.
//!
//! A FAR archive of `bundle.json`, `metadata/…`, `leaves/HASH` and `blobs/1/HASH` (docs/formats.md). Whoever opens one starts
//! from a trust of its own; nothing in the file is believed for being in it. Deliberately absent: writing one, which needs a
//! repository (`origin/repository`), and where its blobs go.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek};

use bytes::Bytes;
use colibri_common::limits::LEAVES_LIST_BYTES_MAX;
use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, ByteRange, UnixSeconds};
use colibri_metadata::{Answer, MetadataError, Role, RoleName, Start, Step, TargetName, TrustedSet, Update};
use colibri_package::delivery::{DeliveryType, Layout, UNIT_H_PROBE_BYTES, VerifyingReader, decode_verified};
use colibri_package::far::{FarError, FarReader};
use colibri_package::limits::META_FAR_BYTES_MAX;
use colibri_package::{MetaFar, PackageError, PackagePath};
use serde::{Deserialize, Serialize};

use crate::error::ReleaseError;
use crate::limits;
use crate::release::{Release, as_text};

/// The format that this version writes. There is none before it yet.
pub const BUNDLE_FORMAT: u64 = 1;

/// Path of the head in the archive.
pub const HEAD_PATH: &str = "bundle.json";

/// The only delivery type in a bundle: the one that every client reads.
pub const BUNDLE_DELIVERY_TYPE: DeliveryType = DeliveryType::Type1;

/// What a bundle says first. Only a hint: that targets lists the package is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleHead {
    /// [`BUNDLE_FORMAT`].
    pub format: u64,
    /// `NAME/VARIANT` of the package that carries the release.
    #[serde(with = "as_text")]
    pub package: PackagePath,
    /// Its package hash.
    pub hash: BlobId,
}

/// Why a file is not a bundle, or why one cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Not a FAR archive, or reading failed.
    #[error("bundle: {0}")]
    Far(#[from] FarError),
    /// The head is not one.
    #[error("bundle: {HEAD_PATH}: {0}")]
    Head(String),
    /// Written by a newer program.
    #[error("this bundle has format {found}; this program reads formats 1 to {BUNDLE_FORMAT}: update it")]
    TooNew {
        /// The format that it says.
        found: u64,
    },
    /// Something that a bundle does not have.
    #[error("bundle: {0:?} does not belong there")]
    Unexpected(String),
    /// The metadata is not to be believed.
    #[error("bundle: {0}")]
    Metadata(#[from] MetadataError),
    /// A delegated role of the current set is missing.
    #[error("bundle: the delegated role {0} is missing")]
    MissingRole(RoleName),
    /// The targets role does not list the package that carries the release.
    #[error("bundle: targets does not list package {package} with hash {hash}")]
    NotListed {
        /// The package.
        package: PackagePath,
        /// The hash that was said.
        hash: BlobId,
    },
    /// The package that carries the release is not one.
    #[error("bundle: package {package}: {reason}")]
    Package {
        /// The package.
        package: PackagePath,
        /// What is wrong with it.
        reason: String,
    },
    /// The release is not one.
    #[error("bundle: {0}")]
    Release(#[from] ReleaseError),
    /// The release belongs to other repositories.
    #[error("bundle: the release trusts no root of this repository's chain")]
    Untrusted,
    /// A blob of the release is missing.
    #[error("bundle: {count} blobs of the release are missing, the first is {first}")]
    MissingBlobs {
        /// How many.
        count: usize,
        /// One of them.
        first: BlobId,
    },
    /// A blob is not what its name says.
    #[error("bundle: blob {id}: {reason}")]
    Blob {
        /// Which.
        id: BlobId,
        /// What is wrong.
        reason: String,
    },
}

/// Names in the archive.
pub mod path {
    use colibri_common::BlobId;

    use super::BUNDLE_DELIVERY_TYPE;

    /// What metadata files begin with.
    pub const METADATA: &str = "metadata/";
    /// What leaf lists begin with.
    pub const LEAVES: &str = "leaves/";
    /// What blobs begin with.
    pub const BLOBS: &str = "blobs/1/";

    /// A metadata file, by its name at the repository.
    pub fn metadata(file: &str) -> String {
        format!("{METADATA}{file}")
    }

    /// The leaf list of a blob.
    pub fn leaves(id: BlobId) -> String {
        format!("{LEAVES}{id}")
    }

    /// A blob as delivery type 1.
    pub fn blob(id: BlobId) -> String {
        debug_assert_eq!(format!("blobs/{BUNDLE_DELIVERY_TYPE}/"), BLOBS);
        format!("{BLOBS}{id}")
    }
}

/// An opened bundle.
#[derive(Debug)]
pub struct Bundle<R> {
    far: FarReader<R>,
    head: BundleHead,
    blobs: BTreeSet<BlobId>,
    leaves: BTreeSet<BlobId>,
}

/// A bundle of which every byte was checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The verified metadata, delegated roles included.
    pub set: TrustedSet,
    /// The release.
    pub release: Release,
    /// Every blob, the package that carries the release included.
    pub blobs: BTreeSet<BlobId>,
}

impl<R: Read + Seek> Bundle<R> {
    /// Opens a bundle and looks at its names. Nothing else is checked yet.
    ///
    /// # Errors
    /// It is no bundle, or a newer one.
    pub fn open(source: R) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let mut far = FarReader::open(source)?;
        let head = far.read(HEAD_PATH.as_bytes(), limits::BUNDLE_HEAD_BYTES_MAX)?;
        let malformed = |error: serde_json::Error| BundleError::Head(error.to_string());
        match serde_json::from_slice(&head).map_err(malformed)? {
            Format { format: 0 } => return Err(BundleError::Head("there is no format 0".to_owned())),
            Format { format: found } if found > BUNDLE_FORMAT => return Err(BundleError::TooNew { found }),
            Format { .. } => {}
        }
        let head: BundleHead = serde_json::from_slice(&head).map_err(malformed)?;
        let (mut blobs, mut leaves) = (BTreeSet::new(), BTreeSet::new());
        for entry in far.entries() {
            let unexpected = || BundleError::Unexpected(entry.name().escape_ascii().to_string());
            let name = entry.text().ok_or_else(unexpected)?;
            let id = |hex: &str| hex.parse::<BlobId>().map_err(|_| unexpected());
            if let Some(hex) = name.strip_prefix(path::BLOBS) {
                blobs.insert(id(hex)?);
            } else if let Some(hex) = name.strip_prefix(path::LEAVES) {
                leaves.insert(id(hex)?);
            } else if name != HEAD_PATH && !name.starts_with(path::METADATA) {
                return Err(unexpected());
            }
        }
        Ok(Self { far, head, blobs, leaves })
    }

    /// What the bundle says of itself.
    pub const fn head(&self) -> &BundleHead {
        &self.head
    }

    /// The ids of its blobs.
    pub const fn blobs(&self) -> &BTreeSet<BlobId> {
        &self.blobs
    }

    /// Verifies the metadata as a client at `start` would that meets this repository at `now`; and then every delegated
    /// role that the bundle has.
    ///
    /// # Errors
    /// The rule that is broken, and by which file.
    pub fn metadata(&mut self, start: Start, now: UnixSeconds) -> Result<TrustedSet, BundleError> {
        let mut update = Update::start(start, now);
        while let Step::Want(want) = update.next() {
            let found = self.file(&path::metadata(&want.name), want.bytes_max.saturating_add(1))?;
            update.supply(found.map_or(Answer::NotFound, Answer::Found))?;
        }
        let set = update.finish()?;
        let numbered = set.root().consistent_snapshot();
        with_delegated(set, now, |role, version| {
            let file = if numbered { role.numbered_file(version) } else { role.file() };
            self.file(&path::metadata(&file), Role::Targets.bytes_max())
        })
    }

    /// The root files that the bundle has, by version, up to the newest that was verified.
    ///
    /// # Errors
    /// Reading failed, or one is too long.
    pub fn roots(&mut self, newest: u32) -> Result<BTreeMap<u32, Bytes>, BundleError> {
        let mut roots = BTreeMap::new();
        for version in 1..=newest {
            let file = path::metadata(&Role::Root.numbered_file(version));
            roots.extend(self.file(&file, Role::Root.bytes_max())?.map(|bytes| (version, bytes)));
        }
        Ok(roots)
    }

    /// A file of at most so many bytes; nothing if there is none.
    fn file(&mut self, name: &str, most: u64) -> Result<Option<Bytes>, BundleError> {
        match self.far.read(name.as_bytes(), most) {
            Ok(content) => Ok(Some(content.into())),
            Err(FarError::NoSuchFile(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The checked leaves of a blob, and where the pieces of its delivery form lie.
    ///
    /// # Errors
    /// The blob is missing, or its head or leaves are not its own.
    pub fn layout(&mut self, id: BlobId) -> Result<Layout, BundleError> {
        let wrong = |reason: String| BundleError::Blob { id, reason };
        let list = self.file(&path::leaves(id), LEAVES_LIST_BYTES_MAX)?;
        let list = list.ok_or_else(|| wrong("its leaves are missing".to_owned()))?;
        let leaves = Leaves::check(id, list).map_err(|error| wrong(error.to_string()))?;
        let name = path::blob(id);
        let length = self.far.find(name.as_bytes()).ok_or_else(|| wrong("it is missing".to_owned()))?.length();
        let head = self.far.read_range(name.as_bytes(), ByteRange::whole(UNIT_H_PROBE_BYTES))?;
        let layout = Layout::from_unit_h(BUNDLE_DELIVERY_TYPE, leaves, &head);
        let layout = layout.map_err(|error| wrong(error.to_string()))?;
        if layout.encoded_length().0 != length {
            return Err(wrong("it is cut short, or has a tail".to_owned()));
        }
        Ok(layout)
    }

    /// A blob as delivery type 1, as a stream that gives nothing that was not verified.
    ///
    /// # Errors
    /// As [`Self::layout`].
    pub fn blob(&mut self, id: BlobId) -> Result<impl Read, BundleError> {
        let layout = self.layout(id)?;
        let (far, name) = (&mut self.far, path::blob(id));
        let read =
            move |range| far.read_range(name.as_bytes(), range).map_err(|error| io::Error::other(error.to_string()));
        Ok(VerifyingReader::new(layout, read))
    }

    /// The content of a blob of at most so many bytes.
    fn content(&mut self, id: BlobId, most: u64) -> Result<Vec<u8>, BundleError> {
        let wrong = |reason: String| BundleError::Blob { id, reason };
        let layout = self.layout(id)?;
        if layout.content_length().0 > most {
            return Err(wrong(format!("it has more than {most} bytes")));
        }
        let mut encoded = Vec::new();
        self.blob(id)?.read_to_end(&mut encoded).map_err(|error| wrong(error.to_string()))?;
        decode_verified(id, &encoded).map_err(|error| wrong(error.to_string()))
    }

    /// Checks all of the bundle: metadata, that targets lists the package that carries the release, that the release trusts
    /// this repository, and every byte of every blob that it needs.
    ///
    /// # Errors
    /// The first thing that is wrong or missing.
    pub fn check(&mut self, start: Start, now: UnixSeconds) -> Result<Checked, BundleError> {
        let set = self.metadata(start, now)?;
        let BundleHead { package, hash, .. } = self.head.clone();
        check_listed(&set, &package, hash)?;
        let wrong = |reason: String| BundleError::Package { package: package.clone(), reason };
        let meta = MetaFar::parse(self.content(hash, META_FAR_BYTES_MAX)?.into());
        let meta = meta.map_err(|error: PackageError| wrong(error.to_string()))?;
        let document = release_document(&package, &meta)?;
        let release = Release::parse(&self.content(document, limits::RELEASE_BYTES_MAX)?)?;
        let roots = self.roots(set.root().version())?;
        check_trusts(&release, roots.into_values())?;
        let blobs = blobs_of_bundle(&release, hash, &meta);
        check_blobs(&blobs, &self.blobs)?;
        if let Some(id) = self.blobs.difference(&blobs).next() {
            return Err(BundleError::Unexpected(path::blob(*id)));
        }
        if let Some(id) = self.leaves.difference(&blobs).next() {
            return Err(BundleError::Unexpected(path::leaves(*id)));
        }
        for id in &blobs {
            let copied = io::copy(&mut self.blob(*id)?, &mut io::sink());
            copied.map_err(|error| BundleError::Blob { id: *id, reason: error.to_string() })?;
        }
        Ok(Checked { set, release, blobs })
    }
}

/// Adds to a refreshed set every delegated role that its snapshot lists and somebody delegates to; `read`, which is given name
/// and version, must have it.
///
/// # Errors
/// A role is missing or not to be believed, or another error of `read`.
pub fn with_delegated<E: From<BundleError>>(
    set: TrustedSet,
    now: UnixSeconds,
    mut read: impl FnMut(&RoleName, u32) -> Result<Option<Bytes>, E>,
) -> Result<TrustedSet, E> {
    let (mut failed, mut missing) = (None, None);
    let whole = set.with_delegated(
        |role, meta| match read(role, meta.version) {
            Ok(found) => {
                if found.is_none() {
                    missing = Some(role.clone());
                }
                found
            }
            Err(error) => {
                failed = Some(error);
                None
            }
        },
        now,
    );
    match (whole, failed, missing) {
        (Ok(set), ..) => Ok(set),
        (Err(_), Some(error), _) => Err(error),
        (Err(_), None, Some(role)) => Err(BundleError::MissingRole(role).into()),
        (Err(error), None, None) => Err(BundleError::from(error).into()),
    }
}

/// Targets lists the package that carries the release, with its hash.
///
/// # Errors
/// It does not.
pub fn check_listed(set: &TrustedSet, package: &PackagePath, hash: BlobId) -> Result<(), BundleError> {
    let name = package.to_string().parse::<TargetName>().ok();
    let listed = name.and_then(|name| set.find(&name)).and_then(|target| target.merkle());
    if listed == Some(hash) {
        return Ok(());
    }
    Err(BundleError::NotListed { package: package.clone(), hash })
}

/// The blob with the release document in the package that carries it.
///
/// # Errors
/// The package has none.
pub fn release_document(package: &PackagePath, meta: &MetaFar) -> Result<BlobId, BundleError> {
    let found = meta.contents().iter().find(|(path, _)| path.as_str() == Release::PATH).map(|(_, id)| *id);
    let reason = || format!("it carries no release: it has no {}", Release::PATH);
    found.ok_or_else(|| BundleError::Package { package: package.clone(), reason: reason() })
}

/// One of the roots in the chain is one that the release trusts.
///
/// # Errors
/// None is.
pub fn check_trusts(release: &Release, chain: impl IntoIterator<Item = Bytes>) -> Result<(), BundleError> {
    let trusted: BTreeSet<&[u8]> = release.repositories().iter().map(|trusted| trusted.root.as_bytes()).collect();
    if chain.into_iter().any(|root| trusted.contains(&*root)) { Ok(()) } else { Err(BundleError::Untrusted) }
}

/// The blobs of a bundle: all that the packages of the release need, those of the boot image and of the cache set included, and the package that carries it.
pub fn blobs_of_bundle(release: &Release, hash: BlobId, meta: &MetaFar) -> BTreeSet<BlobId> {
    let mut blobs = release.blobs_needed(release.hashes());
    blobs.insert(hash);
    blobs.extend(meta.content_blobs());
    blobs
}

/// Everything needed is there.
///
/// # Errors
/// How much is missing, and one of it.
pub fn check_blobs(needed: &BTreeSet<BlobId>, there: &BTreeSet<BlobId>) -> Result<(), BundleError> {
    let mut missing = needed.difference(there);
    match missing.next() {
        Some(first) => Err(BundleError::MissingBlobs { count: 1 + missing.count(), first: *first }),
        None => Ok(()),
    }
}
