//! [`TrustStore`]: the trusted metadata sets of a device or edge, one durable document per repository. [`TrustFolder`]: one set
//! as plain files, for programs that look at them.
//!
//! In a [`TrustStore`] all roles of a set are kept in *one* document, so that a crash leaves the old set or the new one, never a mixture, and
//! the versions in it remain a floor against rollback. What is read back is verified again before it is used.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use colibri_metadata::limits::TARGETS_BYTES_MAX;
use colibri_metadata::{Role, RoleName, TrustedSet};
use colibri_store::{DocumentName, Documents};

use crate::error::FetchError;
use crate::limits::TRUSTED_SET_BYTES_MAX;

/// Trusted sets on disk, by repository host.
#[derive(Debug)]
pub struct TrustStore {
    documents: Documents,
}

impl TrustStore {
    /// Keeps sets in `documents`.
    pub const fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// The set stored for `host`, re-verified; nothing if there is none.
    pub fn load(&self, host: &str) -> Result<Option<TrustedSet>, FetchError> {
        let local = |error: &dyn std::fmt::Display| FetchError::Local(format!("trusted metadata of {host}: {error}"));
        let Some(stored) = self.documents.get(&name(host)?, TRUSTED_SET_BYTES_MAX).map_err(|error| local(&error))?
        else {
            return Ok(None);
        };
        let texts: BTreeMap<String, String> = serde_json::from_slice(&stored).map_err(|error| local(&error))?;
        let files = texts.into_iter().map(|(role, text)| (role, Bytes::from(text)));
        TrustedSet::load(files).map(Some).map_err(|error| local(&error))
    }

    /// Stores a set for `host`, durably, in place of the one before. Delegated roles only if there is room for them.
    pub fn save(&self, host: &str, set: &TrustedSet) -> Result<(), FetchError> {
        let local = |error: &dyn std::fmt::Display| FetchError::Local(format!("trusted metadata of {host}: {error}"));
        let texts: Result<BTreeMap<Cow<'_, str>, &str>, _> =
            set.files().map(|(role, bytes)| Ok((role, std::str::from_utf8(bytes)?))).collect();
        let mut texts = texts.map_err(|error: std::str::Utf8Error| local(&error))?;
        let mut document = serde_json::to_vec(&texts).map_err(|error| local(&error))?;
        if document.len() as u64 > TRUSTED_SET_BYTES_MAX {
            // What is written can be read again. Delegated roles are fetched anew when they are searched; they are no floor.
            texts.retain(|name, _| Role::ALL.iter().any(|role| role.file() == name));
            document = serde_json::to_vec(&texts).map_err(|error| local(&error))?;
        }
        self.documents.put(&name(host)?, &document).map_err(|error| local(&error))
    }

    /// Forgets the set of `host`.
    pub fn remove(&self, host: &str) -> Result<(), FetchError> {
        let removed = self.documents.remove(&name(host)?);
        removed.map(drop).map_err(|error| FetchError::Local(format!("trusted metadata of {host}: {error}")))
    }
}

/// One trusted set as files under unnumbered names, byte for byte as they were received, and nothing else.
///
/// Each file is replaced as a whole. A crash between two of them leaves newer roles beside older ones of the same proof,
/// which is what a refresh that broke off leaves, too: roles are written from the root down, so none is there without the
/// one that vouches for it, and what no longer fits is set aside when the set is read.
#[derive(Debug)]
pub struct TrustFolder {
    documents: Documents,
}

impl TrustFolder {
    /// Keeps a set in `documents`, a folder of its own.
    pub const fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// The stored set, re-verified; nothing if there is not even a root.
    pub fn load(&self) -> Result<Option<TrustedSet>, FetchError> {
        let names = self.documents.list("").map_err(|error| self.local(&error))?;
        let mut files = Vec::new();
        for name in names.into_iter().filter(|name| is_role(name.as_str())) {
            // A file beyond the caps of all roles is refused before it is read.
            if let Some(bytes) = self.documents.get(&name, TARGETS_BYTES_MAX).map_err(|error| self.local(&error))? {
                files.push((name.as_str().to_owned(), bytes));
            }
        }
        if !files.iter().any(|(name, _)| name == Role::Root.file()) {
            return Ok(None);
        }
        TrustedSet::load(files).map(Some).map_err(|error| self.local(&error))
    }

    /// Stores a set in place of the one before.
    pub fn save(&self, set: &TrustedSet) -> Result<(), FetchError> {
        let mut kept = BTreeSet::new();
        for (file, bytes) in set.files() {
            let name = DocumentName::new(&file).map_err(|error| self.local(&error))?;
            let stored = self.documents.get(&name, bytes.len() as u64).ok().flatten();
            if stored.as_ref() != Some(bytes) {
                self.documents.put(&name, bytes).map_err(|error| self.local(&error))?;
            }
            kept.insert(name);
        }
        for name in self.documents.list("").map_err(|error| self.local(&error))? {
            if is_role(name.as_str()) && !kept.contains(&name) {
                self.documents.remove(&name).map_err(|error| self.local(&error))?;
            }
        }
        Ok(())
    }

    fn local(&self, error: &dyn std::fmt::Display) -> FetchError {
        FetchError::Local(format!("trusted metadata in {}: {error}", self.documents.dir().display()))
    }
}

/// Whether a file is called as one of a role.
fn is_role(file: &str) -> bool {
    Role::ALL.iter().any(|role| role.file() == file) || RoleName::of_file(file).is_some()
}

fn name(host: &str) -> Result<DocumentName, FetchError> {
    let name = format!("trusted/{host}.json").parse();
    name.map_err(|error| FetchError::Local(format!("trusted metadata of {host}: {error}")))
}
