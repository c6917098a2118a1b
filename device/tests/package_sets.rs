//! Every cell of the RFC-0212 grid on a real device: what is here when, what goes first, who says which version.

mod product;
mod scene;

use std::collections::BTreeSet;
use std::sync::Arc;

use colibri_common::{BlobId, SystemClock, merkle};
use colibri_device::sets::{Chosen, ImageSets, SetError, Table, Upgrade};
use colibri_device::{Depth, Device, DeviceConfig, DeviceError, Rank, Watermarks};
use colibri_release::{Availability, PackageSet, ProductVersion, Versioning};
use product::Product;
use scene::{HOST, nobody, noise, scrub, url};

use Availability::{Automatic, OnDemand, Permanent};
use Versioning::{Anchored, Discoverable, Upgradable};

fn version(text: &str) -> ProductVersion {
    text.parse().unwrap()
}

fn unpinned(name: &str) -> colibri_package::url::UnpinnedPackageUrl {
    url(name).as_unpinned().clone()
}

async fn here(device: &Device, hash: BlobId) -> bool {
    device.is_on_device(hash).await.unwrap()
}

/// As much as can be, is given up.
async fn squeeze(device: &Device) -> Vec<(BlobId, Rank)> {
    device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap().evicted
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_anchored_is_here_before_the_commit_and_never_goes() {
    let mut product = Product::new();
    let one = product.simple("base", 1);
    let cluster = product.scene.serve(1);
    let (device, store) = product.device(&cluster);
    let release = product.release("1", &[("base", Permanent, Anchored, Some(one), None)], false);
    let early = device.set_release(release.clone()).await;
    assert!(matches!(early, Err(DeviceError::NotWhole { count: 1, first, .. }) if first == one), "{early:?}");
    assert!(device.release().is_none());
    product.take(&device, &release).await;
    assert!(here(&device, one).await);
    assert_eq!(squeeze(&device).await, []);
    assert!(here(&device, one).await);
    // The repository has a newer one; the release does not.
    let newer = product.simple("base", 2);
    device.refresh(HOST, true).await.unwrap();
    assert_eq!(device.get_hash(&url("base")).await.unwrap(), one);
    let pinned = format!("{}?hash={newer}", url("base")).parse().unwrap();
    let refused = device.get_hash(&pinned).await;
    assert!(
        matches!(&refused, Err(DeviceError::Set(SetError::OtherVersion { allowed, .. })) if *allowed == one),
        "{refused:?}"
    );
    // Known without a network, and after a restart.
    cluster.stop().await;
    drop((device, store));
    let (device, _store) = loop {
        match Device::open(&product.scene.path("device"), DeviceConfig::default(), Arc::new(SystemClock)) {
            Err(DeviceError::Store(_)) => tokio::task::yield_now().await,
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(device.get_hash(&url("base")).await.unwrap(), one);
    assert_eq!(squeeze(&device).await, []);
    assert!(here(&device, one).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn permanent_upgradable_follows_its_authority_and_keeps_its_fallback() {
    let mut product = Product::new();
    let fallback = product.simple("app", 1);
    let old = product.simple("app", 2);
    let new = product.simple("app", 3);
    let cluster = product.scene.serve(1);
    let (device, _store) = product.device(&cluster);
    let packages = [("app", Permanent, Upgradable, Some(fallback), Some("2.0"))];
    product.take(&device, &product.release("1", &packages, false)).await;
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), fallback, "whatever the repository lists");
    let upgrade = Upgrade { hash: old, version: version("1.9.9") };
    let refused = device.upgrade(&unpinned("app"), upgrade, nobody()).await;
    assert!(matches!(refused, Err(DeviceError::Set(SetError::BelowMinimum { .. }))), "{refused:?}");
    assert!(!here(&device, old).await, "not even fetched");
    device.upgrade(&unpinned("app"), Upgrade { hash: new, version: version("2.0") }, nobody()).await.unwrap();
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), new);
    assert_eq!(squeeze(&device).await, []);
    assert!(here(&device, new).await && here(&device, fallback).await, "two versions side by side");
    // A release that wants more falls back.
    let packages = [("app", Permanent, Upgradable, Some(fallback), Some("3"))];
    product.take(&device, &product.release("2", &packages, false)).await;
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), fallback);
    squeeze(&device).await;
    assert!(!here(&device, new).await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn automatic_anchored_comes_after_the_commit_and_goes_last() {
    let mut product = Product::new();
    let (auto, demand) = (product.simple("auto", 1), product.simple("demand", 2));
    let cluster = product.scene.serve(1);
    let (device, _store) = product.device(&cluster);
    let packages =
        [("auto", Automatic, Anchored, Some(auto), None), ("demand", OnDemand, Anchored, Some(demand), None)];
    product.take(&device, &product.release("1", &packages, false)).await;
    assert!(!here(&device, auto).await, "not needed to commit");
    device.set_release_committed(false);
    assert!(matches!(device.fetch_automatic(nobody()).await, Err(DeviceError::PendingCommit)));
    device.set_release_committed(true);
    device.resolve(&url("demand"), nobody()).await.unwrap();
    let report = device.fetch_automatic(nobody()).await.unwrap();
    assert_eq!((report.delivered, report.deferred, report.failed.len()), (vec![auto], vec![], 0));
    device.collect(Depth::Unused).await.unwrap();
    assert!(here(&device, auto).await && !here(&device, demand).await, "what nobody uses is not what nobody wants");
    device.resolve(&url("demand"), nobody()).await.unwrap();
    assert_eq!(squeeze(&device).await, [(demand, Rank::OnDemand), (auto, Rank::Automatic)]);
    // Gone for space, it is tried again, also when the network was away.
    cluster.stop().await;
    let report = device.fetch_automatic(nobody()).await.unwrap();
    assert_eq!((report.delivered, report.deferred, report.failed.len()), (vec![], vec![], 1));
    let cluster = product.scene.serve(1);
    device.repositories().add(product.scene.config(&cluster, HOST)).unwrap();
    assert_eq!(device.fetch_automatic(nobody()).await.unwrap().delivered, [auto]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn automatic_upgradable_is_fetched_in_the_version_in_use() {
    let mut product = Product::new();
    let fallback = product.simple("app", 1);
    let new = product.simple("app", 2);
    let cluster = product.scene.serve(1);
    let (device, _store) = product.device(&cluster);
    let packages =
        [("app", Automatic, Upgradable, Some(fallback), Some("1")), ("later", Automatic, Upgradable, None, Some("5"))];
    product.take(&device, &product.release("1", &packages, false)).await;
    assert_eq!(device.fetch_automatic(nobody()).await.unwrap().delivered, [fallback]);
    let nothing_yet = device.get_hash(&url("later")).await;
    assert!(matches!(nothing_yet, Err(DeviceError::Set(SetError::NoVersionYet { .. }))), "{nothing_yet:?}");
    device.upgrade(&unpinned("app"), Upgrade { hash: new, version: version("1.1") }, nobody()).await.unwrap();
    assert_eq!(device.fetch_automatic(nobody()).await.unwrap().delivered, [new]);
    device.collect(Depth::Garbage).await.unwrap();
    assert!(here(&device, new).await && !here(&device, fallback).await, "what it replaced is garbage");
    assert_eq!(squeeze(&device).await, [(new, Rank::Automatic)]);
    assert_eq!(device.get_hash(&url("app")).await.unwrap(), new, "gone, but not forgotten");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_anchored_comes_at_first_use_in_the_release_version() {
    let mut product = Product::new();
    let one = product.simple("tool", 1);
    product.simple("tool", 2);
    let cluster = product.scene.serve(1);
    let (device, _store) = product.device(&cluster);
    product.take(&device, &product.release("1", &[("tool", OnDemand, Anchored, Some(one), None)], false)).await;
    assert!(device.fetch_automatic(nobody()).await.unwrap().delivered.is_empty());
    assert!(!here(&device, one).await);
    assert_eq!(device.resolve(&url("tool"), nobody()).await.unwrap().hash, one);
    device.collect(Depth::Garbage).await.unwrap();
    assert!(here(&device, one).await, "an index names it");
    assert_eq!(squeeze(&device).await, [(one, Rank::OnDemand)]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_upgradable_comes_at_first_use_in_the_authoritys_version() {
    let mut product = Product::new();
    let old = product.simple("game", 1);
    let new = product.simple("game", 2);
    let cluster = product.scene.serve(1);
    let (device, _store) = product.device(&cluster);
    product.take(&device, &product.release("1", &[("game", OnDemand, Upgradable, None, None)], false)).await;
    assert_eq!(device.resolve(&url("game"), nobody()).await.unwrap().hash, new, "its repository is its authority");
    device.upgrade(&unpinned("game"), Upgrade { hash: old, version: version("1") }, nobody()).await.unwrap();
    assert_eq!(device.resolve(&url("game"), nobody()).await.unwrap().hash, old, "until another has spoken");
    let gone: BTreeSet<_> = squeeze(&device).await.into_iter().collect();
    assert_eq!(gone, [(old, Rank::OnDemand), (new, Rank::OnDemand)].into());
    let anchored = device.upgrade(&unpinned("other"), Upgrade { hash: old, version: version("1") }, nobody()).await;
    assert!(matches!(anchored, Err(DeviceError::Set(SetError::NotUpgradable { .. }))), "{anchored:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand_discoverable_resolves_through_its_domain_only() {
    let mut product = Product::new();
    let found = product.simple("found", 1);
    let cluster = product.scene.serve(1);
    let (device, _store) = product.device(&cluster);
    product.take(&device, &product.release("1", &[], false)).await;
    let refused = device.resolve(&url("found"), nobody()).await;
    assert!(matches!(refused, Err(DeviceError::Set(SetError::NotEligible { .. }))), "{refused:?}");
    assert!(!here(&device, found).await);
    product.take(&device, &product.release("2", &[], true)).await;
    assert_eq!(device.resolve(&url("found"), nobody()).await.unwrap().hash, found);
    let elsewhere = device.resolve(&"fuchsia-pkg://elsewhere/found".parse().unwrap(), nobody()).await;
    assert!(matches!(elsewhere, Err(DeviceError::Set(SetError::NotEligible { .. }))), "{elsewhere:?}");
    assert_eq!(squeeze(&device).await, [(found, Rank::OnDemand)]);
    cluster.stop().await;
}

#[test]
fn permanent_discoverable_and_automatic_discoverable_are_not_applicable() {
    let product = Product::new();
    for availability in [Permanent, Automatic] {
        let reason = PackageSet::new(availability, Discoverable).unwrap_err().to_string();
        assert!(reason.contains("a release names no packages there"), "{reason}");
        let refused = product.try_release("1", &[("app", availability, Discoverable, None, None)], true);
        assert!(refused.as_ref().unwrap_err().to_string().contains(&reason), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn automatic_packages_wait_while_space_is_short_and_displace_what_is_there_on_demand() {
    let mut product = Product::new();
    let (auto, demand) = (product.simple("auto", 1), product.simple("demand", 2));
    let cluster = product.scene.serve(1);
    // More is to be kept free than any disk has.
    let space = Watermarks { low_bytes: u64::MAX, high_bytes: 0 };
    let config = DeviceConfig { space, ..DeviceConfig::default() };
    let (device, _store) = product.scene.device("device", config, product.scene.config(&cluster, HOST));
    let packages =
        [("auto", Automatic, Anchored, Some(auto), None), ("demand", OnDemand, Anchored, Some(demand), None)];
    product.take(&device, &product.release("1", &packages, false)).await;
    device.resolve(&url("demand"), nobody()).await.unwrap();
    device.resolve(&url("auto"), nobody()).await.unwrap();
    assert!(here(&device, demand).await, "asked for, it is fetched all the same");
    assert_eq!(device.fetch_automatic(nobody()).await.unwrap().delivered, [auto]);
    squeeze(&device).await;
    device.resolve(&url("demand"), nobody()).await.unwrap();
    let report = device.fetch_automatic(nobody()).await.unwrap();
    assert_eq!((report.delivered, report.deferred), (vec![], vec![auto]));
    assert!(!here(&device, demand).await, "it made way, in vain");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subpackages_follow_their_parents() {
    let mut product = Product::new();
    let inner = product.package("inner", &[("deep", &noise(1, 50_000))], &[]);
    let base = product.package("base", &[("a", b"base")], &[&inner]).hash;
    let auto = product.package("auto", &[("a", b"auto")], &[&inner]).hash;
    let cluster = product.scene.serve(1);
    let (device, store) = product.device(&cluster);
    let of_base = ("base", Permanent, Anchored, Some(base), None);
    let of_auto = ("auto", Automatic, Anchored, Some(auto), None);
    product.take(&device, &product.release("1", &[of_base, of_auto], false)).await;
    assert!(here(&device, inner.hash).await, "as permanent as its parent");
    device.fetch_automatic(nobody()).await.unwrap();
    assert_eq!(squeeze(&device).await, [(auto, Rank::Automatic)]);
    assert!(here(&device, base).await && here(&device, inner.hash).await, "one parent stays");
    // Under a release that has only the automatic parent it goes with that.
    product.take(&device, &product.release("2", &[of_auto], false)).await;
    device.fetch_automatic(nobody()).await.unwrap();
    device.collect(Depth::Garbage).await.unwrap();
    assert!(!here(&device, base).await && here(&device, inner.hash).await);
    assert_eq!(squeeze(&device).await, [(auto, Rank::Automatic)]);
    assert_eq!(scrub(&store), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_in_two_sets_outlives_leaving_one() {
    let mut product = Product::new();
    let shared = noise(1, 60_000);
    let base = product.package("base", &[("shared", &shared), ("own", b"base")], &[]).hash;
    let auto = product.package("auto", &[("shared", &shared), ("own", b"auto")], &[]).hash;
    let cluster = product.scene.serve(1);
    let (device, store) = product.device(&cluster);
    let blob = merkle::build(&shared).id;
    let of_base = ("base", Permanent, Anchored, Some(base), None);
    let of_auto = ("auto", Automatic, Anchored, Some(auto), None);
    product.take(&device, &product.release("1", &[of_base, of_auto], false)).await;
    device.fetch_automatic(nobody()).await.unwrap();
    squeeze(&device).await;
    assert!(store.contains(blob).unwrap().is_some(), "it left automatic & anchored");
    device.fetch_automatic(nobody()).await.unwrap();
    product.take(&device, &product.release("2", &[of_auto], false)).await;
    device.collect(Depth::Garbage).await.unwrap();
    assert!(store.contains(blob).unwrap().is_some(), "it left permanent & anchored");
    product.take(&device, &product.release("3", &[], false)).await;
    device.collect(Depth::Garbage).await.unwrap();
    assert!(store.contains(blob).unwrap().is_none());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_show_what_is_eligible_and_what_is_delivered() {
    let mut product = Product::new();
    let (base, auto) = (product.simple("base", 1), product.simple("auto", 2));
    let cluster = product.scene.serve(1);
    let (device, _store) = product.device(&cluster);
    assert!(matches!(device.sets().await, Err(DeviceError::NoRelease)));
    let packages = [
        ("base", Permanent, Anchored, Some(base), None),
        ("auto", Automatic, Anchored, Some(auto), None),
        ("later", OnDemand, Upgradable, None, None),
    ];
    product.take(&device, &product.release("1", &packages, true)).await;
    let rows = device.sets().await.unwrap();
    let shown: Vec<_> = rows
        .iter()
        .flat_map(|row| {
            row.packages.iter().map(move |package| (row.set.to_string(), package.chosen, package.is_delivered))
        })
        .collect();
    let expected = [
        ("permanent & anchored".to_owned(), Chosen::Anchored(base), true),
        ("automatic & anchored".to_owned(), Chosen::Anchored(auto), false),
        ("on demand & upgradable".to_owned(), Chosen::Nothing, false),
    ];
    assert_eq!((rows.len(), &shown[..]), (7, &expected[..]));
    assert_eq!(rows[6].domains, [format!("fuchsia-pkg://{HOST}")]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forecast_of_a_plan_is_what_happens() {
    let mut product = Product::new();
    let big = noise(1, 700_000);
    let base = product.package("base", &[("big", &big), ("v", b"1")], &[]).hash;
    let next = product.package("base", &[("big", &big), ("v", &noise(2, 30_000))], &[]).hash;
    let auto = product.simple("auto", 3);
    let cluster = product.scene.serve(1);
    let (device, store) = product.device(&cluster);
    let stored = || store.stats().unwrap().blob_bytes;
    let one = product.release("1", &[("base", Permanent, Anchored, Some(base), None)], false);
    let plan = device.plan(&one).await.unwrap();
    assert_eq!((plan.before_commit.blobs, plan.evicted.len(), plan.freed_bytes), (3, 0, 0));
    product.take(&device, &one).await;
    assert_eq!((stored(), stored()), (plan.peak_bytes, plan.stored_after_bytes));

    let packages = [("base", Permanent, Anchored, Some(next), None), ("auto", Automatic, Anchored, Some(auto), None)];
    let two = product.release("2", &packages, false);
    let plan = device.plan(&two).await.unwrap();
    let fetched = device.fetch_before_commit(&two, nobody()).await.unwrap();
    assert_eq!(
        (plan.before_commit.blobs, plan.before_commit.stored_bytes),
        (fetched.fetched as u64, fetched.content_bytes)
    );
    assert_eq!(fetched.fetched, 2, "what did not change is here");
    assert_eq!(stored(), plan.peak_bytes);
    device.set_release(two).await.unwrap();
    device.retain([], []).await.unwrap();
    device.fetch_automatic(nobody()).await.unwrap();
    device.collect(Depth::Garbage).await.unwrap();
    assert_eq!(stored(), plan.stored_after_bytes);
    assert_eq!((plan.after_commit.blobs, plan.deferred), (2, vec![]));
    cluster.stop().await;
}

#[test]
fn the_real_tools_lists_are_read() {
    let hash = |digit: &str| digit.repeat(64);
    let mut image = ImageSets::default();
    image.read_static_packages(format!("a/0={}\nb/1={}\n", hash("1"), hash("2")).as_bytes()).unwrap();
    assert_eq!(image.base["b/1"].to_string(), hash("2"));
    for bad in ["a/0", "a=", "a/0=1", &format!("a={}", hash("1")), &format!("a/0={0}\na/0={0}\n", hash("1"))] {
        assert!(image.clone().read_static_packages(bad.as_bytes()).is_err(), "{bad}");
    }
    let url = |name: &str, digit: &str| format!("fuchsia-pkg://h.com/{name}/0?hash={}", hash(digit));
    let cache = format!(r#"{{"version":"1","content":["{}","{}"]}}"#, url("a", "3"), url("b", "4"));
    image.read_cache_packages(cache.as_bytes()).unwrap();
    assert_eq!(image.cache[1].to_string(), url("b", "4"));
    for bad in [r#"{"version":"2","content":[]}"#, r#"{"version":"1","content":["fuchsia-pkg://h.com/a"]}"#, "[]"] {
        assert!(image.clone().read_cache_packages(bad.as_bytes()).is_err(), "{bad}");
    }
    image.read_cache_packages(b"").unwrap();
    assert_eq!(image.cache, []);
    let anchored = format!(
        r#"{{"anchored_on_demand":{{"fuchsia-pkg://h.com/a":{{"hash":"{}","later":true}}}},
            "anchored_automatic":{{"fuchsia-pkg://h.com/b":{{"hash":"{}"}}}}}}"#,
        hash("5"),
        hash("6")
    );
    image.read_anchored_packages(anchored.as_bytes()).unwrap();
    assert_eq!(image.anchored[&OnDemand].values().next().unwrap().to_string(), hash("5"));
    assert_eq!(image.anchored[&Automatic].len(), 1);
    let entry = |name: &str| format!(r#""fuchsia-pkg://h.com/{name}":{{"hash":"{}"}}"#, hash("7"));
    for bad in [
        format!(r#"{{"anchored_never":{{{}}}}}"#, entry("a")),
        format!(r#"{{"anchored_automatic":{{{}}}}}"#, entry(&format!("a?hash={}", hash("7")))),
        format!(r#"{{"anchored_automatic":{{{},{}}}}}"#, entry("a"), entry("a")),
        format!(r#"{{"anchored_automatic":{{{},{}}}}}"#, entry("a"), entry("a/0")),
    ] {
        assert!(image.clone().read_anchored_packages(bad.as_bytes()).is_err(), "{bad}");
    }
    image.read_anchored_packages(b"").unwrap();
    assert!(image.anchored.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sets_of_a_system_image_protect_their_packages() {
    let mut product = Product::new();
    let (base, cache, auto) = (product.simple("base", 1), product.simple("cached", 2), product.simple("auto", 3));
    let other = product.scene.release("other", &[("data", b"not of the product")]);
    let cluster = product.scene.serve(1);
    let (device, _store) = product.device(&cluster);
    for name in ["base", "cached", "auto", "other"] {
        device.resolve(&url(name), nobody()).await.unwrap();
    }
    let mut image = ImageSets::default();
    image.read_static_packages(format!("base/0={base}\n").as_bytes()).unwrap();
    let pinned = format!("fuchsia-pkg://{HOST}/cached/0?hash={cache}");
    image.read_cache_packages(format!(r#"{{"version":"1","content":["{pinned}"]}}"#).as_bytes()).unwrap();
    let anchored = format!(r#"{{"anchored_automatic":{{"fuchsia-pkg://{HOST}/auto":{{"hash":"{auto}"}}}}}}"#);
    image.read_anchored_packages(anchored.as_bytes()).unwrap();
    device.set_image(&image).await.unwrap();
    assert_eq!(squeeze(&device).await, [(other, Rank::OnDemand), (auto, Rank::Automatic)]);
    assert!(here(&device, base).await && here(&device, cache).await);
    cluster.stop().await;
}

#[test]
fn the_table_orders_what_is_fetched_when() {
    let mut product = Product::new();
    let (a, b, c) = (product.simple("a", 1), product.simple("b", 2), product.simple("c", 3));
    let packages = [
        ("a", Permanent, Anchored, Some(a), None),
        ("b", Automatic, Upgradable, Some(b), None),
        ("c", OnDemand, Anchored, Some(c), None),
    ];
    let release = product.release("1", &packages, false);
    let upgrades = [(format!("fuchsia-pkg://{HOST}/b/0"), Upgrade { hash: c, version: version("1") })].into();
    let table = Table::new(&release, &upgrades);
    let hashes = |list: Vec<(&colibri_package::url::UnpinnedPackageUrl, BlobId)>| {
        list.into_iter().map(|(_, hash)| hash).collect::<Vec<_>>()
    };
    assert_eq!((hashes(table.before_commit()), hashes(table.after_commit())), (vec![a], vec![c]));
}
