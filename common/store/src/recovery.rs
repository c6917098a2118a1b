//! What opening a store does after a crash: files and rows are brought in line; nothing acknowledged is touched.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use colibri_common::BlobId;

use crate::disk::{Disk, EntryKind};
use crate::error::{AtPath, StoreError};
use crate::index::Index;
use crate::layout::StoreLayout;

/// What opening a store found and repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Files removed because no row names them: commits that were never acknowledged, removals that were not finished,
    /// strangers.
    pub swept_files: u64,
    /// Their bytes.
    pub swept_bytes: u64,
    /// Blobs whose file is gone or has another length, so somebody else touched it; their rows were dropped. Fetch them again.
    pub lost: Vec<BlobId>,
    /// Unfinished blobs that can be resumed.
    pub partials: Vec<BlobId>,
}

pub(crate) fn recover(disk: &dyn Disk, layout: &StoreLayout, index: &Index) -> Result<Recovery, StoreError> {
    let mut recovery = Recovery::default();
    let mut rows: HashMap<BlobId, u64> = index.blobs()?;
    let (files, mut strays) = ids_in(disk, &layout.blobs())?;
    let mut whole = HashMap::new();
    for id in files {
        let path = layout.blob(id);
        let there = disk.file_len(&path).at(&path)?;
        match rows.get(&id) {
            Some(length_bytes) if there == Some(*length_bytes) => whole.extend(rows.remove_entry(&id)),
            _ => strays.push(path),
        }
    }
    let (partials, stray_partials) = ids_in(disk, &layout.partials())?;
    strays.extend(stray_partials);
    for id in partials {
        // A rename that power loss left half done shows the file under both names.
        if whole.contains_key(&id) { strays.push(layout.partial(id)) } else { recovery.partials.push(id) }
    }
    recovery.lost = rows.into_keys().collect();
    recovery.lost.sort_unstable();
    if !recovery.lost.is_empty() {
        index.remove(&recovery.lost)?;
    }
    for path in strays {
        recovery.swept_files += 1;
        recovery.swept_bytes += disk.file_len(&path).at(&path)?.unwrap_or(0);
        disk.remove_file(&path).at(&path)?;
    }
    recovery.partials.sort_unstable();
    Ok(recovery)
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
