//! The disk tier: one file per blob and encoded form, units punched out or files unlinked when the budget is reached.
//!
//! It never fsyncs: losing it is always safe. Its index lives in memory, and a start begins with an empty folder. A disk
//! that is full, slow or broken is a counter and a pass-through, never an error to a reader, and no thread of the runtime
//! ever waits for it.

mod files;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use colibri_common::ByteRange;
use colibri_fetch::Assembler;
use colibri_package::delivery::{Layout, VerifiedPieces};
use colibri_store::{BlobFile, Disk, HolePunching, OsDisk, StoreError};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::config::{Admission, DiskTierConfig};
use crate::limits::{DISK_PAUSE_MS, DISK_QUEUE_BYTES_MAX, DISK_READ_MS_MAX, DISK_READS_MAX};
use crate::metrics::Metrics;
use crate::unit::{Segment, Unit, UnitKey};
use files::Files;

/// Segments read back are of this size, bytes, in memory of their own.
const SEGMENT_BYTES: u64 = 64 * 1024;

/// Expected unit size, for sizing the index only.
const TYPICAL_UNIT_BYTES: u64 = 64 * 1024;

/// Disks hand out blocks; smaller things take one all the same.
const BLOCK_BYTES: u64 = 4096;

/// Room in the queue is handed out in this size, bytes.
const QUEUE_PERMIT_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<UnitKey, u64> for ByBytes {
    fn weight(&self, _key: &UnitKey, bytes: &u64) -> u64 {
        bytes.max(&1).next_multiple_of(BLOCK_BYTES)
    }
}

#[derive(Debug, Clone)]
struct Collect;

impl Lifecycle<UnitKey, u64> for Collect {
    type RequestState = Vec<UnitKey>;

    fn on_evict(&self, state: &mut Self::RequestState, key: UnitKey, _bytes: u64) {
        state.push(key);
    }
}

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Content {
    /// Straight from verification.
    Fresh(Vec<VerifiedPieces>),
    /// From memory, which keeps only bytes: verified once more on the way to the disk.
    FromMemory(Arc<Unit>),
}

/// Units on disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DiskTier {
    inner: Arc<Inner>,
    admission: Admission,
}

#[derive(Debug)]
struct Inner {
    files: Files,
    /// What is on disk, and what goes first. A unit is in here only after it was written.
    policy: Cache<UnitKey, u64, ByBytes, DefaultHashBuilder, Collect>,
    /// Units that the policy has let go while somebody read them.
    doomed: Mutex<Vec<UnitKey>>,
    queue: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    read_limit: Duration,
    paused_until: Mutex<Option<Instant>>,
    metrics: Metrics,
}

impl DiskTier {
    /// Opens the folder and empties it.
    pub fn open(config: &DiskTierConfig, metrics: Metrics) -> Result<Self, StoreError> {
        Self::open_on(Arc::new(OsDisk), config, metrics)
    }

    fn open_on(disk: Arc<dyn Disk>, config: &DiskTierConfig, metrics: Metrics) -> Result<Self, StoreError> {
        let dir: PathBuf = config.dir.clone();
        let io = |source| StoreError::Io { path: config.dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(io)?;
        for entry in disk.list_dir(&dir).map_err(io)? {
            if entry.name.to_str().is_some_and(files::is_ours) {
                disk.remove_file(&dir.join(entry.name)).map_err(io)?;
            }
        }
        let punching = match HolePunching::probe(&*disk, &dir) {
            // Somebody else has filled the disk. That must not keep an edge from starting; later there may be room.
            Err(StoreError::NoSpace { .. }) => HolePunching::Unsupported,
            probed => probed?,
        };
        let items = usize::try_from(config.bytes / TYPICAL_UNIT_BYTES).unwrap_or(usize::MAX).clamp(64, 1 << 24);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(config.bytes)
            .shards(1)
            .build()
            .expect("every required option is given");
        let inner = Inner {
            files: Files::new(disk, dir, punching),
            policy: Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), Collect),
            doomed: Mutex::default(),
            queue: Arc::new(Semaphore::new(queue_permits(DISK_QUEUE_BYTES_MAX) as usize)),
            reads: Arc::new(Semaphore::new(DISK_READS_MAX)),
            read_limit: Duration::from_millis(DISK_READ_MS_MAX),
            paused_until: Mutex::default(),
            metrics,
        };
        Ok(Self { inner: Arc::new(inner), admission: config.admission })
    }

    pub const fn admission(&self) -> Admission {
        self.admission
    }

    /// The unit, if it is here, its guards hold and the disk answers soon.
    pub async fn read(&self, key: UnitKey) -> Option<Vec<Segment>> {
        let inner = self.inner.clone();
        inner.policy.get(&key)?;
        let place = inner.reads.clone().try_acquire_owned().ok()?;
        let read = tokio::task::spawn_blocking(move || {
            let _place = place;
            inner.read(&key)
        });
        match tokio::time::timeout(self.inner.read_limit, read).await {
            Ok(segments) => segments.ok()?,
            Err(_) => {
                tracing::warn!(blob = %key.id, unit = key.unit, "the disk does not answer");
                self.inner.metrics.disk_errors.inc();
                None
            }
        }
    }

    /// Writes a unit in the background; drops it when the disk does not keep up or has just failed.
    pub fn write(&self, key: UnitKey, layout: Layout, content: Content, tasks: &TaskTracker) {
        let inner = self.inner.clone();
        let permits = queue_permits(layout.unit_range(key.unit).len()).min(queue_permits(DISK_QUEUE_BYTES_MAX));
        let place = inner.queue.clone().try_acquire_many_owned(permits).ok().filter(|_| !inner.is_paused());
        let Some(place) = place else { return inner.metrics.disk_dropped.inc() };
        tasks.spawn_blocking(move || {
            let _place = place;
            if let Err(error) = inner.write(key, &layout, content) {
                tracing::warn!(blob = %key.id, unit = key.unit, %error, "a unit could not be written to disk");
                inner.metrics.disk_errors.inc();
                *lock(&inner.paused_until) = Some(Instant::now() + Duration::from_millis(DISK_PAUSE_MS));
                inner.policy.remove(&key);
                inner.drop_units(vec![key]);
            }
        });
    }
}

fn queue_permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(QUEUE_PERMIT_BYTES)).unwrap_or(u32::MAX)
}

impl Inner {
    fn is_paused(&self) -> bool {
        lock(&self.paused_until).is_some_and(|until| Instant::now() < until)
    }

    fn read(&self, key: &UnitKey) -> Option<Vec<Segment>> {
        let Some(file) = self.files.get(key) else {
            self.policy.remove(key);
            return None;
        };
        match read_unit(&file, key.unit) {
            Ok(segments) => Some(segments),
            Err(error) => {
                // Absent: let go since it was looked up.
                if !matches!(error, StoreError::UnitAbsent { .. }) {
                    tracing::warn!(blob = %key.id, unit = key.unit, %error, "a unit on disk cannot be used");
                    self.metrics.disk_errors.inc();
                }
                self.policy.remove(key);
                self.drop_units(vec![*key]);
                None
            }
        }
    }

    fn write(&self, key: UnitKey, layout: &Layout, content: Content) -> Result<(), StoreError> {
        let (file, displaced) = self.files.get_or_create(&key, layout)?;
        self.forget(&displaced);
        if !file.has_unit(key.unit) {
            write_unit(&file, key.unit, content)?;
            self.metrics.disk_written_bytes.inc_by(layout.unit_range(key.unit).len());
        }
        let mut evicted = Vec::new();
        self.policy.insert_with_lifecycle(key, layout.unit_range(key.unit).len(), &mut evicted);
        evicted.append(&mut lock(&self.doomed));
        self.drop_units(evicted);
        Ok(())
    }

    fn forget(&self, keys: &[UnitKey]) {
        for key in keys {
            self.policy.remove(key);
        }
    }

    /// Frees the room of units that the policy has let go; a file goes with its last unit.
    fn drop_units(&self, keys: Vec<UnitKey>) {
        for key in keys {
            if self.policy.contains_key(&key) {
                // It has come back meanwhile.
                continue;
            }
            match self.files.evict(&key) {
                Ok(files::Evicted::Units(units)) => self.forget(&units),
                Ok(files::Evicted::Held) => lock(&self.doomed).push(key),
                Err(error) => {
                    tracing::warn!(blob = %key.id, unit = key.unit, %error, "a unit could not be evicted from disk");
                    self.metrics.disk_errors.inc();
                }
            }
        }
        self.metrics.disk_bytes.set(i64::try_from(self.policy.weight()).unwrap_or(i64::MAX));
    }
}

fn read_unit(file: &BlobFile, unit: u32) -> Result<Vec<Segment>, StoreError> {
    let _held = file.hold(unit..unit + 1);
    let range = file.layout().unit_range(unit);
    let mut segments = Vec::new();
    for offset in (range.start()..range.end()).step_by(SEGMENT_BYTES as usize) {
        let part = ByteRange::new(offset, (offset + SEGMENT_BYTES).min(range.end()));
        segments.push(Segment::stored(offset, file.read(part)?));
    }
    Ok(segments)
}

fn write_unit(file: &BlobFile, unit: u32, content: Content) -> Result<(), StoreError> {
    let from_memory = match content {
        Content::Fresh(pieces) => return pieces.iter().try_for_each(|pieces| file.write(pieces)),
        Content::FromMemory(unit) => unit,
    };
    let mut written = Ok(());
    let mut assembler = Assembler::new(file.layout(), file.layout().pieces_of(unit));
    let mut sink = |pieces: VerifiedPieces| {
        if written.is_ok() {
            written = file.write(&pieces);
        }
    };
    let damaged = StoreError::UnitCorrupt { id: file.layout().id(), unit };
    for segment in from_memory.segments() {
        if assembler.push(segment.bytes(), &mut sink).is_err() {
            return Err(damaged);
        }
    }
    if assembler.is_done() { written } else { Err(damaged) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
