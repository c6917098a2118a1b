//! The disk tier on disks that fail, hang, have no holes, or are asked for too many files.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use colibri_common::merkle;
use colibri_service::metrics::Registry;
use colibri_store::disk::{DirEntry, DiskFile, Lock, OpenMode};
use tokio_util::task::TaskTracker;

use super::*;

/// The machine's disk, with switches.
#[derive(Debug, Clone, Default)]
struct Trouble(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    writes_fail: AtomicBool,
    /// Reads wait while this is held.
    reads_wait: Mutex<()>,
}

#[derive(Debug)]
struct TroubledFile(Arc<dyn DiskFile>, Arc<Switches>);

impl Disk for Trouble {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(TroubledFile(OsDisk.open(path, mode)?, self.0.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.hard_link(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove_file(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir(path)
    }
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        panic!("the disk tier never syncs")
    }
    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        OsDisk.list_dir(path)
    }
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        OsDisk.file_len(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(path)
    }
}

impl DiskFile for TroubledFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        drop(lock(&self.1.reads_wait));
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.1.writes_fail.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write_at(offset, data)
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.0.set_len(length_bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn punch(&self, range: ByteRange) -> io::Result<()> {
        self.0.punch(range)
    }
    fn allocated_bytes(&self) -> io::Result<u64> {
        self.0.allocated_bytes()
    }
    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.0.try_lock(lock)
    }
    fn unlock(&self) -> io::Result<()> {
        self.0.unlock()
    }
}

/// A tier with what a test needs around it.
struct Desk {
    dir: tempfile::TempDir,
    trouble: Trouble,
    tier: DiskTier,
    metrics: Metrics,
}

impl Desk {
    fn new(bytes: u64, adjust: impl FnOnce(&mut Inner)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (trouble, metrics) = (Trouble::default(), Metrics::register(&Registry::new()).unwrap());
        let config = DiskTierConfig { dir: dir.path().to_owned(), bytes, admission: Admission::Always };
        let mut tier = DiskTier::open_on(Arc::new(trouble.clone()), &config, metrics.clone()).unwrap();
        adjust(Arc::get_mut(&mut tier.inner).unwrap());
        Self { dir, trouble, tier, metrics }
    }

    /// Writes a unit and waits for the disk.
    async fn write(&self, blob: &Blob, unit: u32) {
        let tasks = TaskTracker::new();
        self.tier.write(blob.key(unit), blob.0.clone(), Content::Fresh(blob.unit(unit)), &tasks);
        tasks.close();
        tasks.wait().await;
    }

    async fn has(&self, blob: &Blob, unit: u32) -> bool {
        let Some(segments) = self.tier.read(blob.key(unit)).await else { return false };
        let joined: Vec<u8> = segments.iter().flat_map(|segment| segment.bytes().to_vec()).collect();
        assert!(joined == blob.1[blob.0.unit_range(unit).within(0)], "right or absent");
        assert!(segments.iter().all(|segment| segment.bytes().len() as u64 <= SEGMENT_BYTES));
        true
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }
}

/// A raw blob.
struct Blob(Layout, Bytes);

impl Blob {
    fn new(length: usize, seed: u8) -> Self {
        let content: Bytes = (0..length).map(|at| (at / 7) as u8 ^ seed).collect::<Vec<_>>().into();
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
        *lock(&desk.tier.inner.paused_until) = None;
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
    desk.trouble.0.writes_fail.store(true, Ordering::SeqCst);
    desk.write(&second, 0).await;
    assert_eq!((desk.metrics.disk_errors.get(), desk.metrics.disk_dropped.get()), (1, 0));
    assert_eq!(desk.files(), 1, "nothing is left of what could not be written");
    desk.trouble.0.writes_fail.store(false, Ordering::SeqCst);
    desk.write(&second, 0).await;
    assert_eq!((desk.metrics.disk_errors.get(), desk.metrics.disk_dropped.get()), (1, 1));
    assert!(desk.has(&first, 0).await && !desk.has(&second, 0).await);
    *lock(&desk.tier.inner.paused_until) = Some(Instant::now());
    desk.write(&second, 0).await;
    assert!(desk.has(&second, 0).await);
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
        let _hangs = lock(&waiting.0.reads_wait);
        hold.send(()).unwrap();
        released.recv().unwrap();
    });
    held.recv().unwrap();
    assert!(!desk.has(&blob, 0).await);
    assert_eq!(desk.metrics.disk_errors.get(), 1);
    release.send(()).unwrap();
    holder.join().unwrap();
}

#[tokio::test]
async fn the_files_used_longest_ago_go_when_there_are_too_many() {
    let desk = Desk::new(1 << 30, |inner| inner.files.files_max = 3);
    let blobs: Vec<_> = (0..5).map(|seed| Blob::new(10_000, seed)).collect();
    for blob in &blobs[..3] {
        desk.write(blob, 0).await;
    }
    assert!(desk.has(&blobs[0], 0).await);
    for blob in &blobs[3..] {
        desk.write(blob, 0).await;
    }
    let mut here = Vec::new();
    for blob in &blobs {
        here.push(desk.has(blob, 0).await);
    }
    assert_eq!((here, desk.files()), (vec![true, false, false, true, true], 3));
    assert_eq!(desk.tier.inner.policy.len(), 3, "the index forgets them too");
    assert_eq!(desk.metrics.disk_errors.get(), 0);
}

#[tokio::test]
async fn a_unit_that_is_being_read_goes_later() {
    let desk = Desk::new(2 * UNIT as u64 + 100_000, |_| ());
    let (old, new) = (Blob::new(2 * UNIT, 1), Blob::new(2 * UNIT, 2));
    desk.write(&old, 0).await;
    desk.write(&old, 1).await;
    let file = desk.tier.inner.files.get(&old.key(0)).unwrap();
    let guard = file.hold(0..2);
    desk.write(&new, 0).await;
    desk.write(&new, 1).await;
    let doomed = lock(&desk.tier.inner.doomed).len();
    assert!(doomed > 0 && file.used_units().len() == 2);
    drop(guard);
    desk.write(&Blob::new(UNIT, 3), 0).await;
    assert_eq!(lock(&desk.tier.inner.doomed).len(), 0);
    let left = file.used_units().len();
    assert!(left < 2, "{left}");
}

#[tokio::test]
async fn without_holes_whole_files_go() {
    let desk = Desk::new(3 * UNIT as u64 + 100_000, |inner| inner.files.punching = HolePunching::Unsupported);
    let (old, new) = (Blob::new(2 * UNIT, 1), Blob::new(3 * UNIT, 2));
    for (blob, unit) in [(&old, 0), (&old, 1), (&new, 0), (&new, 1), (&new, 2)] {
        desk.write(blob, unit).await;
    }
    let allocated: u64 = std::fs::read_dir(desk.dir.path())
        .unwrap()
        .map(|entry| std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512)
        .sum();
    assert!(allocated <= 3 * UNIT as u64 + 100_000, "{allocated}");
    for unit in 0..2 {
        desk.has(&old, unit).await;
    }
}
