//! [`Proofs`]: what has been proven of stored blobs before a byte of them is announced (architecture §6, invariant 4).
//!
//! A stored file counts only once its leaves have been checked against the blob's id and its last piece against the leaves:
//! then its length, its layout and its identity are facts. Verdicts are kept per version of the file, bad ones too.

use std::fmt::Display;
use std::sync::Arc;

use colibri_common::merkle::{self, Leaves};
use colibri_common::{BlobId, ByteRange, ClaimedLength, VerifiedLength};
use colibri_package::delivery::{self, Encoding, Layout, UNIT_H_PROBE_BYTES};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::blob_folders::StoredBlob;
use crate::error::OriginError;
use crate::file::{Stamp, blocking};
use crate::limits::{LEAVES_COMPUTED_AT_ONCE, LEAVES_FROM_DELIVERY_BYTES_MAX, PIECE_BYTES, PROOFS_CACHE_BYTES};

/// A stored form whose layout and length are proven. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Proven {
    /// Where its pieces lie, with the blob's leaves.
    pub layout: Layout,
    /// Length of the blob's content.
    pub length: VerifiedLength,
}

#[derive(Debug, Clone)]
enum Verdict {
    Good(Proven),
    Bad(Arc<str>),
}

type Key = (BlobId, Encoding, Stamp);

#[derive(Debug, Clone)]
struct ByMemory;

impl Weighter<Key, Verdict> for ByMemory {
    fn weight(&self, _: &Key, verdict: &Verdict) -> u64 {
        let held = match verdict {
            // Each frame is about as large in memory as in unit H, which is held as well.
            Verdict::Good(proven) => 2 * proven.layout.unit_h().len() + proven.layout.leaves().wire().len(),
            Verdict::Bad(reason) => reason.len(),
        };
        held as u64 + 512
    }
}

/// Prover and memory of verdicts.
pub(crate) struct Proofs {
    verdicts: Cache<Key, Verdict, ByMemory>,
    computing: Semaphore,
    keep_computed_leaves: bool,
}

impl Proofs {
    pub fn new(keep_computed_leaves: bool) -> Self {
        Self {
            verdicts: Cache::with_weighter(4096, PROOFS_CACHE_BYTES, ByMemory),
            computing: Semaphore::new(LEAVES_COMPUTED_AT_ONCE),
            keep_computed_leaves,
        }
    }

    /// What is proven of this stored form. Of any number of concurrent calls one does the work.
    ///
    /// # Errors
    /// [`OriginError::Corrupt`] if the file is not the blob; reading errors are not remembered.
    pub async fn of(&self, stored: &StoredBlob) -> Result<Proven, OriginError> {
        let key = (stored.id, stored.encoding, stored.file.stamp());
        match self.verdicts.get_or_insert_async(&key, self.judge(stored)).await? {
            Verdict::Good(proven) => Ok(proven),
            Verdict::Bad(reason) => Err(corrupt(stored, &reason)),
        }
    }

    async fn judge(&self, stored: &StoredBlob) -> Result<Verdict, OriginError> {
        match self.prove(stored).await {
            Ok(proven) => Ok(Verdict::Good(proven)),
            Err(OriginError::Corrupt { path, id, reason }) => {
                tracing::error!(path = %path.display(), blob = %id, reason, "a stored blob is damaged and is not served");
                Ok(Verdict::Bad(reason.into()))
            }
            Err(error) => Err(error),
        }
    }

    async fn prove(&self, stored: &StoredBlob) -> Result<Proven, OriginError> {
        let blob = stored.clone();
        let leaves = match blocking(move || blob.stored_leaves()).await? {
            Some(leaves) => leaves,
            None => self.compute_leaves(stored).await?,
        };
        let blob = stored.clone();
        blocking(move || prove_last_piece(&blob, leaves)).await
    }

    async fn compute_leaves(&self, stored: &StoredBlob) -> Result<Leaves, OriginError> {
        let _turn = self.computing.acquire().await.map_err(|_| OriginError::Stopping)?;
        let (blob, keep) = (stored.clone(), self.keep_computed_leaves);
        blocking(move || {
            let leaves = compute_leaves(&blob)?;
            if keep
                && leaves.count() > 1
                && let Err(error) = blob.store_leaves(&leaves.wire())
            {
                tracing::debug!(blob = %blob.id, %error, "computed leaves are not kept on disk");
            }
            Ok(leaves)
        })
        .await
    }
}

/// Reads the whole stored form and computes its content's leaves.
fn compute_leaves(stored: &StoredBlob) -> Result<Leaves, OriginError> {
    let length = stored.file.length();
    let tree = match stored.encoding {
        Encoding::Raw => {
            let mut builder = merkle::Builder::new();
            let mut at = 0;
            while at < length {
                // Large reads, so that hashing uses all cores.
                let end = (at + 16 * PIECE_BYTES).min(length);
                builder.push(&stored.file.read(ByteRange::new(at, end))?);
                at = end;
            }
            builder.finish()
        }
        Encoding::Delivery(_) if length > LEAVES_FROM_DELIVERY_BYTES_MAX => {
            let reason = "it is too large to compute its leaves here, and none are stored";
            return Err(corrupt(stored, &reason));
        }
        Encoding::Delivery(_) => {
            let blob = stored.file.read(ByteRange::whole(length))?;
            delivery::content_tree(&blob).map_err(|error| corrupt(stored, &error))?
        }
    };
    if tree.id == stored.id {
        Ok(tree.leaves)
    } else {
        Err(corrupt(stored, &format!("its content is blob {}", tree.id)))
    }
}

/// Lays the file out and verifies its last piece, which proves both lengths.
fn prove_last_piece(stored: &StoredBlob, leaves: Leaves) -> Result<Proven, OriginError> {
    let length = stored.file.length();
    let layout = match stored.encoding {
        Encoding::Raw => Layout::raw(leaves, ClaimedLength(length)),
        Encoding::Delivery(kind) => {
            let head = stored.file.read(ByteRange::whole(length.min(UNIT_H_PROBE_BYTES)))?;
            Layout::from_unit_h(kind, leaves, &head)
        }
    };
    let layout = layout.map_err(|error| corrupt(stored, &error))?;
    let encoded = layout.encoded_length().0;
    if encoded != length {
        return Err(corrupt(stored, &format!("it has {length} bytes and should have {encoded}")));
    }
    let last = layout.piece_count() - 1;
    let bytes = stored.file.read(layout.piece_range(last))?;
    let pieces = layout.verify(last, bytes).map_err(|error| corrupt(stored, &error))?;
    let length = pieces.length().ok_or_else(|| corrupt(stored, &"its last piece does not end the blob"))?;
    Ok(Proven { layout, length })
}

/// The error for a file that is not the blob.
pub(crate) fn corrupt(stored: &StoredBlob, reason: &dyn Display) -> OriginError {
    OriginError::Corrupt { path: stored.file.path(), id: stored.id, reason: reason.to_string() }
}
