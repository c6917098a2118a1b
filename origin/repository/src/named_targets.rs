//! [`NamedTargets`]: what is about to be offered, as files that clients download and as entries to be signed; [`ExtraTarget`]:
//! any file that is no package. Names are checked here, once.

use std::fmt;

use aws_lc_rs::digest::{SHA512, digest};
use bytes::Bytes;
use colibri_common::{BlobId, hex};
use colibri_metadata::TargetName;
use colibri_package::PackagePath;
use colibri_store::DocumentName;
use serde_json::Value;

use crate::error::RepositoryError;
use crate::layout;
use crate::sign_targets::{self, Entries, Entry};

/// What the stock client takes in no name, because file names of other systems cannot have it; control characters besides,
/// which are never signed here.
const STOCK_REFUSED: [char; 7] = [':', '\\', '<', '>', '"', '|', '?'];

/// A target that is no package.
#[derive(Clone, PartialEq, Eq)]
pub struct ExtraTarget {
    /// Its name: a relative path.
    pub name: String,
    /// What it is.
    pub content: Bytes,
    /// What is signed of it besides length and hash; no floats.
    pub custom: Option<Value>,
}

impl fmt::Debug for ExtraTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtraTarget({:?}, {} bytes)", self.name, self.content.len())
    }
}

/// Targets about to be offered.
#[derive(Debug, Default)]
pub(crate) struct NamedTargets {
    /// Files, as clients find them that know nothing of blobs: meta.fars of packages.
    pub files: Vec<(DocumentName, Bytes)>,
    /// What is signed of them.
    pub entries: Entries,
}

impl NamedTargets {
    /// Adds a package.
    pub fn package(&mut self, path: &PackagePath, hash: BlobId, meta_far: Bytes) -> Result<(), RepositoryError> {
        let sha512 = hex(digest(&SHA512, &meta_far).as_ref());
        self.entries.insert(target_name(&path.to_string())?, Entry::package(hash, meta_far.len() as u64, &sha512));
        self.files.push((layout::target(path.name.as_str(), &sha512, path.variant.as_str())?, meta_far));
        Ok(())
    }

    /// Adds a target that is no package.
    pub fn extra(&mut self, target: &ExtraTarget) -> Result<(), RepositoryError> {
        let sha512 = hex(digest(&SHA512, &target.content).as_ref());
        let entry = Entry::file(target.content.len() as u64, &sha512, target.custom.as_ref())?;
        if self.entries.insert(target_name(&target.name)?, entry).is_some() {
            return Err(RepositoryError::TargetTwice(target.name.clone()));
        }
        let (folder, file) = target.name.rsplit_once('/').unwrap_or(("", &target.name));
        self.files.push((layout::target(folder, &sha512, file)?, target.content.clone()));
        Ok(())
    }
}

/// Refuses a name for which the stock client refuses the whole targets file of a `compat` repository.
pub(crate) fn check_compat(name: &str) -> Result<(), RepositoryError> {
    match name.chars().find(|character| STOCK_REFUSED.contains(character)) {
        Some(character) => Err(RepositoryError::NameNotCompat { name: name.to_owned(), character }),
        None => Ok(()),
    }
}

/// A name that clients agree on.
pub(crate) fn target_name(name: &str) -> Result<TargetName, RepositoryError> {
    sign_targets::plain(name, "the name of a target")?;
    name.parse().map_err(|reason| RepositoryError::TargetName { name: name.to_owned(), reason })
}
