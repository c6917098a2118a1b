//! [`Cache`]: the one place that decides where a unit comes from: memory, a flight to join, or a new flight, which looks on
//! disk and then upstream.
//!
//! The read path, with a counter for each arrow: `units_asked` → `memory_hits` | `joined` | flight → `disk_hits` | `fills`.

pub(crate) mod explain;

use std::sync::Arc;

use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, ByteRange};
use colibri_fetch::{BlobFetcher, FetchError};
use colibri_package::delivery::{DeliveryType, Encoding, VerifiedPieces};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::config::{Admission, EdgeConfig};
use crate::disk::{Content, Damage, DiskTier, Part};
use crate::flight::Flight;
use crate::flights::{Decision, Flights};
use crate::freshness::Freshness;
use crate::gauges::{Budgets, Used};
use crate::history::History;
use crate::ledger::Ledger;
use crate::limits::{
    FILL_BYTES_MIN, FILL_SHARES, FLIGHTS_MAX, LENT_SHARES, PIN_BYTES_MIN, PIN_SHARES, SHARES, TIER_SHARES,
};
use crate::memory::{Came, Evicted, MemoryTier};
use crate::metrics::Metrics;
use crate::pins::{Held, Pins};
use crate::shapes::{Opened, Shapes};
use crate::unit::{Segment, Slice, Unit, UnitKey, slice_at};
use crate::unknown::Unknown;

/// Room for fills is handed out in this size, bytes.
const FILL_PERMIT_BYTES: u64 = 64 << 10;

/// The cache of one edge.
#[derive(Debug)]
pub(crate) struct Cache {
    catalog: Arc<Catalog>,
    pins: Pins,
    tiers: Arc<Tiers>,
}

/// What flights need; shared with their tasks.
#[derive(Debug)]
struct Tiers {
    shapes: Arc<Shapes>,
    memory: MemoryTier,
    disk: Option<DiskTier>,
    flights: Flights<UnitKey, Flight>,
    ledger: Arc<Ledger>,
    /// Room for units that are being filled.
    room: Semaphore,
    room_permits: u32,
    metrics: Metrics,
    history: Arc<History>,
    tasks: TaskTracker,
}

/// Where a unit is kept that is fetched now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// In memory, and on disk as is configured.
    AsConfigured,
    /// On disk at once besides.
    OnDisk,
}

/// A unit that was found or is coming.
#[derive(Debug)]
pub(crate) enum Found {
    /// All of it is in memory.
    Ready(Arc<Unit>),
    /// It is coming; true if somebody else had asked for it first.
    Filling(Arc<Flight>, bool),
}

impl Found {
    /// The next bytes of `wanted` from offset `from` on.
    pub async fn read(&self, from: u64, wanted: ByteRange) -> Result<Slice, FetchError> {
        match self {
            Self::Ready(unit) => read_ready(unit, from, wanted),
            Self::Filling(flight, _) => flight.read(from, wanted).await,
        }
    }
}

fn read_ready(unit: &Unit, from: u64, wanted: ByteRange) -> Result<Slice, FetchError> {
    slice_at(unit.segments(), from, wanted)
        .ok_or_else(|| FetchError::Local(format!("offset {from} is not in this unit")))
}

/// A unit as its reader holds it.
#[derive(Debug)]
pub(crate) enum UnitAccess {
    Ready(Held<Unit>),
    /// It is coming; true if somebody else had asked for it first.
    Filling(Held<Flight>, bool),
}

impl UnitAccess {
    /// Where it comes from, as far as that is known by the time its first bytes are here.
    pub fn freshness(&self) -> Freshness {
        match self {
            Self::Ready(_) => Freshness::Hit,
            Self::Filling(flight, joined) => {
                let from = flight.get().and_then(|flight| flight.comes_from());
                from.unwrap_or(Freshness::Miss).seen_by(*joined)
            }
        }
    }

    /// The next bytes of `wanted` from offset `from` on; nothing if the unit was let go meanwhile.
    pub async fn read(&self, from: u64, wanted: ByteRange) -> Option<Result<Slice, FetchError>> {
        Some(match self {
            Self::Ready(unit) => read_ready(&*unit.get()?, from, wanted),
            Self::Filling(flight, _) => flight.get()?.read(from, wanted).await,
        })
    }
}

impl Cache {
    pub fn new(
        config: &EdgeConfig,
        disk: Option<DiskTier>,
        metrics: Metrics,
        history: Arc<History>,
        unknown: Unknown,
        tasks: TaskTracker,
    ) -> Self {
        let shapes = Arc::new(Shapes::beside(config.memory_bytes));
        let share = |shares: u64| config.memory_bytes / SHARES * shares;
        let held = |shares| share(shares).max(PIN_BYTES_MIN);
        let room_permits = share(FILL_SHARES).max(FILL_BYTES_MIN) / FILL_PERMIT_BYTES;
        let room_permits = u32::try_from(room_permits).unwrap_or(u32::MAX);
        let tiers = Arc::new(Tiers {
            shapes: shapes.clone(),
            memory: MemoryTier::new(share(TIER_SHARES)),
            disk,
            flights: Flights::new(),
            ledger: Arc::new(Ledger::new(held(LENT_SHARES))),
            room: Semaphore::new(room_permits as usize),
            room_permits,
            metrics,
            history,
            tasks,
        });
        let keeping = tiers.clone();
        let keep_early = Box::new(move |opened: &Opened, early| keeping.keep_early(opened, early));
        let catalog = Catalog::new(shapes, tiers.disk.clone(), &tiers.tasks, keep_early, unknown);
        Self { catalog, pins: Pins::new(held(PIN_SHARES)), tiers }
    }

    /// The checked leaves of a blob.
    pub async fn leaves(
        &self,
        fetcher: &BlobFetcher,
        place: &str,
        id: BlobId,
    ) -> (Result<Leaves, FetchError>, Freshness) {
        // Devices ask for the first delivery type after the leaves: a one-leaf blob is proven in that form.
        self.catalog.leaves(fetcher, place, id, Encoding::Delivery(DeliveryType::Type1)).await
    }

    /// A blob's proven shape in one encoding.
    pub async fn open(
        &self,
        fetcher: &BlobFetcher,
        place: &str,
        id: BlobId,
        encoding: Encoding,
    ) -> (Result<Arc<Opened>, FetchError>, Freshness) {
        self.catalog.open(fetcher, place, id, encoding).await
    }

    /// Holds a unit for one reader, as firmly as there is room.
    pub fn hold(&self, found: &Found, bytes: u64) -> UnitAccess {
        match found {
            Found::Ready(unit) => UnitAccess::Ready(self.pins.hold(unit, bytes)),
            Found::Filling(flight, joined) => UnitAccess::Filling(self.pins.hold(flight, bytes), *joined),
        }
    }

    /// What the memory is divided into.
    pub fn budgets(&self) -> Budgets {
        Budgets {
            tier_bytes: self.tiers.memory.budget_bytes(),
            pinned_bytes: self.pins.budget_bytes(),
            filling_bytes: u64::from(self.tiers.room_permits) * FILL_PERMIT_BYTES,
        }
    }

    /// How much of that is used now.
    pub fn used(&self) -> Used {
        let free = self.tiers.room.available_permits() as u64 * FILL_PERMIT_BYTES;
        let Budgets { filling_bytes, .. } = self.budgets();
        Used { pinned_bytes: self.pins.used_bytes(), filling_bytes: filling_bytes.saturating_sub(free) }
    }

    /// Counts a reader whose unit was let go before it had read it.
    pub fn lapsed(&self) {
        self.tiers.metrics.lapses.inc();
    }

    /// Counts bytes sent to a reader.
    pub fn served(&self, bytes: usize) {
        self.tiers.metrics.served_bytes.inc_by(bytes as u64);
    }

    /// Whether a unit is here to stay: on disk, or in memory where there is no disk tier.
    pub fn has(&self, key: &UnitKey) -> bool {
        self.tiers.disk.as_ref().map_or_else(|| self.tiers.memory.has(key), |disk| disk.has(key))
    }

    /// Takes a whole unit that was verified, with all its pieces, from elsewhere than upstream: onto the disk at once.
    pub fn take(&self, key: UnitKey, pieces: Vec<VerifiedPieces>) {
        let entered = |run| self.tiers.ledger.enter(Segment::verified(run));
        let unit = Unit::new(pieces.iter().map(entered).collect());
        self.tiers.publish(key, unit, pieces, Came::BeforeItWasAskedFor);
    }

    /// Keeps a shape that was proven elsewhere.
    pub fn keep_shape(&self, opened: Opened) {
        self.tiers.shapes.keep_leaves(opened.layout.leaves().clone());
        self.tiers.shapes.keep(Arc::new(opened));
    }

    /// Brings a unit that nobody has asked for yet onto the disk, or into memory where there is no disk tier.
    pub async fn warm(
        &self,
        fetcher: &BlobFetcher,
        place: &str,
        opened: &Arc<Opened>,
        unit: u32,
    ) -> Result<(), FetchError> {
        let key = UnitKey::of(&opened.layout, unit);
        if self.tiers.disk.as_ref().is_some_and(|disk| disk.has(&key)) {
            return Ok(());
        }
        self.bring(fetcher, place, opened, unit).await.map(drop)
    }

    /// Brings a unit onto the disk, whatever the disk says that it has; true if it was here, so that upstream was not asked.
    async fn bring(
        &self,
        fetcher: &BlobFetcher,
        place: &str,
        opened: &Arc<Opened>,
        unit: u32,
    ) -> Result<bool, FetchError> {
        let key = UnitKey::of(&opened.layout, unit);
        let (unit, was_here) = match self.unit(fetcher, place, opened, unit, Keep::OnDisk) {
            Found::Ready(unit) => (unit, true),
            Found::Filling(flight, joined) => {
                flight.ended().await?;
                if !joined {
                    return Ok(false);
                }
                (Arc::new(Unit::new(flight.segments())), false)
            }
        };
        if let Some(disk) = &self.tiers.disk {
            disk.write(key, opened.layout.clone(), Content::FromMemory(unit), &self.tiers.tasks);
        }
        Ok(was_here)
    }

    /// Brings back what the disk has damaged of a unit, from memory or from upstream; a unit that cannot be had goes.
    pub async fn repair(&self, fetcher: &BlobFetcher, places: &[String], damage: Damage) {
        let (Some(disk), Damage { key, pieces }) = (&self.tiers.disk, damage) else { return };
        for place in places {
            match self.refill(fetcher, place, key).await {
                // A flight counts what it repairs.
                Ok(was_here) => return self.tiers.metrics.disk_repaired.inc_by(if was_here { pieces } else { 0 }),
                Err(error) => tracing::debug!(blob = %key.id, place, unit = key.unit, %error, "not repaired"),
            }
        }
        tracing::warn!(blob = %key.id, unit = key.unit, "what a scrub found damaged cannot be had now: the unit goes");
        disk.forget_damaged(key).await;
    }

    async fn refill(&self, fetcher: &BlobFetcher, place: &str, key: UnitKey) -> Result<bool, FetchError> {
        let opened = self.open(fetcher, place, key.id, key.encoding).await.0?;
        if UnitKey::of(&opened.layout, key.unit) != key {
            return Err(FetchError::Local(format!("blob {}: another form is served now", key.id)));
        }
        self.bring(fetcher, place, &opened, key.unit).await
    }

    /// One unit of an opened blob: decides once between memory, joining a flight, and starting one.
    pub fn unit(&self, fetcher: &BlobFetcher, place: &str, opened: &Arc<Opened>, unit: u32, keep: Keep) -> Found {
        let metrics = &self.tiers.metrics;
        metrics.units_asked.inc();
        let key = UnitKey::of(&opened.layout, unit);
        let class = fetcher.urgency().class();
        let flight = match self.tiers.flights.decide(key, || self.tiers.memory.get(&key), || Flight::new(class)) {
            Decision::Here(unit) => {
                metrics.memory_hits.inc();
                return Found::Ready(unit);
            }
            Decision::Join(flight) => {
                metrics.joined.inc();
                flight.urgency().raise(class);
                return Found::Filling(flight, true);
            }
            Decision::Start(flight) => flight,
        };
        let entry = FlightEntry { tiers: self.tiers.clone(), key, flight: flight.clone(), outcome: None };
        let fetcher = fetcher.clone().with_urgency(flight.urgency().clone());
        let (opened, place) = (opened.clone(), place.to_owned());
        self.tiers.tasks.spawn(async move {
            let outcome = entry.tiers.fill(&fetcher, &place, &opened, &entry, keep).await;
            if let Err(error) = &outcome {
                tracing::warn!(blob = %key.id, encoding = %key.encoding, unit, %error, "a fill failed");
                entry.tiers.metrics.fill_failures.inc();
                entry.tiers.history.failed(&key, &error.to_string());
                // Only then: when upstream is merely away, what is here can still be served.
                if matches!(error, FetchError::AllFailed { other_form: true, .. }) {
                    entry.tiers.shapes.forget(&opened);
                }
            }
            entry.land(outcome);
        });
        Found::Filling(flight, false)
    }
}

/// Ends a flight when its task ends, in whatever way. It leaves the map first: whoever is woken by a failure and tries again
/// must not meet the same flight.
#[derive(Debug)]
struct FlightEntry {
    tiers: Arc<Tiers>,
    key: UnitKey,
    flight: Arc<Flight>,
    outcome: Option<Result<(), FetchError>>,
}

impl FlightEntry {
    fn land(mut self, outcome: Result<(), FetchError>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for FlightEntry {
    fn drop(&mut self) {
        self.tiers.flights.leave(&self.key);
        let stopped = || Err(FetchError::Local(format!("the fill of blob {} stopped", self.key.id)));
        self.flight.end(self.outcome.take().unwrap_or_else(stopped));
    }
}

impl Tiers {
    /// Whether a unit is being filled.
    fn is_coming(&self, key: &UnitKey) -> bool {
        self.flights.has(key)
    }

    /// The body of a flight: disk, else upstream; then the tiers.
    async fn fill(
        &self,
        fetcher: &BlobFetcher,
        place: &str,
        opened: &Opened,
        entry: &FlightEntry,
        keep: Keep,
    ) -> Result<(), FetchError> {
        let (key, flight, layout) = (entry.key, &entry.flight, &opened.layout);
        let _room = self.room(layout.unit_range(key.unit).len()).await?;
        if let Some(disk) = &self.disk
            && let Some(parts) = disk.read(key).await
        {
            return self.fill_from_disk(fetcher, place, opened, entry, parts).await;
        }
        flight.begins(Freshness::Miss);
        self.metrics.fills.inc();
        let at_once = |disk: &DiskTier| keep == Keep::OnDisk || disk.admission() == Admission::Always;
        let for_disk = self.disk.as_ref().is_some_and(at_once);
        let mut fresh = Vec::new();
        let mut sink = |pieces: VerifiedPieces| {
            self.metrics.filled_bytes.inc_by(pieces.encoded().len() as u64);
            flight.push(self.ledger.enter(Segment::verified(&pieces)));
            if for_disk {
                fresh.push(pieces.without_content());
            }
        };
        let mut pieces = layout.pieces_of(key.unit);
        // The last piece proved the length. It is here at once, for other edges ask for it first, and is not fetched again.
        let last = opened.last.as_ref().filter(|last| pieces.contains(&last.first_piece()));
        if let Some(last) = last {
            pieces.end = last.first_piece();
            sink(last.clone());
        }
        fetcher.pieces(place, layout, key.unit, pieces, &mut sink).await?;
        if last.is_some() {
            self.shapes.last_is_filled(opened);
        }
        self.publish(key, Unit::new(flight.segments()), fresh, Came::AskedFor);
        Ok(())
    }

    /// What is right on disk, and from upstream only what is not; the disk gets that back.
    async fn fill_from_disk(
        &self,
        fetcher: &BlobFetcher,
        place: &str,
        opened: &Opened,
        entry: &FlightEntry,
        parts: Vec<Part>,
    ) -> Result<(), FetchError> {
        let (key, flight, layout) = (entry.key, &entry.flight, &opened.layout);
        let whole = parts.iter().all(|part| matches!(part, Part::Here(_)));
        flight.begins(if whole { Freshness::Disk } else { Freshness::Partial });
        let mut repaired = Vec::new();
        for part in parts {
            let pieces = match part {
                Part::Here(segment) => {
                    flight.push(self.ledger.enter(segment));
                    continue;
                }
                Part::Missing(pieces) => pieces,
            };
            let mut sink = |pieces: VerifiedPieces| {
                self.metrics.filled_bytes.inc_by(pieces.encoded().len() as u64);
                flight.push(self.ledger.enter(Segment::verified(&pieces)));
                repaired.push(pieces.without_content());
            };
            fetcher.pieces(place, layout, key.unit, pieces, &mut sink).await?;
        }
        self.metrics.disk_hits.inc();
        if let (Some(disk), false) = (&self.disk, repaired.is_empty()) {
            self.metrics.disk_repaired.inc_by(repaired.iter().map(|run| u64::from(run.piece_count())).sum());
            disk.write(key, layout.clone(), Content::Fresh(repaired), &self.tasks);
        }
        self.insert(key, Arc::new(Unit::new(flight.segments())), Came::AskedFor);
        Ok(())
    }

    /// Waits for room for a unit of this size. No unit takes so little that there could be too many flights.
    async fn room(&self, bytes: u64) -> Result<SemaphorePermit<'_>, FetchError> {
        let permits = u32::try_from(bytes.div_ceil(FILL_PERMIT_BYTES)).unwrap_or(u32::MAX);
        let permits = permits.clamp(self.room_permits / FLIGHTS_MAX, self.room_permits);
        let room = self.room.acquire_many(permits).await;
        room.map_err(|_| FetchError::Local("the edge is stopping".to_owned()))
    }

    /// What was verified while opening: whole units are kept, a lone last piece was only the proof of the length.
    fn keep_early(&self, opened: &Opened, early: Vec<VerifiedPieces>) {
        let layout = &opened.layout;
        let for_disk = self.disk.as_ref().is_some_and(|disk| disk.admission() == Admission::Always);
        let mut early = early.into_iter().peekable();
        while let Some(first) = early.peek().map(VerifiedPieces::first_piece) {
            let unit = layout.unit_of(first);
            let (mut segments, mut fresh) = (Vec::new(), Vec::new());
            while let Some(pieces) = early.next_if(|pieces| layout.unit_of(pieces.first_piece()) == unit) {
                segments.push(self.ledger.enter(Segment::verified(&pieces)));
                if for_disk {
                    fresh.push(pieces.without_content());
                }
            }
            let bytes: u64 = segments.iter().map(|segment| segment.range().len()).sum();
            if bytes == layout.unit_range(unit).len() {
                self.metrics.fills.inc();
                self.metrics.filled_bytes.inc_by(bytes);
                self.publish(UnitKey::of(layout, unit), Unit::new(segments), fresh, Came::BeforeItWasAskedFor);
            }
        }
    }

    /// A fresh unit goes to memory, and to disk if everything does.
    fn publish(&self, key: UnitKey, unit: Unit, fresh: Vec<VerifiedPieces>, came: Came) {
        if let (Some(disk), Some(first)) = (&self.disk, fresh.first()) {
            let layout = first.layout().clone();
            disk.write(key, layout, Content::Fresh(fresh), &self.tasks);
        }
        self.insert(key, Arc::new(unit), came);
    }

    /// What memory evicts goes to disk if it was asked for again.
    fn insert(&self, key: UnitKey, unit: Arc<Unit>, came: Came) {
        for Evicted { key, unit, reused } in self.memory.insert(key, unit, came) {
            self.metrics.evictions.inc();
            self.history.evicted(&key);
            if let Some(disk) = self.disk.as_ref().filter(|_| reused)
                && let Some(layout) = self.shapes.layout_of(&key)
            {
                disk.write(key, layout, Content::FromMemory(unit), &self.tasks);
            }
        }
        let (kept, live) = (self.memory.bytes(), self.ledger.bytes());
        self.metrics.memory_bytes.set(i64::try_from(kept).unwrap_or(i64::MAX));
        self.metrics.live_bytes.set(i64::try_from(live).unwrap_or(i64::MAX));
    }
}
