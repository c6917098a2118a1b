//! Which commits, metadata files and blobs a collection keeps.

use std::collections::{BTreeSet, HashSet};

use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::utc;
use colibri_store::DocumentName;

use super::Collect;
use crate::announce::Announced;
use crate::commit::Commit;
use crate::error::RepositoryError;
use crate::metadata::Head;
use crate::repository::Repository;
use crate::roles;
use crate::{gate, layout, limits};

/// What stays of commits and metadata.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Numbers of the commits that go.
    pub going: Vec<u64>,
    /// Documents that commits which stay are derived from or lead to.
    pub documents: BTreeSet<String>,
    /// Packages of the sets whose blobs stay.
    packages: BTreeSet<BlobId>,
}

/// How long a timestamp stays of use after a newer one has taken its place.
fn life_s(commit: &Commit) -> u64 {
    let expires = roles::signed_part(commit.timestamp.as_bytes())
        .and_then(|signed| utc::parse(signed.get("expires")?.as_str()?))
        .map_or(0, |expires| expires.0.saturating_sub(commit.time_s));
    expires.max(limits::METADATA_KEPT_S)
}

impl Kept {
    pub fn find(repository: &Repository, head: &Head, collect: &Collect) -> Result<Self, RepositoryError> {
        let storage = repository.storage.as_ref();
        let mut commits = Vec::new();
        for number in Commit::numbers(storage)? {
            commits.extend(Commit::read(storage, number)?);
        }
        let mut kept = Self::default();
        // What the commits seen so far offer; the newest of each set comes first.
        let mut sets = BTreeSet::new();
        // When the commit looked at was followed by another.
        let mut followed = collect.now;
        for (age, commit) in commits.iter().rev().enumerate() {
            let is_new_set = !sets.contains(&commit.offers);
            let with_blobs = is_new_set && (sets.len() as u64) < collect.keep_sets.max(1);
            let is_served = followed.plus(life_s(commit)) > collect.now;
            followed = UnixSeconds(commit.time_s);
            if age > 0 && !with_blobs && !is_served {
                kept.going.push(commit.number);
                continue;
            }
            kept.documents.extend(commit.files.values().map(|source| source.from.clone()));
            if is_new_set {
                kept.take(repository, commit, with_blobs)?;
                sets.insert(commit.offers.clone());
            }
        }
        kept.packages.extend(repository.metadata.packages_of(&head.set)?.into_values());
        kept.targets_of(repository, &head.set)?;
        Ok(kept)
    }

    /// Keeps what a commit leads to; its packages too if asked.
    fn take(&mut self, repository: &Repository, commit: &Commit, with_blobs: bool) -> Result<(), RepositoryError> {
        match repository.metadata.of_commit(commit) {
            Ok(set) => {
                for (file, meta) in set.snapshot().into_iter().flat_map(|snapshot| snapshot.meta()) {
                    let name = repository.metadata.listed_document(&set, file, meta.version)?;
                    self.documents.extend(name.map(|name| name.as_str().to_owned()));
                }
                self.targets_of(repository, &set)?;
                if with_blobs {
                    self.packages.extend(repository.metadata.packages_of(&set)?.into_values());
                }
            }
            // An old set that no client can verify is of no use to any.
            Err(error) => tracing::warn!(commit = commit.number, %error, "a commit keeps nothing: it does not verify"),
        }
        Ok(())
    }

    /// Keeps the files of a set's targets: meta.fars and any others.
    fn targets_of(
        &mut self,
        repository: &Repository,
        set: &colibri_metadata::TrustedSet,
    ) -> Result<(), RepositoryError> {
        for (name, hash) in repository.metadata.target_hashes_of(set)? {
            let (folder, file) = name.rsplit_once('/').unwrap_or(("", &name));
            if let Ok(document) = layout::target(folder, &hash, file) {
                self.documents.insert(document.as_str().to_owned());
            }
        }
        Ok(())
    }

    /// Every blob that stays whatever its age.
    pub fn mark(
        &self,
        repository: &Repository,
        head: &Head,
        announced: &Announced,
    ) -> Result<HashSet<BlobId>, RepositoryError> {
        let now: BTreeSet<BlobId> = repository.metadata.packages_of(&head.set)?.into_values().collect();
        let excused = gate::let_through(&head.set).is_some();
        let mut marked: HashSet<BlobId> = announced.blobs.iter().copied().collect();
        let mut open: Vec<BlobId> = self.packages.iter().chain(&announced.packages).copied().collect();
        // Those that are no packages name nothing.
        open.extend(repository.pins()?.into_iter().flat_map(|pin| pin.hashes));
        let mut packages = HashSet::new();
        while let Some(id) = open.pop() {
            marked.insert(id);
            if !packages.insert(id) {
                continue;
            }
            match repository.blobs.contents_of(id) {
                Ok(contents) => {
                    marked.extend(contents.blobs.iter().copied());
                    open.extend(&contents.subpackages);
                }
                // What is offered now and cannot be read would lose what it names.
                Err(error @ RepositoryError::StoredBlob { .. }) if now.contains(&id) && !excused => {
                    return Err(error);
                }
                Err(RepositoryError::StoredBlob { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        repository.blobs.receipts.flush()?;
        Ok(marked)
    }

    /// Whether a document stays.
    pub fn keeps(&self, name: &DocumentName) -> bool {
        self.documents.contains(name.as_str())
    }
}
