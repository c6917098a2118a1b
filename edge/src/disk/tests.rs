//! The disk tier on disks that fail, hang, have no holes, lose power, or are asked for too much.

mod budgets;
mod restarts;

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use colibri_common::merkle;
use colibri_service::metrics::Registry;
use colibri_store::HolePunching;
use colibri_store::testing::{Watch, WatchedDisk};

use super::*;

/// The machine's disk, with switches.
type Trouble = WatchedDisk<Switches>;

#[derive(Debug, Default)]
struct Switches {
    writes_fail: AtomicBool,
    syncs: AtomicUsize,
    /// Reads wait while this is held.
    reads_wait: Mutex<()>,
    /// Writes wait while this is held.
    writes_wait: Mutex<()>,
    writing: AtomicUsize,
}

impl Watch for Switches {
    fn reading(&self) {
        drop(lock(&self.reads_wait));
    }

    fn writing(&self) -> io::Result<()> {
        self.writing.fetch_add(1, Ordering::SeqCst);
        drop(lock(&self.writes_wait));
        self.writing.fetch_sub(1, Ordering::SeqCst);
        if self.writes_fail.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn syncing(&self) -> bool {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        true
    }
}

/// A tier with what a test needs around it. Nobody looks after it but the test.
struct Desk {
    dir: tempfile::TempDir,
    trouble: Trouble,
    tier: DiskTier,
    metrics: Metrics,
}

impl Desk {
    fn new(bytes: u64, adjust: impl FnOnce(&mut Inner)) -> Self {
        Self::with(bytes, 1000, adjust)
    }

    fn with(bytes: u64, files: u64, adjust: impl FnOnce(&mut Inner)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (trouble, metrics) = (Trouble::default(), Metrics::register(&Registry::new()).unwrap());
        let config = DiskTierConfig { files, ..DiskTierConfig::new(dir.path().to_owned(), bytes) };
        let mut tier =
            DiskTier::open_on(&(Arc::new(trouble.clone()) as Arc<dyn Disk>), &config, metrics.clone()).unwrap();
        adjust(Arc::get_mut(&mut tier.inner).unwrap());
        Self { dir, trouble, tier, metrics }
    }

    async fn write(&self, blob: &Blob, unit: u32) {
        write(&self.tier, blob, unit).await;
    }

    async fn has(&self, blob: &Blob, unit: u32) -> bool {
        has(&self.tier, blob, unit).await
    }

    fn files(&self) -> usize {
        unit_files(self.dir.path()).len()
    }
}

/// Writes a unit and waits for the disk.
async fn write(tier: &DiskTier, blob: &Blob, unit: u32) {
    let tasks = TaskTracker::new();
    tier.write(blob.key(unit), blob.0.clone(), Content::Fresh(blob.unit(unit)), &tasks);
    tasks.close();
    tasks.wait().await;
}

/// True if all of the unit is there; what is there is right in any case.
async fn has(tier: &DiskTier, blob: &Blob, unit: u32) -> bool {
    let Some(parts) = tier.read(blob.key(unit)).await else { return false };
    let mut whole = true;
    for part in parts {
        let Part::Here(segment) = part else {
            whole = false;
            continue;
        };
        assert!(segment.bytes()[..] == blob.1[segment.range().within(0)], "right or absent");
        assert!(segment.bytes().len() <= 64 << 10);
    }
    whole
}

fn unit_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files.extend(unit_files(&entry.path()));
        } else if entry.path().extension().is_some_and(|extension| extension == "unit") {
            files.push(entry.path());
        }
    }
    files
}

/// Bytes that a folder takes with all that is in it.
fn allocated_bytes(dir: &Path) -> u64 {
    let blocks = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512;
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { allocated_bytes(&path) } else { blocks(&path) }).sum::<u64>() + blocks(dir)
}

/// A raw blob.
struct Blob(Layout, Bytes);

impl Blob {
    fn new(length: usize, seed: u8) -> Self {
        let content: Bytes = (0..length).map(|at| (at / 7) as u8 ^ seed).collect::<Vec<_>>().into();
        let tree = merkle::build(&content);
        Self(Layout::raw(tree.leaves, tree.length.into()).unwrap(), content)
    }

    /// Content that repeats nowhere.
    fn noise(length: usize, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let content: Bytes = std::iter::repeat_with(|| random.u8(..)).take(length).collect::<Vec<_>>().into();
        let tree = merkle::build(&content);
        Self(Layout::raw(tree.leaves, tree.length.into()).unwrap(), content)
    }

    fn key(&self, unit: u32) -> UnitKey {
        UnitKey::of(&self.0, unit)
    }

    fn unit(&self, unit: u32) -> Vec<VerifiedPieces> {
        let part = self.1.slice(self.0.unit_range(unit).within(0));
        vec![self.0.verify(self.0.pieces_of(unit).start, part).unwrap()]
    }
}

const UNIT: usize = 2 << 20;

#[tokio::test]
async fn what_memory_lets_go_is_verified_again_on_its_way() {
    let desk = Desk::new(1 << 30, |_| ());
    let blob = Blob::new(UNIT + 100, 1);
    let tasks = TaskTracker::new();
    let from_memory = |bytes: Bytes| {
        let halves = [bytes.slice(..8192), bytes.slice(8192..)];
        let at = [0, 8192];
        let segments = at.into_iter().zip(halves).map(|(offset, bytes)| Segment::stored(offset, bytes));
        Content::FromMemory(Arc::new(Unit::new(segments.collect())))
    };
    let mut damaged = blob.1[..UNIT].to_vec();
    damaged[UNIT - 1] ^= 1;
    for (content, right) in
        [(damaged.into(), false), (blob.1.slice(..UNIT - 8192), false), (blob.1.slice(..UNIT), true)]
    {
        lock(&desk.tier.inner.paused).writes = None;
        desk.tier.write(blob.key(0), blob.0.clone(), from_memory(content), &tasks);
        while desk.tier.inner.queue.available_permits() < queue_permits(DISK_QUEUE_BYTES_MAX) as usize {
            tokio::task::yield_now().await;
        }
        assert_eq!(desk.has(&blob, 0).await, right);
    }
    assert_eq!(desk.metrics.disk_errors.get(), 2);
}

#[tokio::test]
async fn a_full_disk_is_left_alone_for_a_while() {
    let desk = Desk::new(1 << 30, |_| ());
    let (first, second) = (Blob::new(UNIT, 1), Blob::new(UNIT, 2));
    desk.write(&first, 0).await;
    desk.trouble.watch().writes_fail.store(true, Ordering::SeqCst);
    desk.write(&second, 0).await;
    assert_eq!((desk.metrics.disk_errors.get(), desk.metrics.disk_dropped.get()), (1, 0));
    assert_eq!(desk.files(), 1, "nothing is left of what could not be written");
    desk.trouble.watch().writes_fail.store(false, Ordering::SeqCst);
    desk.write(&second, 0).await;
    assert_eq!((desk.metrics.disk_errors.get(), desk.metrics.disk_dropped.get()), (1, 1));
    assert!(desk.has(&first, 0).await && !desk.has(&second, 0).await);
    assert_eq!(desk.metrics.disk_alarm.get(), 1);
    lock(&desk.tier.inner.paused).writes = Some(Instant::now());
    desk.write(&second, 0).await;
    assert!(desk.has(&second, 0).await);
    assert_eq!(desk.metrics.disk_alarm.get(), 0, "the alarm ends when it works again");
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_not_waited_for() {
    let desk = Desk::new(1 << 30, |inner| inner.read_limit = Duration::from_millis(50));
    let blob = Blob::new(UNIT, 1);
    desk.write(&blob, 0).await;
    let waiting = desk.trouble.clone();
    let (hold, held) = std::sync::mpsc::sync_channel(1);
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let holder = std::thread::spawn(move || {
        let _hangs = lock(&waiting.watch().reads_wait);
        hold.send(()).unwrap();
        released.recv().unwrap();
    });
    held.recv().unwrap();
    assert!(!desk.has(&blob, 0).await);
    assert_eq!((desk.metrics.disk_errors.get(), desk.metrics.disk_alarm.get()), (1, 1));
    let start = Instant::now();
    assert!(!desk.has(&blob, 0).await, "and not asked for a while");
    assert!(start.elapsed() < Duration::from_millis(50) || desk.metrics.disk_errors.get() == 1);
    assert!(desk.tier.known(blob.0.id(), Encoding::Raw).await.is_none());
    release.send(()).unwrap();
    holder.join().unwrap();
}

/// Writers wait, few at a time; what they cannot keep up with is dropped, and readers do not notice.
#[tokio::test]
async fn a_disk_that_takes_no_writes_takes_few_threads_and_little_memory() {
    let desk = Desk::new(1 << 30, |_| ());
    let there = Blob::new(UNIT, 1);
    desk.write(&there, 0).await;
    let waiting = desk.trouble.clone();
    let (hold, held) = std::sync::mpsc::sync_channel(1);
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let holder = std::thread::spawn(move || {
        let _hangs = lock(&waiting.watch().writes_wait);
        hold.send(()).unwrap();
        released.recv().unwrap();
    });
    held.recv().unwrap();
    let (blobs, tasks) = ((2..32).map(|seed| Blob::new(UNIT, seed)).collect::<Vec<_>>(), TaskTracker::new());
    for blob in &blobs {
        desk.tier.write(blob.key(0), blob.0.clone(), Content::Fresh(blob.unit(0)), &tasks);
    }
    let queued = DISK_QUEUE_BYTES_MAX / UNIT as u64;
    assert_eq!(desk.metrics.disk_dropped.get(), blobs.len() as u64 - queued);
    // Some of them may wait for one another rather than for the disk: blobs share a few locks.
    while desk.tier.inner.writers.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(desk.has(&there, 0).await);
    assert!(desk.trouble.watch().writing.load(Ordering::SeqCst) <= DISK_WRITERS);
    release.send(()).unwrap();
    holder.join().unwrap();
    tasks.close();
    tasks.wait().await;
    assert_eq!(desk.files() as u64, queued + 1);
}

#[tokio::test]
async fn filling_reading_and_looking_after_never_sync() {
    let desk = Desk::new(2 * UNIT as u64, |_| ());
    let before = desk.trouble.watch().syncs.load(Ordering::SeqCst);
    for seed in 0..4 {
        let blob = Blob::new(UNIT, seed);
        desk.write(&blob, 0).await;
        assert!(desk.has(&blob, 0).await);
        desk.tier.inner.tick(&mut upkeep::Upkeep::default());
    }
    assert_eq!(desk.trouble.watch().syncs.load(Ordering::SeqCst), before);
}

/// Many files with few that may be open: each is found again, and none is open twice.
#[tokio::test]
async fn more_files_than_may_be_open() {
    let desk = Desk::new(1 << 30, |inner| inner.files.open_max = 4);
    let blobs: Vec<_> = (0..30).map(|seed| Blob::new(10_000 + usize::from(seed), seed)).collect();
    for blob in blobs.iter() {
        desk.write(blob, 0).await;
    }
    let held = desk.tier.inner.file(FileKey::of(&blobs[0].key(0))).unwrap();
    for blob in blobs.iter().rev().chain(&blobs) {
        assert!(desk.has(blob, 0).await);
    }
    assert!(desk.tier.inner.file(FileKey::of(&blobs[0].key(0))).unwrap().is(&held), "in use, so not closed");
    assert_eq!(desk.metrics.disk_errors.get(), 0);
}

#[tokio::test]
async fn another_form_takes_the_place_of_the_one_on_disk() {
    let desk = Desk::new(1 << 30, |_| ());
    let content: Vec<u8> = (0..100_000_u32).map(|at| (at / 7) as u8 ^ (at % 13) as u8).collect();
    let tree = merkle::build(&content);
    let kind = DeliveryType::Type1;
    let forms = [1, 9].map(|level| {
        let encoded = Bytes::from(colibri_package::delivery::encode(&content, kind, Some(level)).unwrap());
        Blob(Layout::from_unit_h(kind, tree.leaves.clone(), &encoded).unwrap(), encoded)
    });
    assert_ne!(forms[0].0.identity(), forms[1].0.identity());
    for form in &forms {
        desk.write(form, 0).await;
        assert!(desk.has(form, 0).await);
    }
    assert!(!desk.has(&forms[0], 0).await);
    let known = desk.tier.known(forms[1].0.id(), Encoding::Delivery(kind)).await.unwrap();
    assert_eq!((known.layout.identity(), known.length), (forms[1].0.identity(), Some(tree.length)));
    assert_eq!(desk.tier.leaves(tree.id).await.unwrap(), tree.leaves);
    assert_eq!(desk.files(), 1);
}

#[tokio::test]
async fn scrubbing_finds_what_nobody_reads() {
    let desk = Desk::new(1 << 30, |_| ());
    let blobs: Vec<_> = (0..5).map(|seed| Blob::new(2 * UNIT, seed)).collect();
    for blob in &blobs {
        desk.write(blob, 0).await;
        desk.write(blob, 1).await;
    }
    let damaged = desk.tier.inner.files.path(FileKey::of(&blobs[2].key(0)));
    let file = std::fs::OpenOptions::new().write(true).open(damaged).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"rot", UNIT as u64 + 12_345).unwrap();
    let mut upkeep = upkeep::Upkeep::default();
    for round in 1..=20 {
        desk.tier.inner.scrub(&mut upkeep, UNIT as u64 / 2);
        assert!(desk.metrics.disk_scrubbed_bytes.get() <= round * UNIT as u64, "at the rate that was asked for");
    }
    assert_eq!(desk.metrics.disk_damaged.get(), 1);
    assert!(!desk.tier.has(&blobs[2].key(1)) && desk.has(&blobs[2], 0).await);
    assert!(desk.metrics.disk_scrubbed_bytes.get() >= 10 * UNIT as u64, "all of it");
    assert!(desk.metrics.disk_scrub_pass_s.get() > 0);
}
