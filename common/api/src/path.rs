//! Request paths: one parser, [`parse_path`], and its inverse, [`Route::path`] (architecture §5).
//!
//! Nothing here touches files: a [`Route`] holds only names that are safe as single path segments, so whoever joins them to
//! a directory stays inside it. Content negotiation and methods are not looked at.

use std::fmt;
use std::str::FromStr;

use colibri_common::BlobId;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::limits::{PATH_BYTES_MAX, SEGMENT_BYTES_MAX};

/// Escaped when a segment is printed: everything RFC 3986 does not allow in one, and `%` itself.
const SEGMENT_ESCAPES: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// What a request path asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Route {
    /// `/REPO/root.json`, `/REPO/7.targets.json`, ...
    Metadata {
        /// The repository.
        repository: RepositoryName,
        /// The role's file.
        file: MetadataFile,
    },
    /// `/REPO/targets/NAME`: a TUF target as the real tools lay it out.
    Target {
        /// The repository.
        repository: RepositoryName,
        /// The decoded path below `targets/`: segments joined by `/`, none of them empty, `.` or `..`.
        name: String,
    },
    /// `/REPO/blobs/...` or `/blobs/...`.
    Blob {
        /// The repository, or nothing for the host-wide address.
        repository: Option<RepositoryName>,
        /// The blob.
        id: BlobId,
        /// Which representation of it.
        form: BlobForm,
    },
    /// `/REPO/repo.config`: how a device is told of this repository.
    RepoConfig {
        /// The repository.
        repository: RepositoryName,
    },
    /// `/REPO/auto`: server-sent events, one per new timestamp.
    Auto {
        /// The repository.
        repository: RepositoryName,
    },
    /// `/config.json`: the same for a server of one repository (the old `pm serve`).
    PmConfig,
    /// `/REPO` or `/REPO/`: a page about one repository.
    RepositoryIndex {
        /// The repository.
        repository: RepositoryName,
    },
    /// `/`: a page that lists the repositories.
    Index,
}

/// A representation of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlobForm {
    /// The content itself: `blobs/HASH`.
    Raw,
    /// A delivery blob of type 1 or 2: `blobs/1/HASH`. The parser makes no other number.
    Delivery(u32),
    /// The leaf hashes: `blobs/leaves/HASH`.
    Leaves,
}

/// Delivery types that have a path.
const DELIVERY_TYPES: [u32; 2] = [1, 2];

impl BlobForm {
    /// The label used in metrics and logs: `raw`, `type1`, `type2`, `leaves`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Delivery(1) => "type1",
            Self::Delivery(_) => "type2",
            Self::Leaves => "leaves",
        }
    }
}

/// Why a path is not a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A well-formed path that names nothing of the read API: 404.
    #[error("there is nothing at this path")]
    NotFound,
    /// The first segment cannot be a repository: 404.
    #[error("this cannot be the name of a repository")]
    NotARepository,
    /// Over [`PATH_BYTES_MAX`] or a segment over [`SEGMENT_BYTES_MAX`]: 414.
    #[error("the path is too long")]
    TooLong,
    /// Not an absolute path: 400.
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// Bad percent-encoding or not UTF-8 once decoded: 400.
    #[error("the path is not percent-encoded UTF-8")]
    Encoding,
    /// A segment `.` or `..`, plain or escaped: 400.
    #[error("the path has a segment . or ..")]
    Traversal,
    /// NUL, another control character, a backslash or an escaped slash: 400.
    #[error("the path has a control character, a backslash or an escaped slash")]
    ForbiddenCharacter,
    /// Two slashes in a row: 400.
    #[error("the path has an empty segment")]
    EmptySegment,
}

/// The name of a repository as a first path segment: 1 to 255 of `[A-Za-z0-9._-]`, not starting with `.`, and neither
/// `blobs` nor `config.json`, which mean something else there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryName(String);

impl RepositoryName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let reserved = text.starts_with('.') || matches!(text, "blobs" | "config.json");
        if text.is_empty() || text.len() > SEGMENT_BYTES_MAX || reserved || !text.bytes().all(allowed) {
            return Err(PathError::NotARepository);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RepositoryName {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<RepositoryName> for String {
    fn from(name: RepositoryName) -> Self {
        name.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The file of a TUF role: `ROLE.json` or `VERSION.ROLE.json`. A role whose name itself starts with digits and a dot cannot be
/// written, because its unnumbered file would read as another role's numbered one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetadataFile {
    role: String,
    version: Option<u32>,
}

impl MetadataFile {
    /// The file of `role`, numbered if a version (1 or more) is given.
    pub fn new(role: &str, version: Option<u32>) -> Result<Self, PathError> {
        let role_is_plain = !role.is_empty() && !role.starts_with('.') && !role.contains(['/', '\\']);
        let numbered_look =
            role.split_once('.').is_some_and(|(head, _)| head.bytes().all(|byte| byte.is_ascii_digit()));
        if !role_is_plain || numbered_look || version == Some(0) || role.contains(char::is_control) {
            return Err(PathError::NotFound);
        }
        let file = Self { role: role.to_owned(), version };
        if file.file_name().len() > SEGMENT_BYTES_MAX { Err(PathError::TooLong) } else { Ok(file) }
    }

    /// The role: `root`, `targets`, `snapshot`, `timestamp` or a delegated one.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The version in the file's name.
    pub const fn version(&self) -> Option<u32> {
        self.version
    }

    /// True if the name carries a version, so that its content never changes.
    pub const fn is_numbered(&self) -> bool {
        self.version.is_some()
    }

    /// The name of the file: one safe path segment.
    pub fn file_name(&self) -> String {
        match self.version {
            Some(version) => format!("{version}.{}.json", self.role),
            None => format!("{}.json", self.role),
        }
    }
}

impl FromStr for MetadataFile {
    type Err = PathError;

    fn from_str(name: &str) -> Result<Self, PathError> {
        let stem = name.strip_suffix(".json").ok_or(PathError::NotFound)?;
        match stem.split_once('.') {
            Some((head, role)) if head.bytes().all(|byte| byte.is_ascii_digit()) => {
                // A second spelling of a number ("01") would be a second name for one file.
                let version = head.parse().ok().filter(|version: &u32| version.to_string() == head);
                Self::new(role, Some(version.ok_or(PathError::NotFound)?))
            }
            _ => Self::new(stem, None),
        }
    }
}

/// Parses the path of a request, decoding percent-escapes once; a query is ignored.
pub fn parse_path(path: &str) -> Result<Route, PathError> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if path.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    let relative = path.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    if relative.is_empty() {
        return Ok(Route::Index);
    }
    let (relative, directory) = relative.strip_suffix('/').map_or((relative, false), |inner| (inner, true));
    let segments: Vec<String> = relative.split('/').map(decode_segment).collect::<Result<_, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match segments[..] {
        ["config.json"] if !directory => Ok(Route::PmConfig),
        [repository] => Ok(Route::RepositoryIndex { repository: repository.parse()? }),
        _ if directory => Err(PathError::NotFound),
        ["blobs", ref rest @ ..] => parse_blob(None, rest),
        [repository, ref rest @ ..] => parse_in_repository(repository.parse()?, rest),
        [] => Err(PathError::NotFound),
    }
}

fn parse_in_repository(repository: RepositoryName, rest: &[&str]) -> Result<Route, PathError> {
    match rest {
        ["repo.config"] => Ok(Route::RepoConfig { repository }),
        ["auto"] => Ok(Route::Auto { repository }),
        ["blobs", rest @ ..] => parse_blob(Some(repository), rest),
        ["targets", name @ ..] if !name.is_empty() => Ok(Route::Target { repository, name: name.join("/") }),
        [file] => Ok(Route::Metadata { repository, file: file.parse()? }),
        _ => Err(PathError::NotFound),
    }
}

fn parse_blob(repository: Option<RepositoryName>, rest: &[&str]) -> Result<Route, PathError> {
    let (form, hash) = match rest {
        [hash] => (BlobForm::Raw, hash),
        ["leaves", hash] => (BlobForm::Leaves, hash),
        [number, hash] => {
            let known = DELIVERY_TYPES.into_iter().find(|known| known.to_string() == *number);
            (BlobForm::Delivery(known.ok_or(PathError::NotFound)?), hash)
        }
        _ => return Err(PathError::NotFound),
    };
    let id = hash.parse().map_err(|_| PathError::NotFound)?;
    Ok(Route::Blob { repository, id, form })
}

fn decode_segment(segment: &str) -> Result<String, PathError> {
    let escapes_are_whole = segment
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    if !escapes_are_whole {
        return Err(PathError::Encoding);
    }
    let text = percent_decode_str(segment).decode_utf8().map_err(|_| PathError::Encoding)?;
    match &*text {
        "" => Err(PathError::EmptySegment),
        "." | ".." => Err(PathError::Traversal),
        text if text.contains(['/', '\\']) || text.contains(char::is_control) => Err(PathError::ForbiddenCharacter),
        text if text.len() > SEGMENT_BYTES_MAX => Err(PathError::TooLong),
        text => Ok(text.to_owned()),
    }
}

impl Route {
    /// The path that parses to this route, percent-encoded where needed.
    pub fn path(&self) -> String {
        match self {
            Self::Metadata { repository, file } => format!("/{repository}/{}", escape(&file.file_name())),
            Self::Target { repository, name } => {
                let name: Vec<String> = name.split('/').map(escape).collect();
                format!("/{repository}/targets/{}", name.join("/"))
            }
            Self::Blob { repository, id, form } => {
                let prefix = repository.as_ref().map_or_else(String::new, |repository| format!("/{repository}"));
                match form {
                    BlobForm::Raw => format!("{prefix}/blobs/{id}"),
                    BlobForm::Delivery(number) => format!("{prefix}/blobs/{number}/{id}"),
                    BlobForm::Leaves => format!("{prefix}/blobs/leaves/{id}"),
                }
            }
            Self::RepoConfig { repository } => format!("/{repository}/repo.config"),
            Self::Auto { repository } => format!("/{repository}/auto"),
            Self::PmConfig => "/config.json".to_owned(),
            Self::RepositoryIndex { repository } => format!("/{repository}/"),
            Self::Index => "/".to_owned(),
        }
    }

    /// The repository in the path, if it names one.
    pub const fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Metadata { repository, .. }
            | Self::Target { repository, .. }
            | Self::RepoConfig { repository }
            | Self::Auto { repository }
            | Self::RepositoryIndex { repository } => Some(repository),
            Self::Blob { repository, .. } => repository.as_ref(),
            Self::PmConfig | Self::Index => None,
        }
    }

    /// Whether a request for it may be answered before its client's handshake is over: an answer that is given twice, because
    /// somebody repeated what he overheard, does no harm and costs little. A stream of events would cost much.
    pub fn may_run_early(&self) -> bool {
        !matches!(self, Self::Auto { .. })
    }

    /// The label used in metrics and logs, one of a handful.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Metadata { .. } => "metadata",
            Self::Target { .. } => "target",
            Self::Blob { form, .. } => form.label(),
            Self::RepoConfig { .. } | Self::PmConfig => "config",
            Self::Auto { .. } => "auto",
            Self::RepositoryIndex { .. } | Self::Index => "index",
        }
    }
}

fn escape(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT_ESCAPES).to_string()
}
