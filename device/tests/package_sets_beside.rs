//! What a release has beside the grid of RFC-0212: boot packages, and the deprecated cache set.

mod product;
mod scene;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_common::{BlobId, Clock, SystemClock};
use colibri_device::{BootError, BootPackages, Depth, Device, DeviceConfig, DeviceError, ResolvedBy, boot_packages_of};
use colibri_package::url::BootUrl;
use colibri_release::Release;
use product::{Product, Row};
use scene::{HOST, nobody, noise, url};

use colibri_release::Availability::Permanent;
use colibri_release::Versioning::Anchored;

/// A release with all that `device provision` installs, as a bundle.
struct Flash {
    product: Product,
    release: Release,
    bundle: PathBuf,
    base: BlobId,
    cached: BlobId,
}

impl Flash {
    fn new() -> Self {
        let mut product = Product::new();
        let inner = product.package("inner", &[("deep", &noise(1, 30_000))], &[]);
        product.package("loader", &[("bin", &noise(2, 3_000_000)), ("empty", b"")], &[&inner]);
        product.simple("console", 3);
        let (base, cached) = (product.simple("base", 4), product.simple("tool", 5));
        let mut flash = Self { product, release: placeholder(), bundle: PathBuf::new(), base, cached };
        (flash.release, flash.bundle) = flash.bundled("1", &["loader", "console"], true);
        flash
    }

    fn hash(&self, name: &str) -> BlobId {
        self.product.scene.repository.package(&format!("{name}/0")).unwrap().hash
    }

    /// A release of this version with these boot packages, and its bundle.
    fn bundled(&mut self, version: &str, boot: &[&str], caches: bool) -> (Release, PathBuf) {
        let packages: [Row<'_>; 1] = [("base", Permanent, Anchored, Some(self.base), None)];
        let hashes: Vec<_> = boot.iter().map(|name| (*name, self.hash(name))).collect();
        let cached = self.cached;
        let release = self.product.try_release_with(version, &packages, false, |builder| {
            for (name, hash) in hashes {
                builder.boot(name.parse().unwrap(), hash);
            }
            if caches {
                builder.cache(format!("fuchsia-pkg://{HOST}/tool").parse().unwrap(), cached);
            }
        });
        let release = release.unwrap();
        self.product.package("carrier", &[(Release::PATH, &release.to_bytes().unwrap())], &[]);
        let path = self.product.scene.path(&format!("{version}.bundle"));
        let mut file = std::fs::File::create(&path).unwrap();
        let repository = &self.product.scene.repository;
        repository.write_release_bundle("carrier", SystemClock.now(), &mut file, &|_, _| ()).unwrap();
        (release, path)
    }

    fn dir(&self) -> PathBuf {
        self.product.scene.path("device")
    }

    fn open(&self) -> Device {
        self.open_with(DeviceConfig { http3: false, ..DeviceConfig::default() }).unwrap()
    }

    fn open_with(&self, config: DeviceConfig) -> Result<Device, DeviceError> {
        Device::open(&self.dir(), config, Arc::new(SystemClock)).map(|(device, _)| device)
    }
}

fn placeholder() -> Release {
    let product = Product::new();
    product.release("1", &[], false)
}

fn boot(name: &str) -> BootUrl {
    format!("fuchsia-boot:///{name}").parse().unwrap()
}

/// Names of the boot packages that are found with nothing but the folder.
fn names(dir: &Path) -> Vec<String> {
    let Some(place) = boot_packages_of(dir, None) else { return Vec::new() };
    BootPackages::open(&place).unwrap().list().map(|(name, _)| name.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_packages_are_installed_offline_and_need_no_store() {
    let flash = Flash::new();
    let device = flash.open();
    device.provision_from_bundle(flash.release.clone(), &flash.bundle, nobody()).await.unwrap();
    assert!(device.boot_set().iter().all(|(_, _, here)| !here), "they count from the next start on");
    drop(device);
    assert_eq!(names(&flash.dir()), ["console", "loader"]);
    let device = flash.open();
    let expected =
        [("console".to_owned(), flash.hash("console"), true), ("loader".to_owned(), flash.hash("loader"), true)];
    assert_eq!(device.boot_set(), expected);
    assert_eq!(device.boot_packages().resolve(&boot("loader")).unwrap(), flash.hash("loader"));
    // They are not in the store, so nothing there can be collected of them.
    assert!(!device.is_on_device(flash.hash("loader")).await.unwrap());
    device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap();
    let tree = flash.product.scene.path("tree");
    device.boot_packages().lay_out(flash.hash("loader"), &tree).unwrap();
    assert_eq!(std::fs::read(tree.join("bin")).unwrap(), noise(2, 3_000_000));
    drop(device);
    // A store that is gone hinders nobody.
    std::fs::remove_dir_all(flash.dir().join("store")).unwrap();
    let loader = BootPackages::open(&boot_packages_of(&flash.dir(), None).unwrap()).unwrap();
    assert_eq!(loader.resolve(&boot("loader")).unwrap(), flash.hash("loader"));
}

/// The set of the running release counts, wherever power was lost.
#[tokio::test(flavor = "multi_thread")]
async fn boot_packages_change_with_the_release_and_not_before() {
    let mut flash = Flash::new();
    let device = flash.open();
    device.provision_from_bundle(flash.release.clone(), &flash.bundle, nobody()).await.unwrap();
    let (next, bundle) = flash.bundled("2", &["loader"], true);
    let link = flash.dir().join("boot");
    let before = std::fs::read_link(&link).unwrap();
    // Left by a power loss while the next set was being written.
    let sets = flash.dir().join("boot.sets");
    std::fs::create_dir_all(sets.join("0123456789abcdef.new/blobs")).unwrap();
    assert_eq!(names(&flash.dir()), ["console", "loader"]);
    device.provision_from_bundle(next.clone(), &bundle, nobody()).await.unwrap();
    drop(device);
    assert_eq!(names(&flash.dir()), ["loader"]);
    let after = std::fs::read_link(&link).unwrap();
    assert_ne!(before, after);
    assert_eq!(std::fs::read_dir(&sets).unwrap().count(), 1, "the old set and what was unfinished are gone");
    // Power is lost after the release and before the link: whoever opens the device moves it.
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&before, &link).unwrap();
    let device = flash.open();
    assert_eq!(std::fs::read_link(&link).unwrap(), after);
    assert_eq!(device.boot_set(), [("loader".to_owned(), flash.hash("loader"), true)]);
    assert!(device.cache_set().await.unwrap().iter().all(|package| package.is_delivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_packages_that_were_given_at_start_are_compared_and_never_replaced() {
    let flash = Flash::new();
    // An image of its own, with other packages.
    let given = flash.product.scene.path("image");
    std::fs::create_dir_all(&given).unwrap();
    let device = flash.open_with(DeviceConfig { boot_packages: Some(given), ..DeviceConfig::default() }).unwrap();
    let refused = device.provision_from_bundle(flash.release.clone(), &flash.bundle, nobody()).await.unwrap_err();
    assert!(
        matches!(&refused, DeviceError::Boot(BootError::NotOfRelease { name, .. }) if name == "console"),
        "{refused}"
    );
    assert!(device.release().is_none() && names(&flash.dir()).is_empty());
    drop(device);
    // Somebody's own folder where the set belongs.
    std::fs::create_dir_all(flash.dir().join("boot")).unwrap();
    let refused = flash.open().provision_from_bundle(flash.release.clone(), &flash.bundle, nobody()).await.unwrap_err();
    assert!(matches!(&refused, DeviceError::Boot(BootError::Foreign(_) | BootError::NotOfRelease { .. })), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_set_is_there_from_the_start_and_its_repository_says_the_version() {
    let mut flash = Flash::new();
    let device = flash.open();
    device.provision_from_bundle(flash.release.clone(), &flash.bundle, nobody()).await.unwrap();
    // Offline, and no repository is known: what came with the device.
    let offline = device.resolve(&url("tool"), nobody()).await.unwrap();
    assert_eq!((offline.hash, offline.by), (flash.cached, ResolvedBy::CachePackages));
    let sets = device.cache_set().await.unwrap();
    assert_eq!(
        sets.iter().map(|package| (package.url.as_str(), package.is_delivered)).collect::<Vec<_>>(),
        [("fuchsia-pkg://devhost/tool", true)]
    );
    // Never given up.
    assert!(device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap().evicted.is_empty());
    assert!(device.is_on_device(flash.cached).await.unwrap());
    // With a network, whatever version its repository has: nothing constrains it.
    let newer = flash.product.simple("tool", 6);
    let cluster = flash.product.scene.serve(1);
    device.repositories().add(flash.product.scene.config(&cluster, HOST)).unwrap();
    let online = device.resolve(&url("tool"), nobody()).await.unwrap();
    assert_eq!((online.hash, online.by), (newer, ResolvedBy::Tuf));
    // A blob that cannot be had is no reason for the old version.
    cluster.stop().await;
    let gone = device.resolve(&url("tool"), nobody()).await.unwrap();
    assert_eq!(gone.hash, newer, "it is here");
    // A release without it keeps nothing of it.
    let (next, bundle) = flash.bundled("2", &["loader", "console"], false);
    device.provision_from_bundle(next, &bundle, nobody()).await.unwrap();
    device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap();
    assert!(device.cache_set().await.unwrap().is_empty() && !device.is_on_device(flash.cached).await.unwrap());
    assert!(device.resolve(&url("tool"), nobody()).await.is_err(), "the release does not name it any more");
}

/// Over a network too: the cache set counts for what must fit, and is fetched before the release runs.
#[tokio::test(flavor = "multi_thread")]
async fn the_cache_set_is_fetched_and_planned_with_what_is_permanent() {
    let flash = Flash::new();
    let cluster = flash.product.scene.serve(1);
    let (device, _store) = flash.product.device(&cluster);
    let plan = device.plan(&flash.release).await.unwrap();
    let of = |hashes: &[BlobId]| flash.release.blobs_needed(hashes.iter().copied()).len();
    assert_eq!(plan.before_commit.blobs as usize, of(&[flash.base, flash.cached]));
    flash.product.take(&device, &flash.release).await;
    assert!(device.is_on_device(flash.cached).await.unwrap());
    assert!(device.boot_set().iter().all(|(_, _, here)| !here), "boot packages come with the boot image");
    cluster.stop().await;
}
