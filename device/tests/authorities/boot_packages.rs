//! Boot packages: there without a store, never collected, with their subpackages.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use colibri_common::{BlobId, merkle};
use colibri_device::{BootError, BootPackages, Depth, DeviceConfig, DeviceError};
use colibri_package::far;
use colibri_package::url::BootUrl;

use super::*;
use crate::scene::Built;

fn boot(url: &str) -> BootUrl {
    url.parse().unwrap()
}

/// The files of built packages by blob.
fn files_of(packages: &[&Built]) -> BTreeMap<BlobId, Vec<u8>> {
    let dirs = packages.iter().map(|built| built.manifest.parent().unwrap());
    let files = dirs.flat_map(|dir| fs::read_dir(dir).unwrap()).map(|file| fs::read(file.unwrap().path()).unwrap());
    files.map(|bytes| (merkle::build(&bytes).id, bytes)).collect()
}

/// A package archive of the first of these, with the files of all.
fn archive(to: &Path, packages: &[&Built]) -> PathBuf {
    write(to, packages[0].hash, &files_of(packages))
}

fn write(to: &Path, package: BlobId, files: &BTreeMap<BlobId, Vec<u8>>) -> PathBuf {
    let name = |id: &BlobId| if *id == package { "meta.far".to_owned() } else { id.to_string() };
    let named: BTreeMap<_, _> = files.iter().map(|(id, bytes)| (name(id), &**bytes)).collect();
    let named: BTreeMap<&str, &[u8]> = named.iter().map(|(name, bytes)| (&**name, *bytes)).collect();
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(to, far::to_bytes(&named).unwrap()).unwrap();
    to.to_owned()
}

#[tokio::test]
async fn they_resolve_before_and_without_the_store_and_a_repository() {
    let scene = Scene::new();
    let inner = scene.build("inner", &[("deep", b"in the boot image")], &[]);
    let driver = scene.build("driver", &[("bin/driver", b"#!driver")], &[&inner]);
    let file = archive(&scene.path("boot.far"), &[&driver, &inner]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    // Alone, as a boot loader would.
    let packages = BootPackages::open(&file).unwrap();
    assert_eq!(packages.resolve(&boot("fuchsia-boot:///driver")).unwrap(), driver.hash);
    assert_eq!(packages.subpackage(driver.hash, &"inner".parse().unwrap()).unwrap(), inner.hash);
    let tree = scene.path("tree");
    packages.lay_out(driver.hash, &tree).unwrap();
    assert_eq!(fs::read(tree.join("bin/driver")).unwrap(), b"#!driver");
    assert_eq!(fs::metadata(tree.join("bin/driver")).unwrap().permissions().mode() & 0o777, 0o555, "as base");
    assert!(tree.join("meta/package").exists());

    // On a device with an empty store, that then collects everything.
    let config = DeviceConfig { boot_packages: Some(file), ..DeviceConfig::default() };
    let (device, store) = Device::open(&scene.path("device"), config, Arc::new(SystemClock)).unwrap();
    let lease = device.open_boot(&boot("fuchsia-boot:///driver/0"), "test").await.unwrap();
    let contents = device.open_package(lease.package()).await.unwrap();
    assert_eq!(contents.blobs.keys().collect::<Vec<_>>(), ["bin/driver"]);
    assert_eq!(fs::read(device.tree(&lease).await.unwrap().join("bin/driver")).unwrap(), b"#!driver");
    let context = device.context(&lease);
    let opened = device.open_subpackage(&"inner".parse().unwrap(), &context, "test").await.unwrap();
    assert_eq!(opened.package(), inner.hash);
    assert_eq!(fs::read(device.tree(&opened).await.unwrap().join("deep")).unwrap(), b"in the boot image");
    drop((opened, lease));
    device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap();
    assert_eq!(store.ids().unwrap(), []);
    device.open_boot(&boot("fuchsia-boot:///driver"), "test").await.unwrap();
    let gone = device.open_subpackage(&"inner".parse().unwrap(), &context, "test").await;
    assert!(matches!(gone, Err(DeviceError::SuperpackageClosed(_))), "{gone:?}");
    // A package that is in the boot image is not thereby one of the store.
    assert!(!device.is_on_device(driver.hash).await.unwrap());
}

#[test]
fn urls_of_other_things_are_refused() {
    let scene = Scene::new();
    let driver = scene.build("driver", &[("a", b"a")], &[]);
    let packages = BootPackages::open(&archive(&scene.path("boot.far"), &[&driver])).unwrap();
    for text in [
        "fuchsia-boot:///driver/1",
        "fuchsia-boot:///driver/0/0",
        "fuchsia-boot:///",
        "fuchsia-boot:///driver#meta/a.cm",
    ] {
        let refused = DeviceError::from(packages.resolve(&boot(text)).unwrap_err());
        assert_eq!(refused.kind(), "InvalidUrl", "{text}: {refused}");
    }
    assert!(format!("fuchsia-boot:///driver?hash={}", driver.hash).parse::<BootUrl>().is_err(), "there are no pins");
    let unknown = DeviceError::from(packages.resolve(&boot("fuchsia-boot:///other")).unwrap_err());
    assert_eq!(
        (unknown.kind(), unknown.to_string()),
        ("PackageNotFound", "there is no boot package `other`".to_owned())
    );
}

#[test]
fn a_folder_of_archives_goes_without_those_that_are_damaged() {
    let scene = Scene::new();
    let (one, two) = (scene.build("one", &[("a", b"1")], &[]), scene.build("two", &[("a", b"2"), ("b", b"3")], &[]));
    let dir = scene.path("boot");
    archive(&dir.join("1.far"), &[&one]);
    archive(&dir.join("2.far"), &[&one]);
    let mut files = files_of(&[&two]);
    files.remove(&merkle::build(b"3").id);
    let partial = write(&dir.join("3.far"), two.hash, &files);
    fs::write(dir.join("4.far"), b"no archive").unwrap();
    fs::write(dir.join("5.txt"), b"not looked at").unwrap();
    let packages = BootPackages::open(&dir).unwrap();
    let names: Vec<_> = packages.list().map(|(name, hash)| (name.to_string(), hash)).collect();
    assert_eq!(names, [("one".to_owned(), one.hash)]);
    assert_eq!(packages.left_out().len(), 3, "{:?}", packages.left_out());
    for (reason, what) in packages.left_out().iter().zip(["another package `one`", "'b' of package two/0", "4.far"]) {
        assert!(reason.contains(what), "{reason}");
    }
    // Alone it is refused.
    assert!(matches!(BootPackages::open(&partial), Err(BootError::Archive { .. })));
    assert!(matches!(BootPackages::open(&scene.path("nowhere")), Err(BootError::Io { .. })));
    // A device starts without it.
    let config = DeviceConfig { boot_packages: Some(partial), ..DeviceConfig::default() };
    let (device, _store) = Device::open(&scene.path("device"), config, Arc::new(SystemClock)).unwrap();
    assert_eq!(device.boot_packages().list().count(), 0);
}

#[test]
fn damaged_content_is_found_when_it_is_read() {
    let scene = Scene::new();
    let driver = scene.build("driver", &[("data", &noise(1, 20_000))], &[]);
    let file = archive(&scene.path("boot.far"), &[&driver]);
    let packages = BootPackages::open(&file).unwrap();
    let blob = merkle::build(&noise(1, 20_000)).id;
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(16).position(|window| window == &noise(1, 20_000)[10_000..10_016]).unwrap();
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let damaged = packages.copy_blob(driver.hash, blob, &mut Vec::new());
    assert!(matches!(damaged, Err(BootError::Archive { .. })), "{damaged:?}");
    assert!(packages.lay_out(driver.hash, &scene.path("tree")).is_err());
    assert!(!scene.path("tree").exists());
}
