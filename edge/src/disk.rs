//! The disk tier: one file per blob and encoded form, units punched out or files unlinked when the budget is reached.
//!
//! It never fsyncs: losing it is always safe. Its index lives in memory, and a start begins with an empty folder. A disk
//! that is full, slow or broken is a counter and a pass-through, never an error to a reader.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::{BlobId, ByteRange};
use colibri_package::delivery::{Encoding, Identity, Layout};
use colibri_store::{BlobFile, Disk, HolePunching, OsDisk, StoreError};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::config::{Admission, DiskTierConfig};
use crate::limits::DISK_QUEUE_MAX;
use crate::metrics::Metrics;
use crate::unit::{Segment, Unit, UnitKey};

/// Segments read back are cut to this size, bytes.
const SEGMENT_BYTES: u64 = 64 * 1024;

/// Expected unit size, for sizing the index only.
const TYPICAL_UNIT_BYTES: u64 = 64 * 1024;

type FileKey = (BlobId, Encoding, Option<Identity>);

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<UnitKey, u64> for ByBytes {
    fn weight(&self, _key: &UnitKey, bytes: &u64) -> u64 {
        (*bytes).max(1)
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

/// Units on disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct DiskTier {
    inner: Arc<Inner>,
    admission: Admission,
}

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    punching: HolePunching,
    files: Mutex<HashMap<FileKey, Arc<BlobFile>>>,
    policy: Cache<UnitKey, u64, ByBytes, DefaultHashBuilder, Collect>,
    queue: Arc<Semaphore>,
    metrics: Metrics,
}

impl DiskTier {
    /// Opens the folder and empties it.
    pub fn open(config: &DiskTierConfig, metrics: Metrics) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let dir = config.dir.clone();
        let io = |source| StoreError::Io { path: config.dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(io)?;
        for entry in disk.list_dir(&dir).map_err(io)? {
            if entry.name.to_str().is_some_and(is_ours) {
                disk.remove_file(&dir.join(entry.name)).map_err(io)?;
            }
        }
        let items = usize::try_from(config.bytes / TYPICAL_UNIT_BYTES).unwrap_or(usize::MAX).max(64);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(config.bytes)
            .shards(1)
            .build()
            .expect("every required option is given");
        let policy = Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), Collect);
        let queue = Arc::new(Semaphore::new(DISK_QUEUE_MAX));
        let punching = HolePunching::probe(&*disk, &dir)?;
        let inner = Inner { disk, dir, punching, files: Mutex::default(), policy, queue, metrics };
        Ok(Self { inner: Arc::new(inner), admission: config.admission })
    }

    pub const fn admission(&self) -> Admission {
        self.admission
    }

    /// The unit, if it is here and its guards hold.
    pub async fn read(&self, key: UnitKey) -> Option<Vec<Segment>> {
        let inner = self.inner.clone();
        let file = inner.file(&key).filter(|file| file.has_unit(key.unit))?;
        inner.policy.get(&key);
        let read = tokio::task::spawn_blocking(move || {
            let range = file.layout().unit_range(key.unit);
            let bytes = file.read(range).inspect_err(|error| {
                tracing::warn!(blob = %key.id, unit = key.unit, %error, "a unit on disk cannot be used");
                inner.metrics.disk_errors.inc();
                inner.policy.remove(&key);
                inner.drop_unit(&key);
            });
            bytes.ok().map(|bytes| (range, bytes))
        });
        let (range, bytes) = read.await.ok()??;
        let cuts = (range.start()..range.end()).step_by(SEGMENT_BYTES as usize);
        let segments = cuts.map(|offset| {
            let part = ByteRange::new(offset, (offset + SEGMENT_BYTES).min(range.end()));
            Segment::Stored { offset, bytes: bytes.slice(part.within(range.start())) }
        });
        Some(segments.collect())
    }

    /// Writes a unit in the background; drops it when the disk does not keep up.
    pub fn write(&self, key: UnitKey, unit: Arc<Unit>, tasks: &TaskTracker) {
        let inner = self.inner.clone();
        let Ok(permit) = inner.queue.clone().try_acquire_owned() else {
            return inner.metrics.disk_dropped.inc();
        };
        tasks.spawn_blocking(move || {
            let _permit = permit;
            if let Err(error) = inner.write(key, &unit) {
                tracing::warn!(blob = %key.id, unit = key.unit, %error, "a unit could not be written to disk");
                inner.metrics.disk_errors.inc();
                inner.policy.remove(&key);
                inner.drop_unit(&key);
            }
        });
    }
}

impl Inner {
    fn write(&self, key: UnitKey, unit: &Unit) -> Result<(), StoreError> {
        let file = self.file_or_create(&key, unit.layout())?;
        if file.has_unit(key.unit) {
            return Ok(());
        }
        for segment in unit.segments() {
            if let Segment::Fresh(pieces) = segment {
                file.write(pieces)?;
            }
        }
        self.metrics.disk_written_bytes.inc_by(unit.bytes());
        let mut evicted = Vec::new();
        self.policy.insert_with_lifecycle(key, unit.bytes(), &mut evicted);
        evicted.iter().for_each(|key| self.drop_unit(key));
        self.metrics.disk_bytes.set(i64::try_from(self.policy.weight()).unwrap_or(i64::MAX));
        Ok(())
    }

    fn file(&self, key: &UnitKey) -> Option<Arc<BlobFile>> {
        lock(&self.files).get(&file_key(key)).cloned()
    }

    fn file_or_create(&self, key: &UnitKey, layout: &Layout) -> Result<Arc<BlobFile>, StoreError> {
        let mut files = lock(&self.files);
        if let Some(file) = files.get(&file_key(key)) {
            return Ok(file.clone());
        }
        let file = Arc::new(BlobFile::create(self.disk.clone(), &self.path(key), layout.clone(), self.punching)?);
        files.insert(file_key(key), file.clone());
        Ok(file)
    }

    /// Frees a unit's room; the file goes with its last unit.
    fn drop_unit(&self, key: &UnitKey) {
        let mut files = lock(&self.files);
        let Some(file) = files.get(&file_key(key)) else { return };
        if let Err(error) = file.evict(key.unit) {
            tracing::warn!(blob = %key.id, unit = key.unit, %error, "a unit could not be evicted from disk");
            self.metrics.disk_errors.inc();
        }
        let last = (0..file.layout().unit_count()).all(|unit| !file.has_unit(unit));
        if last {
            files.remove(&file_key(key));
            drop(self.disk.remove_file(&self.path(key)));
        }
    }

    fn path(&self, key: &UnitKey) -> PathBuf {
        let identity = key.identity.map(|identity| identity.etag_hex()).unwrap_or_default();
        self.dir.join(format!("{}.{}.{identity}.unit", key.id, key.encoding))
    }
}

fn file_key(key: &UnitKey) -> FileKey {
    (key.id, key.encoding, key.identity)
}

/// Only files of the tier's own naming are removed at start: a mistyped folder loses nothing.
fn is_ours(name: &str) -> bool {
    name.ends_with(".unit") && name.split('.').next().is_some_and(|id| id.parse::<BlobId>().is_ok())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
