//! The invariants of docs/ARCHITECTURE.md that only the whole system can show. Those of single parts are tested with them;
//! the page names each test.

use std::sync::Arc;

use colibri_cluster::{Cluster, ClusterConfig};
use colibri_common::{Clock, ManualClock, SystemClock, merkle};
use colibri_device::{Device, DeviceConfig};
use colibri_package::url::AbsolutePackageUrl;
use colibri_store::Store;
use colibri_tests::{Desk, REPOSITORY, files};

fn start(desk: &Desk, edges: usize) -> Cluster {
    Cluster::start(&ClusterConfig {
        repositories: vec![(REPOSITORY.to_owned(), desk.repository.dir().to_owned())],
        edges,
        edge_memory_bytes: 64 << 20,
        edge_disk_bytes: 256 << 20,
        work: desk.dir.path().join("edges"),
        block_udp: false,
    })
    .unwrap()
}

fn device(desk: &Desk, cluster: &Cluster, name: &str) -> (Device, Arc<Store>) {
    device_at(desk, cluster, name, Arc::new(SystemClock))
}

fn device_at(desk: &Desk, cluster: &Cluster, name: &str, clock: Arc<dyn Clock>) -> (Device, Arc<Store>) {
    let (device, store) = Device::open(&desk.dir.path().join(name), DeviceConfig::default(), clock).unwrap();
    let config = cluster.device_config(REPOSITORY, desk.repository.metadata().unwrap().root()).unwrap();
    device.repositories().add(config).unwrap();
    (device, store)
}

fn url(name: &str) -> AbsolutePackageUrl {
    format!("fuchsia-pkg://{REPOSITORY}/{name}").parse().unwrap()
}

fn assert_all_proven(store: &Store) -> usize {
    let ids = store.ids().unwrap();
    for id in &ids {
        assert_eq!(merkle::build(&std::fs::read(store.path(*id)).unwrap()).id, *id);
    }
    ids.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_1_no_unverified_byte_is_kept_though_every_edge_lies() {
    let desk = Desk::new();
    desk.release("app", &files(1));
    let cluster = start(&desk, 2);
    let (device, store) = device(&desk, &cluster, "device");
    cluster.edges.iter().for_each(|edge| edge.lies.set(true));
    let error = device.resolve(&url("app"), Arc::new(|_| ())).await.unwrap_err();
    assert!(cluster.edges.iter().any(|edge| error.to_string().contains(&edge.node.authority())), "{error}");
    assert_eq!(assert_all_proven(&store), 0, "nothing of what liars sent was kept");
    // One honest edge is enough; both were blamed, so neither is banned.
    cluster.edges[0].lies.set(false);
    device.resolve(&url("app"), Arc::new(|_| ())).await.unwrap();
    assert_eq!(assert_all_proven(&store), 6);
    assert!(!device.repositories().get(REPOSITORY).unwrap().sources().blames().is_empty());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_wiping_an_edges_disk_under_load_loses_nothing() {
    let desk = Desk::new();
    desk.release("app", &files(2));
    let cluster = start(&desk, 1);
    let wiped = desk.dir.path().join("edges/edge-1");
    for round in 0..3 {
        let (device, store) = device(&desk, &cluster, &format!("device-{round}"));
        let wipe = tokio::task::spawn_blocking({
            let wiped = wiped.clone();
            move || {
                for entry in std::fs::read_dir(&wiped).into_iter().flatten().flatten() {
                    drop(std::fs::remove_file(entry.path()));
                }
            }
        });
        device.resolve(&url("app"), Arc::new(|_| ())).await.unwrap();
        wipe.await.unwrap();
        assert_eq!(assert_all_proven(&store), 6);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_3_a_release_that_is_not_whole_is_never_visible() {
    let desk = Desk::new();
    desk.release("app", &files(3));
    let before = desk.repository.versions().unwrap();
    let changed = files(4);
    let (manifest, _) = desk.build("app", &changed);
    let missing = merkle::build(&changed["bin/app"]).id.to_string();
    std::fs::remove_file(manifest.with_file_name(&missing)).unwrap();
    let error = desk.publish(vec![manifest]).unwrap_err();
    assert!(error.to_string().contains(&missing), "{error}");
    let after = desk.repository.versions().unwrap();
    assert_eq!(before.timestamp, after.timestamp, "no timestamp exposes it");
    let cluster = start(&desk, 1);
    let (device, store) = device(&desk, &cluster, "device");
    device.resolve(&url("app"), Arc::new(|_| ())).await.unwrap();
    assert_eq!(assert_all_proven(&store), 6, "the release before is still whole");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_5_many_devices_cause_one_origin_fetch_per_unit_and_edge() {
    let desk = Desk::new();
    desk.release("app", &files(5));
    let cluster = start(&desk, 1);
    let devices = (0..12).map(|number| {
        let (device, store) = device(&desk, &cluster, &format!("device-{number}"));
        async move {
            device.resolve(&url("app"), Arc::new(|_| ())).await.unwrap();
            assert_all_proven(&store)
        }
    });
    let devices: Vec<_> = devices.map(tokio::spawn).collect();
    for device in devices {
        assert_eq!(device.await.unwrap(), 6);
    }
    assert_eq!(cluster.origin_log.fetches_per_unit_max(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_no_older_metadata_set_is_accepted_and_the_clock_ends_a_freeze() {
    let desk = Desk::new();
    let old = desk.release("app", &files(6));
    let cluster = start(&desk, 1);
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let (device, _) = device_at(&desk, &cluster, "device", clock.clone());
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), old);
    // An attacker keeps a copy of the old repository and serves it again after an update.
    let (served, kept) = (desk.repository.served_dir(), desk.dir.path().join("kept"));
    std::fs::create_dir(&kept).unwrap();
    let metadata_files = || {
        let entries = std::fs::read_dir(&served).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect::<Vec<_>>()
    };
    for file in metadata_files() {
        std::fs::copy(&file, kept.join(file.file_name().unwrap())).unwrap();
    }
    let new = desk.release("app", &files(7));
    device.refresh(REPOSITORY, true).await.unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), new);
    for file in metadata_files() {
        let old = kept.join(file.file_name().unwrap());
        if old.exists() {
            std::fs::copy(old, &file).unwrap()
        } else {
            std::fs::remove_file(&file).map(|()| 0).unwrap()
        };
    }
    let refused = device.refresh(REPOSITORY, true).await;
    let set = device.repositories().get(REPOSITORY).unwrap().trusted().unwrap();
    assert!(refused.is_err(), "a rollback is said aloud");
    assert_eq!(set.find(&"app/0".parse().unwrap()).unwrap().merkle(), Some(new), "and what was newest stays");
    // The clock moves on: a set that is served for ever expires.
    clock.set(SystemClock.now().plus(400 * 24 * 3600));
    let expired = device.get_hash(&url("app")).await.unwrap_err();
    assert!(expired.to_string().contains("expired"), "{expired}");
    cluster.stop().await;
}
