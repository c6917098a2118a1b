//! Resolving against an origin and edges on loopback: the ways of a network, and of those on it.

mod scene;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use colibri_common::SystemClock;
use colibri_device::{Device, DeviceConfig, DeviceError, Event, Preference};
use colibri_package::delivery::DeliveryType;
use colibri_repository::Profile;
use colibri_store::StoreError;
use scene::{HOST, Scene, nobody, noise, scrub, url};
use tokio::sync::Notify;

/// Bytes of content in one unit.
const UNIT_BYTES: u64 = 2 << 20;

fn body_bytes(device: &Device) -> Vec<u64> {
    let repository = device.repositories().get(HOST).unwrap();
    repository.sources().list().iter().map(|source| source.body_bytes()).collect()
}

/// Waits until nobody listens at an address any more.
async fn closed(address: &str) {
    let refused = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("a stopped edge closes its port");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_mirror_when_the_first_is_stopped() {
    let scene = Scene::new();
    scene.release("one", &[("a", b"first")]);
    let cluster = scene.serve(2);
    let repository = scene.config(&cluster, HOST);
    // Without HTTP/3 a closed port is noticed at once.
    let config = DeviceConfig { http3: false, ..DeviceConfig::default() };
    let (device, store) = scene.device("device", config, repository);
    device.resolve(&url("one"), nobody()).await.unwrap();
    cluster.edges[0].node.stop();
    closed(&cluster.edges[0].node.authority()).await;

    let big = noise(1, 5_000_000);
    let many: Vec<_> = (0..8).map(|seed| (format!("data/{seed}"), noise(seed + 10, 10_000))).collect();
    let mut files: Vec<_> = many.iter().map(|(path, content)| (&**path, &**content)).collect();
    files.push(("big", &big));
    scene.release("two", &files);
    device.refresh(HOST, true).await.unwrap();
    let before = body_bytes(&device);
    let resolved = device.resolve(&url("two"), nobody()).await.unwrap();
    let after = body_bytes(&device);
    assert_eq!((resolved.report.blobs, resolved.report.fetched), (10, 10));
    assert_eq!(after[0], before[0], "nothing came from the stopped one");
    assert!(after[1] - before[1] > 5_000_000);
    assert_eq!(scrub(&store), 12);
    assert_eq!(device.repositories().get(HOST).unwrap().sources().blames(), [], "to be gone is no lie");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_blob_goes_on_from_what_was_verified() {
    let scene = Scene::new();
    let content = noise(2, 10_000_000);
    let hash = scene.release("large", &[("blob", &content)]);
    let cluster = scene.serve(1);
    let repository = scene.config(&cluster, HOST);
    let config = DeviceConfig { units_at_once: 1, ..DeviceConfig::default() };

    let (device, store) = scene.device("device", config.clone(), repository.clone());
    let (seen, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
    let observer = {
        let (seen, enough) = (seen.clone(), enough.clone());
        Arc::new(move |event| {
            if let Event::Verified { content_bytes, .. } = event
                && seen.fetch_add(content_bytes, Ordering::SeqCst) + content_bytes >= 3 * UNIT_BYTES
            {
                enough.notify_one();
            }
        })
    };
    let large = url("large");
    tokio::select! {
        _ = device.resolve(&large, observer) => panic!("it should have been interrupted"),
        () = enough.notified() => {}
    }
    drop((device, store));
    let seen = seen.load(Ordering::SeqCst);

    // Whoever still writes what was verified holds the store.
    let (device, store) = loop {
        match Device::open(&scene.path("device"), config.clone(), Arc::new(SystemClock)) {
            Err(DeviceError::Store(StoreError::InUse { .. })) => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(store.stats().unwrap().partials, 1);
    let resolved = device.resolve(&url("large"), nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.report.fetched), (hash, 1), "the meta.far was there already");
    // Of what was seen, at most the unit in flight and what waited to be written with it is lost.
    let kept = seen - UNIT_BYTES;
    let fetched = body_bytes(&device)[0];
    assert!(fetched < 10_000_000 - kept + 300_000, "{fetched} bytes fetched again, though {kept} were kept");
    assert_eq!(scrub(&store), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_raw_form_where_the_delivery_form_is_missing() {
    let scene = Scene::new();
    let content = noise(3, 3_000_000);
    scene.release("app", &[("blob", &content), ("empty", b""), ("leaf", &[7; 8192])]);
    let cluster = scene.serve(1);
    let repository = scene.config(&cluster, HOST);
    // Only type 1 is stored.
    let preference = Preference::Delivery(DeliveryType::Type2);
    let config = DeviceConfig { preference, ..DeviceConfig::default() };
    let (device, store) = scene.device("device", config, repository.clone());
    let resolved = device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!((resolved.report.fetched, scrub(&store)), (4, 4));
    assert!(body_bytes(&device)[0] > 3_000_000);
    assert_eq!(device.repositories().get(HOST).unwrap().sources().blames(), []);
    // Asked for by choice.
    let config = DeviceConfig { preference: Preference::Raw, ..DeviceConfig::default() };
    let (device, store) = scene.device("raw", config, repository);
    device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!(scrub(&store), 4);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_older_than_trusted_is_refused() {
    let scene = Scene::new();
    scene.release("app", &[("a", b"old")]);
    copy(&scene.path("repository"), &scene.path("old"));
    let hash = scene.release("app", &[("a", b"new")]);
    let served = ["repository", "old"].map(|name| (name.to_owned(), scene.path(name)));
    let cluster = scene.serve_all(served.into(), 1);
    let (new, old) = (scene.config(&cluster, "repository"), scene.config(&cluster, "old"));
    let (device, store) = scene.device("device", DeviceConfig::default(), new.clone());
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);

    let rolled_back = |refused: DeviceError| {
        let text = refused.to_string();
        let edge = cluster.edges[0].node.authority();
        assert!(matches!(refused, DeviceError::Metadata { .. }), "{text}");
        assert!(text.contains(&edge) && text.contains("would roll") && text.contains("from version 3 to 2"), "{text}");
    };
    // The same root keys, so the floor stays.
    device.repositories().add(old.clone()).unwrap();
    rolled_back(device.refresh(HOST, true).await.unwrap_err());
    // Who does not insist on news goes on with what is trusted; the mirror is named.
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
    let refused = device.repositories().get(HOST).unwrap().refused_mirrors();
    assert!(refused[&cluster.edges[0].node.authority()].contains("would roll"), "{refused:?}");
    // It stays over a restart too.
    drop((device, store));
    let (device, _store) = Device::open(&scene.path("device"), DeviceConfig::default(), Arc::new(SystemClock)).unwrap();
    rolled_back(device.refresh(HOST, true).await.unwrap_err());
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
    // A mirror that is behind does not hide one that is not.
    let mut both = old;
    both.mirrors.extend(new.mirrors);
    device.repositories().add(both).unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_without_the_metadata_is_an_error_and_one_that_never_answers_is_not() {
    let scene = Scene::new();
    let hash = scene.release("app", &[("a", b"app")]);
    let cluster = scene.serve(1);
    let good = scene.config(&cluster, HOST);
    let (device, store) = scene.device("device", DeviceConfig::default(), good.clone());
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
    // The same root keys, a repository that is not there.
    let mut absent = good.clone();
    absent.mirrors[0].mirror_url = absent.mirrors[0].mirror_url.replace(HOST, "nowhere");
    device.repositories().add(absent).unwrap();
    let refused = device.get_hash(&url("app")).await;
    assert!(matches!(refused, Err(DeviceError::Metadata { .. })), "{refused:?}");
    drop((device, store));
    // Connections that nobody takes from the queue; all other limits of time are far away.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let far = Duration::from_secs(3600);
    let config = DeviceConfig {
        metadata_timeout_s: 1,
        connect_timeout: far,
        header_timeout: far,
        body_timeout: far,
        ..DeviceConfig::default()
    };
    let mut mute = good;
    mute.mirrors[0].mirror_url = format!("http://{}/{HOST}", silent.local_addr().unwrap());
    let (device, _store) = scene.device("device", config, mute);
    let late = device.refresh(HOST, true).await.map(|set| set.earliest_expiry());
    assert!(late.is_ok(), "what is trusted goes on being used: {late:?}");
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), hash);
    cluster.stop().await;
}

/// Answers whatever it is asked with 429, for an hour.
fn sheds_load(listener: std::net::TcpListener) {
    use std::io::{BufRead, BufReader, Write};
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
                // One answer for each end of a request's head.
                while lines.find(String::is_empty).is_some() {
                    let head = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n";
                    if (&connection).write_all(head.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_ask_for_patience_to_the_end_are_an_io_error() {
    let scene = Scene::new();
    scene.release("app", &[("a", b"app")]);
    let cluster = scene.serve(1);
    let good = scene.config(&cluster, HOST);
    let (device, _store) = scene.device("device", DeviceConfig::default(), good.clone());
    device.get_hash(&url("app")).await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut busy = good;
    busy.mirrors[0].mirror_url = format!("http://{}/{HOST}", listener.local_addr().unwrap());
    sheds_load(listener);
    device.repositories().add(busy).unwrap();
    let refused = device.resolve(&url("app"), nobody()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.zx_status()), ("Io", "IO"), "{refused}");
    assert!(refused.to_string().contains("asked to be left alone"), "{refused}");
    // That nobody listens at all is another thing.
    cluster.stop().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut gone = device.repositories().get(HOST).unwrap().config().clone();
    gone.mirrors[0].mirror_url = format!("http://{port}/{HOST}");
    device.repositories().add(gone).unwrap();
    let refused = device.resolve(&url("app"), nobody()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.zx_status()), ("UnavailableBlob", "UNAVAILABLE"), "{refused}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_blamed_and_replaced() {
    let scene = Scene::new();
    let big = noise(4, 9_000_000);
    scene.release("app", &[("big", &big), ("text", &b"again and again ".repeat(50_000))]);
    let cluster = scene.serve(2);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    // Units of a large blob come from both edges, so the liar is asked.
    cluster.edges[1].lies.set(true);
    let resolved = device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!((resolved.report.fetched, scrub(&store)), (3, 3), "and every byte of it is right");
    assert!(cluster.edges[1].lies.told() > 0);
    let blames = device.repositories().get(HOST).unwrap().sources().blames();
    let liar = cluster.edges[1].node.authority();
    assert!(!blames.is_empty() && blames.iter().all(|blame| blame.source == liar), "{blames:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resolves_at_the_same_time_fetch_what_they_share_once() {
    let scene = Scene::new();
    let shared: Vec<_> = (0..6).map(|seed| (format!("shared/{seed}"), noise(seed, 300_000))).collect();
    let with = |own: &'static [u8]| {
        let mut files: Vec<(&str, &[u8])> = shared.iter().map(|(path, content)| (&**path, &**content)).collect();
        files.push(("own", own));
        files
    };
    scene.release("one", &with(b"one"));
    scene.release("two", &with(b"two"));
    let cluster = scene.serve(2);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let (urls, devices) = ([url("one"), url("two"), url("one")], [device.clone(), device.clone(), device.clone()]);
    let resolves = devices
        .into_iter()
        .zip(urls)
        .map(|(device, url)| tokio::spawn(async move { device.resolve(&url, nobody()).await.unwrap().report }));
    let resolves: Vec<_> = resolves.collect();
    let mut fetched = 0;
    for resolve in resolves {
        let report = resolve.await.unwrap();
        assert_eq!(report.blobs, 8);
        fetched += report.fetched;
    }
    assert_eq!((fetched, scrub(&store)), (10, 10), "two meta.fars, two own blobs, six shared ones");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_on_the_device_when_its_subpackages_are() {
    let scene = Scene::new();
    let inner = scene.build("inner", &[("data/deep", &noise(5, 20_000))], &[]);
    let outer = scene.build("outer", &[("bin/app", b"app")], &[&inner]);
    scene.publish(&[&outer]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let status = device.package_status(&url("outer")).await.unwrap();
    assert_eq!((status.in_repository, status.on_disk), (Some(outer.hash), false));
    let resolved = device.resolve(&url("outer"), nobody()).await.unwrap();
    assert_eq!((resolved.report.packages, resolved.report.blobs, resolved.report.fetched), (2, 4, 4));
    assert!(device.package_status(&url("outer")).await.unwrap().on_disk);
    assert!(matches!(device.get_hash(&url("inner")).await, Err(DeviceError::PackageNotFound { .. })));
    assert_eq!(device.open_package(inner.hash).await.unwrap().blobs.len(), 1, "known by hash all the same");

    let deep = colibri_common::merkle::build(&noise(5, 20_000)).id;
    assert!(store.discard(deep).unwrap());
    assert!(!device.package_status(&url("outer")).await.unwrap().on_disk);
    assert!(matches!(device.open_package(outer.hash).await, Err(DeviceError::NotOnDevice(_))));
    let resolved = device.resolve(&url("outer"), nobody()).await.unwrap();
    assert_eq!((resolved.report.blobs, resolved.report.fetched, scrub(&store)), (4, 1, 4));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_in_hash_bins_are_found_and_a_bin_is_fetched_once() {
    let scene = Scene::of(Profile::Scale);
    let (one, two) = (scene.release("one", &[("a", b"first")]), scene.release("two", &[("a", b"second")]));
    scene.release("rollout", &[("a", b"by whoever has an online key")]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let held = || {
        let set = device.repositories().get(HOST).unwrap().trusted().unwrap();
        set.files().count() - 4
    };
    assert_eq!(device.resolve(&url("one"), nobody()).await.unwrap().hash, one);
    assert_eq!(held(), 1, "only the bin that covers the name");
    assert_eq!(device.get_hash(&url("two")).await.unwrap(), two);
    assert_eq!(held(), 2);
    // What is known is found without a mirror; what no bin lists is not there.
    assert!(matches!(device.get_hash(&url("three")).await, Err(DeviceError::PackageNotFound { .. })));
    assert!(matches!(device.get_hash(&url("rollout")).await, Err(DeviceError::PackageNotFound { .. })));
    cluster.stop().await;
    assert_eq!(device.get_hash(&url("one")).await.unwrap(), one);
    // A new version lists the bin anew.
    let newer = scene.release("one", &[("a", b"newer")]);
    let cluster = scene.serve(1);
    let (fresh, _store) = scene.device("fresh", DeviceConfig::default(), scene.config(&cluster, HOST));
    assert_eq!(fresh.get_hash(&url("one")).await.unwrap(), newer);
    cluster.stop().await;
}
