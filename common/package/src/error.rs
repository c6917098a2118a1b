//! [`PackageError`]: what can be wrong with a package, its files and its manifests. Each sentence names the file at fault.

use colibri_common::BlobId;

use crate::delivery::DeliveryError;
use crate::far::FarError;
use crate::limits::CLOSURE_PACKAGES_MAX;
use crate::name::SegmentError;
use crate::resource_path::ResourcePathError;
use crate::url::UrlError;

/// Why bytes are not a package or a manifest, or why none can be made of the inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// The archive is malformed.
    #[error("package archive: {0}")]
    Far(#[from] FarError),
    /// A delivery blob is malformed.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// A URL is malformed.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Larger than is handled.
    #[error("{what} has {found} bytes, over the limit of {most}")]
    TooLarge {
        /// The file.
        what: &'static str,
        /// Its length in bytes.
        found: u64,
        /// The limit in bytes.
        most: u64,
    },
    /// Not the JSON that was expected.
    #[error("{what}: {reason}")]
    Json {
        /// The file.
        what: &'static str,
        /// Place and cause.
        reason: String,
    },
    /// A format version that is not read.
    #[error("{what} has version '{found}'; only version '1' is read")]
    Version {
        /// The file.
        what: &'static str,
        /// Its version.
        found: String,
    },
    /// Not text.
    #[error("{what} has invalid UTF-8")]
    NotUtf8 {
        /// The file, or its name.
        what: String,
    },
    /// A file that every package has is missing.
    #[error("the package has no {0}")]
    MissingFile(&'static str),
    /// The ABI revision has another length than 8 bytes.
    #[error("meta/fuchsia.abi/abi-revision has {0} bytes; it has exactly 8")]
    AbiRevisionLength(u64),
    /// Not an ABI revision in text.
    #[error("'{0}' is no ABI revision: write 0x and up to 16 hex digits, or a decimal number")]
    AbiRevision(String),
    /// A package name or variant breaks the grammar.
    #[error("package name '{name}': {error}")]
    Name {
        /// The name.
        name: String,
        /// The rule.
        error: SegmentError,
    },
    /// A new package must have variant 0.
    #[error("a new package must have version (variant) '0', not '{0}'")]
    VariantNotZero(String),
    /// A line of `meta/contents` is malformed.
    #[error("meta/contents line {line}: {reason}")]
    ContentsLine {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A path in a package breaks the grammar.
    #[error("path '{}' in the package: {error}", path.escape_debug())]
    Path {
        /// The path.
        path: String,
        /// The rule.
        error: ResourcePathError,
    },
    /// Content may not lie in `meta`.
    #[error("path '{0}': content blobs may not be named 'meta' or lie under 'meta/'")]
    PathInMeta(String),
    /// A file of the archive must lie in `meta/`.
    #[error("path '{0}': files inside meta.far lie under 'meta/'")]
    PathNotInMeta(String),
    /// The same path twice with different content.
    #[error("path '{0}' is given twice with different content")]
    DuplicatePath(String),
    /// A path is both a file and a directory.
    #[error("path '{0}' is both a file and a directory")]
    Collision(String),
    /// A path that the build itself writes.
    #[error("path '{0}' is written by the build and may not be supplied")]
    ReservedPath(String),
    /// The same subpackage twice.
    #[error("subpackage '{0}' is given twice")]
    DuplicateSubpackage(String),
    /// The manifest does not begin with the package's meta.far.
    #[error("the package manifest's first blob must be the meta.far, with path 'meta/'")]
    ManifestWithoutMetaFar,
    /// A FAR, but not of a package.
    #[error("not a package archive: it has no 'meta.far' (is it a meta.far itself? read it with the far verbs)")]
    NotAnArchive,
    /// Something that the package needs is not there.
    #[error("{what}, blob {id}, is not there")]
    MissingBlob {
        /// What it is in the package.
        what: String,
        /// The blob.
        id: BlobId,
    },
    /// Content is another blob than its name says.
    #[error("what is called blob {expected} is blob {found}: it is damaged or forged")]
    WrongBlob {
        /// By its name.
        expected: BlobId,
        /// Computed.
        found: BlobId,
    },
    /// A blob's content could not be passed on.
    #[error("copying blob {id} failed: {reason}")]
    Copy {
        /// The blob.
        id: BlobId,
        /// The system's words.
        reason: String,
    },
    /// More subpackages than are handled.
    #[error("the package has more than {CLOSURE_PACKAGES_MAX} packages below it")]
    TooManySubpackages,
    /// Nothing in the package has this path.
    #[error("the package has no file '{}'", .0.escape_debug())]
    NoSuchPath(String),
}

impl PackageError {
    pub(crate) fn json(what: &'static str) -> impl Fn(serde_json::Error) -> Self {
        move |error| Self::Json { what, reason: error.to_string() }
    }

    pub(crate) fn check_size(what: &'static str, found: usize, most: u64) -> Result<(), Self> {
        let found = found as u64;
        if found > most { Err(Self::TooLarge { what, found, most }) } else { Ok(()) }
    }
}
