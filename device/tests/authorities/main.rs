//! Who says which version a URL means: the order of the authorities, a test for each rule.

mod boot_packages;
mod overlay;
#[path = "../scene/mod.rs"]
mod scene;
mod trusted;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use colibri_cluster::Cluster;
use colibri_common::{BlobId, SystemClock};
use colibri_device::sets::{ImageSets, Upgrade};
use colibri_device::{Device, DeviceConfig, DeviceError, EagerAnswer, EagerPackages, ResolvedBy, rewrite};
use colibri_package::url::{AbsolutePackageUrl, UnpinnedPackageUrl};
use colibri_store::Store;
use scene::{HOST, Scene, nobody, noise, url};

fn parse(text: &str) -> AbsolutePackageUrl {
    text.parse().unwrap()
}

/// All of one host stands for the same of another.
fn alias(device: &Device, from: &str, to: &str) {
    let rule = format!(
        r#"{{"version":"1","content":[{{"host_match":"{from}","host_replacement":"{to}",
            "path_prefix_match":"/","path_prefix_replacement":"/"}}]}}"#
    );
    device.rules().replace(rewrite::parse(rule.as_bytes()).unwrap()).unwrap();
}

fn base_of(path: &str, hash: BlobId) -> ImageSets {
    let mut image = ImageSets::default();
    image.read_static_packages(format!("{path}={hash}\n").as_bytes()).unwrap();
    image
}

fn cache_of(url: &str, hash: BlobId) -> ImageSets {
    let mut image = ImageSets::default();
    let list = format!(r#"{{"version":"1","content":["{url}?hash={hash}"]}}"#);
    image.read_cache_packages(list.as_bytes()).unwrap();
    image
}

fn requests(cluster: &Cluster, device: &Device) -> u64 {
    assert_eq!(cluster.edges.len(), 1);
    device.repositories().get(HOST).unwrap().sources().list()[0].requests()
}

#[tokio::test(flavor = "multi_thread")]
async fn base_is_said_before_rewriting_and_never_by_the_network() {
    let scene = Scene::new();
    let base = scene.release("app", &[("a", b"base")]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    let newer = scene.release("app", &[("a", b"newer")]);
    device.set_image(&base_of("app/0", base)).await.unwrap();
    device.refresh(HOST, true).await.unwrap();
    // A rule that would lead to the newer one.
    alias(&device, "fuchsia.com", HOST);
    let before = requests(&cluster, &device);
    for text in ["fuchsia-pkg://fuchsia.com/app", "fuchsia-pkg://fuchsia.com/app/0"] {
        let resolved = device.resolve(&parse(text), nobody()).await.unwrap();
        assert_eq!((resolved.hash, resolved.by, resolved.url), (base, ResolvedBy::Base, parse(text)));
    }
    assert_eq!(requests(&cluster, &device), before);
    // A pin is not for base to answer, nor is another variant.
    let pinned = parse(&format!("fuchsia-pkg://fuchsia.com/app?hash={newer}"));
    let resolved = device.resolve(&pinned, nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by), (newer, ResolvedBy::Tuf));
    let variant = device.get_hash(&parse("fuchsia-pkg://fuchsia.com/app/1")).await;
    assert!(matches!(variant, Err(DeviceError::PackageNotFound { .. })), "{variant:?}");
    // Nor does it need a repository.
    cluster.stop().await;
    device.repositories().remove(HOST).unwrap();
    assert_eq!(device.resolve(&parse("fuchsia-pkg://fuchsia.com/app"), nobody()).await.unwrap().hash, base);
    let status = device.package_status(&parse("fuchsia-pkg://fuchsia.com/app")).await.unwrap();
    assert_eq!((status.in_repository, status.on_disk), (Some(base), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_anchors_is_that_version_and_is_fetched_when_wanted() {
    let scene = Scene::new();
    let old = scene.release("tool", &[("a", b"old")]);
    scene.release("tool", &[("a", b"new")]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let mut image = ImageSets::default();
    let anchored = format!(r#"{{"anchored_on_demand":{{"fuchsia-pkg://{HOST}/tool":{{"hash":"{old}"}}}}}}"#);
    image.read_anchored_packages(anchored.as_bytes()).unwrap();
    device.set_image(&image).await.unwrap();
    let resolved = device.resolve(&url("tool"), nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by), (old, ResolvedBy::Release));
    cluster.stop().await;
}

/// A device with the release of the scene that has the package `app`, upgradable.
async fn upgradable(scene: &Scene, cluster: &Cluster, fallback: Option<BlobId>, wait_s: u64) -> (Device, Arc<Store>) {
    let config = DeviceConfig { upgradable_wait_s: wait_s, ..DeviceConfig::default() };
    let (device, store) = scene.device("device", config, scene.config(cluster, HOST));
    let release = scene.upgradable_release("app", fallback, "1.0");
    device.fetch_before_commit(&release, nobody()).await.unwrap();
    device.set_release(release).await.unwrap();
    (device, store)
}

fn versions(hash: BlobId, version: &str) -> BTreeMap<UnpinnedPackageUrl, Upgrade> {
    [(url("app").as_unpinned().clone(), Upgrade { hash, version: version.parse().unwrap() })].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgradable_package_cannot_be_pinned() {
    let scene = Scene::new();
    let app = scene.release("app", &[("a", b"one")]);
    let cluster = scene.serve(1);
    let (device, _store) = upgradable(&scene, &cluster, None, 0).await;
    device.set_upgradable(&versions(app, "1.0")).await.unwrap();
    let resolved = device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by), (app, ResolvedBy::Upgradable));
    // Not even to the version in use.
    let refused = device.resolve(&parse(&format!("{}?hash={app}", url("app"))), nobody()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.zx_status()), ("InvalidUrl", "INVALID_ARGS"), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_before_upgradable_versions_are_said_waits_for_them() {
    let scene = Scene::new();
    let app = scene.release("app", &[("a", b"one")]);
    let cluster = scene.serve(1);
    let (device, _store) = upgradable(&scene, &cluster, None, 600).await;
    let asking = tokio::spawn({
        let device = device.clone();
        async move { device.get_hash(&url("app")).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!asking.is_finished(), "it waits");
    let refused = device.set_upgradable(&versions(app, "0.9")).await.unwrap_err();
    assert!(refused.to_string().contains("older than 1.0"), "{refused}");
    device.set_upgradable(&versions(app, "1.2")).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap(), app);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgradable_package_falls_back_when_nobody_says_its_version() {
    let scene = Scene::new();
    let app = scene.release("app", &[("a", b"one")]);
    let cluster = scene.serve(1);
    let (device, _store) = upgradable(&scene, &cluster, Some(app), 1).await;
    // After a bounded wait.
    let resolved = device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by), (app, ResolvedBy::Fallback));
    // Nobody waits for what will not be said.
    device.upgradable_is_known();
    let newer = scene.release("app", &[("a", b"two")]);
    device.refresh(HOST, true).await.unwrap();
    device.set_upgradable(&versions(newer, "2")).await.unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), newer);
    device.set_upgradable(&BTreeMap::new()).await.unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), app, "it was taken back");
    cluster.stop().await;
}

#[derive(Debug)]
struct Answers(BTreeMap<UnpinnedPackageUrl, EagerAnswer>);

impl EagerPackages for Answers {
    fn hash_for(&self, url: &UnpinnedPackageUrl) -> EagerAnswer {
        self.0.get(url).copied().unwrap_or(EagerAnswer::NotConfigured)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eager_packages_are_asked_after_rewriting_and_for_exactly_that_url() {
    let scene = Scene::new();
    let signed = scene.release("app", &[("a", b"signed")]);
    let newer = scene.release("app", &[("a", b"newer")]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    alias(&device, "alias.com", HOST);
    let answers = [("app", EagerAnswer::Hash(signed)), ("absent", EagerAnswer::Absent)];
    let answers = answers.map(|(name, answer)| (url(name).as_unpinned().clone(), answer));
    device.set_eager(Arc::new(Answers(answers.into())));
    let resolved = device.resolve(&parse("fuchsia-pkg://alias.com/app"), nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by, resolved.url), (signed, ResolvedBy::Eager, url("app")));
    // Not for a pin, nor for the same package under another URL.
    let pinned = parse(&format!("{}?hash={newer}", url("app")));
    for other in [pinned, parse(&format!("{}/0", url("app")))] {
        let resolved = device.resolve(&other, nobody()).await.unwrap();
        assert_eq!((resolved.hash, resolved.by), (newer, ResolvedBy::Tuf), "{other}");
    }
    // Configured without an answer: not found, and nobody is asked, though somebody would know.
    scene.release("absent", &[("a", b"there")]);
    device.refresh(HOST, true).await.unwrap();
    let before = requests(&cluster, &device);
    let absent = device.resolve(&url("absent"), nobody()).await.unwrap_err();
    assert_eq!((absent.kind(), requests(&cluster, &device)), ("PackageNotFound", before), "{absent}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eager_package_without_an_answer_may_fall_back_to_the_cache_packages() {
    let scene = Scene::new();
    let cached = scene.release("app", &[("a", b"cached")]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    let answers = [(url("app").as_unpinned().clone(), EagerAnswer::AbsentWithCacheFallback)];
    device.set_eager(Arc::new(Answers(answers.into())));
    let absent = device.resolve(&url("app"), nobody()).await.unwrap_err();
    assert_eq!(absent.kind(), "PackageNotFound", "{absent}");
    device.set_image(&cache_of(&url("app").to_string(), cached)).await.unwrap();
    let resolved = device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by), (cached, ResolvedBy::CachePackages));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tuf_lists_the_name_and_a_pin_takes_the_place_of_the_hash() {
    let scene = Scene::new();
    let old = scene.release("app", &[("a", b"old")]);
    let new = scene.release("app", &[("a", b"new")]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), new);
    assert_eq!(device.get_hash(&parse(&format!("{}/0", url("app")))).await.unwrap(), new, "the variant is 0");
    assert_eq!(device.get_hash(&parse(&format!("{}?hash={old}", url("app")))).await.unwrap(), old);
    let unlisted = device.get_hash(&parse(&format!("{}?hash={old}", url("other")))).await;
    assert!(matches!(unlisted, Err(DeviceError::PackageNotFound { .. })), "{unlisted:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_packages_speak_by_the_original_url_when_tuf_cannot() {
    let scene = Scene::new();
    let cached = scene.release("app", &[("a", b"cached")]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    let newer = scene.release("app", &[("a", b"newer")]);
    device.refresh(HOST, true).await.unwrap();
    let given = parse("fuchsia-pkg://given.com/app");
    device.set_image(&cache_of("fuchsia-pkg://given.com/app", cached)).await.unwrap();
    // There is no repository of that host.
    let resolved = device.resolve(&given, nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by, resolved.url), (cached, ResolvedBy::CachePackages, given.clone()));
    // With one that answers, what that lists is used; and the URL that a rule makes is not asked about.
    alias(&device, "given.com", HOST);
    assert_eq!(device.get_hash(&given).await.unwrap(), newer);
    let other = device.get_hash(&url("gone")).await;
    assert!(matches!(other, Err(DeviceError::PackageNotFound { .. })), "{other:?}");
    // One that lists no such package: deprecated, and still so.
    device.set_image(&cache_of("fuchsia-pkg://given.com/gone", cached)).await.unwrap();
    assert_eq!(device.get_hash(&parse("fuchsia-pkg://given.com/gone")).await.unwrap(), cached);
    assert!(device.get_hash(&url("gone")).await.is_err(), "not by the URL that was rewritten to");
    // One without metadata that can be had, also after a restart.
    cluster.stop().await;
    device.set_image(&cache_of("fuchsia-pkg://given.com/app", cached)).await.unwrap();
    drop((device, store));
    let (device, _store) = loop {
        match Device::open(&scene.path("device"), DeviceConfig::default(), Arc::new(SystemClock)) {
            Err(DeviceError::Store(_)) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    let config = device.repositories().get(HOST).unwrap().config().clone();
    device.repositories().remove(HOST).unwrap();
    device.repositories().add(config).unwrap();
    let resolved = device.resolve(&given, nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by), (cached, ResolvedBy::CachePackages), "nothing is trusted any more");
    // A pin must be the same version, a variant 0.
    assert_eq!(device.get_hash(&parse(&format!("{given}?hash={cached}"))).await.unwrap(), cached);
    assert_eq!(device.get_hash(&parse("fuchsia-pkg://given.com/app/0")).await.unwrap(), cached);
    for other in [format!("{given}?hash={newer}"), format!("{given}/1")] {
        let refused = device.get_hash(&parse(&other)).await;
        assert!(matches!(refused, Err(DeviceError::Metadata { .. })), "{other}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_cannot_be_had_is_no_reason_for_an_old_version() {
    let scene = Scene::new();
    let cached = scene.release("app", &[("a", &noise(1, 100_000))]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    device.resolve(&url("app"), nobody()).await.unwrap();
    device.set_image(&cache_of(&url("app").to_string(), cached)).await.unwrap();
    scene.release("app", &[("a", &noise(2, 100_000))]);
    let lost = colibri_common::merkle::build(&noise(2, 100_000)).id.to_string();
    remove_all(&scene.path("repository"), &lost);
    device.refresh(HOST, true).await.unwrap();
    let refused = device.resolve(&url("app"), nobody()).await.unwrap_err();
    assert_eq!(refused.kind(), "UnavailableBlob", "{refused}");
    cluster.stop().await;
}

/// Removes every file of this name.
fn remove_all(dir: &std::path::Path, name: &str) {
    for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_type().unwrap().is_dir() {
            remove_all(&entry.path(), name);
        } else if entry.file_name() == *name {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

thread_local! {
    /// What was logged on this thread, since somebody wants to know.
    static TOLD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Collects what the device logs, for all threads: whether an event is wanted at all is asked once, by whichever test comes
/// first.
struct Log;

struct Message(String);

impl tracing::field::Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            write!(self.0, "{value:?}").unwrap();
        }
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("colibri_device") && *metadata.level() == tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        TOLD.with_borrow_mut(|told| told.iter_mut().for_each(|told| told.push(message.0.clone())));
    }

    fn enter(&self, _: &tracing::Id) {}

    fn exit(&self, _: &tracing::Id) {}
}

#[tokio::test]
async fn the_log_names_the_authority_as_real_devices_do() {
    tracing::subscriber::set_global_default(Log).unwrap();
    // A runtime of this one thread.
    let told = || TOLD.replace(Some(Vec::new())).unwrap_or_default();
    let scene = Scene::new();
    let app = scene.release("app", &[("a", b"app")]);
    let cluster = scene.serve(1);
    let (device, _store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    alias(&device, "given.com", HOST);
    told();
    device.resolve(&parse("fuchsia-pkg://given.com/app"), nobody()).await.unwrap();
    let as_what = "fuchsia-pkg://given.com/app as fuchsia-pkg://devhost/app";
    assert_eq!(
        told(),
        [format!("attempting to resolve {as_what} with TUF"), format!("resolved {as_what} to {app} with TUF")]
    );
    let gone = device.resolve(&parse("fuchsia-pkg://given.com/gone"), nobody()).await.unwrap_err();
    let as_what = "fuchsia-pkg://given.com/gone as fuchsia-pkg://devhost/gone";
    assert_eq!(
        told(),
        [
            format!("attempting to resolve {as_what} with TUF"),
            format!("failed to resolve {as_what} with TUF: PackageNotFound: {gone}")
        ]
    );
    device.set_image(&base_of("app/0", app)).await.unwrap();
    device.resolve(&parse("fuchsia-pkg://fuchsia.com/app"), nobody()).await.unwrap();
    let base = "fuchsia-pkg://fuchsia.com/app";
    assert_eq!(told(), [format!("resolved {base} as {base} to {app} with base")]);
    cluster.stop().await;
}
