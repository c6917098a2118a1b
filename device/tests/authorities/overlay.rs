//! The developer overlay: before every other authority, in engineering mode only, and not where the release forbids it.

use colibri_common::BlobId;
use colibri_device::{Depth, Overlaid};
use colibri_release::{Availability, ReleasePackage, Versioning};

use super::trusted::on_demand;
use super::*;

fn engineering() -> DeviceConfig {
    DeviceConfig { engineering: true, ..DeviceConfig::default() }
}

fn permanent(name: &str, hash: BlobId) -> ReleasePackage {
    let (availability, versioning) = (Availability::Permanent, Versioning::Anchored);
    ReleasePackage { hash: Some(hash), availability, versioning, ..on_demand(name) }
}

/// The repository of the product, and that of a desk with a newer `app`.
struct Desk {
    product: Scene,
    desk: Scene,
    base: BlobId,
    newer: BlobId,
}

impl Desk {
    fn new() -> Self {
        let (product, desk) = (Scene::new(), Scene::new());
        let base = product.release("app", &[("a", b"base")]);
        product.release("other", &[("a", b"other")]);
        let newer = desk.release("app", &[("a", b"from the desk")]);
        Self { product, desk, base, newer }
    }

    fn serve(&self) -> Cluster {
        let served =
            vec![(HOST.to_owned(), self.product.path("repository")), ("desk".to_owned(), self.desk.path("repository"))];
        self.product.serve_all(served, 1)
    }

    async fn device(&self, cluster: &Cluster, config: DeviceConfig, forbids: bool) -> (Device, Arc<Store>) {
        let (device, store) = self.product.device("device", config, self.product.config(cluster, HOST));
        let desk = cluster.device_config("desk", self.desk.repository.metadata().unwrap().root()).unwrap();
        device.repositories().add(desk).unwrap();
        let packages = vec![permanent("app", self.base), on_demand("other")];
        let release = self.product.product_release("1", packages, |builder| {
            if forbids {
                builder.forbid_overlay();
            }
        });
        device.fetch_before_commit(&release, nobody()).await.unwrap();
        device.set_release(release).await.unwrap();
        (device, store)
    }
}

fn desk() -> Overlaid {
    Overlaid::Repository("fuchsia-pkg://desk".parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_overrides_base_until_it_is_cleared_also_over_a_restart() {
    let scenes = Desk::new();
    let cluster = scenes.serve();
    let (device, store) = scenes.device(&cluster, engineering(), false).await;
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), scenes.base);
    // The release does not trust it, so it says nothing by itself.
    let refused = device.refresh("desk", false).await;
    assert!(matches!(refused, Err(DeviceError::UntrustedRepository { .. })), "{refused:?}");
    device.overlay_add(desk()).unwrap();
    let resolved = device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by), (scenes.newer, ResolvedBy::Overlay));
    assert_eq!(resolved.url, parse("fuchsia-pkg://desk/app"));
    // What it does not list is as before, and a pin asks for one version.
    assert_eq!(device.resolve(&url("other"), nobody()).await.unwrap().by, ResolvedBy::Tuf);
    assert_eq!(device.get_hash(&parse(&format!("{}?hash={}", url("app"), scenes.base))).await.unwrap(), scenes.base);
    // Base stays where it is.
    device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap();
    assert!(device.is_on_device(scenes.base).await.unwrap());
    drop((device, store));
    let (device, store) = reopen(&scenes.product, engineering()).await;
    assert_eq!(device.overlay().repositories.len(), 1);
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), scenes.newer);
    // Without engineering mode it is there, and counts for nothing.
    drop((device, store));
    let (device, store) = reopen(&scenes.product, DeviceConfig::default()).await;
    assert!(matches!(device.overlay_permitted(), Err(DeviceError::NotEngineering)));
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), scenes.base);
    drop((device, store));
    let (device, _store) = reopen(&scenes.product, engineering()).await;
    device.overlay_clear().unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), scenes.base);
    cluster.stop().await;
}

async fn reopen(scene: &Scene, config: DeviceConfig) -> (Device, Arc<Store>) {
    loop {
        match Device::open(&scene.path("device"), config.clone(), Arc::new(SystemClock)) {
            Err(DeviceError::Store(_)) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_follows_its_repository_or_a_pin_whatever_its_cell() {
    let scenes = Desk::new();
    let cluster = scenes.serve();
    let (device, _store) = scenes.device(&cluster, engineering(), false).await;
    let listed = scenes.product.release("app", &[("a", b"newer of the product")]);
    device.refresh(HOST, true).await.unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), scenes.base);
    device.overlay_add(Overlaid::Package(url("app"))).unwrap();
    let resolved = device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by), (listed, ResolvedBy::Overlay));
    // A pin in its place, which no network has to confirm.
    device.overlay_add(Overlaid::Package(parse(&format!("{}/0?hash={}", url("app"), scenes.base)))).unwrap();
    assert_eq!(device.overlay().packages.len(), 1);
    cluster.stop().await;
    let resolved = device.resolve(&url("app"), nobody()).await.unwrap();
    assert_eq!((resolved.hash, resolved.by), (scenes.base, ResolvedBy::Overlay));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_overlay_without_engineering_mode_nor_where_the_release_forbids_it() {
    let scenes = Desk::new();
    let cluster = scenes.serve();
    let (device, store) = scenes.device(&cluster, DeviceConfig::default(), false).await;
    let refused = device.overlay_add(desk()).unwrap_err();
    assert!(matches!(refused, DeviceError::NotEngineering) && refused.kind() == "AccessDenied", "{refused}");
    assert!(device.overlay().is_empty());
    drop((device, store));
    let (device, _store) = reopen(&scenes.product, engineering()).await;
    let unknown = device.overlay_add(Overlaid::Repository("fuchsia-pkg://nowhere".parse().unwrap()));
    assert!(matches!(unknown, Err(DeviceError::RepositoryNotFound(_))), "{unknown:?}");
    device.overlay_add(desk()).unwrap();
    // A later release forbids what is there already.
    let packages = vec![permanent("app", scenes.base)];
    let release = scenes.product.product_release("2", packages, |builder| builder.forbid_overlay());
    device.fetch_before_commit(&release, nobody()).await.unwrap();
    device.set_release(release).await.unwrap();
    let refused = device.overlay_add(Overlaid::Package(url("app"))).unwrap_err();
    let expected = "release lamp 2.0.0.0 forbids developer overlays, also in engineering mode";
    assert_eq!((refused.kind(), &*refused.to_string()), ("AccessDenied", expected));
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), scenes.base);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlay_that_cannot_be_asked_is_an_error_and_not_the_old_version() {
    let scenes = Desk::new();
    let cluster = scenes.serve();
    let (device, _store) = scenes.device(&cluster, engineering(), false).await;
    device.overlay_add(desk()).unwrap();
    cluster.stop().await;
    let refused = device.resolve(&url("app"), nobody()).await;
    assert!(matches!(&refused, Err(DeviceError::Metadata { repository, .. }) if repository == "desk"), "{refused:?}");
}
