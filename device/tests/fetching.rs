//! How blobs are fetched: what an earlier version has is not, several edges give parts of one blob, and bounds hold.

mod scene;

use std::sync::Arc;
use std::time::{Duration, Instant};

use colibri_cluster::{Cluster, ClusterConfig};
use colibri_common::SystemClock;
use colibri_device::{Device, DeviceConfig, Preference};
use colibri_package::delivery::DeliveryType;
use colibri_transport::Trust;
use scene::{HOST, Scene, nobody, noise, scrub, url};

const LARGE_BYTES: usize = 6_300_000;

fn body_bytes(device: &Device) -> Vec<u64> {
    let repository = device.repositories().get(HOST).unwrap();
    repository.sources().list().iter().map(|source| source.body_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_of_the_version_before_are_copied_where_nothing_moved() {
    for preference in [Preference::Raw, Preference::Delivery(DeliveryType::Type1)] {
        let scene = Scene::new();
        let mut large = noise(1, LARGE_BYTES);
        scene.release("app", &[("data/large", &large), ("small", b"small")]);
        let cluster = scene.serve(1);
        let repository = scene.config(&cluster, HOST);
        let config = DeviceConfig { preference, ..DeviceConfig::default() };
        let (device, store) = scene.device("device", config.clone(), repository);
        let first = device.resolve(&url("app"), nobody()).await.unwrap().report;
        assert_eq!((first.fetched, first.reused_bytes), (3, 0));

        // In two places something else, and nothing moved. What the device had before a restart counts.
        large[100_000..100_100].fill(7);
        large[5_000_000] ^= 1;
        scene.release("app", &[("data/large", &large), ("small", b"small")]);
        drop((device, store));
        let (device, store) = Device::open(&scene.path("device"), config.clone(), Arc::new(SystemClock)).unwrap();
        let second = device.resolve(&url("app"), nobody()).await.unwrap().report;
        assert_eq!((second.fetched, scrub(&store)), (2, 5));
        let fetched = second.content_bytes - second.reused_bytes;
        // A frame of the delivery form is fetched whole.
        assert!(fetched < 300_000, "{preference:?}: {second:?}");
        assert!(body_bytes(&device)[0] < 600_000, "{preference:?}: {:?}", body_bytes(&device));

        // A byte more at the front: everything has moved.
        large.insert(0, 1);
        scene.release("app", &[("data/large", &large), ("small", b"small")]);
        device.refresh(HOST, true).await.unwrap();
        let third = device.resolve(&url("app"), nobody()).await.unwrap().report;
        assert_eq!((third.fetched, third.reused_bytes, scrub(&store)), (2, 0, 7));
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_earlier_version_spoils_nothing() {
    let scene = Scene::new();
    let mut large = noise(2, LARGE_BYTES);
    let id = colibri_common::merkle::build(&large).id;
    scene.release("app", &[("large", &large)]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    let mut at_rest = std::fs::read(store.path(id)).unwrap();
    at_rest[3_000_000] ^= 1;
    std::fs::write(store.path(id), at_rest).unwrap();
    large[10] ^= 1;
    scene.release("app", &[("large", &large)]);
    device.refresh(HOST, true).await.unwrap();
    let report = device.resolve(&url("app"), nobody()).await.unwrap().report;
    assert!(report.reused_bytes > LARGE_BYTES as u64 / 2, "{report:?}");
    store.scrub(colibri_common::merkle::build(&large).id).unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn units_of_a_large_blob_come_from_several_edges() {
    let scene = Scene::new();
    let large = noise(3, 4 * LARGE_BYTES);
    scene.release("app", &[("large", &large)]);
    let cluster = scene.serve(3);
    for preference in [Preference::Raw, Preference::Delivery(DeliveryType::Type1)] {
        let config = DeviceConfig { preference, requests_per_mirror: 2, ..DeviceConfig::default() };
        let name = format!("{preference:?}").replace(['(', ')'], "");
        let (device, store) = scene.device(&name, config, scene.config(&cluster, HOST));
        device.resolve(&url("app"), nobody()).await.unwrap();
        assert_eq!(scrub(&store), 2);
        let (given, total) = (body_bytes(&device), 4 * LARGE_BYTES as u64);
        assert!(given.iter().all(|bytes| *bytes > total / 5), "each gives its part: {given:?}");
        assert!(given.iter().sum::<u64>() < total + 600_000, "and nothing comes twice: {given:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_on_bytes_per_second_holds_for_all_mirrors_together() {
    let scene = Scene::new();
    scene.release("app", &[("one", &noise(4, 2_000_000)), ("two", &noise(5, 2_000_000))]);
    let cluster = scene.serve(2);
    let config = DeviceConfig { bandwidth_bytes_per_s: 4_000_000, ..DeviceConfig::default() };
    let (device, store) = scene.device("device", config, scene.config(&cluster, HOST));
    let began = Instant::now();
    device.resolve(&url("app"), nobody()).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(850), "4 MB at 4 MB/s took {:?}", began.elapsed());
    assert_eq!(scrub(&store), 3);
    cluster.stop().await;
}

/// So many packages are fetched at once, and one of which nothing is missing waits for none of them.
#[tokio::test(flavor = "multi_thread")]
async fn packages_wait_for_each_other_unless_they_are_here() {
    let scene = Scene::new();
    scene.release("here", &[("a", b"here")]);
    let sizes = [4_000_000, 3_000_000, 2_000_000];
    for (seed, bytes) in sizes.into_iter().enumerate() {
        scene.release(&format!("large{seed}"), &[("a", &noise(seed as u64, bytes))]);
    }
    let cluster = scene.serve(1);
    let slowly = DeviceConfig { packages_at_once: 1, bandwidth_bytes_per_s: 6_000_000, ..DeviceConfig::default() };
    let (device, store) = scene.device("device", slowly, scene.config(&cluster, HOST));
    device.resolve(&url("here"), nobody()).await.unwrap();
    let order: Arc<std::sync::Mutex<Vec<usize>>> = Arc::default();
    let resolves: Vec<_> = (0..sizes.len())
        .map(|number| {
            let (device, order) = (device.clone(), order.clone());
            let observer: colibri_device::Observer = Arc::new(move |event| {
                if matches!(event, colibri_device::Event::Verified { .. }) {
                    order.lock().unwrap().push(number);
                }
            });
            tokio::spawn(async move { device.resolve(&url(&format!("large{number}")), observer).await.map(drop) })
        })
        .collect();
    while order.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    device.resolve(&url("here"), nobody()).await.unwrap();
    assert!(resolves.iter().any(|resolve| !resolve.is_finished()), "it waited for none");
    for resolve in resolves {
        resolve.await.unwrap().unwrap();
    }
    let mut order = order.lock().unwrap().clone();
    order.dedup();
    assert_eq!(order.len(), sizes.len(), "one after the other: {order:?}");
    assert_eq!(scrub(&store), 8);
    cluster.stop().await;
}

/// What is asked about packages counts as well: roots and the like come no faster than anything else.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_stays_under_the_bound_on_bytes_per_second() {
    let scene = Scene::new();
    scene.release("app", &[("one", b"one")]);
    let cluster = scene.serve(1);
    let config = DeviceConfig { bandwidth_bytes_per_s: 1_000, ..DeviceConfig::default() };
    let (device, _store) = scene.device("device", config, scene.config(&cluster, HOST));
    let began = Instant::now();
    device.refresh(HOST, true).await.unwrap();
    let (took, bytes) = (began.elapsed().as_secs_f64(), body_bytes(&device)[0] as f64);
    assert!(bytes > 1500.0, "{bytes} bytes of metadata");
    // The last piece may be taken at once.
    assert!(took > (bytes - 1_000.0) / 1_000.0 * 0.3, "{bytes} bytes took {took} s");
    assert!(took > 0.5, "{bytes} bytes took {took} s");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_udp_path_that_leads_nowhere_is_found_dead_once_and_tcp_carries_on() {
    let scene = Scene::new();
    scene.release("one", &[("a", &noise(6, 300_000))]);
    let work = scene.path("edges");
    let repositories = vec![(HOST.to_owned(), scene.path("repository"))];
    let tiers = (64 << 20, 64 << 20);
    let cluster = ClusterConfig {
        repositories,
        edges: 1,
        edge_memory_bytes: tiers.0,
        edge_disk_bytes: tiers.1,
        work,
        block_udp: true,
    };
    let cluster = Cluster::start(&cluster).unwrap();
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("one"), nobody()).await.unwrap();
    let found_dead = async {
        while device.client().counts().dead_udp_paths == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found_dead).await.expect("silence is noticed");
    scene.release("two", &[("a", &noise(7, 300_000))]);
    device.refresh(HOST, true).await.unwrap();
    device.resolve(&url("two"), nobody()).await.unwrap();
    let counts = device.client().counts();
    assert_eq!(
        (counts.h3_requests, counts.dead_udp_paths, scrub(&store)),
        (0, 1, 4),
        "it is not tried again: {counts:?}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_with_another_key_than_the_pinned_one_is_not_asked() {
    let scene = Scene::new();
    scene.release("app", &[("a", b"a")]);
    let cluster = scene.serve(1);
    let (nobody_in_particular, _store) = scene.device("any", DeviceConfig::default(), scene.config(&cluster, HOST));
    nobody_in_particular.resolve(&url("app"), nobody()).await.unwrap();
    for (name, tls) in [("pinned", Trust::Pin(vec![[7; 32]])), ("system", Trust::System)] {
        let config = DeviceConfig { tls, ..DeviceConfig::default() };
        let (device, _store) = scene.device(name, config, scene.config(&cluster, HOST));
        let refused = device.resolve(&url("app"), nobody()).await.unwrap_err().to_string();
        assert!(refused.contains(&cluster.edges[0].node.authority()), "{name}: {refused}");
        assert_eq!(body_bytes(&device), [0], "{name}");
    }
    cluster.stop().await;
}
