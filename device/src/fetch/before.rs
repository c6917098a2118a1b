//! [`Before`]: the version of a package that the device has already. Leaves that are equal there are copied, not fetched: data
//! that lies where it lay before. Deliberately absent: data that moved, which no list of leaves can find.

use std::collections::BTreeMap;
use std::sync::Arc;

use colibri_common::merkle::{LEAF_BYTES, Leaves};
use colibri_common::{BlobId, ByteRange};
use colibri_package::limits::META_FAR_BYTES_MAX;
use colibri_package::package::MetaFar;
use tokio::sync::OnceCell;

use crate::error::DeviceError;
use crate::fetch::blocking;
use crate::keep::{Keep, KeepError, KeptBlob, PartialKeep};
use crate::limits::{PREVIOUS_LOOKED_AT_MAX, REUSE_STEP_BYTES};

/// Packages that may be here, the likeliest to be an earlier version of anything first.
pub(crate) type Candidates = Arc<dyn Fn() -> Vec<BlobId> + Send + Sync>;

/// Bytes of a leaf's hash in a list of leaves.
const HASH_BYTES: usize = 32;

/// The earlier version of one package, looked for when it is first needed.
pub(crate) struct Before {
    name: String,
    package: BlobId,
    candidates: Candidates,
    contents: OnceCell<BTreeMap<String, BlobId>>,
}

impl Before {
    pub fn of(meta_far: &MetaFar, package: BlobId, candidates: Candidates) -> Self {
        Self { name: meta_far.name().to_string(), package, candidates, contents: OnceCell::new() }
    }

    /// The blob that the earlier version has at a path.
    pub async fn blob_at(&self, keep: &Arc<dyn Keep>, path: &str) -> Option<BlobId> {
        let contents = self.contents.get_or_init(|| async {
            let (name, package, candidates) = (self.name.clone(), self.package, self.candidates.clone());
            let found = blocking(keep, move |keep| Ok(find(keep, &name, package, candidates())));
            found.await.unwrap_or_default()
        });
        contents.await.get(path).copied()
    }
}

/// The contents of the first of these packages that has this name.
fn find(keep: &dyn Keep, name: &str, package: BlobId, candidates: Vec<BlobId>) -> BTreeMap<String, BlobId> {
    let others = candidates.into_iter().filter(|candidate| *candidate != package).take(PREVIOUS_LOOKED_AT_MAX);
    for candidate in others {
        // Not here, or damaged: then it is of no use.
        let Ok(bytes) = keep.read(&candidate, META_FAR_BYTES_MAX) else { continue };
        let Ok(meta_far) = MetaFar::parse(bytes) else { continue };
        if meta_far.name().to_string() == name {
            return meta_far.contents().iter().map(|(path, id)| (path.to_string(), *id)).collect();
        }
    }
    BTreeMap::new()
}

/// Copies what is equal in the blob `old` to what is missing of `partial`; how many bytes.
pub(crate) async fn copy_equal(
    keep: &Arc<dyn Keep>,
    old: BlobId,
    leaves: Leaves,
    mut partial: Box<dyn PartialKeep>,
) -> Result<(Box<dyn PartialKeep>, u64), DeviceError> {
    blocking(keep, move |keep| {
        let copied = match keep.open(&old) {
            Ok(Some(old)) => copy(&*old, &leaves, &mut *partial)?,
            // It may be damaged, or collected just now.
            Ok(None) | Err(_) => 0,
        };
        Ok((partial, copied))
    })
    .await
}

fn copy(old: &dyn KeptBlob, leaves: &Leaves, partial: &mut dyn PartialKeep) -> Result<u64, KeepError> {
    let (new_list, old_list) = (leaves.wire().clone(), old.leaves().wire().clone());
    let is_equal = |leaf: u64| {
        let at = leaf as usize * HASH_BYTES..(leaf as usize + 1) * HASH_BYTES;
        new_list.get(at.clone()).is_some_and(|hash| old_list.get(at) == Some(hash))
    };
    let mut copied = 0;
    for missing in partial.missing() {
        let all: Vec<u64> = missing.blocks(LEAF_BYTES).collect();
        for run in all.chunk_by(|one, two| is_equal(*one) == is_equal(*two)).filter(|run| is_equal(run[0])) {
            for step in run.chunks((REUSE_STEP_BYTES / LEAF_BYTES) as usize) {
                let end = ((step[step.len() - 1] + 1) * LEAF_BYTES).min(old.length());
                let range = ByteRange::new(step[0] * LEAF_BYTES, end);
                // What the disk has spoiled is fetched like all else.
                let Ok(bytes) = old.read(range) else { continue };
                let Ok(run) = leaves.verify(range.start(), bytes) else { continue };
                partial.write(&run)?;
                copied += range.len();
            }
        }
    }
    Ok(copied)
}
