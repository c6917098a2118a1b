//! What opening a store does after a crash: files and rows are brought in line; nothing acknowledged is touched.
//!
//! A file without a row is a commit that was cut short: it goes back to where unfinished blobs are, to be verified again when
//! somebody wants it, unless the index says that it was being removed. So nothing is fetched twice, and nothing that was
//! collected comes back. What nobody wants of unfinished blobs the next collection removes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use colibri_common::BlobId;

use crate::disk::{Disk, EntryKind};
use crate::error::{AtPath, StoreError};
use crate::index::Index;
use crate::layout::StoreLayout;

/// What opening a store found and repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Files removed: those of removals that were not finished, and strangers.
    pub swept_files: u64,
    /// Their bytes.
    pub swept_bytes: u64,
    /// Blobs whose file is gone or has another length, so somebody else touched it; their rows were dropped. Fetch them again.
    pub lost: Vec<BlobId>,
    /// Unfinished blobs that can be resumed, those among them whose commit was cut short.
    pub partials: Vec<BlobId>,
}

pub(crate) fn recover(disk: &dyn Disk, layout: &StoreLayout, index: &Index) -> Result<Recovery, StoreError> {
    let mut recovery = Recovery::default();
    let mut rows: HashMap<BlobId, u64> = index.blobs()?;
    let removing = index.removing()?;
    let is_removing: HashSet<BlobId> = removing.iter().copied().collect();
    let (files, mut strays) = ids_in(disk, &layout.blobs())?;
    let mut whole = HashMap::new();
    let mut unfinished = Vec::new();
    for id in files {
        let path = layout.blob(id);
        let there = disk.file_len(&path).at(&path)?;
        match rows.get(&id) {
            Some(length_bytes) if there == Some(*length_bytes) => whole.extend(rows.remove_entry(&id)),
            None if is_removing.contains(&id) => strays.push(path),
            _ => unfinished.push(id),
        }
    }
    recovery.lost = rows.into_keys().collect();
    recovery.lost.sort_unstable();
    if !recovery.lost.is_empty() {
        index.forget(&recovery.lost)?;
    }
    for id in unfinished {
        set_aside(disk, layout, id)?;
    }
    let (partials, stray_partials) = ids_in(disk, &layout.partials())?;
    strays.extend(stray_partials);
    for id in partials {
        // A rename that power loss left half done shows the file under both names.
        let is_leftover = whole.contains_key(&id) || is_removing.contains(&id);
        if is_leftover { strays.push(layout.partial(id)) } else { recovery.partials.push(id) }
    }
    for path in strays {
        recovery.swept_files += 1;
        recovery.swept_bytes += disk.file_len(&path).at(&path)?.unwrap_or(0);
        disk.remove_file(&path).at(&path)?;
    }
    if !removing.is_empty() {
        forget_removed(disk, layout, index, &removing)?;
    }
    recovery.partials.sort_unstable();
    Ok(recovery)
}

/// Once the files of these blobs are gone: makes that durable and removes the marks.
pub(crate) fn forget_removed(
    disk: &dyn Disk,
    layout: &StoreLayout,
    index: &Index,
    ids: &[BlobId],
) -> Result<(), StoreError> {
    // Also the folder that a commit moved them from: the old name must not come back.
    for folder in [layout.blobs(), layout.partials()] {
        disk.sync_dir(&folder).at(&folder)?;
    }
    index.removed(ids)
}

/// Makes a file that has no row an unfinished blob.
pub(crate) fn set_aside(disk: &dyn Disk, layout: &StoreLayout, id: BlobId) -> Result<(), StoreError> {
    let path = layout.blob(id);
    disk.rename(&path, &layout.partial(id)).at(&path)?;
    // A rename onto another name of the same file, which power loss may leave, does nothing.
    if disk.file_len(&path).at(&path)?.is_some() {
        disk.remove_file(&path).at(&path)?;
    }
    Ok(())
}

/// The blobs that files of a folder are named after, and the paths of all other files in it.
pub(crate) fn ids_in(disk: &dyn Disk, dir: &Path) -> Result<(Vec<BlobId>, Vec<PathBuf>), StoreError> {
    let (mut ids, mut others) = (Vec::new(), Vec::new());
    for entry in disk.list_dir(dir).at(dir)? {
        match entry.name.to_str().and_then(|name| name.parse().ok()) {
            Some(id) if entry.kind == EntryKind::File => ids.push(id),
            _ if entry.kind != EntryKind::Folder => others.push(dir.join(entry.name)),
            _ => {}
        }
    }
    Ok((ids, others))
}
