//! [`MetadataError`]: which role, which file, which rule. One clear line, and whether asking another source can help.

use colibri_common::UnixSeconds;

use crate::role::Role;
use crate::target::TargetNameError;
use crate::utc;

/// A file that must not be believed, and the rule it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{role} metadata {file}: {rule}")]
pub struct MetadataError {
    role: Role,
    file: String,
    rule: Rule,
}

/// The rule that was broken; comments name the section of the TUF specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rule {
    /// The source does not have a file that must exist.
    #[error("the source does not have this file")]
    Missing,
    /// Larger than the cap: refused before parsing (§5.3.3, §5.4.1, §5.5.1, §5.6.1).
    #[error("it has {bytes} bytes, more than the {bytes_max} allowed")]
    TooLarge {
        /// Length of the file.
        bytes: u64,
        /// The cap.
        bytes_max: u64,
    },
    /// It names a file that is larger than that file's cap: refused without a download.
    #[error("it says {} has {bytes} bytes, more than the {bytes_max} allowed", named.file())]
    NamesTooLarge {
        /// The role that it names.
        named: Role,
        /// Signed length.
        bytes: u64,
        /// The cap.
        bytes_max: u64,
    },
    /// The length differs from what the role above signed (§5.5.2, §5.6.2).
    #[error("it has {bytes} bytes but {parent} says {expected}")]
    Length {
        /// Length of the file.
        bytes: u64,
        /// Signed length.
        expected: u64,
        /// The role that signed it.
        parent: Role,
    },
    /// A hash differs from what the role above signed (§5.5.2, §5.6.2).
    #[error("its {algorithm} hash differs from the one in {parent}")]
    Hash {
        /// `sha256` or `sha512`.
        algorithm: &'static str,
        /// The role that signed it.
        parent: Role,
    },
    /// Not strict JSON, or not of the role's form.
    #[error("{0}")]
    Malformed(String),
    /// A target name that is not a plain relative path.
    #[error("target {name:?}: {reason}")]
    TargetName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: TargetNameError,
    },
    /// `_type` names another role.
    #[error("its _type is {0:?}")]
    WrongType(String),
    /// `spec_version` is not 1.x.
    #[error("its spec_version is {0:?}; this client reads 1.x")]
    SpecVersion(String),
    /// One key id signs, or is listed, twice.
    #[error("key id {0} appears twice")]
    DuplicateKeyId(String),
    /// Fewer distinct trusted keys signed it than the threshold asks (§5.3.4, §5.4.2, §5.5.3, §5.6.3).
    #[error("{valid} of the {threshold} needed signatures of {signers} are valid")]
    Threshold {
        /// Distinct keys with a valid signature.
        valid: u32,
        /// Keys needed.
        threshold: u32,
        /// Whose keys: "the trusted root", "the new root", "the configured root keys".
        signers: &'static str,
    },
    /// The version is not the one that must follow (§5.3.5) or that the role above signed (§5.5.4, §5.6.4).
    #[error("its version is {version}, expected {expected}")]
    Version {
        /// Version of the file.
        version: u32,
        /// Version that it must have.
        expected: u32,
    },
    /// Older than what is already trusted (§5.4.3, §5.5.5).
    #[error("it would roll {subject} back from version {trusted} to {version}")]
    Rollback {
        /// A role's file name.
        subject: String,
        /// Version offered.
        version: u32,
        /// Version already trusted.
        trusted: u32,
    },
    /// A role that the trusted snapshot lists is gone from the new one (§5.5.5).
    #[error("it no longer lists {0}")]
    Disappeared(String),
    /// Expired (§5.3.10, §5.4.4, §5.5.6, §5.6.5): the source is stale or frozen, or the repository is not being re-signed.
    #[error("it expired at {} (now {})", date(*expires), date(*now))]
    Expired {
        /// Its signed expiry.
        expires: UnixSeconds,
        /// The time of this update.
        now: UnixSeconds,
    },
    /// The snapshot does not list the delegated role (§5.6.1): it must not be used.
    #[error("the snapshot does not list {0}")]
    NotListed(String),
    /// A stored file of a role to which none of the stored roles delegates any more.
    #[error("no role delegates to it")]
    NotDelegated,
    /// A search that visits too many roles, or follows too long a chain (§5.6.7.1).
    #[error("the search came to more than {roles_max} delegated roles or a chain of more than {depth_max}")]
    SearchTooWide {
        /// Most roles that one search visits.
        roles_max: u64,
        /// Longest chain.
        depth_max: u64,
    },
    /// More new roots than one update takes.
    #[error("more than {0} root versions in one update: store what was proven and run another")]
    ChainTooLong(u64),
    /// The anchor itself cannot be used: no source can help.
    #[error("this trust anchor cannot be used: {0}")]
    Anchor(String),
    /// The caller supplied a file nobody asked for, or finished too early.
    #[error("the update is not at this step: {0}")]
    OutOfStep(&'static str),
}

fn date(at: UnixSeconds) -> String {
    utc::format(at).unwrap_or_else(|| format!("{} s after 1970", at.0))
}

impl MetadataError {
    /// An error about `file` of `role`.
    pub(crate) fn new(role: Role, file: impl Into<String>, rule: Rule) -> Self {
        Self { role, file: file.into(), rule }
    }

    /// The role whose file is at fault.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The file at fault, as it was asked for.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The rule that was broken.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Whether the file is genuine but too old.
    pub fn is_expired(&self) -> bool {
        matches!(self.rule, Rule::Expired { .. })
    }

    /// Whether the file may well be genuine, only older than what is known already, or not there yet: a source that lags
    /// behind has such files, and needs no bad will for it.
    pub fn is_lagging(&self) -> bool {
        matches!(self.rule, Rule::Rollback { .. } | Rule::Disappeared(_) | Rule::Expired { .. } | Rule::Missing)
    }

    /// Whether the source has not got the file. It may have none of this repository: that is no lie.
    pub fn is_missing(&self) -> bool {
        matches!(self.rule, Rule::Missing)
    }

    /// Whether another source could have a better answer. Not for a bad anchor, a bad call or a chain that is too long.
    pub fn can_retry_elsewhere(&self) -> bool {
        !matches!(self.rule, Rule::Anchor(_) | Rule::OutOfStep(_) | Rule::ChainTooLong(_))
    }
}
