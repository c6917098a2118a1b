//! One blob into the [`Keep`](crate::keep::Keep): opened; what is here already is left alone, what an earlier version has is
//! copied, the rest is fetched unit by unit and written as it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use colibri_common::BlobId;
use colibri_fetch::{BlobFetcher, FetchError, OpenedBlob};
use colibri_package::delivery::{Encoding, Layout, VerifiedPieces};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::Preference;
use crate::error::DeviceError;
use crate::fetch::before::{Before, copy_equal};
use crate::fetch::{Event, Had, PackageFetch, blocking};
use crate::keep::{KeepError, PartialKeep, Purpose};
use crate::limits::REUSED_BLOB_BYTES_MIN;
use crate::writers::Alone;

/// Batches of verified runs on their way to the disk, per blob.
const WRITE_QUEUE: usize = 4;

/// So many bytes of verified runs make a batch: the writer is woken once for all of them.
const BATCH_BYTES: usize = 128 << 10;

/// Where a blob lies in its package, and the earlier version of that.
type Place<'a> = Option<(&'a Before, &'a str)>;
impl PackageFetch {
    /// Fetches one blob if it is not here; nothing if it was.
    pub async fn have(&self, id: BlobId, purpose: Purpose) -> Result<Option<Had>, DeviceError> {
        self.have_after(id, purpose, None).await
    }

    /// [`Self::have`] for a blob of a package, of which the device may have an earlier version.
    pub async fn have_after(&self, id: BlobId, purpose: Purpose, place: Place<'_>) -> Result<Option<Had>, DeviceError> {
        match self.config.preference {
            Preference::Raw => self.blob_as(id, Encoding::Raw, purpose, place).await,
            Preference::Delivery(kind) => match self.blob_as(id, Encoding::Delivery(kind), purpose, place).await {
                Err(DeviceError::Blob(first)) if is_want_of_form(&first) => {
                    tracing::debug!(blob = %id, error = %first, "falling back to the raw form");
                    match self.blob_as(id, Encoding::Raw, purpose, place).await {
                        // That the raw form is not to be had either says less than why the first one was not.
                        Err(DeviceError::Blob(FetchError::NotFound { .. })) => Err(DeviceError::Blob(first)),
                        raw => raw,
                    }
                }
                other => other,
            },
        }
    }

    /// Fetches one blob in one form, unless it is here or comes to be here by another resolve meanwhile.
    async fn blob_as(
        &self,
        id: BlobId,
        encoding: Encoding,
        purpose: Purpose,
        place: Place<'_>,
    ) -> Result<Option<Had>, DeviceError> {
        let alone = self.share.writers.alone(id, self.class).await;
        if blocking(&self.keep, move |keep| keep.has(&id, purpose)).await? {
            return Ok(None);
        }
        let fetcher = self.fetcher.clone().with_urgency(alone.urgency().clone());
        let fetcher = fetcher.with_signed_size(self.share.signed_size(&id));
        let OpenedBlob { layout, length, early } = fetcher.open("", id, encoding).await.map_err(DeviceError::Blob)?;
        let (bytes, bytes_max) = (length.bytes(), colibri_package::limits::META_FAR_BYTES_MAX);
        if purpose == Purpose::MetaFar && bytes > bytes_max {
            let reason = format!("its meta.far would have {bytes} bytes, over the limit of {bytes_max}");
            return Err(DeviceError::BadPackage { hash: id, reason });
        }
        let leaves = layout.leaves().clone();
        let partial = blocking(&self.keep, move |keep| keep.begin(&leaves, length.into(), purpose)).await?;
        let (partial, reused_bytes) = self.reuse(&layout, bytes, partial, place).await?;
        let wanted = wanted_pieces(&layout, &*partial, &early);
        early.iter().for_each(|run| self.tell_verified(id, run));
        let (runs, writer) = start_writer(Writing { partial, _alone: alone }, early);
        let outcome = self.fetch_pieces(&fetcher, &layout, wanted, &runs).await;
        drop(runs);
        // The writer ends when its queue is closed; a partial that is not committed keeps what was verified.
        let writing = writer.await.map_err(|error| DeviceError::Internal(error.to_string()))??;
        outcome.map_err(DeviceError::Blob)?;
        let committed = tokio::task::spawn_blocking(move || {
            let Writing { partial, _alone } = writing;
            partial.commit()
        });
        committed.await.map_err(|error| DeviceError::Internal(error.to_string()))??;
        Ok(Some(Had { content_bytes: bytes, reused_bytes }))
    }

    /// Copies what the earlier version of the package has at the same place, where that is worth a look.
    async fn reuse(
        &self,
        layout: &Layout,
        content_bytes: u64,
        partial: Box<dyn PartialKeep>,
        place: Place<'_>,
    ) -> Result<(Box<dyn PartialKeep>, u64), DeviceError> {
        let Some((before, path)) = place.filter(|_| content_bytes >= REUSED_BLOB_BYTES_MIN) else {
            return Ok((partial, 0));
        };
        let (id, old) = (layout.id(), before.blob_at(&self.keep, path).await);
        let Some(old) = old.filter(|old| *old != id) else { return Ok((partial, 0)) };
        let (partial, bytes) = copy_equal(&self.keep, old, layout.leaves().clone(), partial).await?;
        if bytes > 0 {
            (self.observer)(Event::Reused { id, content_bytes: bytes });
        }
        Ok((partial, bytes))
    }

    /// Fetches runs of pieces, a few units at once; each from the source that its place in the spread prefers.
    async fn fetch_pieces(
        &self,
        fetcher: &BlobFetcher,
        layout: &Layout,
        wanted: Vec<(u32, Range<u32>)>,
        runs: &mpsc::Sender<Vec<VerifiedPieces>>,
    ) -> Result<(), FetchError> {
        let mut under_way: JoinSet<Result<(), FetchError>> = JoinSet::new();
        let stopped = |error: tokio::task::JoinError| FetchError::Local(format!("a fetch stopped: {error}"));
        for (unit, pieces) in wanted {
            while under_way.len() >= self.config.units_at_once.max(1) {
                under_way.join_next().await.transpose().map_err(stopped)?.transpose()?;
            }
            let (this, fetcher, layout, runs) = (self.clone(), fetcher.clone(), layout.clone(), runs.clone());
            under_way.spawn(async move {
                let (mut batch, mut batch_bytes) = (Vec::new(), 0);
                // What is verified is written as it comes, a batch at a time: an end at any moment costs the unit in flight at
                // most. While the disk is slower than the network, at most this unit waits in memory.
                let mut sink = |run: VerifiedPieces| {
                    this.tell_verified(layout.id(), &run);
                    batch_bytes += run.encoded().len();
                    batch.push(run);
                    if batch_bytes >= BATCH_BYTES {
                        match runs.try_send(std::mem::take(&mut batch)) {
                            Ok(()) => batch_bytes = 0,
                            Err(refused) => batch = refused.into_inner(),
                        }
                    }
                };
                let fetched = fetcher.pieces("", &layout, unit, pieces, &mut sink).await;
                if !batch.is_empty() {
                    runs.send(batch).await.map_err(|_| FetchError::Local("the store stopped writing".to_owned()))?;
                }
                fetched
            });
        }
        while let Some(joined) = under_way.join_next().await {
            joined.map_err(stopped)??;
        }
        Ok(())
    }

    fn tell_verified(&self, id: BlobId, run: &VerifiedPieces) {
        let content_bytes = run.content().iter().map(|leaves| leaves.bytes().len() as u64).sum();
        (self.observer)(Event::Verified { id, content_bytes });
    }
}

/// Whether a blob could not be had for the form that was asked for: nobody or not everybody stores it, or what is stored is
/// not in strict form or differs between sources. Another form is no help where sources cannot be reached at all.
const fn is_want_of_form(error: &FetchError) -> bool {
    match error {
        FetchError::NotFound { .. } => true,
        FetchError::AllFailed { bad_bytes, absent_somewhere, other_form, .. } => {
            *bad_bytes || *absent_somewhere || *other_form
        }
        _ => false,
    }
}

/// A blob being written, and the right to.
struct Writing {
    partial: Box<dyn PartialKeep>,
    _alone: Alone,
}

/// The runs of pieces still to fetch, by unit: what the partial misses less what came early.
fn wanted_pieces(layout: &Layout, partial: &dyn PartialKeep, early: &[VerifiedPieces]) -> Vec<(u32, Range<u32>)> {
    let mut wanted: BTreeSet<u32> =
        partial.missing().into_iter().flat_map(|range| layout.pieces_of_content(range)).collect();
    for pieces in early {
        let verified = pieces.first_piece()..pieces.first_piece() + pieces.piece_count();
        wanted.retain(|piece| !verified.contains(piece));
    }
    let mut runs: BTreeMap<u32, Vec<Range<u32>>> = BTreeMap::new();
    for piece in wanted {
        let unit_runs = runs.entry(layout.unit_of(piece)).or_default();
        match unit_runs.last_mut() {
            Some(run) if run.end == piece => run.end += 1,
            _ => unit_runs.push(piece..piece + 1),
        }
    }
    runs.into_iter().flat_map(|(unit, runs)| runs.into_iter().map(move |run| (unit, run))).collect()
}

type Writer = tokio::task::JoinHandle<Result<Writing, KeepError>>;

/// A blocking task that owns the partial and writes what it is sent.
fn start_writer(mut writing: Writing, early: Vec<VerifiedPieces>) -> (mpsc::Sender<Vec<VerifiedPieces>>, Writer) {
    let (runs, mut queue) = mpsc::channel::<Vec<VerifiedPieces>>(WRITE_QUEUE);
    let writer = tokio::task::spawn_blocking(move || {
        let mut next = Some(early);
        while let Some(batch) = next {
            batch.iter().flat_map(VerifiedPieces::content).try_for_each(|run| writing.partial.write(run))?;
            drop(batch);
            next = queue.blocking_recv();
        }
        Ok(writing)
    });
    (runs, writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_form_is_asked_for_only_if_the_form_was_the_trouble() {
        let what = || "blob".to_owned();
        let failed = |bad_bytes, absent_somewhere, other_form| {
            let causes = String::new();
            FetchError::AllFailed { what: what(), causes, bad_bytes, absent_somewhere, other_form, rate_limited: false }
        };
        assert!(is_want_of_form(&FetchError::NotFound { what: what(), asked: String::new() }));
        assert!(is_want_of_form(&failed(true, false, false)));
        assert!(is_want_of_form(&failed(false, true, false)));
        assert!(is_want_of_form(&failed(false, false, true)));
        assert!(!is_want_of_form(&failed(false, false, false)), "an outage");
        assert!(!is_want_of_form(&FetchError::NoSource(what())));
        assert!(!is_want_of_form(&FetchError::Local(what())));
    }
}
