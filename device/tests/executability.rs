//! What files of a package may do, by the set that it is in: those of base are executed, and no others.

mod product;
mod scene;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use colibri_common::BlobId;
use colibri_device::materialise::Rights;
use colibri_device::sets::Upgrade;
use colibri_device::{Device, DeviceConfig};
use colibri_release::Availability::{Automatic, OnDemand, Permanent};
use colibri_release::Versioning::{Anchored, Upgradable};
use product::Product;
use scene::{HOST, nobody, noise, url};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// Permission bits of the one content file in the tree of a package, and of what `meta/` has.
async fn modes(device: &Device, package: BlobId) -> (u32, u32) {
    let lease = device.lease(package, "test").await.unwrap();
    let tree = device.tree(&lease).await.unwrap();
    (mode(&tree.join("data")), mode(&tree.join("meta/package")))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_files_of_base_and_its_subpackages_may_be_executed() {
    let mut product = Product::new();
    let inner = product.package("inner", &[("data", &noise(7, 9_000))], &[]);
    // The same bytes in base and elsewhere.
    let content = noise(1, 60_000);
    let base = product.package("base", &[("data", &content)], &[&inner]).hash;
    let twin = product.package("twin", &[("data", &content), ("other", b"")], &[]).hash;
    let names = ["fallback", "upgraded", "auto", "demand", "found"];
    let [fallback, upgraded, auto, demand, found] =
        [0, 1, 2, 3, 4].map(|index| product.simple(names[index], 20 + index as u64));
    let cluster = product.scene.serve(1);
    let (device, store) = product.device(&cluster);
    let release = product.release(
        "1",
        &[
            ("base", Permanent, Anchored, Some(base), None),
            ("fallback", Permanent, Upgradable, Some(fallback), None),
            ("upgraded", OnDemand, Upgradable, None, None),
            ("auto", Automatic, Anchored, Some(auto), None),
            ("demand", OnDemand, Anchored, Some(demand), None),
            ("twin", OnDemand, Anchored, Some(twin), None),
        ],
        true,
    );
    product.take(&device, &release).await;
    device.fetch_automatic(nobody()).await.unwrap();
    let upgrade = Upgrade { hash: upgraded, version: "1".parse().unwrap() };
    device.upgrade(url("upgraded").as_unpinned(), upgrade, nobody()).await.unwrap();
    for name in ["demand", "found", "twin"] {
        device.resolve(&url(name), nobody()).await.unwrap();
    }
    for (set, package, expected) in [
        ("permanent & anchored", base, 0o555),
        ("its subpackage", inner.hash, 0o555),
        ("permanent & upgradable", fallback, 0o444),
        ("automatic & anchored", auto, 0o444),
        ("on demand & anchored", demand, 0o444),
        ("on demand & upgradable", upgraded, 0o444),
        ("on demand & discoverable", found, 0o444),
        ("with bytes of base", twin, 0o444),
        ("base, after others were laid out", base, 0o555),
    ] {
        assert_eq!(modes(&device, package).await, (expected, 0o444), "{set}");
    }
    // Out of base with the next release, and so are the rights.
    product.take(&device, &product.release("2", &[("base", OnDemand, Anchored, Some(base), None)], false)).await;
    assert_eq!(modes(&device, base).await, (0o444, 0o444));
    drop((device, store));
    let config = DeviceConfig { all_packages_executable: true, ..DeviceConfig::default() };
    let (device, _store) = product.scene.device("device", config, product.scene.config(&cluster, HOST));
    assert_eq!(device.rights_of(demand).await.unwrap(), Rights::Execute, "where the configuration says so");
    cluster.stop().await;
}
