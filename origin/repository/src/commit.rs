//! Commits: `commits/N`, a create-only write, is the one moment at which a new set of metadata becomes the repository's.
//!
//! A commit holds or names, with its hash, all that the unnumbered files are derived from, so that they can be written, or
//! written again, by anybody who reads it. The newest commit is the one with the highest number. Deliberately absent: what
//! is derived and when (`metadata`), when commits may go (`gc`).

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_common::{UnixSeconds, hex, sha256};
use colibri_store::DocumentName;
use serde::{Deserialize, Serialize};

use crate::error::RepositoryError;
use crate::storage::Storage;
use crate::{layout, limits};

/// The version of everything below the repository's folder that is ours: commits, receipts, pins. Repositories of the real
/// tools and of our first version have none of these; they count as format 0 and are read too.
pub(crate) const FORMAT: u32 = 1;

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    format: u32,
    /// Its number; the first is 1.
    pub number: u64,
    /// When it was made.
    pub time_s: u64,
    /// The exact text of `timestamp.json`.
    pub timestamp: String,
    /// The exact text of the root: `root.json` and its numbered form.
    pub root: String,
    /// Its version.
    pub root_version: u32,
    /// All other unnumbered files, by name.
    pub files: BTreeMap<String, Source>,
    /// Hash over what the snapshot lists: equal in commits that offer the same.
    pub offers: String,
    /// Why blobs that are not proven were let through, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<Unproven>,
}

/// Where the bytes of an unnumbered file are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// A document that never changes.
    pub from: String,
    /// SHA-256 of its bytes in hex.
    pub sha256: String,
    /// Their number.
    pub length: u64,
}

/// A publish that went past its gate, as `custom` of the snapshot says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unproven {
    /// What the publisher gave as the reason.
    pub reason: String,
    /// Blobs that were absent or not proven at that moment.
    pub blobs: u64,
}

/// What is new in a commit.
#[derive(Debug)]
pub(crate) struct NewCommit {
    pub number: u64,
    pub time: UnixSeconds,
    pub timestamp: Bytes,
    pub root: Bytes,
    pub root_version: u32,
    pub files: BTreeMap<String, Source>,
    pub offers: String,
    pub unproven: Option<Unproven>,
}

/// The part that every version has.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Source {
    /// `content`, to be found at `from`.
    pub fn of(from: &DocumentName, content: &[u8]) -> Self {
        Self { from: from.as_str().to_owned(), sha256: hex(&sha256(content)), length: content.len() as u64 }
    }

    /// Whether `content` is what is meant.
    pub fn is(&self, content: &[u8]) -> bool {
        content.len() as u64 == self.length && hex(&sha256(content)) == self.sha256
    }
}

impl Commit {
    /// Reads the commit with the highest number.
    pub fn newest(storage: &dyn Storage) -> Result<Option<Self>, RepositoryError> {
        loop {
            let Some(number) = Self::numbers(storage)?.pop() else { return Ok(None) };
            // Gone if collection removed it between listing and reading: then there is a newer one.
            if let Some(commit) = Self::read(storage, number)? {
                return Ok(Some(commit));
            }
        }
    }

    /// The numbers of all commits, growing.
    pub fn numbers(storage: &dyn Storage) -> Result<Vec<u64>, RepositoryError> {
        Ok(layout::numbers(storage, layout::COMMITS)?)
    }

    /// One commit, if it is there.
    pub fn read(storage: &dyn Storage, number: u64) -> Result<Option<Self>, RepositoryError> {
        let name = layout::commit(number)?;
        let Some(text) = storage.read(&name, limits::COMMIT_BYTES_MAX)? else { return Ok(None) };
        let path = storage.place().join(name.as_str());
        let damaged = |reason: String| RepositoryError::Damaged { path: path.clone(), reason };
        let head: Head = serde_json::from_slice(&text).map_err(|e| damaged(format!("it is no commit: {e}")))?;
        if head.format > FORMAT {
            return Err(RepositoryError::TooNew { path, found: head.format, known: FORMAT });
        }
        let commit: Self = serde_json::from_slice(&text).map_err(|e| damaged(format!("it is no commit: {e}")))?;
        if commit.number != number {
            return Err(damaged(format!("it says that it is commit {}", commit.number)));
        }
        Ok(Some(commit))
    }

    /// Makes the commit, durably; nothing if another program made one of this number.
    pub fn make(storage: &dyn Storage, new: NewCommit) -> Result<Option<Self>, RepositoryError> {
        let name = layout::commit(new.number)?;
        let path = storage.place().join(name.as_str());
        let damaged = |reason: String| RepositoryError::Damaged { path: path.clone(), reason };
        let text = |file: &str, bytes: Bytes| {
            String::from_utf8(bytes.into()).map_err(|_| damaged(format!("{file} is not UTF-8, so it is no JSON")))
        };
        let commit = Self {
            format: FORMAT,
            number: new.number,
            time_s: new.time.0,
            timestamp: text("timestamp.json", new.timestamp)?,
            root: text("root.json", new.root)?,
            root_version: new.root_version,
            files: new.files,
            offers: new.offers,
            unproven: new.unproven,
        };
        let written = serde_json::to_vec_pretty(&commit).map_err(|e| damaged(e.to_string()))?;
        Ok(storage.create(&name, &written.into())?.then_some(commit))
    }
}
