//! Collection: removes blobs that nothing offers and nobody asked to keep, and metadata that no client can need any more.
//!
//! What stays: everything that the last few different sets reach, everything pinned or announced, and what was stored within
//! the grace period. Metadata of every timestamp served within its own life or 24 hours, whichever is more, and all roots. The
//! lock is held from the first look to the last removal; publishes at work have announced what they depend on before they
//! looked for it (`announce`), and the gate looks again under the same lock before it lets anything be signed. Order: commits,
//! then what only they lead to; receipts, durably, then the blobs they were for. A crash anywhere leaves less to do next time;
//! removals are not synced, since what comes back after power loss is found again.

mod keep;
mod sweep;

use colibri_common::UnixSeconds;

use crate::announce;
use crate::error::RepositoryError;
use crate::repository::Repository;
use keep::Kept;
use sweep::Sweep;

/// How to collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collect {
    /// The time.
    pub now: UnixSeconds,
    /// How many of the newest different sets keep their blobs; at least one.
    pub keep_sets: u64,
    /// Seconds for which a blob stays from when it was stored, whatever names it.
    pub grace_s: u64,
    /// Only say what would be removed.
    pub dry_run: bool,
}

impl Collect {
    /// The last three sets, one day of grace.
    pub fn new(now: UnixSeconds) -> Self {
        Self { now, keep_sets: 3, grace_s: 24 * 3600, dry_run: false }
    }
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectReport {
    /// Blobs that stay.
    pub blobs_kept: u64,
    /// Those of them that stay only because they are new.
    pub blobs_in_grace: u64,
    /// What the blobs that stay take, in bytes.
    pub bytes_kept: u64,
    /// Blobs removed.
    pub blobs_removed: u64,
    /// What they, and other files removed, took, in bytes.
    pub bytes_removed: u64,
    /// Metadata files removed, and meta.fars under their names as targets.
    pub metadata_removed: u64,
    /// Commits removed.
    pub commits_removed: u64,
    /// Unfinished uploads removed.
    pub uploads_removed: u64,
}

impl Repository {
    /// Removes what nothing needs.
    ///
    /// # Errors
    /// The repository is damaged, so that nobody can say what is needed; it lies where there are no locks; or the disk
    /// refuses. What was removed until then is not needed either way.
    pub fn collect(&self, collect: &Collect) -> Result<CollectReport, RepositoryError> {
        let lock = self.storage.lock()?;
        if !lock.excludes() {
            return Err(RepositoryError::NoLocks { path: self.dir.clone() });
        }
        if let Some(blobs) = self.storage.blobs_elsewhere() {
            return Err(RepositoryError::SharedBlobs { path: self.dir.clone(), blobs: blobs.to_owned() });
        }
        let head = self.metadata.head()?;
        if !collect.dry_run {
            self.metadata.heal(&head)?;
        }
        self.blobs.receipts.read_new()?;
        let kept = Kept::find(self, &head, collect)?;
        let (announced, old_announcements) = announce::announced(self.storage.as_ref(), collect.now)?;
        let marked = kept.mark(self, &head, &announced)?;
        let sweep = Sweep::find(self, &head, &kept, &marked, collect)?;
        if !collect.dry_run {
            sweep.run(self)?;
            self.storage.sweep(&old_announcements)?;
        }
        Ok(sweep.report)
    }
}
