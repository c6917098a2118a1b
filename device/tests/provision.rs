//! A release from one file, as when a device is flashed: no network, every byte checked, power lost at any moment.

mod product;
mod scene;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_common::{BlobId, Clock, SystemClock};
use colibri_device::sets::ProvisionError;
use colibri_device::{Device, DeviceConfig, DeviceError};
use colibri_release::Availability::{Automatic, OnDemand, Permanent};
use colibri_release::Release;
use colibri_release::Versioning::{Anchored, Upgradable};
use colibri_store::testing::CrashDisk;
use colibri_store::{Disk, OsDisk};
use product::Product;
use scene::{nobody, noise};

/// A release, its bundle, and which of its packages are permanent.
struct Flash {
    product: Product,
    release: Release,
    bundle: PathBuf,
    permanent: Vec<BlobId>,
    automatic: BlobId,
}

impl Flash {
    fn new() -> Self {
        let mut product = Product::new();
        let inner = product.package("inner", &[("deep", &noise(1, 50_000))], &[]);
        let base = product.package("base", &[("big", &noise(2, 300_000)), ("empty", b"")], &[&inner]).hash;
        let fallback = product.simple("fallback", 3);
        let automatic = product.simple("auto", 4);
        let release = product.release(
            "1",
            &[
                ("base", Permanent, Anchored, Some(base), None),
                ("fallback", Permanent, Upgradable, Some(fallback), None),
                ("auto", Automatic, Anchored, Some(automatic), None),
                ("demand", OnDemand, Upgradable, None, None),
            ],
            false,
        );
        let bundle = bundle(&mut product, &release, "one.bundle");
        Self { product, release, bundle, permanent: vec![base, inner.hash, fallback], automatic }
    }

    fn device(&self, disk: &Arc<dyn Disk>, dir: &Path) -> Device {
        let config = DeviceConfig { http3: false, ..DeviceConfig::default() };
        Device::open_on(disk, dir, config, Arc::new(SystemClock)).unwrap().0
    }

    async fn is_whole(&self, device: &Device) -> bool {
        for package in &self.permanent {
            if !device.is_on_device(*package).await.unwrap() {
                return false;
            }
        }
        true
    }
}

/// Publishes a release and bundles it.
fn bundle(product: &mut Product, release: &Release, name: &str) -> PathBuf {
    product.package("carrier", &[(Release::PATH, &release.to_bytes().unwrap())], &[]);
    let path = product.scene.path(name);
    let mut file = std::fs::File::create(&path).unwrap();
    let now = SystemClock.now();
    product.scene.repository.write_release_bundle("carrier", now, &mut file, &|_, _| ()).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_packages_come_from_the_bundle_and_no_socket_is_opened() {
    let flash = Flash::new();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let dir = flash.product.scene.path("device");
    let device = flash.device(&disk, &dir);
    let report = device.provision_from_bundle(flash.release.clone(), &flash.bundle, nobody()).await.unwrap();
    assert!(flash.is_whole(&device).await && report.fetched == report.blobs, "{report:?}");
    assert!(!device.is_on_device(flash.automatic).await.unwrap(), "automatic packages come over a network");
    assert_eq!(device.release().unwrap().version(), flash.release.version());
    let counts = device.client().counts();
    assert_eq!((counts.h3_connections, counts.h2_connections, counts.h1_connections), (0, 0, 0));
    assert!(device.repositories().list().is_empty());
    let again = device.provision_from_bundle(flash.release.clone(), &flash.bundle, nobody()).await.unwrap();
    assert_eq!((again.fetched, again.blobs), (0, report.blobs), "once is enough");
    drop(device);
    assert!(flash.is_whole(&flash.device(&disk, &dir)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_does_not_count_for_this_release_changes_nothing() {
    let mut flash = Flash::new();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let device = flash.device(&disk, &flash.product.scene.path("device"));
    let provision = async |release: &Release, bundle: &Path| {
        let done = device.provision_from_bundle(release.clone(), bundle, nobody()).await;
        match done {
            Err(DeviceError::Provision(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let mut bytes = std::fs::read(&flash.bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = flash.product.scene.path("damaged.bundle");
    std::fs::write(&damaged, &bytes).unwrap();
    assert!(matches!(provision(&flash.release, &damaged).await, ProvisionError::Bundle { .. }));
    let absent = flash.product.scene.path("absent.bundle");
    assert!(matches!(provision(&flash.release, &absent).await, ProvisionError::Read { .. }));
    let stranger = Flash::new();
    assert!(matches!(provision(&flash.release, &stranger.bundle).await, ProvisionError::Bundle { .. }), "another root");
    let next = flash.product.release("2", &[("base", Permanent, Anchored, Some(flash.permanent[0]), None)], false);
    let bundle = bundle(&mut flash.product, &next, "two.bundle");
    let other = provision(&flash.release, &bundle).await;
    assert!(other.to_string().ends_with("carries lamp 2.0.0.0, and not this release lamp 1.0.0.0"), "{other}");
    assert!(device.release().is_none() && !device.is_on_device(flash.permanent[0]).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn power_loss_at_any_operation_leaves_no_release_or_a_whole_one_and_it_can_be_done_again() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let flash = Flash::new();
    let disk = CrashDisk::new();
    let dir = Path::new("/device");
    disk.create_dir(dir).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let on: Arc<dyn Disk> = Arc::new(disk.clone());
    let device = flash.device(&on, dir);
    let before = disk.operations();
    device.provision_from_bundle(flash.release.clone(), &flash.bundle, nobody()).await.unwrap();
    drop(device);
    let mut seen = [0, 0];
    for cut in before..=disk.operations() {
        let survivor: Arc<dyn Disk> = Arc::new(disk.crash(cut, seed ^ cut as u64));
        let device = flash.device(&survivor, dir);
        let runs = device.release().is_some();
        assert!(!runs || flash.is_whole(&device).await, "cut {cut}: the release runs and is not whole");
        seen[usize::from(runs)] += 1;
        if cut.is_multiple_of(41) {
            device.provision_from_bundle(flash.release.clone(), &flash.bundle, nobody()).await.unwrap();
            assert!(flash.is_whole(&device).await, "cut {cut}");
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}
