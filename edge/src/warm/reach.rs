//! [`Reach`]: which blobs the trusted sets of a repository reach, as far as they were walked.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use colibri_common::{BlobId, Digest};

use crate::limits::{PAST_LIFE_S_MIN, REACH_BLOBS_MAX};

/// Blobs by when a set that was walked reached them last.
#[derive(Debug, Default)]
pub(crate) struct Reach(Mutex<Reached>);

#[derive(Debug, Default)]
struct Reached {
    /// SHA-256 of the snapshot that was walked last, wholly.
    walked: Option<Digest>,
    blobs: HashMap<BlobId, Instant>,
    /// There were more than are held: nothing can be said of those that are not here.
    overflowed: bool,
}

impl Reach {
    /// Whether the set of this snapshot may reach `id`, or one that was served lately does.
    pub fn may_have(&self, id: BlobId, snapshot: Digest) -> bool {
        let reached = self.lock();
        reached.walked != Some(snapshot) || reached.overflowed || reached.blobs.contains_key(&id)
    }

    /// Takes all that the set of this snapshot reaches.
    pub fn walked(&self, snapshot: Digest, blobs: impl Iterator<Item = BlobId>) {
        let (now, life) = (Instant::now(), Duration::from_secs(PAST_LIFE_S_MIN));
        let mut reached = self.lock();
        for id in blobs {
            if reached.blobs.len() == REACH_BLOBS_MAX && !reached.blobs.contains_key(&id) {
                reached.overflowed = true;
                tracing::warn!("the metadata reaches more blobs than are held: none is refused for being unknown");
                break;
            }
            reached.blobs.insert(id, now);
        }
        reached.blobs.retain(|_, at| now.duration_since(*at) < life);
        reached.walked = Some(snapshot);
    }

    fn lock(&self) -> MutexGuard<'_, Reached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
