//! Packages of unusual shape and stores that went bad: resolving comes to its end all the same, or says why not.

mod scene;

use colibri_device::{DeviceConfig, DeviceError};
use scene::{HOST, Scene, nobody, noise, scrub, url};

#[tokio::test(flavor = "multi_thread")]
async fn a_meta_far_that_is_content_too() {
    let scene = Scene::new();
    let inner = scene.build("inner", &[("data/deep", &noise(1, 20_000))], &[]);
    let meta_far = std::fs::read(inner.manifest.with_file_name("meta.far")).unwrap();
    let outer = scene.build("outer", &[("data/inner.far", &meta_far)], &[&inner]);
    scene.publish(&[&outer]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let report = device.resolve(&url("outer"), nobody()).await.unwrap().report;
    assert_eq!((report.packages, report.blobs, report.fetched), (2, 3, 3), "counted once");
    assert_eq!(scrub(&store), 3);
    assert!(device.is_on_device(outer.hash).await.unwrap());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meta_far_that_the_disk_spoiled_is_fetched_again() {
    let scene = Scene::new();
    let hash = scene.release("app", &[("a", b"content")]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    let mut bytes = std::fs::read(store.path(hash)).unwrap();
    bytes[100] ^= 1;
    std::fs::write(store.path(hash), bytes).unwrap();
    assert!(!device.is_on_device(hash).await.unwrap());
    let report = device.resolve(&url("app"), nobody()).await.unwrap().report;
    assert_eq!((report.blobs, report.fetched), (2, 1));
    assert_eq!(scrub(&store), 2);
    assert!(device.is_on_device(hash).await.unwrap());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_as_it_was_met_first() {
    let scene = Scene::new();
    scene.release("app", &[("a", b"content")]);
    let cluster = scene.serve(1);
    // Without HTTP/3 a closed port is noticed at once.
    let config = DeviceConfig { http3: false, ..DeviceConfig::default() };
    let (device, _store) = scene.device("device", config, scene.config(&cluster, HOST));
    device.get_hash(&url("app")).await.unwrap();
    cluster.stop().await;
    let error = device.resolve(&url("app"), nobody()).await.unwrap_err().to_string();
    assert!(!error.contains("(raw)"), "nobody was asked for another form: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_hash_of_something_large_is_refused_before_it_is_fetched() {
    let scene = Scene::new();
    let large = vec![0; usize::try_from(colibri_package::limits::META_FAR_BYTES_MAX).unwrap() + 1];
    scene.release("app", &[("large", &large)]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let id = colibri_common::merkle::build(&large).id;
    let pinned = format!("{}?hash={id}", url("app")).parse().unwrap();
    let error = device.resolve(&pinned, nobody()).await.unwrap_err();
    assert!(matches!(error, DeviceError::BadPackage { hash, .. } if hash == id), "{error}");
    assert_eq!((store.stats().unwrap().blobs, store.stats().unwrap().partials), (0, 0));
    cluster.stop().await;
}
