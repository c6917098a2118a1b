//! What the two ends of the write API say to each other in JSON, and the words they share (`docs/write-api.md`).
//!
//! Parsed strictly: unknown fields are refused, so that a newer client is told what an older origin does not know. What is
//! deliberately absent: HTTP, authentication, and any decision.

use std::fmt;

use colibri_common::BlobId;
use colibri_package::delivery::{DeliveryType, Encoding};
use colibri_package::{PackageName, PackagePath, PackageVariant};
use serde::{Deserialize, Serialize};

use crate::gate::{Fault, UnreadyBlob};
use crate::repository::Versions;

/// First segment of every path; a change that old clients would misunderstand gets another.
pub const VERSION_SEGMENT: &str = "v1";

/// Header with the number of bytes of an upload that the origin has, or at which a part begins.
pub const UPLOAD_OFFSET: &str = "upload-offset";

/// Header with the length of the whole upload in bytes.
pub const UPLOAD_LENGTH: &str = "upload-length";

/// Header that is `?1` when the blob is stored and proven, `?0` when not.
pub const UPLOAD_COMPLETE: &str = "upload-complete";

/// The path segment of a form in which a blob is uploaded: `raw`, `1` or `2`.
pub const fn form_segment(form: Encoding) -> &'static str {
    match form {
        Encoding::Raw => "raw",
        Encoding::Delivery(DeliveryType::Type1) => "1",
        Encoding::Delivery(DeliveryType::Type2) => "2",
    }
}

/// The form that a path segment names.
pub fn form_of_segment(segment: &str) -> Option<Encoding> {
    let forms = [Encoding::Raw, Encoding::Delivery(DeliveryType::Type1), Encoding::Delivery(DeliveryType::Type2)];
    forms.into_iter().find(|form| form_segment(*form) == segment)
}

/// `POST blobs/missing`: which of these are not stored?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingQuestion {
    /// At most [`crate::limits::BLOBS_ASKED_MAX`] blobs.
    pub blobs: Vec<BlobId>,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingAnswer {
    /// Those not stored and proven, in the order asked.
    pub missing: Vec<BlobId>,
}

/// A package to be offered under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferedPackage {
    /// Name.
    pub name: PackageName,
    /// Variant.
    pub variant: PackageVariant,
    /// Package hash.
    pub package: BlobId,
}

impl OfferedPackage {
    /// `NAME/VARIANT`.
    pub fn path(&self) -> PackagePath {
        PackagePath { name: self.name.clone(), variant: self.variant.clone() }
    }
}

/// A package no longer to be offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPackage {
    /// Name.
    pub name: PackageName,
    /// Variant.
    pub variant: PackageVariant,
}

impl NamedPackage {
    /// `NAME/VARIANT`.
    pub fn path(&self) -> PackagePath {
        PackagePath { name: self.name.clone(), variant: self.variant.clone() }
    }
}

/// `POST targets`: what the next release of the repository offers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Submission {
    /// Packages to offer; one of the same name and variant is replaced.
    pub add: Vec<OfferedPackage>,
    /// Packages no longer to offer. One that is not offered is an error.
    pub remove: Vec<NamedPackage>,
    /// Offer only what `add` names.
    pub replace_all: bool,
    /// Refuse with 409 unless targets has this version now. Without it, the change is made to whatever is offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_targets_version: Option<u32>,
    /// Refuse with 409 unless the snapshot has this version now: it moves with every change of what is offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_snapshot_version: Option<u32>,
    /// Why edges are not waited for; stands in the signed snapshot. Takes an admin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub past_gate_because: Option<String>,
}

/// Its answer, once the change is visible and durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submitted {
    /// Versions now visible.
    pub versions: WireVersions,
}

/// Versions of the four roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireVersions {
    /// Root.
    pub root: u32,
    /// Targets.
    pub targets: u32,
    /// Snapshot.
    pub snapshot: u32,
    /// Timestamp.
    pub timestamp: u32,
}

impl From<Versions> for WireVersions {
    fn from(versions: Versions) -> Self {
        let Versions { root, targets, snapshot, timestamp } = versions;
        Self { root, targets, snapshot, timestamp }
    }
}

impl From<WireVersions> for Versions {
    fn from(versions: WireVersions) -> Self {
        let WireVersions { root, targets, snapshot, timestamp } = versions;
        Self { root, targets, snapshot, timestamp }
    }
}

/// `GET status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusAnswer {
    /// The repository.
    pub repository: String,
    /// Packages offered.
    pub packages: u64,
    /// Versions visible.
    pub versions: WireVersions,
    /// When the first of the four roles expires, in seconds since 1970.
    pub expires: u64,
    /// Uploads under way, of anybody.
    pub uploads: u64,
    /// Who asks, as the origin knows it.
    pub you: String,
    /// What the asker may do: `reader`, `publisher` or `admin`.
    pub role: String,
}

/// `POST refresh`: its answer. The question has no body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refreshed {
    /// Versions now visible.
    pub versions: WireVersions,
}

/// `POST collect`: remove what nothing needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectQuestion {
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// Its answer; counts as `repo gc` tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collected {
    /// Blobs that stay.
    pub blobs_kept: u64,
    /// Those of them that stay only because they are new.
    pub blobs_in_grace: u64,
    /// Blobs removed.
    pub blobs_removed: u64,
    /// Bytes removed, of blobs and other files.
    pub bytes_removed: u64,
    /// Unfinished uploads removed.
    pub uploads_removed: u64,
}

/// A blob that keeps a package from being offered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeededBlob {
    /// `NAME/VARIANT` of the package submitted.
    pub package: String,
    /// Names of the subpackages that lead to it, joined by `/`; empty for the package itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subpackage: String,
    /// Its path in its package; `meta/` for a meta.far.
    pub path: String,
    /// The blob.
    pub blob: BlobId,
    /// What is wrong with what is stored under its name; absent blobs have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

impl From<&UnreadyBlob> for NeededBlob {
    fn from(unready: &UnreadyBlob) -> Self {
        let UnreadyBlob { package, subpackage, path, id, fault } = unready.clone();
        let wrong = match fault {
            Fault::Absent => None,
            Fault::Wrong(reason) => Some(reason),
        };
        Self { package, subpackage, path, blob: id, wrong }
    }
}

impl fmt::Display for NeededBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { package, subpackage, path, blob, wrong } = self;
        let below = if subpackage.is_empty() { String::new() } else { format!(" in subpackage {subpackage}") };
        let fault = wrong.as_deref().unwrap_or("it is absent");
        write!(f, "package {package}: {path}{below}, blob {blob}: {fault}")
    }
}

/// A package whose submission makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrongPackage {
    /// `NAME/VARIANT`.
    pub package: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An error: a problem document (RFC 9457) with members of our own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WriteProblem {
    /// `urn:colibri:problem:NAME`, for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem, for people.
    pub title: String,
    /// The HTTP status again.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The first of the blobs that are absent or wrong, of every package.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<NeededBlob>,
    /// Packages whose submission makes no sense.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<WrongPackage>,
}
