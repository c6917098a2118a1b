//! The names of roles: [`Role`] for the four at the top, [`RoleName`] for delegated ones; and what roles say of keys and files.
//!
//! What each role says is in [`crate::root`], [`crate::online`], [`crate::targets`]. Parsing believes nothing: whether a role
//! is to be believed is decided in `rules` and [`crate::update`].

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use serde_json::{Map, Value};

use crate::canonical::CanonicalError;
use crate::error::Rule;
use crate::fields::malformed;
use crate::json::Reader;
use crate::key_id::KeyId;
use crate::limits;
use crate::target::Hashes;

/// One of the four top-level roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Names the keys of all roles.
    Root,
    /// Names the newest snapshot.
    Timestamp,
    /// Names the versions of all targets files.
    Snapshot,
    /// Names the targets, or who else may name them.
    Targets,
}

impl Role {
    /// All four, in the order in which an update reads them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Timestamp, Self::Snapshot, Self::Targets];

    /// The role's name, as in `_type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
        }
    }

    /// The role's unnumbered file.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Root => "root.json",
            Self::Timestamp => "timestamp.json",
            Self::Snapshot => "snapshot.json",
            Self::Targets => "targets.json",
        }
    }

    /// The role's numbered file.
    pub fn numbered_file(self, version: u32) -> String {
        format!("{version}.{}", self.file())
    }

    /// Largest file of this role in bytes, unless a caller says otherwise with [`limits::Caps`].
    pub const fn bytes_max(self) -> u64 {
        match self {
            Self::Root => limits::ROOT_BYTES_MAX,
            Self::Timestamp => limits::TIMESTAMP_BYTES_MAX,
            Self::Snapshot => limits::SNAPSHOT_BYTES_MAX,
            Self::Targets => limits::TARGETS_BYTES_MAX,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of a delegated targets role: any text but the names of the four top-level roles, short enough for a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleName(String);

/// Why a text is not the name of a delegated role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoleNameError {
    /// Empty or too long.
    #[error("the name of a delegated role has 1 to {} bytes, encoded as in a URL", limits::ROLE_NAME_BYTES_MAX)]
    Length,
    /// `root`, `timestamp`, `snapshot` or `targets`.
    #[error("a delegated role cannot be called root, timestamp, snapshot or targets")]
    Reserved,
}

impl RoleName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How a snapshot lists the role (§4.4): the bare name with `.json`.
    pub fn listed_as(&self) -> String {
        format!("{}.json", self.0)
    }

    /// The role's unnumbered file, as in a URL and on a disk: every byte but letters, digits, `-`, `.`, `_` and `~` is
    /// percent-encoded, so that no name leads to another folder or to another role's file.
    pub fn file(&self) -> String {
        format!("{}.json", self.encoded())
    }

    /// The role's numbered file.
    pub fn numbered_file(&self, version: u32) -> String {
        format!("{version}.{}.json", self.encoded())
    }

    /// The role whose unnumbered file this is.
    pub fn of_file(file: &str) -> Option<Self> {
        let encoded = file.strip_suffix(".json")?;
        let name: Self = percent_encoding::percent_decode_str(encoded).decode_utf8().ok()?.parse().ok()?;
        (name.encoded() == encoded).then_some(name)
    }

    fn encoded(&self) -> Cow<'_, str> {
        percent_encoding::utf8_percent_encode(&self.0, ENCODED).into()
    }
}

/// What is percent-encoded: all but the unreserved characters of RFC 3986 §2.3.
const ENCODED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl FromStr for RoleName {
    type Err = RoleNameError;

    fn from_str(text: &str) -> Result<Self, RoleNameError> {
        let name = Self(text.to_owned());
        if text.is_empty() || name.encoded().len() as u64 > limits::ROLE_NAME_BYTES_MAX {
            return Err(RoleNameError::Length);
        }
        if Role::ALL.iter().any(|role| role.name() == text) {
            return Err(RoleNameError::Reserved);
        }
        Ok(name)
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The keys of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleKeys {
    /// Ids of the keys, without repetition. An id that is not among the listed keys never counts.
    pub key_ids: Vec<KeyId>,
    /// How many keys must sign, at least one. More than there are keys: nothing satisfies it.
    pub threshold: u32,
}

/// What one role says about the file of another.
#[derive(Debug, Clone, PartialEq)]
pub struct FileMeta {
    /// Its version.
    pub version: u32,
    /// Its length in bytes, if given.
    pub length: Option<u64>,
    /// Its hashes, if given.
    pub hashes: Option<Hashes>,
}

/// Why the signed part of a file could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// It is not strict JSON: nothing behind it can be read either.
    Json(CanonicalError),
    /// It is, but not of the role's form.
    Rule(Rule),
}

impl From<CanonicalError> for ReadError {
    fn from(error: CanonicalError) -> Self {
        Self::Json(error)
    }
}

impl From<Rule> for ReadError {
    fn from(rule: Rule) -> Self {
        Self::Rule(rule)
    }
}

/// What every role has in common.
pub(crate) trait Document: Sized {
    const ROLE: Role;

    /// Reads the `signed` part at which `reader` stands, which is an object in `file`.
    fn read(reader: &mut Reader<'_>, file: &Bytes) -> Result<Self, ReadError>;

    fn version(&self) -> u32;

    fn expires(&self) -> UnixSeconds;
}

/// Reads a signed part that is small enough for a tree.
pub(crate) fn read_tree<T>(
    reader: &mut Reader<'_>,
    from_signed: impl FnOnce(&Map<String, Value>) -> Result<T, Rule>,
) -> Result<T, ReadError> {
    match reader.value()? {
        Value::Object(signed) => Ok(from_signed(&signed)?),
        _ => Err(malformed("signed is not an object").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_name_never_leads_elsewhere() {
        for (name, file) in [
            ("rollout", "rollout.json"),
            ("bins-0a", "bins-0a.json"),
            ("?", "%3F.json"),
            ("#", "%23.json"),
            ("../delegatedrole", "..%2Fdelegatedrole.json"),
            ("/delegatedrole", "%2Fdelegatedrole.json"),
            ("..", "...json"),
            ("a b\\\0\n%2F", "a%20b%5C%00%0A%252F.json"),
            ("ü", "%C3%BC.json"),
            ("Root", "Root.json"),
        ] {
            let role: RoleName = name.parse().unwrap();
            assert_eq!((role.file().as_str(), role.listed_as()), (file, format!("{name}.json")));
            assert_eq!(role.numbered_file(7), format!("7.{file}"));
            assert_eq!(RoleName::of_file(file), Some(role));
        }
        for file in ["root.json", "targets.json", "a%2f.json", "%41.json", "a/b.json", "a", "%ff.json", ".json"] {
            assert_eq!(RoleName::of_file(file), None, "{file}");
        }
        for role in Role::ALL {
            assert_eq!(role.name().parse::<RoleName>(), Err(RoleNameError::Reserved));
        }
        assert_eq!("".parse::<RoleName>(), Err(RoleNameError::Length));
        assert_eq!("/".repeat(67).parse::<RoleName>(), Err(RoleNameError::Length));
    }
}
