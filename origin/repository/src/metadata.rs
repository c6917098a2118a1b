//! Reading the committed metadata and committing the next: numbered files first, `timestamp.json` last.
//!
//! What is committed is what `timestamp.json` leads to, read with the same verifying client that devices use. What is about
//! to be committed is run through that client first: metadata that clients would refuse never becomes visible.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_metadata::{Answer, MetadataError, Role, Start, Step, TrustAnchor, TrustedSet, Update};
use colibri_store::{DocumentName, Documents};

use crate::draft::Draft;
use crate::error::RepositoryError;
use crate::layout;
use crate::roles::Expiries;

/// Before every expiry: what is committed stays readable for its owner after it has expired.
const NEVER_EXPIRED: UnixSeconds = UnixSeconds(0);

/// How the next versions are chosen and signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub now: UnixSeconds,
    pub time_versioning: bool,
    pub expiries: Expiries,
}

/// The metadata side of a repository's folder.
#[derive(Debug, Clone)]
pub(crate) struct MetadataFolder {
    documents: Documents,
}

impl MetadataFolder {
    pub fn new(documents: Documents) -> Self {
        Self { documents }
    }

    fn path(&self) -> PathBuf {
        self.documents.dir().to_owned()
    }

    fn at(&self, source: MetadataError) -> RepositoryError {
        RepositoryError::Metadata { path: self.path(), source }
    }

    /// `root.json`, the exact bytes.
    pub fn root_file(&self) -> Result<Option<Bytes>, RepositoryError> {
        Ok(self.documents.get(&layout::metadata(Role::Root.file())?, Role::Root.bytes_max())?)
    }

    /// What is committed: verified, but perhaps expired.
    pub fn committed(&self) -> Result<TrustedSet, RepositoryError> {
        let root = self.root_file()?.ok_or_else(|| RepositoryError::NotARepository { path: self.path() })?;
        let start = Start::FromAnchor(TrustAnchor::RootFile(root));
        self.refresh(Update::start(start, NEVER_EXPIRED), &BTreeMap::new())
    }

    /// Drives `update` over `drafts` and, where they have nothing, this folder.
    pub fn refresh(
        &self,
        mut update: Update,
        drafts: &BTreeMap<DocumentName, Bytes>,
    ) -> Result<TrustedSet, RepositoryError> {
        while let Step::Want(want) = update.next() {
            let name = DocumentName::new(&format!("{}/{}", layout::SERVED, want.name))?;
            let found = match drafts.get(&name) {
                Some(bytes) => Some(bytes.clone()),
                None => self.documents.get(&name, want.bytes_max)?,
            };
            update.supply(found.map_or(Answer::NotFound, Answer::Found)).map_err(|e| self.at(e))?;
        }
        update.finish().map_err(|e| self.at(e))
    }

    /// The version after `previous`: one more, or the time if that is larger; never one whose numbered file is there,
    /// because a crashed publish may have left one that somebody has cached for good.
    pub fn next_version(&self, file: &str, previous: u32, terms: &Terms) -> Result<u32, RepositoryError> {
        let full = || RepositoryError::OutOfRange(format!("the version of {file} cannot grow beyond {previous}"));
        let mut version = previous.checked_add(1).ok_or_else(full)?;
        if terms.time_versioning
            && file != Role::Root.file()
            && let Ok(now) = u32::try_from(terms.now.0)
        {
            version = version.max(now);
        }
        while self.documents.length(&layout::numbered_metadata(file, version)?)?.is_some() {
            version = version.checked_add(1).ok_or_else(full)?;
        }
        Ok(version)
    }

    /// Makes a draft visible. Until the last write, `timestamp.json`, clients see the old set.
    pub fn commit(&self, draft: &Draft) -> Result<(), RepositoryError> {
        for file in &draft.files {
            if file.is(Role::Root) || (draft.numbered && !file.is(Role::Timestamp)) {
                self.documents.put(&layout::numbered_metadata(&file.file, file.version)?, &file.bytes)?;
            }
        }
        for file in &draft.files {
            self.documents.put(&layout::metadata(&file.file)?, &file.bytes)?;
        }
        Ok(())
    }

    /// Makes the first draft visible. `root.json` comes last: before it there is no repository, and after a crash `create`
    /// starts afresh.
    pub fn commit_first(&self, draft: &Draft) -> Result<(), RepositoryError> {
        for file in draft.files.iter().filter(|file| !file.is(Role::Timestamp)) {
            self.documents.put(&layout::numbered_metadata(&file.file, file.version)?, &file.bytes)?;
        }
        for file in draft.files.iter().rev() {
            self.documents.put(&layout::metadata(&file.file)?, &file.bytes)?;
        }
        Ok(())
    }

    pub fn damaged(&self, reason: &str) -> RepositoryError {
        RepositoryError::Damaged { path: self.path(), reason: reason.to_owned() }
    }
}
