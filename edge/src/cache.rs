//! [`Cache`]: the one place that decides where a unit comes from: memory, a flight to join, or a new flight, which looks on
//! disk and then upstream.
//!
//! The read path, with a counter for each arrow: `units_asked` → `memory_hits` | `joined` | flight → `disk_hits` | `fills`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, ByteRange};
use colibri_fetch::{BlobFetcher, FetchError};
use colibri_package::delivery::{DeliveryType, Encoding, VerifiedPieces};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
pub(crate) use crate::catalog::{Freshness, Opened};
use crate::config::{Admission, EdgeConfig};
use crate::disk::DiskTier;
use crate::flight::Flight;
use crate::limits::FLIGHTS_MAX;
use crate::memory::{Evicted, MemoryTier};
use crate::metrics::Metrics;
use crate::unit::{Segment, Unit, UnitKey, slice_at};

/// The cache of one edge.
#[derive(Debug)]
pub struct Cache {
    catalog: Arc<Catalog>,
    tiers: Arc<Tiers>,
}

/// What flights need; shared with their tasks.
#[derive(Debug)]
struct Tiers {
    fetcher: BlobFetcher,
    memory: MemoryTier,
    disk: Option<DiskTier>,
    flights: Mutex<HashMap<UnitKey, Arc<Flight>>>,
    places: Semaphore,
    metrics: Metrics,
    tasks: TaskTracker,
}

/// A unit as its reader sees it.
#[derive(Debug)]
pub(crate) enum UnitAccess {
    /// All of it is in memory.
    Ready(Arc<Unit>),
    /// It is coming; true if somebody else had asked for it first.
    Filling(Arc<Flight>, bool),
}

impl UnitAccess {
    /// The next bytes of `wanted` from offset `from` on.
    pub async fn read(&self, from: u64, wanted: ByteRange) -> Result<Bytes, FetchError> {
        match self {
            Self::Ready(unit) => slice_at(unit.segments(), from, wanted)
                .ok_or_else(|| FetchError::Local(format!("offset {from} is not in this unit"))),
            Self::Filling(flight, _) => flight.read(from, wanted).await,
        }
    }

    pub const fn freshness(&self) -> Freshness {
        match self {
            Self::Ready(_) => Freshness::Hit,
            Self::Filling(_, true) => Freshness::Joined,
            Self::Filling(_, false) => Freshness::Miss,
        }
    }
}

impl Cache {
    pub(crate) fn new(
        config: &EdgeConfig,
        fetcher: BlobFetcher,
        disk: Option<DiskTier>,
        metrics: Metrics,
        tasks: TaskTracker,
    ) -> Self {
        let memory = MemoryTier::new(config.memory_bytes);
        let flights = Mutex::default();
        let places = Semaphore::new(FLIGHTS_MAX);
        let tiers = Arc::new(Tiers { fetcher, memory, disk, flights, places, metrics, tasks });
        let keeping = tiers.clone();
        let keep_early = Box::new(move |opened: &Opened, early| keeping.keep_early(opened, early));
        let catalog = Catalog::new(tiers.fetcher.clone(), &tiers.tasks, keep_early);
        Self { catalog, tiers }
    }

    /// The checked leaves of a blob.
    pub(crate) async fn leaves(&self, place: &str, id: BlobId) -> (Result<Leaves, FetchError>, Freshness) {
        // Devices ask for the first delivery type after the leaves: a one-leaf blob is proven in that form.
        self.catalog.leaves(place, id, Encoding::Delivery(DeliveryType::Type1)).await
    }

    /// A blob's proven shape in one encoding.
    pub(crate) async fn open(
        &self,
        place: &str,
        id: BlobId,
        encoding: Encoding,
    ) -> (Result<Arc<Opened>, FetchError>, Freshness) {
        self.catalog.open(place, id, encoding).await
    }

    /// One unit of an opened blob: decides once between memory, joining a flight, and starting one.
    pub(crate) fn unit(&self, place: &str, opened: &Arc<Opened>, unit: u32) -> UnitAccess {
        let metrics = &self.tiers.metrics;
        metrics.units_asked.inc();
        let key = UnitKey::of(&opened.layout, unit);
        if let Some(unit) = self.tiers.memory.get(&key) {
            metrics.memory_hits.inc();
            return UnitAccess::Ready(unit);
        }
        let mut flights = self.tiers.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            metrics.joined.inc();
            return UnitAccess::Filling(flight.clone(), true);
        }
        // A flight may have landed between the look into memory and the lock: it publishes before it leaves the map.
        if let Some(unit) = self.tiers.memory.get(&key) {
            metrics.memory_hits.inc();
            return UnitAccess::Ready(unit);
        }
        let flight = Arc::new(Flight::new());
        flights.insert(key, flight.clone());
        drop(flights);
        let entry = FlightEntry { tiers: self.tiers.clone(), key, flight: flight.clone() };
        let (catalog, opened, place) = (self.catalog.clone(), opened.clone(), place.to_owned());
        self.tiers.tasks.spawn(async move {
            let outcome = entry.tiers.fill(&place, &opened, &entry).await;
            if let Err(error) = &outcome {
                tracing::warn!(blob = %key.id, encoding = %key.encoding, unit, %error, "a fill failed");
                entry.tiers.metrics.fill_failures.inc();
                catalog.forget(key.id, key.encoding);
            }
            entry.flight.end(outcome);
        });
        UnitAccess::Filling(flight, false)
    }
}

/// Takes a flight off the map when its task ends in whatever way, and fails its waiters if it did not end it.
#[derive(Debug)]
struct FlightEntry {
    tiers: Arc<Tiers>,
    key: UnitKey,
    flight: Arc<Flight>,
}

impl Drop for FlightEntry {
    fn drop(&mut self) {
        self.tiers.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.flight.end(Err(FetchError::Local(format!("the fill of blob {} stopped", self.key.id))));
    }
}

impl Tiers {
    /// The body of a flight: disk, else upstream; then the tiers.
    async fn fill(&self, place: &str, opened: &Opened, entry: &FlightEntry) -> Result<(), FetchError> {
        let _place = self.places.acquire().await.map_err(|_| FetchError::Local("the edge is stopping".to_owned()))?;
        let (key, flight) = (entry.key, &entry.flight);
        if let Some(disk) = &self.disk
            && let Some(segments) = disk.read(key).await
        {
            self.metrics.disk_hits.inc();
            segments.into_iter().for_each(|segment| flight.push(segment));
            self.insert(key, Arc::new(Unit::new(&opened.layout, flight.segments())));
            return Ok(());
        }
        self.metrics.fills.inc();
        let layout = &opened.layout;
        let metrics = &self.metrics;
        let mut sink = |pieces: VerifiedPieces| {
            metrics.filled_bytes.inc_by(pieces.encoded().len() as u64);
            flight.push(Segment::Fresh(pieces.without_content()));
        };
        self.fetcher.pieces(place, layout, key.unit, layout.pieces_of(key.unit), &mut sink).await?;
        self.publish(key, Unit::new(layout, flight.segments()));
        Ok(())
    }

    /// What was verified while opening: whole units are kept, a lone last piece was only the proof of the length.
    fn keep_early(&self, opened: &Opened, early: Vec<VerifiedPieces>) {
        let layout = &opened.layout;
        if early.iter().map(VerifiedPieces::piece_count).sum::<u32>() != layout.piece_count() {
            return;
        }
        let mut early = early.into_iter().peekable();
        for unit in 0..layout.unit_count() {
            let range = layout.unit_range(unit);
            let mut segments = Vec::new();
            while let Some(pieces) = early.next_if(|pieces| pieces.encoded_offset() < range.end() || range.is_empty()) {
                self.metrics.filled_bytes.inc_by(pieces.encoded().len() as u64);
                segments.push(Segment::Fresh(pieces.without_content()));
            }
            let unit_in_full = Unit::new(layout, segments);
            if unit_in_full.bytes() == range.len() {
                self.metrics.fills.inc();
                self.publish(UnitKey::of(layout, unit), unit_in_full);
            }
        }
    }

    /// A fresh unit goes to memory, and to disk if everything does.
    fn publish(&self, key: UnitKey, unit: Unit) {
        let unit = Arc::new(unit);
        if let Some(disk) = self.disk.as_ref().filter(|disk| disk.admission() == Admission::Always) {
            disk.write(key, unit.clone(), &self.tasks);
        }
        self.insert(key, unit);
    }

    /// What memory evicts goes to disk if it was asked for again.
    fn insert(&self, key: UnitKey, unit: Arc<Unit>) {
        for Evicted { key, unit, reused } in self.memory.insert(key, unit) {
            self.metrics.evictions.inc();
            if let Some(disk) = self.disk.as_ref().filter(|_| reused) {
                disk.write(key, unit, &self.tasks);
            }
        }
        self.metrics.memory_bytes.set(i64::try_from(self.memory.bytes()).unwrap_or(i64::MAX));
    }
}
