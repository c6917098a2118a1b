//! Eager packages: which signed answers count, what of them outlives a start, and that nothing else is believed.

mod scene;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use colibri_cluster::Cluster;
use colibri_common::{BlobId, SystemClock, hex, sha256};
use colibri_device::eager::EagerError;
use colibri_device::sets::SetError;
use colibri_device::{Depth, Device, DeviceConfig, DeviceError};
use colibri_metadata::Role;
use colibri_package::url::PinnedPackageUrl;
use colibri_release::cup::{CupError, CupExchange};
use colibri_release::{Availability, Release, ReleaseBuilder, ReleasePackage, Versioning};
use colibri_store::testing::CrashDisk;
use colibri_store::{Disk, OsDisk};
use scene::{HOST, Scene, nobody, noise, url};
use serde_json::{Value, json};

/// A versioning authority's key.
struct Signer {
    id: u64,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: u64) -> Self {
        Self { id, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap() }
    }

    fn key(&self) -> Value {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der().unwrap();
        json!({"id": self.id, "key": pem(der.as_ref())})
    }

    /// The answer that offers a version of the package `app`.
    fn answer(&self, hash: BlobId, version: &str) -> CupExchange {
        let name = format!("app?hash={hash}");
        let check = json!({
            "status": "ok",
            "urls": {"url": [{"codebase": format!("fuchsia-pkg://{HOST}/")}]},
            "manifest": {"version": version, "packages": {"package": [{"name": name, "required": true}]}},
        });
        let app = json!({"appid": "a", "status": "ok", "updatecheck": check});
        self.sign(&json!({"response": {"protocol": "3.0", "app": [app]}}).to_string())
    }

    fn sign(&self, response: &str) -> CupExchange {
        let (request, nonce) = ("{}", [7; 32]);
        let parameter = format!("{}:{}", self.id, hex(&nonce));
        let message = [&sha256(request.as_bytes())[..], &sha256(response.as_bytes()), parameter.as_bytes()].concat();
        let signature = self.pair.sign(&SystemRandom::new(), &sha256(&message)).unwrap();
        CupExchange::new(request.to_owned(), response.to_owned(), self.id, nonce, signature.as_ref())
    }
}

fn pem(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in der.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let is_there = digit <= group.len();
            text.push(if is_there { DIGITS[(bits >> (18 - 6 * digit) & 63) as usize] as char } else { '=' });
        }
    }
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

/// Two versions of one package behind an edge, and a third that is no package of it.
struct Site {
    scene: Scene,
    cluster: Cluster,
    signer: Signer,
    one: BlobId,
    two: BlobId,
}

impl Site {
    fn new() -> Self {
        let scene = Scene::new();
        let one = scene.release("app", &[("data", &noise(1, 50_000))]);
        let two = scene.release("app", &[("data", &noise(2, 50_000))]);
        let cluster = scene.serve(1);
        Self { scene, cluster, signer: Signer::new(1), one, two }
    }

    /// Ships the device with these keys and this minimum.
    fn configure(&self, keys: &Value, minimum: &str, cache_fallback: bool) {
        self.configure_on(&OsDisk, &self.scene.path("device"), keys, minimum, cache_fallback);
    }

    fn configure_on(&self, disk: &dyn Disk, dir: &Path, keys: &Value, minimum: &str, cache_fallback: bool) {
        let package = json!({
            "url": format!("fuchsia-pkg://{HOST}/app"), "executable": true, "public_keys": keys,
            "minimum_required_version": minimum, "cache_fallback": cache_fallback, "default_channel": "stable",
        });
        let json = json!({"packages": [package]}).to_string();
        for folder in [dir.to_owned(), dir.join("config")] {
            _ = disk.create_dir(&folder);
            disk.sync_dir(folder.parent().unwrap()).unwrap();
        }
        let file = disk.open(&dir.join("config/eager_package_config.json"), colibri_store::OpenMode::Create).unwrap();
        file.write_at(0, format!("{json:<4096}").as_bytes()).unwrap();
        file.sync().unwrap();
        disk.sync_dir(&dir.join("config")).unwrap();
    }

    fn keys(&self) -> Value {
        json!({"latest": self.signer.key()})
    }

    fn start(&self) -> Device {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        self.start_on(&disk, &self.scene.path("device"))
    }

    fn start_on(&self, disk: &Arc<dyn Disk>, dir: &Path) -> Device {
        let config = DeviceConfig { http3: false, ..DeviceConfig::default() };
        let (device, _) = Device::open_on(disk, dir, config, Arc::new(SystemClock)).unwrap();
        device.repositories().add(self.scene.config(&self.cluster, HOST)).unwrap();
        device
    }

    fn release(&self, version: &str, minimum: &str) -> Release {
        let mut builder = ReleaseBuilder::new("lamp", version.parse().unwrap());
        let trusted = self.scene.repository.metadata().unwrap();
        let root = trusted.files().find(|(name, _)| *name == Role::Root.file()).unwrap().1.to_vec();
        builder.repository(format!("fuchsia-pkg://{HOST}").parse().unwrap(), String::from_utf8(root).unwrap());
        builder.package(ReleasePackage {
            url: format!("fuchsia-pkg://{HOST}/app").parse().unwrap(),
            availability: Availability::OnDemand,
            versioning: Versioning::Upgradable,
            hash: None,
            minimum_version: Some(minimum.parse().unwrap()),
        });
        builder.finish().unwrap()
    }
}

fn pinned(hash: BlobId) -> PinnedPackageUrl {
    url("app").as_unpinned().clone().pin(hash)
}

async fn meant(device: &Device) -> Result<BlobId, DeviceError> {
    device.get_hash(&url("app")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_answer_says_the_version_also_after_a_start_and_without_a_network() {
    let site = Site::new();
    site.configure(&site.keys(), "1.0", false);
    let device = site.start();
    assert!(matches!(meant(&device).await, Err(DeviceError::EagerNotFound(_))), "nobody else is asked");
    device.write_eager(&pinned(site.one), site.signer.answer(site.one, "1.0"), nobody()).await.unwrap();
    assert_eq!(meant(&device).await.unwrap(), site.one, "the repository lists another one");
    device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap();
    assert!(device.is_on_device(site.one).await.unwrap(), "it is firm");
    drop(device);
    let device = site.start();
    let Site { cluster, .. } = site;
    cluster.stop().await;
    assert_eq!(meant(&device).await.unwrap(), site.one);
    device.resolve(&url("app"), nobody()).await.unwrap();
    device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap();
    assert!(device.is_on_device(site.one).await.unwrap(), "also after a start");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_count_changes_nothing() {
    let site = Site::new();
    site.configure(&site.keys(), "1.5", false);
    let device = site.start();
    let good = |version| site.signer.answer(site.two, version);
    device.write_eager(&pinned(site.two), good("1.5"), nobody()).await.unwrap();
    let refused = async |hash, cup| match device.write_eager(&pinned(hash), cup, nobody()).await {
        Err(DeviceError::Eager(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(site.two, good("1.4.9")).await, EagerError::BelowMinimum { .. }));
    assert!(matches!(refused(site.one, good("2")).await, EagerError::NotOffered(_)), "another hash than it offers");
    let stranger = Signer::new(1).answer(site.one, "2");
    let error = refused(site.one, stranger).await;
    assert!(matches!(error, EagerError::Cup { error: CupError::SignatureError(1), .. }), "{error}");
    let unknown = Signer::new(2).answer(site.one, "2");
    let error = refused(site.one, unknown).await;
    assert!(matches!(error, EagerError::Cup { error: CupError::SpecifiedPublicKeyIdMissing(2), .. }), "{error}");
    assert!(matches!(refused(site.one, site.signer.sign("{}")).await, EagerError::Omaha { .. }));
    let absent = colibri_common::merkle::build(b"nowhere").id;
    let nowhere = device.write_eager(&pinned(absent), site.signer.answer(absent, "9"), nobody()).await;
    assert!(matches!(nowhere, Err(DeviceError::Blob(_))), "signed, and not to be had: {nowhere:?}");
    let other = format!("fuchsia-pkg://{HOST}/other?hash={}", site.one).parse().unwrap();
    let other = device.write_eager(&other, good("2"), nobody()).await;
    assert!(matches!(other, Err(DeviceError::Eager(EagerError::NotConfigured(_)))), "{other:?}");
    assert_eq!(meant(&device).await.unwrap(), site.two);
    drop(device);
    assert_eq!(meant(&site.start()).await.unwrap(), site.two);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_is_verified_again_at_every_start() {
    let site = Site::new();
    site.configure(&site.keys(), "1.0", false);
    let device = site.start();
    device.write_eager(&pinned(site.one), site.signer.answer(site.one, "1.0"), nobody()).await.unwrap();
    drop(device);
    let newer = Signer::new(2);
    let rotated = json!({"latest": newer.key(), "historical": [site.signer.key()]});
    site.configure(&rotated, "1.0", false);
    assert_eq!(meant(&site.start()).await.unwrap(), site.one, "an older key counts still");
    site.configure(&json!({"latest": newer.key()}), "1.0", false);
    assert!(matches!(meant(&site.start()).await, Err(DeviceError::EagerNotFound(_))), "its key was removed");
    site.configure(&site.keys(), "1.1", false);
    assert!(matches!(meant(&site.start()).await, Err(DeviceError::EagerNotFound(_))), "below the new minimum");
    site.configure(&site.keys(), "1.0", false);
    assert_eq!(meant(&site.start()).await.unwrap(), site.one);
    let kept = site.scene.path("device/state/eager.json");
    let document = fs::read_to_string(&kept).unwrap();
    for bad in [
        document.replace(&site.one.to_string(), &site.two.to_string()),
        "{}".to_owned(),
        document.replace(":1,", ":2,"),
    ] {
        assert_ne!(bad, document);
        fs::write(&kept, bad).unwrap();
        assert!(matches!(meant(&site.start()).await, Err(DeviceError::EagerNotFound(_))));
    }
    let device = site.start();
    device.write_eager(&pinned(site.two), site.signer.answer(site.two, "1.0"), nobody()).await.unwrap();
    assert_eq!(meant(&device).await.unwrap(), site.two, "the next answer puts it right");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_it_falls_back_to_the_cache_packages_where_that_is_configured() {
    let site = Site::new();
    site.configure(&site.keys(), "1.0", true);
    let device = site.start();
    let cache = json!({"version": "1", "content": [pinned(site.one).to_string()]}).to_string();
    let mut image = colibri_device::sets::ImageSets::default();
    image.read_cache_packages(cache.as_bytes()).unwrap();
    device.set_image(&image).await.unwrap();
    assert_eq!(meant(&device).await.unwrap(), site.one);
    device.write_eager(&pinned(site.two), site.signer.answer(site.two, "1.0"), nobody()).await.unwrap();
    assert_eq!(meant(&device).await.unwrap(), site.two);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgradable_package_of_a_release_follows_its_signed_answers_and_no_others() {
    let site = Site::new();
    site.configure(&site.keys(), "1.0", false);
    let device = site.start();
    device.set_release(site.release("1", "2.0")).await.unwrap();
    let low = device.write_eager(&pinned(site.one), site.signer.answer(site.one, "1.9"), nobody()).await;
    assert!(matches!(low, Err(DeviceError::Set(SetError::BelowMinimum { .. }))), "the release's own minimum: {low:?}");
    device.write_eager(&pinned(site.one), site.signer.answer(site.one, "2.0"), nobody()).await.unwrap();
    assert_eq!(meant(&device).await.unwrap(), site.one);
    drop(device);
    let device = site.start();
    assert_eq!(meant(&device).await.unwrap(), site.one);
    device.set_release(site.release("2", "2.1")).await.unwrap();
    let raised = meant(&device).await;
    assert!(matches!(raised, Err(DeviceError::Set(SetError::NoVersionYet { .. }))), "{raised:?}");
    device.write_eager(&pinned(site.two), site.signer.answer(site.two, "2.1"), nobody()).await.unwrap();
    assert_eq!(meant(&device).await.unwrap(), site.two);
    drop(device);
    // What the package cache remembers is no proof.
    fs::remove_file(site.scene.path("device/state/eager.json")).unwrap();
    let unproven = meant(&site.start()).await;
    assert!(matches!(unproven, Err(DeviceError::Set(SetError::NoVersionYet { .. }))), "{unproven:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn power_loss_at_any_operation_leaves_the_old_version_or_the_new_one_whole() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let site = Site::new();
    let disk = CrashDisk::new();
    let dir = Path::new("/device");
    site.configure_on(&disk, dir, &site.keys(), "1.0", false);
    let on: Arc<dyn Disk> = Arc::new(disk.clone());
    let device = site.start_on(&on, dir);
    device.write_eager(&pinned(site.one), site.signer.answer(site.one, "1.0"), nobody()).await.unwrap();
    let before = disk.operations();
    device.write_eager(&pinned(site.two), site.signer.answer(site.two, "1.1"), nobody()).await.unwrap();
    drop(device);
    let mut seen = [0, 0];
    for cut in before..=disk.operations() {
        let survivor: Arc<dyn Disk> = Arc::new(disk.crash(cut, seed ^ cut as u64));
        let device = site.start_on(&survivor, dir);
        let hash = meant(&device).await.unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap();
        assert!(device.is_on_device(hash).await.unwrap(), "cut {cut}");
        seen[usize::from(hash == site.two)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}
