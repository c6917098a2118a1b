//! Fetching what is missing: one blob from a repository's mirrors into the [`Keep`], and a package with all it
//! names, breadth first, meta.far before content.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use colibri_common::merkle::UNIT_BYTES;
use colibri_common::{BlobId, ByteRange};
use colibri_fetch::{BlobFetcher, FetchError, OpenedBlob};
use colibri_package::delivery::{Encoding, VerifiedPieces};
use colibri_package::package::MetaFar;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::cache::{Contents, Fetching};
use crate::config::{DeviceConfig, Preference};
use crate::error::DeviceError;
use crate::keep::{Keep, KeepError, PartialKeep, Purpose};
use crate::limits::{BLOBS_PER_RESOLVE_MAX, PACKAGES_PER_RESOLVE_MAX};
use crate::writers::{Alone, Writers};

/// What happens during a fetch, for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// More blobs are known to belong to the package.
    Announced {
        /// How many.
        blobs: usize,
    },
    /// A blob was there already.
    Present {
        /// The blob.
        id: BlobId,
    },
    /// Content of a blob was fetched and verified: it is about to be written, the blob not yet whole.
    Verified {
        /// The blob.
        id: BlobId,
        /// How much of its content.
        content_bytes: u64,
    },
    /// A blob was fetched, verified and kept.
    Kept {
        /// The blob.
        id: BlobId,
        /// Length of its content.
        content_bytes: u64,
    },
}

/// Hears [`Event`]s.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// What a fetch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Distinct blobs of the package and its subpackages, meta.fars included.
    pub blobs: usize,
    /// Of these, fetched now.
    pub fetched: usize,
    /// Content bytes of the fetched ones.
    pub content_bytes: u64,
    /// Packages, subpackages included.
    pub packages: usize,
}

/// Everything a fetch needs; cheap to clone.
#[derive(Clone)]
pub(crate) struct PackageFetch {
    pub fetcher: BlobFetcher,
    pub keep: Arc<dyn Keep>,
    pub writers: Arc<Writers>,
    pub config: Arc<DeviceConfig>,
    pub observer: Observer,
}

/// Verified runs on their way to the disk, per blob.
const WRITE_QUEUE: usize = 16;

impl PackageFetch {
    /// Fetches what is missing of a package and its subpackages. Every blob is announced to the package cache before its
    /// presence is tested.
    pub async fn package(&self, hash: BlobId, fetching: &Fetching) -> Result<FetchReport, DeviceError> {
        let mut report = FetchReport::default();
        let mut packages = VecDeque::from([hash]);
        let mut seen_packages = HashSet::from([hash]);
        let mut seen_blobs = HashSet::new();
        let places = Arc::new(Semaphore::new(self.config.blobs_at_once.max(1)));
        let mut content: JoinSet<Result<(BlobId, Option<u64>), DeviceError>> = JoinSet::new();
        while let Some(package) = packages.pop_front() {
            report.packages += 1;
            // It may be content of another package too, and counted as that; it is needed whole before it can be read.
            let is_new = seen_blobs.insert(package);
            if is_new {
                (self.observer)(Event::Announced { blobs: 1 });
            }
            let fetched = self.have(package, Purpose::MetaFar).await?;
            if is_new {
                self.tell_done(package, fetched);
            }
            report.add(usize::from(is_new), fetched);
            fetching.here(package)?;
            let meta_far = self.meta_far(package, &mut report).await?;
            fetching.learnt(package, &Contents::of(&meta_far)).await?;
            packages.extend(meta_far.subpackages().values().copied().filter(|id| seen_packages.insert(*id)));
            let fresh: Vec<_> = meta_far.contents().values().copied().filter(|id| seen_blobs.insert(*id)).collect();
            if seen_packages.len() > PACKAGES_PER_RESOLVE_MAX || seen_blobs.len() > BLOBS_PER_RESOLVE_MAX {
                return Err(DeviceError::TooMuch(format!(
                    "package {hash} names more than a device takes in one resolve"
                )));
            }
            (self.observer)(Event::Announced { blobs: fresh.len() });
            for id in fresh {
                let (this, places) = (self.clone(), places.clone());
                content.spawn(async move {
                    let _place = places.acquire_owned().await;
                    let fetched = this.have(id, Purpose::Content).await?;
                    this.tell_done(id, fetched);
                    Ok((id, fetched))
                });
            }
        }
        while let Some(joined) = content.join_next().await {
            let (id, fetched) = joined.map_err(|error| DeviceError::Internal(error.to_string()))??;
            fetching.here(id)?;
            report.add(1, fetched);
        }
        Ok(report)
    }

    /// A package's meta.far that is here. If the disk has spoiled it, it is discarded and fetched once more.
    async fn meta_far(&self, package: BlobId, report: &mut FetchReport) -> Result<MetaFar, DeviceError> {
        match read_meta_far(&self.keep, package).await {
            Err(DeviceError::Keep(KeepError::Damaged(detail))) => {
                tracing::warn!(%detail, "discarded, and fetched again");
                blocking(&self.keep, move |keep| keep.discard(&package)).await?;
                report.add(0, self.have(package, Purpose::MetaFar).await?);
                read_meta_far(&self.keep, package).await
            }
            read => read,
        }
    }

    /// Fetches one blob if it is not here; its length if it was fetched.
    pub async fn have(&self, id: BlobId, purpose: Purpose) -> Result<Option<u64>, DeviceError> {
        match self.config.preference {
            Preference::Raw => self.blob_as(id, Encoding::Raw, purpose).await,
            Preference::Delivery(kind) => match self.blob_as(id, Encoding::Delivery(kind), purpose).await {
                Err(DeviceError::Blob(first)) if is_want_of_form(&first) => {
                    tracing::debug!(blob = %id, error = %first, "falling back to the raw form");
                    match self.blob_as(id, Encoding::Raw, purpose).await {
                        // That the raw form is not to be had either says less than why the first one was not.
                        Err(DeviceError::Blob(FetchError::NotFound { .. })) => Err(DeviceError::Blob(first)),
                        raw => raw,
                    }
                }
                other => other,
            },
        }
    }

    fn tell_done(&self, id: BlobId, fetched: Option<u64>) {
        (self.observer)(match fetched {
            None => Event::Present { id },
            Some(content_bytes) => Event::Kept { id, content_bytes },
        });
    }

    /// Fetches one blob in one form, unless it is here or comes to be here by another resolve meanwhile.
    async fn blob_as(&self, id: BlobId, encoding: Encoding, purpose: Purpose) -> Result<Option<u64>, DeviceError> {
        let alone = self.writers.alone(id).await;
        if blocking(&self.keep, move |keep| keep.has(&id, purpose)).await? {
            return Ok(None);
        }
        let OpenedBlob { layout, length, early } =
            self.fetcher.open("", id, encoding).await.map_err(DeviceError::Blob)?;
        let (bytes, bytes_max) = (length.bytes(), colibri_package::limits::META_FAR_BYTES_MAX);
        if purpose == Purpose::MetaFar && bytes > bytes_max {
            let reason = format!("its meta.far would have {bytes} bytes, over the limit of {bytes_max}");
            return Err(DeviceError::BadPackage { hash: id, reason });
        }
        let leaves = layout.leaves().clone();
        let partial = blocking(&self.keep, move |keep| keep.begin(&leaves, length.into(), purpose)).await?;
        let wanted = wanted_pieces(&layout, &*partial, &early);
        early.iter().for_each(|run| self.tell_verified(id, run));
        let (runs, writer) = start_writer(Writing { partial, _alone: alone }, early);
        let outcome = self.fetch_pieces(&layout, wanted, &runs).await;
        drop(runs);
        // The writer ends when its queue is closed; a partial that is not committed keeps what was verified.
        let writing = writer.await.map_err(|error| DeviceError::Internal(error.to_string()))??;
        outcome.map_err(DeviceError::Blob)?;
        let committed = tokio::task::spawn_blocking(move || {
            let Writing { partial, _alone } = writing;
            partial.commit()
        });
        committed.await.map_err(|error| DeviceError::Internal(error.to_string()))??;
        Ok(Some(length.bytes()))
    }

    /// Fetches runs of pieces, a few units at once; each from the source that its place in the spread prefers.
    async fn fetch_pieces(
        &self,
        layout: &colibri_package::delivery::Layout,
        wanted: Vec<(u32, std::ops::Range<u32>)>,
        runs: &mpsc::Sender<VerifiedPieces>,
    ) -> Result<(), FetchError> {
        let mut under_way: JoinSet<Result<(), FetchError>> = JoinSet::new();
        let stopped = |error: tokio::task::JoinError| FetchError::Local(format!("a fetch stopped: {error}"));
        for (unit, pieces) in wanted {
            while under_way.len() >= self.config.units_at_once.max(1) {
                under_way.join_next().await.transpose().map_err(stopped)?.transpose()?;
            }
            let (this, layout, runs) = (self.clone(), layout.clone(), runs.clone());
            under_way.spawn(async move {
                let mut waiting = Vec::new();
                // What is verified is written as it comes: an end at any moment costs the pieces in flight, no more. While
                // the disk is slower than the network, at most this unit waits in memory.
                let mut sink = |run: VerifiedPieces| {
                    this.tell_verified(layout.id(), &run);
                    if let Err(refused) = runs.try_send(run) {
                        waiting.push(refused.into_inner());
                    }
                };
                let fetched = this.fetcher.pieces("", &layout, unit, pieces, &mut sink).await;
                for run in waiting {
                    runs.send(run).await.map_err(|_| FetchError::Local("the store stopped writing".to_owned()))?;
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

impl FetchReport {
    fn add(&mut self, blobs: usize, fetched: Option<u64>) {
        self.blobs += blobs;
        if let Some(bytes) = fetched {
            self.fetched += 1;
            self.content_bytes += bytes;
        }
    }
}

/// The runs of pieces still to fetch, by unit: what the partial misses less what came early.
fn wanted_pieces(
    layout: &colibri_package::delivery::Layout,
    partial: &dyn PartialKeep,
    early: &[VerifiedPieces],
) -> Vec<(u32, std::ops::Range<u32>)> {
    let length = layout.content_length().0;
    let mut wanted = BTreeSet::new();
    for unit in partial.missing_units() {
        let start = u64::from(unit) * UNIT_BYTES;
        wanted.extend(layout.pieces_of_content(ByteRange::new(start, (start + UNIT_BYTES).min(length))));
    }
    for pieces in early {
        let verified = pieces.first_piece()..pieces.first_piece() + pieces.piece_count();
        wanted.retain(|piece| !verified.contains(piece));
    }
    let mut runs: BTreeMap<u32, Vec<std::ops::Range<u32>>> = BTreeMap::new();
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
fn start_writer(mut writing: Writing, early: Vec<VerifiedPieces>) -> (mpsc::Sender<VerifiedPieces>, Writer) {
    let (runs, mut queue) = mpsc::channel::<VerifiedPieces>(WRITE_QUEUE);
    let writer = tokio::task::spawn_blocking(move || {
        for pieces in early {
            pieces.content().iter().try_for_each(|run| writing.partial.write(run))?;
        }
        while let Some(pieces) = queue.blocking_recv() {
            pieces.content().iter().try_for_each(|run| writing.partial.write(run))?;
        }
        Ok(writing)
    });
    (runs, writer)
}

/// Reads and parses a package's meta.far from the keep.
pub(crate) async fn read_meta_far(keep: &Arc<dyn Keep>, hash: BlobId) -> Result<MetaFar, DeviceError> {
    let limit = colibri_package::limits::META_FAR_BYTES_MAX;
    let bytes = blocking(keep, move |keep| keep.read(&hash, limit)).await?;
    MetaFar::parse(bytes).map_err(|error| DeviceError::BadPackage { hash, reason: error.to_string() })
}

/// Runs a call that may block on a disk outside the network loop.
pub(crate) async fn blocking<T: Send + 'static>(
    keep: &Arc<dyn Keep>,
    call: impl FnOnce(&dyn Keep) -> Result<T, KeepError> + Send + 'static,
) -> Result<T, DeviceError> {
    let keep = keep.clone();
    let called = tokio::task::spawn_blocking(move || call(&*keep)).await;
    Ok(called.map_err(|error| DeviceError::Internal(error.to_string()))??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_form_is_asked_for_only_if_the_form_was_the_trouble() {
        let what = || "blob".to_owned();
        let failed = |bad_bytes, absent_somewhere, other_form| {
            let causes = String::new();
            FetchError::AllFailed { what: what(), causes, bad_bytes, absent_somewhere, other_form }
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
