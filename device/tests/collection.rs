//! Collection on a whole device: beside resolves, under pressure, with leases, over restarts.

mod scene;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use colibri_common::{BlobId, ManualClock, UnixSeconds};
use colibri_device::{Depth, Device, DeviceConfig, DeviceError, Rank};
use colibri_store::Store;
use scene::{HOST, Scene, nobody, noise, scrub, url};

fn held(store: &Store) -> BTreeSet<BlobId> {
    store.ids().unwrap().into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_8_collections_beside_resolves_lose_nothing() {
    let scene = Scene::new();
    let shared = noise(1, 40_000);
    let names: Vec<_> = (0..6).map(|number| format!("app{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let own = noise(10 + number as u64, 30_000);
        scene.release(name, &[("shared", &shared), ("own", &own)]);
    }
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let resolves = names.iter().map(|name| {
        let (device, url) = (device.clone(), url(name));
        tokio::spawn(async move {
            for round in 0..5 {
                let opened = device.resolve_open(&url, &format!("round {round}"), nobody()).await.unwrap();
                assert!(device.is_on_device(opened.lease.package()).await.unwrap(), "{url} in round {round}");
            }
        })
    });
    let resolves: Vec<_> = resolves.collect();
    let mut removed = 0;
    while resolves.iter().any(|resolve| !resolve.is_finished()) {
        removed += device.collect(Depth::Unused).await.unwrap().removed.len();
    }
    for resolve in resolves {
        resolve.await.unwrap();
    }
    removed += device.collect(Depth::Unused).await.unwrap().removed.len();
    assert!(removed >= 13, "{removed}: six packages of two blobs, and a shared one");
    assert_eq!(held(&store), BTreeSet::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_protects_a_package_its_subpackages_and_its_tree() {
    let scene = Scene::new();
    let inner = scene.build("inner", &[("data/deep", &noise(5, 20_000))], &[]);
    let outer = scene.build("outer", &[("bin/app", b"app")], &[&inner]);
    scene.publish(&[&outer]);
    scene.release("other", &[("a", b"other")]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let opened = device.resolve_open(&url("outer"), "shell 7", nobody()).await.unwrap();
    device.resolve(&url("other"), nobody()).await.unwrap();
    let tree = device.tree(&opened.lease).await.unwrap();
    assert_eq!(fs::read(tree.join("bin/app")).unwrap(), b"app");
    assert_eq!(device.tree(&opened.lease).await.unwrap(), tree, "made once");
    let leases = device.leases();
    assert_eq!(leases.len(), 1);
    assert_eq!((leases[0].package, &*leases[0].holder), (outer.hash, "shell 7"));

    let report = device.collect(Depth::Unused).await.unwrap();
    assert_eq!((report.removed.len(), report.trees_removed, scrub(&store)), (2, 0, 4));
    assert_eq!(fs::read(tree.join("bin/app")).unwrap(), b"app");
    drop(opened);
    let report = device.collect(Depth::Unused).await.unwrap();
    assert_eq!((report.removed.len(), report.trees_removed, scrub(&store)), (4, 1, 0));
    assert!(!tree.exists());
    assert!(matches!(device.lease(outer.hash, "late").await, Err(DeviceError::NotOnDevice(_))));
    assert_eq!(device.leases(), []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_collected_before_the_release_is_committed() {
    let scene = Scene::new();
    scene.release("app", &[("a", b"app")]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    device.set_release_committed(false);
    for depth in [Depth::Garbage, Depth::Unused, Depth::Free { bytes: u64::MAX }] {
        assert!(matches!(device.collect(depth).await, Err(DeviceError::PendingCommit)));
    }
    assert_eq!(scrub(&store), 2);
    device.set_release_committed(true);
    assert_eq!(device.collect(Depth::Unused).await.unwrap().removed.len(), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn least_recently_used_packages_go_first_also_after_a_restart() {
    let scene = Scene::new();
    let hashes: Vec<_> =
        (0..3).map(|number| scene.release(&format!("app{number}"), &[("a", &noise(number, 50_000))])).collect();
    let cluster = scene.serve(1);
    let now = colibri_common::SystemClock;
    let start = colibri_common::Clock::now(&now);
    let clock = Arc::new(ManualClock::new(start));
    let dir = scene.path("device");
    {
        let (device, _store) = Device::open(&dir, DeviceConfig::default(), clock.clone()).unwrap();
        device.repositories().add(scene.config(&cluster, HOST)).unwrap();
        for (later, name) in [(1, "app1"), (2, "app0"), (3, "app2"), (4, "app1")] {
            clock.set(UnixSeconds(start.0 + later * 7200));
            device.resolve(&url(name), nobody()).await.unwrap();
        }
    }
    let (device, store) = Device::open(&dir, DeviceConfig::default(), clock).unwrap();
    assert_eq!(device.collect(Depth::Garbage).await.unwrap().removed, []);
    let report = device.collect(Depth::Free { bytes: 1 }).await.unwrap();
    assert_eq!(report.evicted, [(hashes[0], Rank::OnDemand)]);
    assert!(report.removed_bytes > 50_000);
    let report = device.collect(Depth::Free { bytes: 100_000 }).await.unwrap();
    assert_eq!(report.evicted.iter().map(|(hash, _)| *hash).collect::<Vec<_>>(), [hashes[2], hashes[1]]);
    assert_eq!(scrub(&store), 0);
    assert_eq!(device.collect(Depth::Unused).await.unwrap(), Default::default(), "nothing is given up twice");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_updater_retains_outlives_the_process() {
    let scene = Scene::new();
    let hash = scene.release("update", &[("images", &noise(3, 9_000))]);
    scene.release("app", &[("a", b"app")]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let unasked = device.fetch_retained(HOST, hash, nobody()).await;
    assert!(matches!(unasked, Err(DeviceError::Internal(_))), "retained first: {unasked:?}");
    device.retain([hash], []).await.unwrap();
    assert_eq!(device.fetch_retained(HOST, hash, nobody()).await.unwrap().fetched, 2);
    device.resolve(&url("app"), nobody()).await.unwrap();
    drop((device, store));
    let (device, store) =
        Device::open(&scene.path("device"), DeviceConfig::default(), Arc::new(colibri_common::SystemClock)).unwrap();
    assert_eq!(device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap().removed.len(), 2);
    assert_eq!(scrub(&store), 2);
    assert!(device.is_on_device(hash).await.unwrap());
    device.retain([], [hash]).await.unwrap();
    assert_eq!(device.collect(Depth::Garbage).await.unwrap().removed.len(), 1, "of a single blob only itself is kept");
    device.retain([], []).await.unwrap();
    assert_eq!(device.collect(Depth::Garbage).await.unwrap().removed, [hash]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_stops_collection_and_nothing_else() {
    let scene = Scene::new();
    scene.release("app", &[("a", b"app")]);
    let cluster = scene.serve(1);
    let repository = scene.config(&cluster, HOST);
    let (device, store) = scene.device("device", DeviceConfig::default(), repository);
    device.resolve(&url("app"), nobody()).await.unwrap();
    drop((device, store));
    fs::write(scene.path("device/state/package-cache.json"), b"{\"format\":1,").unwrap();
    let (device, store) =
        Device::open(&scene.path("device"), DeviceConfig::default(), Arc::new(colibri_common::SystemClock)).unwrap();
    assert!(matches!(device.collect(Depth::Garbage).await, Err(DeviceError::DamagedCache { .. })));
    device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!(scrub(&store), 2);
    cluster.stop().await;
}
