//! The disk tier: one file per blob and encoding, units punched out or files unlinked when a budget is reached.
//!
//! It outlives its process: each file says itself what is in it ([`BlobFile`]), so a start opens nothing and serves at once,
//! while [`upkeep`] takes the files into the books. Filling never syncs: losing any part of it is always safe. After a stop
//! that was not clean, leaves decide what is right; otherwise guards do. A disk that is full, slow or broken is a counter, an
//! alarm and a pass-through, never an error to a reader, and no thread of the runtime ever waits for it.

mod epoch;
mod evict;
mod files;
mod ledger;
mod queues;
mod units;
mod upkeep;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, VerifiedLength};
use colibri_package::delivery::{DeliveryType, Encoding, Layout, VerifiedPieces};
use colibri_store::disk::DiskFile;
use colibri_store::{Disk, OsDisk, StoreError};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::config::{Admission, DiskTierConfig};
use crate::limits::{
    DISK_CLOSE_MS_MAX, DISK_PAUSE_MS, DISK_QUEUE_BYTES_MAX, DISK_READ_MS_MAX, DISK_READS_MAX, DISK_WRITERS,
};
use crate::metrics::Metrics;
use crate::repair::Repairs;
use crate::unit::{Segment, Unit, UnitKey};
use epoch::Epoch;
use files::{Files, lock};
use ledger::{FileKey, Ledger, Totals};

/// Room in the queue is handed out in this size, bytes.
const QUEUE_PERMIT_BYTES: u64 = 64 << 10;

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Content {
    /// Straight from verification.
    Fresh(Vec<VerifiedPieces>),
    /// From memory, which keeps only bytes: verified once more on the way to the disk.
    FromMemory(Arc<Unit>),
}

/// Neighbouring pieces of a unit that was on disk.
#[derive(Debug)]
pub(crate) enum Part {
    /// They are right.
    Here(Segment),
    /// The disk has damaged or lost these: fetch and [`DiskTier::write`] them.
    Missing(Range<u32>),
}

/// What a scrub found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Damage {
    pub key: UnitKey,
    /// How many pieces of the unit are not here any more.
    pub pieces: u64,
}

/// What a file of the tier knows about its blob.
#[derive(Debug)]
pub(crate) struct Known {
    /// The form that is on disk.
    pub layout: Layout,
    /// Proven, if the last piece is on disk.
    pub length: Option<VerifiedLength>,
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
    ledger: Mutex<Ledger>,
    /// What the last process left is still being taken into the books.
    loading: AtomicBool,
    /// Whether guards from before this process are to be believed.
    doubtful: AtomicBool,
    /// Nothing more is written.
    closed: AtomicBool,
    /// What says in the folder that it is ours.
    epoch: Mutex<Epoch>,
    /// Our epoch stands in the folder.
    marked: AtomicBool,
    folder_lock: Mutex<Option<Arc<dyn DiskFile>>>,
    queue: Arc<Semaphore>,
    writers: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    read_limit: Duration,
    paused: Mutex<Pauses>,
    scrub_bytes_per_s: u64,
    upkeep: Mutex<Option<upkeep::Running>>,
    /// Who repairs what a scrub finds, if anybody does.
    repairs: OnceLock<Repairs>,
    metrics: Metrics,
}

/// Until when the disk is left alone.
#[derive(Debug, Default)]
struct Pauses {
    writes: Option<Instant>,
    reads: Option<Instant>,
}

impl DiskTier {
    /// Opens the folder with all that is in it, and starts the thread that looks after it.
    pub fn open(config: &DiskTierConfig, metrics: Metrics) -> Result<Self, StoreError> {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let tier = Self::open_on(&disk, config, metrics)?;
        *lock(&tier.inner.upkeep) = upkeep::Running::start(&tier.inner);
        Ok(tier)
    }

    fn open_on(disk: &Arc<dyn Disk>, config: &DiskTierConfig, metrics: Metrics) -> Result<Self, StoreError> {
        let files = Files::new(disk.clone(), config.dir.clone());
        let io = |source| StoreError::Io { path: config.dir.clone(), source };
        files.make_folder(&config.dir)?;
        let folder_lock = epoch::lock_folder(&**disk, &config.dir)?;
        files.remove_old().map_err(io)?;
        // A document that cannot be read is as good as none.
        let last = Epoch::read(&**disk, &config.dir).unwrap_or_default();
        let budget = Totals { bytes: config.bytes, files: config.files };
        let loading = files.has_folders().map_err(io)?;
        // Where nobody knows what is there, nothing is added before everything was seen.
        let left = if loading { last.as_ref().map(Epoch::totals) } else { Some(Totals::default()) };
        let epoch = Epoch::begin(left.unwrap_or_default());
        // From here on a crash must not look like a clean stop. A full disk may refuse to say so, but not to forget.
        let marked = epoch.write(&**disk, &config.dir, true).is_ok();
        if !marked {
            Epoch::remove(&**disk, &config.dir).map_err(io)?;
        }
        files.probe()?;
        let mut ledger = Ledger::new(budget);
        ledger.set_not_loaded(left);
        let inner = Inner {
            files,
            ledger: Mutex::new(ledger),
            loading: AtomicBool::new(loading),
            doubtful: AtomicBool::new(!last.is_some_and(|last| last.is_clean())),
            closed: AtomicBool::new(false),
            epoch: Mutex::new(epoch),
            marked: AtomicBool::new(marked),
            folder_lock: Mutex::new(Some(folder_lock)),
            queue: Arc::new(Semaphore::new(queue_permits(DISK_QUEUE_BYTES_MAX) as usize)),
            writers: Arc::new(Semaphore::new(DISK_WRITERS)),
            reads: Arc::new(Semaphore::new(DISK_READS_MAX)),
            read_limit: Duration::from_millis(DISK_READ_MS_MAX),
            paused: Mutex::default(),
            scrub_bytes_per_s: config.scrub_bytes_per_s,
            upkeep: Mutex::default(),
            repairs: OnceLock::new(),
            metrics,
        };
        inner.show();
        Ok(Self { inner: Arc::new(inner), admission: config.admission })
    }

    pub const fn admission(&self) -> Admission {
        self.admission
    }

    /// True if the unit is in the books.
    pub fn has(&self, key: &UnitKey) -> bool {
        lock(&self.inner.ledger).has_unit(FileKey::of(key), key.unit)
    }

    /// The blobs that are to stay longest: those of the current release. Others go first.
    pub fn prefer(&self, blobs: HashSet<BlobId>) {
        lock(&self.inner.ledger).prefer(blobs);
    }

    /// From now on, what a scrub finds damaged stays until `repairs` has said that it cannot be had.
    pub fn repaired_by(&self, repairs: Repairs) {
        _ = self.inner.repairs.set(repairs);
    }

    /// Takes a unit out of which something is missing.
    pub async fn forget_damaged(&self, key: UnitKey) {
        let inner = self.inner.clone();
        let forgetting = tokio::task::spawn_blocking(move || {
            if inner.file(FileKey::of(&key)).is_none_or(|file| !file.has_unit(key.unit)) {
                inner.drop_unit(FileKey::of(&key), key.unit);
                inner.show();
            }
        });
        _ = forgetting.await;
    }

    /// The unit, as far as it is here and right, if the disk answers soon.
    pub async fn read(&self, key: UnitKey) -> Option<Vec<Part>> {
        let known = lock(&self.inner.ledger).touch(FileKey::of(&key), key.unit);
        if !(known || self.inner.is_loading()) {
            return None;
        }
        self.ask(move |inner| inner.read(&key)).await
    }

    /// The leaves of a blob of which something is on disk.
    pub async fn leaves(&self, id: BlobId) -> Option<Leaves> {
        let encodings =
            [Encoding::Raw, Encoding::Delivery(DeliveryType::Type1), Encoding::Delivery(DeliveryType::Type2)];
        let keys = encodings.map(|encoding| FileKey { id, encoding });
        let there: Vec<_> = keys.into_iter().filter(|key| self.may_have_file(*key)).collect();
        if there.is_empty() {
            return None;
        }
        self.ask(move |inner| there.into_iter().find_map(|key| Some(inner.file(key)?.layout().leaves().clone()))).await
    }

    /// What the tier knows about a blob in an encoding.
    pub async fn known(&self, id: BlobId, encoding: Encoding) -> Option<Known> {
        let key = FileKey { id, encoding };
        if !self.may_have_file(key) {
            return None;
        }
        self.ask(move |inner| {
            let file = inner.file(key)?;
            Some(Known { layout: file.layout().clone(), length: file.prove_length() })
        })
        .await
    }

    fn may_have_file(&self, key: FileKey) -> bool {
        self.inner.is_loading() || lock(&self.inner.ledger).has_file(key)
    }

    /// Asks the disk, on a thread of its own, if it is not too busy.
    async fn ask<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Option<T> + Send + 'static) -> Option<T> {
        let inner = self.inner.clone();
        if lock(&inner.paused).reads.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let place = inner.reads.clone().try_acquire_owned().ok()?;
        let working = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&inner)
        });
        match tokio::time::timeout(self.inner.read_limit, working).await {
            Ok(answer) => answer.ok()?,
            Err(_) => {
                tracing::warn!("the disk tier does not answer: it is left alone for a while");
                lock(&self.inner.paused).reads = Some(Instant::now() + Duration::from_millis(DISK_PAUSE_MS));
                self.inner.alarm();
                None
            }
        }
    }

    /// Writes a unit, or pieces of one, in the background; drops it when the disk does not keep up or has just failed.
    pub fn write(&self, key: UnitKey, layout: Layout, content: Content, tasks: &TaskTracker) {
        if layout.unit_range(key.unit).is_empty() {
            // The empty blob: opening it is all there is.
            return;
        }
        let inner = self.inner.clone();
        let permits = queue_permits(layout.unit_range(key.unit).len()).min(queue_permits(DISK_QUEUE_BYTES_MAX));
        let place = inner.queue.clone().try_acquire_many_owned(permits).ok().filter(|_| inner.may_write());
        let Some(place) = place else { return inner.metrics.disk_dropped.inc() };
        tasks.spawn(async move {
            // Few at a time: a disk that hangs must not take the threads that others need.
            let Ok(writer) = inner.writers.clone().acquire_owned().await else { return };
            let written = tokio::task::spawn_blocking(move || {
                let _held = (place, writer);
                inner.write_and_judge(key, &layout, content);
            });
            _ = written.await;
        });
    }

    /// Makes everything durable and says that it is. Nothing is written afterwards. Without it the next start is an unclean
    /// one: slower, and no worse.
    pub async fn close(&self) {
        let inner = self.inner.clone();
        inner.closed.store(true, Ordering::SeqCst);
        let closing = tokio::task::spawn_blocking(move || {
            // Waits for the thread: it must not write the epoch once more.
            drop(lock(&inner.upkeep).take());
            inner.close();
        });
        _ = tokio::time::timeout(Duration::from_millis(DISK_CLOSE_MS_MAX), closing).await;
    }
}

fn queue_permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(QUEUE_PERMIT_BYTES).max(1)).unwrap_or(u32::MAX)
}

impl Inner {
    fn is_loading(&self) -> bool {
        self.loading.load(Ordering::SeqCst)
    }

    fn may_write(&self) -> bool {
        let paused = lock(&self.paused).writes.is_some_and(|until| Instant::now() < until);
        !paused && !self.closed.load(Ordering::SeqCst)
    }

    /// Something failed.
    fn alarm(&self) {
        self.metrics.disk_errors.inc();
        self.metrics.disk_alarm.set(1);
    }

    /// Something worked: the alarm ends with the pause.
    fn relieve(&self) {
        let now = Instant::now();
        let mut paused = lock(&self.paused);
        paused.writes.take_if(|until| *until <= now);
        paused.reads.take_if(|until| *until <= now);
        if paused.writes.is_none() && paused.reads.is_none() {
            self.metrics.disk_alarm.set(0);
        }
    }

    /// Shows operators what is there.
    fn show(&self) {
        let totals = lock(&self.ledger).totals();
        self.metrics.disk_bytes.set(i64::try_from(totals.bytes).unwrap_or(i64::MAX));
        self.metrics.disk_files.set(i64::try_from(totals.files).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests;
