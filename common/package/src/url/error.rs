//! Why a text is not a URL of the kind that was asked for, by Fuchsia's names.

use crate::name::SegmentError;
use crate::resource_path::ResourcePathError;

/// Why a text is not a URL of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// An absolute URL was asked for.
    #[error("the URL has no scheme; write fuchsia-pkg://...")]
    MissingScheme,
    /// Another scheme than the one that fits here.
    #[error("the URL has the wrong scheme")]
    InvalidScheme,
    /// A relative URL was asked for.
    #[error("a relative URL has no scheme")]
    CannotContainScheme,
    /// The host has characters other than `a-z`, `0-9`, `.` and `-`.
    #[error("the host has characters other than a-z, 0-9, '.' and '-'")]
    InvalidHost,
    /// There is no host.
    #[error("the URL has no host, which is the repository's name")]
    MissingHost,
    /// This kind of URL has no host.
    #[error("this kind of URL has no host")]
    HostMustBeEmpty,
    /// A segment of the path breaks the grammar of names.
    #[error("path segment: {0}")]
    InvalidPathSegment(SegmentError),
    /// There is no package name.
    #[error("the URL has no package name")]
    MissingName,
    /// A pinned URL was asked for.
    #[error("the URL has no ?hash=")]
    MissingHash,
    /// A component URL was asked for.
    #[error("the URL has no #resource")]
    MissingResource,
    /// The hash is not 64 hex digits.
    #[error("the hash is not 64 lower-case hex digits")]
    InvalidHash,
    /// The hash is in upper case.
    #[error("the hash is written in upper case; use lower case")]
    UpperCaseHash,
    /// More than one hash.
    #[error("the URL has more than one hash")]
    MultipleHashes,
    /// This kind of URL has no hash.
    #[error("this kind of URL has no hash")]
    CannotContainHash,
    /// The resource is not UTF-8.
    #[error("the resource is not UTF-8 after percent-decoding")]
    ResourcePathPercentDecode,
    /// The resource breaks the grammar of resource paths.
    #[error("resource: {0}")]
    InvalidResourcePath(ResourcePathError),
    /// This kind of URL has no resource.
    #[error("this kind of URL has no #resource")]
    CannotContainResource,
    /// More segments than name and variant.
    #[error("the path has more segments than expected")]
    ExtraPathSegments,
    /// A query key other than `hash`.
    #[error("the URL has query parameters other than hash")]
    ExtraQueryParameters,
    /// A port.
    #[error("the URL has a port; a repository's name has none")]
    CannotContainPort,
    /// A user name.
    #[error("the URL has a user name")]
    CannotContainUsername,
    /// A password.
    #[error("the URL has a password")]
    CannotContainPassword,
    /// A variant where only a name fits.
    #[error("a relative URL names a subpackage and has no variant")]
    RelativePathCannotSpecifyVariant,
    /// A relative URL that is not just a name.
    #[error("a relative URL is just the name of a subpackage")]
    InvalidRelativePath,
    /// Not a URL at all.
    #[error("not a URL: {0}")]
    UrlParseError(&'static str),
}
