//! Packages of unusual shape and stores that went bad: resolving comes to its end all the same, or says why not.

mod scene;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use colibri_common::{Clock, ManualClock, SystemClock, UnixSeconds};
use colibri_device::{Device, DeviceConfig, DeviceError};
use colibri_metadata::{RepoConfig, Role};
use colibri_repository::{CreateOptions, Publish, Repository};
use colibri_store::Store;
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

/// The configuration of a repository of the same name with other root keys.
fn other_root(config: &RepoConfig) -> RepoConfig {
    let dir = tempfile::tempdir().unwrap();
    let other = Repository::create(&dir.path().join("other"), CreateOptions::new(SystemClock.now())).unwrap();
    let mut config = config.clone();
    config.root_keys = other.device_config(HOST, "http://localhost:1").unwrap().root_keys;
    config
}

fn reopen(scene: &Scene) -> (Device, Arc<Store>) {
    Device::open(&scene.path("device"), DeviceConfig::default(), Arc::new(SystemClock)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn trust_belongs_to_the_root_keys_it_was_proven_from() {
    let scene = Scene::new();
    scene.release("app", &[("a", b"content")]);
    let cluster = scene.serve(1);
    let config = scene.config(&cluster, HOST);
    let (device, store) = scene.device("device", DeviceConfig::default(), config.clone());
    device.get_hash(&url("app")).await.unwrap();
    // Another root whose mirror is no address: nothing changes, the floor included.
    let mut bad = other_root(&config);
    bad.mirrors[0].mirror_url = "http://[nowhere".to_owned();
    device.repositories().add(bad).unwrap_err();
    assert!(device.repositories().get(HOST).unwrap().trusted().is_some());
    drop((device, store));
    let (device, store) = reopen(&scene);
    assert!(device.repositories().get(HOST).unwrap().trusted().is_some(), "after a restart too");
    drop((device, store));
    // Configured for other keys behind the device's back: what the old ones proved is not theirs.
    let path = scene.path("device/state/repositories.json");
    let list = serde_json::json!({ "version": "1", "content": [other_root(&config)] });
    std::fs::write(&path, list.to_string()).unwrap();
    let (device, store) = reopen(&scene);
    assert!(device.repositories().get(HOST).unwrap().trusted().is_none());
    assert!(matches!(device.get_hash(&url("app")).await, Err(DeviceError::Metadata { .. })));
    drop((device, store));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_of_a_repository_that_was_replaced_is_refused() {
    let scene = Scene::new();
    scene.release("app", &[("a", b"content")]);
    let cluster = scene.serve(1);
    let config = scene.config(&cluster, HOST);
    let (device, store) = scene.device("device", DeviceConfig::default(), config.clone());
    let replaced = device.repositories().get(HOST).unwrap();
    // Polled until the refresh waits for the network: it has taken hold of the old configuration.
    let mut refresh = Box::pin(device.refresh(HOST, true));
    assert!(tokio::time::timeout(Duration::ZERO, &mut refresh).await.is_err());
    let other = other_root(&config);
    device.repositories().add(other).unwrap();
    let refused = refresh.await.unwrap_err();
    assert!(matches!(refused, DeviceError::RepositoryReplaced(_)), "{refused}");
    assert!(replaced.trusted().is_none());
    drop((device, store));
    let (device, _store) = reopen(&scene);
    assert!(device.repositories().get(HOST).unwrap().trusted().is_none());
    cluster.stop().await;
}

#[test]
fn as_many_repositories_as_allowed_can_be_read_again() {
    let scene = Scene::new();
    let mut config = scene.repository.device_config(HOST, "http://localhost:1").unwrap();
    // 40 KiB: 256 of these are 10 MiB.
    config.mirrors = vec![config.mirrors[0].clone(); 20];
    for (mirror, number) in config.mirrors.iter_mut().zip(0..) {
        mirror.mirror_url = format!("http://localhost:1/{number}/{}", "a".repeat(2000));
    }
    let (device, store) = reopen(&scene);
    for number in 0..20 {
        config.repo_url = format!("fuchsia-pkg://host{number}");
        device.repositories().add(config.clone()).unwrap();
    }
    drop((device, store));
    let (device, store) = reopen(&scene);
    assert_eq!(device.repositories().list().len(), 20);
    // One that would make the list too long for the next start is refused, and nothing changes.
    config.mirrors = vec![config.mirrors[0].clone(); 9000];
    config.repo_url = "fuchsia-pkg://large".to_owned();
    assert!(matches!(device.repositories().add(config), Err(DeviceError::TooMuch(_))));
    drop((device, store));
    assert_eq!(reopen(&scene).0.repositories().list().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_trust_stops_one_repository_and_not_the_device() {
    let scene = Scene::new();
    let hash = scene.release("app", &[("a", b"content")]);
    let cluster = scene.serve(1);
    let config = scene.config(&cluster, HOST);
    let (device, store) = scene.device("device", DeviceConfig::default(), config.clone());
    let mut other = config.clone();
    other.repo_url = "fuchsia-pkg://other".to_owned();
    device.repositories().add(other).unwrap();
    device.get_hash(&url("app")).await.unwrap();
    drop((device, store));
    let trusted = scene.path("device/state/trusted").join(HOST);
    let document = std::fs::read_dir(&trusted).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&document, b"{}").unwrap();

    let (device, store) = reopen(&scene);
    assert!(device.repositories().get(HOST).unwrap().damage().is_some());
    let on_other = "fuchsia-pkg://other/app".parse().unwrap();
    assert_eq!(device.get_hash(&on_other).await.unwrap(), hash, "the other one goes on");
    // Not by refreshing, and not by adding the same again, is the floor lost.
    for _ in 0..2 {
        let error = device.get_hash(&url("app")).await.unwrap_err();
        assert!(matches!(error, DeviceError::DamagedTrust { .. }), "{error}");
        device.repositories().add(config.clone()).unwrap();
    }
    assert_eq!(std::fs::read(&document).unwrap(), b"{}");
    assert!(device.repositories().remove(HOST).unwrap());
    assert!(!document.exists());
    device.repositories().add(config).unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
    drop((device, store));
    cluster.stop().await;
}

/// A device whose clock is set by hand, at the machine's time.
fn clocked(scene: &Scene, config: RepoConfig) -> (Device, Arc<ManualClock>, UnixSeconds) {
    let now = SystemClock.now();
    let clock = Arc::new(ManualClock::new(now));
    let device_config = DeviceConfig { http3: false, ..DeviceConfig::default() };
    let (device, _) = Device::open(&scene.path("device"), device_config, clock.clone()).unwrap();
    device.repositories().add(config).unwrap();
    (device, clock, now)
}

/// Metadata that lives a second is asked for again after it, on a device whose clock was set back and stands still.
async fn asked_again_though_the_clock_is_set_back(scene: &Scene, config: RepoConfig) {
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let device_config = DeviceConfig { http3: false, metadata_life_s: 1, ..DeviceConfig::default() };
    let (device, _store) = Device::open(&scene.path("brief"), device_config, clock.clone()).unwrap();
    device.repositories().add(config).unwrap();
    device.get_hash(&url("app")).await.unwrap();
    let requests = || device.repositories().get(HOST).unwrap().sources().list()[0].body_bytes();
    let before = requests();
    clock.set(UnixSeconds(0));
    let asked = async {
        while requests() == before {
            device.get_hash(&url("app")).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), asked).await.expect("it is asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_does_not_keep_metadata_fresh() {
    let scene = Scene::new();
    let old = scene.release("app", &[("a", b"old")]);
    let cluster = scene.serve(1);
    let (device, clock, now) = clocked(&scene, scene.config(&cluster, HOST));
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), old);
    let requests = || device.repositories().get(HOST).unwrap().sources().list()[0].body_bytes();
    let before = requests();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), old);
    assert_eq!(requests(), before, "fresh");
    // Time goes on from what is known, however far the clock is set back: no earlier, and it does not stand still.
    clock.set(UnixSeconds(now.0 - 3600));
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), old);
    assert_eq!(requests(), before, "still fresh");
    asked_again_though_the_clock_is_set_back(&scene, scene.config(&cluster, HOST)).await;
    // Nor does a long life outlast what the metadata itself says.
    let set = device.repositories().get(HOST).unwrap().trusted().unwrap();
    let checked = UnixSeconds(set.earliest_expiry().0 - 1);
    clock.set(checked);
    device.refresh(HOST, true).await.unwrap();
    clock.set(set.earliest_expiry());
    let expired = device.get_hash(&url("app")).await.unwrap_err();
    assert!(matches!(expired, DeviceError::Metadata { .. }), "{expired}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_are_away_are_not_asked_for_every_lookup() {
    let scene = Scene::new();
    let hash = scene.release("app", &[("a", b"content")]);
    let cluster = scene.serve(1);
    let (device, clock, now) = clocked(&scene, scene.config(&cluster, HOST));
    device.get_hash(&url("app")).await.unwrap();
    let mut config = scene.config(&cluster, HOST);
    cluster.stop().await;
    // A mirror that counts who comes, and says nothing to them.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.mirrors.truncate(1);
    config.mirrors[0].mirror_url = format!("http://{}", listener.local_addr().unwrap());
    device.repositories().add(config).unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    std::thread::spawn(move || listener.incoming().for_each(|_| _ = counted.fetch_add(1, Ordering::SeqCst)));
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
    let first = asked.load(Ordering::SeqCst);
    assert!(first > 0);
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
    assert_eq!(asked.load(Ordering::SeqCst), first, "remembered");
    clock.set(now.plus(60));
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
    assert!(asked.load(Ordering::SeqCst) > first, "for a short time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_tells_what_is_listed_and_not_what_is_pinned() {
    let scene = Scene::new();
    let old = scene.release("app", &[("a", b"old")]);
    let new = scene.release("app", &[("a", b"new")]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let pinned = format!("{}?hash={old}", url("app")).parse().unwrap();
    assert_eq!(device.get_hash(&pinned).await.unwrap(), old);
    let status = device.package_status(&pinned).await.unwrap();
    assert_eq!((status.in_repository, status.on_disk), (Some(new), false));
    device.resolve(&pinned, nobody()).await.unwrap();
    let status = device.package_status(&pinned).await.unwrap();
    assert_eq!((status.in_repository, status.on_disk), (Some(new), true), "the pinned one is here");
    assert!(!device.package_status(&url("app")).await.unwrap().on_disk, "the listed one is not");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_withdraws_a_key_ends_what_that_key_signed() {
    for (withdrawn, roles) in [(true, &["root"][..]), (false, &["root", "targets", "snapshot", "timestamp"])] {
        let scene = Scene::new();
        let hash = scene.release("app", &[("a", b"content")]);
        // Another repository with these keys and otherwise new ones: its second root continues the first of ours.
        let keys = scene.path("next/keys");
        std::fs::create_dir_all(&keys).unwrap();
        for role in roles {
            let file = format!("{role}.pem");
            std::fs::copy(scene.path("repository/keys").join(&file), keys.join(&file)).unwrap();
        }
        let next = Repository::create(&scene.path("next"), CreateOptions::new(SystemClock.now())).unwrap();
        next.publish(&Publish { refresh_root: true, ..Publish::new(SystemClock.now()) }).unwrap();

        let cluster = scene.serve(1);
        let mut config = scene.config(&cluster, HOST);
        config.mirrors.truncate(1);
        config.mirrors[0].mirror_url = format!("{}/{HOST}", cluster.origin.url());
        let (device, _store) = scene.device("device", DeviceConfig::default(), config);
        assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
        let served = scene.repository.served_dir();
        std::fs::copy(next.served_dir().join("2.root.json"), served.join("2.root.json")).unwrap();
        std::fs::remove_file(served.join("timestamp.json")).unwrap();
        // It proves the new root and breaks off after it.
        device.refresh(HOST, true).await.unwrap_err();
        let trusted = device.repositories().get(HOST).unwrap().trusted();
        let found = device.get_hash(&url("app")).await;
        if withdrawn {
            assert!(trusted.is_none());
            assert!(matches!(found, Err(DeviceError::Metadata { .. })), "{found:?}");
        } else {
            assert_eq!(trusted.unwrap().version(Role::Root), Some(2), "the same set under the new root");
            assert_eq!(found.unwrap(), hash);
        }
        cluster.stop().await;
    }
}
