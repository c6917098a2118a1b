//! What a collection removes, found first and then removed.

use std::collections::{BTreeMap, HashMap, HashSet};

use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{Role, RoleName};
use colibri_store::{DocumentName, StoreError};

use super::keep::Kept;
use super::{Collect, CollectReport};
use crate::error::RepositoryError;
use crate::layout;
use crate::metadata::Head;
use crate::receipts::Entry;
use crate::repository::Repository;

/// What goes.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    commits: Vec<DocumentName>,
    /// Metadata files, and meta.fars under their names as targets.
    metadata: Vec<DocumentName>,
    blobs: Vec<BlobId>,
    /// Every form and the leaf list of `blobs`.
    forms: Vec<DocumentName>,
    uploads: Vec<DocumentName>,
    pub report: CollectReport,
}

impl Sweep {
    pub fn find(
        repository: &Repository,
        head: &Head,
        kept: &Kept,
        marked: &HashSet<BlobId>,
        collect: &Collect,
    ) -> Result<Self, RepositoryError> {
        let commits = kept.going.iter().map(|number| layout::commit(*number)).collect::<Result<_, StoreError>>()?;
        let mut sweep = Self { commits, ..Self::default() };
        sweep.find_metadata(repository, head, kept, collect)?;
        sweep.find_blobs(repository, marked, collect)?;
        sweep.find_uploads(repository, collect)?;
        for name in sweep.metadata.iter().chain(&sweep.forms).chain(&sweep.uploads).chain(&sweep.commits) {
            sweep.report.bytes_removed += repository.storage.length(name)?.unwrap_or(0);
        }
        sweep.report.commits_removed = sweep.commits.len() as u64;
        sweep.report.metadata_removed = sweep.metadata.len() as u64;
        sweep.report.blobs_removed = sweep.blobs.len() as u64;
        Ok(sweep)
    }

    fn find_metadata(
        &mut self,
        repository: &Repository,
        head: &Head,
        kept: &Kept,
        collect: &Collect,
    ) -> Result<(), RepositoryError> {
        let mut current: HashMap<String, u32> = HashMap::new();
        for (listed, meta) in head.set.snapshot().into_iter().flat_map(|snapshot| snapshot.meta()) {
            let role = listed.strip_suffix(".json").and_then(|name| name.parse::<RoleName>().ok());
            current.insert(role.map_or_else(|| listed.clone(), |role| role.file()), meta.version);
        }
        current.extend(head.set.version(Role::Snapshot).map(|version| (Role::Snapshot.file().to_owned(), version)));
        for digit in '1'..='9' {
            for name in repository.storage.list(&format!("{}/{digit}", layout::SERVED))? {
                let Some((version, file)) = numbered(&name) else { continue };
                // Not of a role that is there now, or of a publish that was cut short: its number must stay taken.
                let is_old = file != Role::Root.file() && current.get(file).is_some_and(|current| version < *current);
                if is_old && !kept.keeps(&name) {
                    self.metadata.push(name);
                }
            }
        }
        for folder in [format!("{}/targets/", layout::SERVED), format!("{}/", layout::STAGED)] {
            for name in repository.storage.list(&folder)? {
                // A package may wait for its targets to be signed elsewhere.
                let is_new =
                    || repository.blobs.file_time(&name).is_some_and(|at| at.plus(collect.grace_s) > collect.now);
                if !kept.keeps(&name) && is_by_hash(&name) && !is_new() {
                    self.metadata.push(name);
                }
            }
        }
        Ok(())
    }

    fn find_blobs(
        &mut self,
        repository: &Repository,
        marked: &HashSet<BlobId>,
        collect: &Collect,
    ) -> Result<(), RepositoryError> {
        let folder = format!("{}/blobs/", layout::SERVED);
        let mut found: BTreeMap<BlobId, Vec<DocumentName>> = BTreeMap::new();
        for name in repository.storage.list(&folder)? {
            let below = name.as_str().strip_prefix(&folder).unwrap_or_default();
            let id = match below.split_once('/') {
                None => below.parse(),
                Some(("1" | "2" | "leaves", id)) => id.parse(),
                Some(_) => continue,
            };
            if let Ok(id) = id {
                found.entry(id).or_default().push(name);
            }
        }
        for (id, names) in found {
            let stays = marked.contains(&id);
            let is_new = || {
                let stored = repository.blobs.modified(id).unwrap_or(UnixSeconds(0));
                stored.plus(collect.grace_s) > collect.now
            };
            if stays || is_new() {
                self.report.blobs_kept += 1;
                self.report.blobs_in_grace += u64::from(!stays);
                for name in &names {
                    self.report.bytes_kept += repository.storage.length(name)?.unwrap_or(0);
                }
            } else {
                self.blobs.push(id);
                self.forms.extend(names);
            }
        }
        Ok(())
    }

    fn find_uploads(&mut self, repository: &Repository, collect: &Collect) -> Result<(), RepositoryError> {
        for (folder, began) in repository.uploads()? {
            if began.plus(collect.grace_s) <= collect.now {
                self.report.uploads_removed += 1;
                let mut names = repository.storage.list(&format!("{folder}/"))?;
                names.reverse();
                self.uploads.extend(names);
            }
        }
        Ok(())
    }

    /// Removes it. What power loss brings back, the next collection finds again.
    pub fn run(&self, repository: &Repository) -> Result<(), RepositoryError> {
        let storage = &repository.storage;
        storage.sweep(&self.commits)?;
        storage.sweep(&self.metadata)?;
        // A receipt never outlives its blob: another of the same length could take its place.
        repository.blobs.receipts.note(self.blobs.iter().map(|id| Entry::Forgotten(*id)));
        repository.blobs.receipts.flush()?;
        storage.sweep(&self.forms)?;
        storage.sweep(&self.uploads)?;
        repository.blobs.receipts.write_into_one()
    }
}

/// Version and unnumbered name of a numbered metadata file.
fn numbered(name: &DocumentName) -> Option<(u32, &str)> {
    let (version, file) = name.as_str().strip_prefix(layout::SERVED)?.strip_prefix('/')?.split_once('.')?;
    (file.ends_with(".json") && !file.contains('/')).then_some((version.parse().ok()?, file))
}

/// Whether the last part begins with a hash: files of other names are somebody else's.
fn is_by_hash(name: &DocumentName) -> bool {
    let last = name.as_str().rsplit('/').next().unwrap_or_default();
    let hash = last.split('.').next().unwrap_or_default();
    [64, 128].contains(&hash.len()) && hash.bytes().all(|letter| letter.is_ascii_hexdigit())
}
