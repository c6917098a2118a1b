//! [`Catalog`]: finds out the shapes of blobs, each once however many ask.

use std::sync::Arc;
use std::time::Duration;

use colibri_common::BlobId;
use colibri_common::merkle::Leaves;
use colibri_fetch::limits::SEGMENT_BYTES_MAX;
use colibri_fetch::{BlobFetcher, FetchError, OpenedBlob, ProvenLeaves};
use colibri_package::delivery::{Encoding, VerifiedPieces};
use tokio_util::task::TaskTracker;

use crate::disk::DiskTier;
use crate::freshness::Freshness;
use crate::limits::ABSENT_FLOOR_MS;
use crate::shapes::{Opened, Shapes};
use crate::single_flight::SingleFlight;
use crate::unknown::{FORM_LEAVES, Unknown};

/// Takes what was verified while a blob was opened, once, in the task that opened it.
type KeepEarly = Box<dyn Fn(&Opened, Vec<VerifiedPieces>) + Send + Sync>;

/// Opens blobs upstream and keeps what it finds in [`Shapes`].
pub(crate) struct Catalog {
    shapes: Arc<Shapes>,
    disk: Option<DiskTier>,
    keep_early: KeepEarly,
    unknown: Unknown,
    leaves_flights: SingleFlight<BlobId, (Leaves, Freshness)>,
    open_flights: SingleFlight<(BlobId, Encoding), (Arc<Opened>, Freshness)>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("shapes", &self.shapes).finish_non_exhaustive()
    }
}

impl Catalog {
    pub fn new(
        shapes: Arc<Shapes>,
        disk: Option<DiskTier>,
        tasks: &TaskTracker,
        keep_early: KeepEarly,
        unknown: Unknown,
    ) -> Arc<Self> {
        let (leaves_flights, open_flights) = (SingleFlight::new(tasks.clone()), SingleFlight::new(tasks.clone()));
        Arc::new(Self { shapes, disk, keep_early, unknown, leaves_flights, open_flights })
    }

    /// The leaves, and whether upstream had to be asked. `expected` is the encoding that will be asked for next.
    pub async fn leaves(
        self: &Arc<Self>,
        fetcher: &BlobFetcher,
        place: &str,
        id: BlobId,
        expected: Encoding,
    ) -> (Result<Leaves, FetchError>, Freshness) {
        if let Some(leaves) = self.shapes.leaves(id) {
            return (Ok(leaves), Freshness::Hit);
        }
        let work = |urgency| {
            let (this, place) = (self.clone(), place.to_owned());
            let fetcher = fetcher.clone().with_urgency(urgency);
            async move { this.find_leaves(&fetcher, &place, id, expected).await }
        };
        let (answer, joined) = self.leaves_flights.join_as(fetcher.urgency(), id, work).await;
        told(answer, joined)
    }

    async fn find_leaves(
        &self,
        fetcher: &BlobFetcher,
        place: &str,
        id: BlobId,
        expected: Encoding,
    ) -> Result<(Leaves, Freshness), FetchError> {
        if let Some(leaves) = self.shapes.leaves(id) {
            return Ok((leaves, Freshness::Hit));
        }
        if let Some(disk) = &self.disk
            && let Some(leaves) = disk.leaves(id).await
        {
            self.shapes.keep_leaves(leaves.clone());
            return Ok((leaves, Freshness::Disk));
        }
        let ProvenLeaves { leaves, shown } = fetcher.leaves(place, id, expected).await?;
        if let Some(shown) = shown {
            self.keep(shown);
        }
        self.shapes.keep_leaves(leaves.clone());
        Ok((leaves, Freshness::Miss))
    }

    /// The opened blob.
    pub async fn open(
        self: &Arc<Self>,
        fetcher: &BlobFetcher,
        place: &str,
        id: BlobId,
        encoding: Encoding,
    ) -> (Result<Arc<Opened>, FetchError>, Freshness) {
        if let Some(opened) = self.shapes.opened(id, encoding) {
            return (Ok(opened), Freshness::Hit);
        }
        let work = |urgency| {
            let (this, place) = (self.clone(), place.to_owned());
            let fetcher = fetcher.clone().with_urgency(urgency);
            async move { this.find_blob(&fetcher, &place, id, encoding).await }
        };
        let (answer, joined) = self.open_flights.join_as(fetcher.urgency(), (id, encoding), work).await;
        told(answer, joined)
    }

    async fn find_blob(
        self: &Arc<Self>,
        fetcher: &BlobFetcher,
        place: &str,
        id: BlobId,
        encoding: Encoding,
    ) -> Result<(Arc<Opened>, Freshness), FetchError> {
        if let Some(opened) = self.open_from_disk(id, encoding).await {
            return Ok((opened, Freshness::Disk));
        }
        let (leaves, freshness) = self.leaves_if_any(fetcher, place, id, encoding).await?;
        // Proving the leaves may have opened the blob on the way; another flight may have landed.
        if let Some(opened) = self.shapes.opened(id, encoding) {
            return Ok((opened, freshness));
        }
        let blob = fetcher.open_with(place, id, encoding, leaves).await?;
        self.shapes.keep_leaves(blob.layout.leaves().clone());
        Ok((self.keep(blob), Freshness::Miss))
    }

    /// The leaves, or nothing if somebody has none: he may have the blob all the same, as a plain file server does.
    async fn leaves_if_any(
        self: &Arc<Self>,
        fetcher: &BlobFetcher,
        place: &str,
        id: BlobId,
        encoding: Encoding,
    ) -> Result<(Option<Leaves>, Freshness), FetchError> {
        // Who asks for leaves and finds none asks for the blob next: upstream need not hear of the leaves twice.
        let life_max = Duration::from_millis(ABSENT_FLOOR_MS);
        if self.shapes.leaves(id).is_none() && self.unknown.since(place, id, FORM_LEAVES, life_max).is_some() {
            return Ok((None, Freshness::Miss));
        }
        let era = self.unknown.era();
        let (leaves, freshness) = self.leaves(fetcher, place, id, encoding).await;
        match leaves {
            Ok(leaves) => Ok((Some(leaves), freshness)),
            Err(FetchError::NotFound { .. }) => {
                self.unknown.remember(place, id, FORM_LEAVES, era);
                Ok((None, freshness))
            }
            Err(FetchError::AllFailed { absent_somewhere: true, .. }) => Ok((None, freshness)),
            Err(error) => Err(error),
        }
    }

    /// A blob whose length the disk tier can prove. One whose last piece is not there costs a small request upstream.
    async fn open_from_disk(&self, id: BlobId, encoding: Encoding) -> Option<Arc<Opened>> {
        let known = self.disk.as_ref()?.known(id, encoding).await?;
        self.shapes.keep_leaves(known.layout.leaves().clone());
        let opened = Arc::new(Opened::new(known.layout, known.length?, None));
        self.shapes.keep(opened.clone());
        Some(opened)
    }

    /// Pieces first: whoever sees the shape finds them.
    fn keep(&self, blob: OpenedBlob) -> Arc<Opened> {
        let last = match blob.early.as_slice() {
            [last] if last.encoded().len() <= SEGMENT_BYTES_MAX => Some(last.clone().without_content()),
            _ => None,
        };
        let opened = Arc::new(Opened::new(blob.layout, blob.length, last));
        (self.keep_early)(&opened, blob.early);
        self.shapes.keep(opened.clone());
        opened
    }
}

/// What a flight found, for one of those who waited for it.
fn told<T>(answer: Result<(T, Freshness), FetchError>, joined: bool) -> (Result<T, FetchError>, Freshness) {
    match answer {
        Ok((found, freshness)) => (Ok(found), freshness.seen_by(joined)),
        Err(error) => (Err(error), Freshness::of_flight(joined)),
    }
}
