//! What a daemon does by itself: each chore on its schedule, what came of it, and that it is taken up after a restart.

mod product;
mod scene;
mod systems;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_common::{Clock, ManualClock, SystemClock, UnixSeconds};
use colibri_device::daemon::chores::schedule::Cadence;
use colibri_device::daemon::chores::{Chores, Install};
use colibri_device::daemon::wire::{Chore, ChoreEntry, Status, Went};
use colibri_device::daemon::{Daemon, DaemonParts};
use colibri_device::{Device, DeviceConfig, Watermarks};
use colibri_release::{Availability, Versioning};
use colibri_store::{Documents, OpenMode, OsDisk, Store};
use colibri_transport::{Body, UnixConnection, UnixPeer};
use http::Method;
use product::Product;
use scene::{HOST, Scene, nobody, noise, scrub, url};
use systems::{Bench, Release, Started};
use tokio_util::sync::CancellationToken;

/// How long anything may take. A bound for a test that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

const CADENCE: Cadence = Cadence { every_s: 1000, retry_first_s: 60, retry_max_s: 600, spread_percent: 0 };

fn parts(device: Device, store: Arc<Store>, dir: &Path) -> DaemonParts {
    DaemonParts { device, store, dir: dir.to_owned(), updater: None, owner: 0, process: None }
}

/// Chores of a device in `dir`, without chance.
fn chores(dir: &Path, which: &[Chore]) -> Chores {
    let documents = Documents::open(Arc::new(OsDisk), &dir.join("state")).unwrap();
    Chores {
        cadences: which.iter().map(|chore| (*chore, CADENCE)).collect::<BTreeMap<_, _>>(),
        look_every: Duration::from_millis(5),
        lots: Arc::new(|| 0),
        ..Chores::none(documents)
    }
}

async fn ask(daemon: &Daemon, method: Method, path: &str, body: &str) -> Bytes {
    let mut request = http::Request::new(Body::full(Bytes::from(body.to_owned())));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    let peer = UnixPeer { pid: Some(7), uid: 0, gid: 0 };
    request.extensions_mut().insert(UnixConnection::within(9, peer, CancellationToken::new()));
    (daemon.handler())(request).await.into_body().read_all(1 << 20).await.unwrap()
}

/// What is told of a chore, once that is as it should be.
async fn until(daemon: &Daemon, chore: Chore, met: impl Fn(&ChoreEntry) -> bool) -> ChoreEntry {
    let began = Instant::now();
    loop {
        let status: Status = serde_json::from_slice(&ask(daemon, Method::GET, "/status", "").await).unwrap();
        let entry = status.chores.into_iter().find(|entry| entry.chore == chore).unwrap();
        if entry.running_since.is_none() && met(&entry) {
            return entry;
        }
        assert!(began.elapsed() < PATIENCE, "never: {entry:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is told of a chore once it has been done since.
async fn ended(daemon: &Daemon, chore: Chore, since: UnixSeconds) -> ChoreEntry {
    until(daemon, chore, |entry| entry.ended >= Some(since)).await
}

async fn stop(daemon: Daemon) {
    daemon.end();
    daemon.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn automatic_packages_come_by_themselves_and_are_tried_again() {
    let mut product = Product::new();
    let auto = product.simple("auto", 1);
    let cluster = product.scene.serve(1);
    let dir = product.scene.path("device");
    let start = SystemClock.now();
    let clock = Arc::new(ManualClock::new(start));
    let space = Watermarks { low_bytes: 0, high_bytes: 0 };
    let open = || Device::open(&dir, DeviceConfig { space, ..DeviceConfig::default() }, clock.clone()).unwrap();
    let (device, store) = open();
    device.repositories().add(product.scene.config(&cluster, HOST)).unwrap();
    let packages = [("auto", Availability::Automatic, Versioning::Anchored, Some(auto), None)];
    product.take(&device, &product.release("1", &packages, false)).await;
    cluster.stop().await;

    let daemon = Daemon::new(parts(device.clone(), store, &dir));
    daemon.do_chores(chores(&dir, &[Chore::Automatic])).unwrap();
    assert!(daemon.do_chores(chores(&dir, &[])).is_err(), "once in its life");
    let away = ended(&daemon, Chore::Automatic, start).await;
    assert_eq!((away.went, away.failures, away.next), (Some(Went::Incomplete), 1, Some(start.plus(60))), "{away:?}");
    assert!(away.said.unwrap().contains("1 could not be fetched"));
    clock.set(start.plus(60));
    let away = ended(&daemon, Chore::Automatic, start.plus(60)).await;
    assert_eq!((away.failures, away.next), (2, Some(start.plus(180))), "the pause doubles");
    let cluster = product.scene.serve(1);
    device.repositories().add(product.scene.config(&cluster, HOST)).unwrap();
    clock.set(start.plus(180));
    let here = ended(&daemon, Chore::Automatic, start.plus(180)).await;
    assert_eq!((here.went, here.failures, here.next), (Some(Went::Done), 0, Some(start.plus(1180))), "{here:?}");
    assert_eq!(here.said.as_deref(), Some("1 of 1 are here"));
    assert!(device.is_on_device(auto).await.unwrap());

    // After a restart it is not done because of that, and the last time is still known.
    stop(daemon).await;
    drop(device);
    clock.set(start.plus(300));
    let (device, store) = open();
    let daemon = Daemon::new(parts(device, store, &dir));
    daemon.do_chores(chores(&dir, &[Chore::Automatic])).unwrap();
    assert_eq!(until(&daemon, Chore::Automatic, |_| true).await, here);
    stop(daemon).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_space_is_collected_for_but_not_before_the_commit() {
    let scene = Scene::new();
    let hash = scene.release("app", &[("a", &noise(1, 100_000))]);
    let cluster = scene.serve(1);
    let dir = scene.path("device");
    let start = SystemClock.now();
    let clock = Arc::new(ManualClock::new(start));
    // More is to be free than any disk has.
    let space = Watermarks { low_bytes: u64::MAX, high_bytes: u64::MAX };
    let (device, store) = Device::open(&dir, DeviceConfig { space, ..DeviceConfig::default() }, clock.clone()).unwrap();
    device.repositories().add(scene.config(&cluster, HOST)).unwrap();
    device.resolve(&url("app"), nobody()).await.unwrap();
    device.set_release_committed(false);
    let daemon = Daemon::new(parts(device.clone(), store, &dir));
    daemon.do_chores(chores(&dir, &[Chore::Space])).unwrap();
    let waits = ended(&daemon, Chore::Space, start).await;
    assert!(waits.said.unwrap().contains("nothing is collected before"));
    assert!(device.is_on_device(hash).await.unwrap());
    device.set_release_committed(true);
    clock.set(start.plus(60));
    let collected = ended(&daemon, Chore::Space, start.plus(60)).await;
    assert_eq!((collected.went, collected.failures), (Some(Went::Incomplete), 2), "still short: {collected:?}");
    assert!(collected.said.unwrap().contains("were collected"));
    assert!(!device.is_on_device(hash).await.unwrap());
    stop(daemon).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_repairs_by_itself_and_goes_on_where_it_stopped() {
    let scene = Scene::new();
    let contents: Vec<_> = (0..8).map(|seed| noise(seed, 60_000)).collect();
    let names: Vec<_> = (0..8).map(|at| format!("f{at}")).collect();
    let files: Vec<_> = names.iter().zip(&contents).map(|(name, content)| (&**name, &**content)).collect();
    scene.release("app", &files);
    let cluster = scene.serve(1);
    let dir = scene.path("device");
    let start = SystemClock.now();
    let clock = Arc::new(ManualClock::new(start));
    let open = || Device::open(&dir, DeviceConfig::default(), clock.clone()).unwrap();
    let (device, store) = open();
    device.repositories().add(scene.config(&cluster, HOST)).unwrap();
    device.resolve(&url("app"), nobody()).await.unwrap();
    let [first, last] = [store.ids().unwrap()[0], *store.ids().unwrap().last().unwrap()];
    let spoil = |store: &Store, id| {
        let file = colibri_store::Disk::open(&OsDisk, &store.path(id), OpenMode::Write).unwrap();
        file.write_at(0, b"spoilt").unwrap();
    };

    // So slow that it does not come to its end.
    let daemon = Daemon::new(parts(device.clone(), store.clone(), &dir));
    let bytes_per_s = NonZeroU64::new(60_000);
    let slow = Chores { verify_bytes_per_s: bytes_per_s, verify_save_bytes: 1, ..chores(&dir, &[Chore::Verify]) };
    daemon.do_chores(slow).unwrap();
    let began = Instant::now();
    let written = || std::fs::read_to_string(dir.join("state/chores.json")).unwrap_or_default();
    while !written().contains(&first.to_string()) {
        assert!(began.elapsed() < PATIENCE, "never: {}", written());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop(daemon).await;
    spoil(&store, first);
    spoil(&store, last);
    drop((device, store));

    let (device, store) = open();
    let daemon = Daemon::new(parts(device, store.clone(), &dir));
    daemon.do_chores(chores(&dir, &[Chore::Verify])).unwrap();
    let rest = ended(&daemon, Chore::Verify, start).await;
    let said = rest.said.unwrap();
    assert!(said.contains("from where it had stopped: 1 damaged, 1 repaired"), "{said}");
    // The next time it begins at the beginning.
    clock.set(start.plus(1000));
    let said = ended(&daemon, Chore::Verify, start.plus(1000)).await.said.unwrap();
    assert!(said.starts_with("9 blobs of ") && said.ends_with("bytes: 1 damaged, 1 repaired"), "{said}");
    assert_eq!(scrub(&store), 9);
    stop(daemon).await;
    cluster.stop().await;
}

/// A daemon of a device with two slots that looks for updates every second.
fn looking(bench: &Bench, started: Started, install: Install) -> Daemon {
    let Started { device, store, updater, .. } = started;
    let parts = DaemonParts { updater: Some(Arc::new(updater)), ..parts(device, store, bench.dir()) };
    let daemon = Daemon::new(parts);
    let often = Cadence { every_s: 1, retry_first_s: 1, retry_max_s: 1, spread_percent: 0 };
    daemon
        .do_chores(Chores {
            cadences: [(Chore::UpdateCheck, often)].into(),
            update: Some(url("update").into()),
            install,
            ..chores(bench.dir(), &[])
        })
        .unwrap();
    daemon
}

async fn says(daemon: &Daemon, text: &str) {
    until(daemon, Chore::UpdateCheck, |entry| entry.said.as_ref().is_some_and(|said| said.contains(text))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_looked_for_and_installed_only_if_that_is_the_policy() {
    let bench = Bench::new();
    bench.release(&Release::new("1"));
    let daemon = looking(&bench, bench.start("0").await, Install::WhenAsked);
    says(&daemon, "version 1 is there to be installed").await;
    let history = String::from_utf8(ask(&daemon, Method::GET, "/update/history", "").await.to_vec()).unwrap();
    assert!(history.contains(r#""attempts":[]"#), "{history}");
    stop(daemon).await;

    let daemon = looking(&bench, bench.start("0").await, Install::ByItself);
    says(&daemon, "version 1 is installed, and starts next").await;
    stop(daemon).await;
    // Somebody started the machine anew.
    let daemon = looking(&bench, bench.start("1").await, Install::ByItself);
    says(&daemon, "up to date: version 1").await;
    bench.release(&Release::new("2"));
    says(&daemon, "version 2 is there, but the running system is not committed").await;
    ask(&daemon, Method::POST, "/update/commit", "{}").await;
    says(&daemon, "version 2 is installed, and starts next").await;
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_given_up_is_not_installed_again_by_itself() {
    let bench = Bench::new();
    bench.release(&Release::new("1"));
    let daemon = looking(&bench, bench.start("0").await, Install::ByItself);
    says(&daemon, "starts next").await;
    stop(daemon).await;
    for boot in ["1", "2", "3", "4"] {
        drop(bench.start(boot).await);
    }
    let daemon = looking(&bench, bench.start("4").await, Install::ByItself);
    says(&daemon, "version 1 is there, but was given up before").await;
    bench.release(&Release::new("2"));
    says(&daemon, "version 2 is installed, and starts next").await;
    stop(daemon).await;
}
