//! Verifying what is at rest, repairing it, and space that runs short.

mod scene;

use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_common::SystemClock;
use colibri_device::{Device, DeviceConfig, DeviceError, Event, KeepError, VerifyAt, VerifyOptions, Watermarks};
use colibri_release::{Availability, ReleasePackage, Versioning};
use colibri_store::disk::{DirEntry, OpenMode};
use colibri_store::{Disk, DiskFile, OsDisk, Store};
use scene::{HOST, Scene, nobody, noise, scrub, url};

/// Spoils one byte of a blob.
fn spoil(store: &Store, id: colibri_common::BlobId, at: usize) {
    let path = store.path(id);
    let mut content = fs::read(&path).unwrap();
    content[at] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(path, content).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_bad_unit_is_fetched_again() {
    let scene = Scene::new();
    let content = noise(1, 9_000_000);
    let hash = scene.release("app", &[("big", &content), ("small", b"small"), ("empty", b"")]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    let big = colibri_common::merkle::build(&content).id;
    spoil(&store, big, 5_000_000);
    spoil(&store, hash, 20);
    let bytes = || {
        device.repositories().get(HOST).unwrap().sources().list().iter().map(|source| source.body_bytes()).sum::<u64>()
    };
    let before = bytes();

    let look = VerifyOptions { only_look: true, ..VerifyOptions::default() };
    let report = device.verify(look, nobody(), |_| {}).await.unwrap();
    let mut damaged: Vec<_> = report.damaged.iter().map(|damage| (damage.blob, damage.offset)).collect();
    damaged.sort_by_key(|(_, offset)| *offset);
    assert_eq!(damaged, [(hash, 0), (big, 5_000_000 / 8192 * 8192)]);
    assert!(report.damaged.iter().all(|damage| damage.lost.is_some()));
    assert_eq!(bytes(), before, "it only looked");

    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = told.clone();
    let observer = Arc::new(move |event| {
        if let Event::Verified { id, content_bytes } = event {
            hear.lock().unwrap().push((id, content_bytes));
        }
    });
    let seen = AtomicU64::new(0);
    let progress = |at: VerifyAt| seen.store(at.bytes_total - at.bytes, Ordering::SeqCst);
    let report = device.verify(VerifyOptions::default(), observer, progress).await.unwrap();
    assert_eq!((report.blobs, report.damaged.len()), (4, 2));
    assert!(report.damaged.iter().all(|damage| damage.lost.is_none()), "{:?}", report.damaged);
    assert!(bytes() - before < 2 * (2 << 20) + 300_000, "{} bytes for one bad unit", bytes() - before);
    let fetched: u64 = told.lock().unwrap().iter().filter(|(id, _)| *id == big).map(|(_, bytes)| bytes).sum();
    assert!(fetched > 0 && fetched <= 2 * (2 << 20), "{fetched}");
    assert_eq!(scrub(&store), 4);
    let steps = Mutex::new(Vec::new());
    let whole = device.verify(VerifyOptions::default(), nobody(), |at| steps.lock().unwrap().push(at)).await.unwrap();
    assert_eq!((whole.blobs, &whole.damaged[..]), (4, &[][..]));
    let steps = steps.into_inner().unwrap();
    assert_eq!(steps.last().map(|at| (at.bytes, at.done)), Some((whole.bytes, store.ids().unwrap().last().copied())));
    // Stopped after any blob it can be gone on with from there.
    let third = store.ids().unwrap()[2];
    let at = steps.iter().find(|at| at.done == Some(third)).unwrap();
    let rest = VerifyOptions { after: Some(third), ..VerifyOptions::default() };
    let rest = device.verify(rest, nobody(), |_| {}).await.unwrap();
    assert_eq!((rest.blobs, rest.bytes), (1, whole.bytes - at.bytes));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_repaired_is_absent_and_said() {
    let scene = Scene::new();
    let hash = scene.release("app", &[("a", &noise(2, 50_000))]);
    let cluster = scene.serve(1);
    let config = DeviceConfig { http3: false, ..DeviceConfig::default() };
    let (device, store) = scene.device("device", config, scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    let lease = device.lease(hash, "test").await.unwrap();
    let tree = device.tree(&lease).await.unwrap();
    drop(lease);
    let blob = colibri_common::merkle::build(&noise(2, 50_000)).id;
    spoil(&store, blob, 0);
    cluster.stop().await;
    let report = device.verify(VerifyOptions::default(), nobody(), |_| {}).await.unwrap();
    assert!(matches!(&report.damaged[..], [damage] if damage.blob == blob && damage.lost.is_some()), "{report:?}");
    assert!(!device.is_on_device(hash).await.unwrap());
    assert_eq!((report.trees_removed, tree.exists()), (1, false), "it may share what was bad");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_reading_is_bounded() {
    let scene = Scene::new();
    scene.release("app", &[("a", &noise(3, 300_000))]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    let options = VerifyOptions { bytes_per_s: NonZeroU64::new(300_000), ..VerifyOptions::default() };
    let begun = Instant::now();
    device.verify(options, nobody(), |_| {}).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    cluster.stop().await;
}

/// The machine's disk, on which so much is free as a test says.
#[derive(Debug)]
struct Short {
    disk: OsDisk,
    free_bytes: AtomicU64,
    /// Nothing can be begun until something is removed.
    is_full: AtomicBool,
}

impl Default for Short {
    fn default() -> Self {
        Self { disk: OsDisk, free_bytes: AtomicU64::new(u64::MAX), is_full: AtomicBool::new(false) }
    }
}

impl Disk for Short {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::Create && self.is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.open(path, mode)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.hard_link(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.is_full.store(false, Ordering::SeqCst);
        self.disk.remove_file(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list_dir(path)
    }
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.disk.file_len(path)
    }
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.free_bytes.load(Ordering::SeqCst))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_low_watermark_a_resolve_makes_room_up_to_the_high_one() {
    let scene = Scene::new();
    let hashes: Vec<_> =
        (0..4).map(|seed| scene.release(&format!("app{seed}"), &[("a", &noise(seed, 100_000))])).collect();
    let cluster = scene.serve(1);
    let short = Arc::new(Short::default());
    let disk: Arc<dyn Disk> = short.clone();
    let space = Watermarks { low_bytes: 1_000_000, high_bytes: 1_200_000 };
    let config = DeviceConfig { space, ..DeviceConfig::default() };
    let clock = Arc::new(colibri_common::ManualClock::new(colibri_common::Clock::now(&SystemClock)));
    let (device, store) = Device::open_on(&disk, &scene.path("device"), config, clock.clone()).unwrap();
    device.repositories().add(scene.config(&cluster, HOST)).unwrap();
    for (later, name) in ["app0", "app1", "app2"].into_iter().enumerate() {
        clock.set(colibri_common::Clock::now(&SystemClock).plus(later as u64));
        device.resolve(&url(name), nobody()).await.unwrap();
    }
    let lease = device.lease(hashes[0], "test").await.unwrap();
    short.free_bytes.store(1_000_000, Ordering::SeqCst);
    device.resolve(&url("app3"), nobody()).await.unwrap();
    assert_eq!(scrub(&store), 8, "at the mark nothing happens");
    short.free_bytes.store(999_999, Ordering::SeqCst);
    clock.set(colibri_common::Clock::now(&SystemClock).plus(9));
    device.resolve(&url("app3"), nobody()).await.unwrap();
    let mut is_here = Vec::new();
    for hash in &hashes {
        is_here.push(device.is_on_device(*hash).await.unwrap());
    }
    assert_eq!(is_here, [true, false, false, true], "two had to go; app0, the oldest, is open");
    drop(lease);
    // Not committed: what there is has to do.
    device.set_release_committed(false);
    device.resolve(&url("app1"), nobody()).await.unwrap();
    assert!(device.is_on_device(hashes[0]).await.unwrap());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_an_abandoned_fetch_goes_before_any_package() {
    let scene = Scene::new();
    let hash = scene.release("app", &[("a", &noise(1, 100_000))]);
    scene.release("other", &[("a", &noise(2, 10_000))]);
    let cluster = scene.serve(1);
    let short = Arc::new(Short::default());
    let disk: Arc<dyn Disk> = short.clone();
    let space = Watermarks { low_bytes: 1_000_000, high_bytes: 3_000_000 };
    let config = DeviceConfig { space, ..DeviceConfig::default() };
    let (device, store) = Device::open_on(&disk, &scene.path("device"), config, Arc::new(SystemClock)).unwrap();
    device.repositories().add(scene.config(&cluster, HOST)).unwrap();
    device.resolve(&url("app"), nobody()).await.unwrap();
    let content = Bytes::from(noise(3, 2_500_000));
    let tree = colibri_common::merkle::build(&content);
    let abandon = || {
        let mut abandoned = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
        abandoned.write(&tree.leaves.verify(0, content.slice(..2 << 20)).unwrap()).unwrap();
    };
    abandon();
    short.free_bytes.store(999_999, Ordering::SeqCst);
    device.resolve(&url("other"), nobody()).await.unwrap();
    assert_eq!(store.stats().unwrap().partials, 0);
    assert!(device.is_on_device(hash).await.unwrap(), "two MiB came free without it");

    // So does a forecast count: without that this release would not fit.
    let big = scene.release("big", &[("a", &noise(4, 1_500_000))]);
    let package = ReleasePackage {
        url: format!("fuchsia-pkg://{HOST}/big").parse().unwrap(),
        availability: Availability::Permanent,
        versioning: Versioning::Anchored,
        hash: Some(big),
        minimum_version: None,
    };
    let release = scene.product_release("1", vec![package], |_| ());
    let too_little = device.plan(&release).await;
    assert!(matches!(too_little, Err(DeviceError::CannotFit(_))), "{too_little:?}");
    abandon();
    let plan = device.plan(&release).await.unwrap();
    assert_eq!((plan.evicted, store.stats().unwrap().partials), (vec![], 1));
    device.fetch_before_commit(&release, nobody()).await.unwrap();
    assert_eq!(store.stats().unwrap().partials, 0);
    assert!(device.is_on_device(big).await.unwrap());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_collected_once_and_the_fetch_goes_on() {
    let scene = Scene::new();
    let old = scene.release("old", &[("a", &noise(1, 200_000))]);
    let hash = scene.release("new", &[("a", &noise(2, 200_000)), ("b", &noise(3, 200_000))]);
    let cluster = scene.serve(1);
    let short = Arc::new(Short::default());
    let disk: Arc<dyn Disk> = short.clone();
    let (device, _store) =
        Device::open_on(&disk, &scene.path("device"), DeviceConfig::default(), Arc::new(SystemClock)).unwrap();
    device.repositories().add(scene.config(&cluster, HOST)).unwrap();
    device.resolve(&url("old"), nobody()).await.unwrap();
    short.is_full.store(true, Ordering::SeqCst);
    device.set_release_committed(false);
    let full = device.resolve(&url("new"), nobody()).await;
    assert!(matches!(full, Err(DeviceError::Keep(KeepError::NoSpace(_)))), "{full:?}");
    device.set_release_committed(true);
    assert_eq!(device.resolve(&url("new"), nobody()).await.unwrap().hash, hash);
    assert!(!device.is_on_device(old).await.unwrap());
    assert!(device.is_on_device(hash).await.unwrap());
    cluster.stop().await;
}
