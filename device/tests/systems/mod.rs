//! Releases as update packages and as signed manifests, and one device with two slots that can be started many times.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod manifest;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_cluster::Cluster;
use colibri_common::{BlobId, SystemClock, hex, sha256};
use colibri_device::update::{
    BootControl, FileBoot, ImagePlace, Images, Slot, UpdateConfig, UpdateObserver, UpdateSource, Updater,
};
use colibri_device::{Device, DeviceConfig};
use colibri_metadata::{RepoConfig, Role};
use colibri_release::ReleaseBuilder;
use colibri_release::update_package::PartitionKind;
use colibri_store::{Disk, Documents, OsDisk, Store};
use serde_json::json;

use crate::scene::{Built, HOST, Scene, noise, url};

pub const BOARD: &str = "toucan";

/// What is special about a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// It brings recovery only.
    ForceRecovery,
    /// `images.json` lies about the zbi.
    WrongImageHash,
    /// There is no `images.json`.
    NoImages,
}

/// How a system is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    ByPackage,
    ByManifest,
}

/// A system to be released.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    pub version: &'static str,
    pub board: &'static str,
    pub epoch: u64,
    pub change: Change,
}

impl Release {
    pub fn new(version: &'static str) -> Self {
        Self { version, board: BOARD, epoch: 0, change: Change::Nothing }
    }
}

/// Its zbi and its firmware.
pub fn images(release: &Release) -> (Vec<u8>, Vec<u8>) {
    let seed = u64::from(release.version.as_bytes()[0]);
    (noise(seed, 70_000), noise(seed + 1000, 5_000))
}

/// A released system.
pub struct Released {
    pub packages: Vec<BlobId>,
    pub source: UpdateSource,
    zbi: Vec<u8>,
    firmware: Vec<u8>,
}

impl Released {
    /// Whether all of it is on the device, with its images in `slot`.
    pub async fn is_whole(&self, device: &Started, slot: Slot) -> bool {
        for package in &self.packages {
            if !device.device.is_on_device(*package).await.unwrap() {
                return false;
            }
        }
        let holds = |place: ImagePlace, content: &[u8]| {
            device.images.holds(&place, content.len() as u64, &sha256(content)).unwrap()
        };
        holds(ImagePlace::Slot(slot, PartitionKind::Zbi), &self.zbi)
            && holds(ImagePlace::Firmware(slot, "bl2".to_owned()), &self.firmware)
    }
}

/// A publisher, an origin, and the disk of one device.
pub struct Bench {
    scene: Scene,
    cluster: Cluster,
    repository: RepoConfig,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    told: Told,
}

/// A device that was started.
pub struct Started {
    pub device: Device,
    pub store: Arc<Store>,
    pub updater: Updater,
    pub images: Images,
}

impl Bench {
    /// A device on the disk of this machine.
    pub fn new() -> Self {
        let scene = Scene::new();
        let dir = scene.path("device");
        std::fs::create_dir_all(dir.join("slots")).unwrap();
        Self::on(scene, Arc::new(OsDisk), dir)
    }

    /// A device in `dir` of `disk`, where `slots` exists.
    pub fn on(scene: Scene, disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        scene.release("app", &[("bin/app", b"not an update")]);
        let cluster = scene.serve(1);
        let repository = scene.config(&cluster, HOST);
        Self { scene, cluster, repository, disk, dir, told: Told::ByPackage }
    }

    /// The same, with systems told in another way.
    pub fn telling(self, told: Told) -> Self {
        Self { told, ..self }
    }

    /// A product release without packages: a device that follows it may resolve none.
    pub fn bare_release(&self) -> colibri_release::Release {
        let mut builder = ReleaseBuilder::new("lamp", "1".parse().unwrap());
        let trusted = self.scene.repository.metadata().unwrap();
        let root = trusted.files().find(|(name, _)| *name == Role::Root.file()).unwrap().1.to_vec();
        builder.repository(format!("fuchsia-pkg://{HOST}").parse().unwrap(), String::from_utf8(root).unwrap());
        builder.finish().unwrap()
    }

    /// Where blobs are served, in the form that every client reads.
    pub fn blobs_url(&self) -> String {
        format!("{}/blobs/1", self.repository.mirrors[0].mirror_url)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scene.path(name)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Releases a system: publishes what it consists of, and tells it.
    pub fn release(&self, release: &Release) -> Released {
        let (zbi, firmware) = images(release);
        let [own, inner, shared] = self.packages(release);
        let packages = vec![own.hash, shared.hash];
        let source = match self.told {
            Told::ByPackage => self.update_package(release, &[&own, &shared]),
            Told::ByManifest => {
                let manifest = manifest::Manifest::of(self, release, &[&own, &inner, &shared]);
                self.manifest_file(&manifest.signed(&[manifest::TRUSTED]))
            }
        };
        Released { packages, source, zbi, firmware }
    }

    /// What a release consists of: a package of its own, its subpackage, and one that all releases share.
    fn packages(&self, release: &Release) -> [Built; 3] {
        let seed = u64::from(release.version.as_bytes()[0]);
        let inner = self.scene.build("system-inner", &[("data", &noise(seed + 9, 9_000))], &[]);
        let own = self.scene.build("system-own", &[("data", &noise(seed + 7, 20_000))], &[&inner]);
        let shared = self.scene.build("system-shared", &[("data", &noise(3, 20_000))], &[]);
        [own, inner, shared]
    }

    /// The manifest of a release, which is published; to be changed and signed.
    pub fn manifest_of(&self, release: &Release) -> manifest::Manifest {
        let [own, inner, shared] = self.packages(release);
        manifest::Manifest::of(self, release, &[&own, &inner, &shared])
    }

    /// A signed manifest in a file.
    pub fn manifest_file(&self, file: &[u8]) -> UpdateSource {
        let path = self.scene.path("update.manifest");
        std::fs::write(&path, file).unwrap();
        format!("file://{}", path.display()).parse().unwrap()
    }

    /// Publishes packages, and two images as the package `update-images`; its hash.
    fn publish_with_images(&self, release: &Release, packages: &[&Built]) -> Built {
        let (zbi, firmware) = images(release);
        let holder = self.scene.build("update-images", &[("zbi", &zbi), ("bl2", &firmware)], &[]);
        self.scene.publish(&[packages, &[&holder]].concat());
        holder
    }

    /// Publishes a system as the package `update`.
    fn update_package(&self, release: &Release, packages: &[&Built]) -> UpdateSource {
        let (zbi, firmware) = images(release);
        let holder = self.publish_with_images(release, packages);
        let pinned = |name: &str, hash: BlobId| format!("fuchsia-pkg://{HOST}/{name}/0?hash={hash}");
        let packages: Vec<_> = packages.iter().map(|built| pinned(&built.name, built.hash)).collect();
        let packages = json!({"version": "1", "content": packages}).to_string();
        let image = |content: &[u8], resource: &str| {
            let url = format!("{}#{resource}", pinned("update-images", holder.hash));
            let hash = if release.change == Change::WrongImageHash { hex(&[1; 32]) } else { hex(&sha256(content)) };
            json!({"size": content.len(), "hash": hash, "url": url})
        };
        let mut partition = image(&zbi, "zbi");
        let is_recovery = release.change == Change::ForceRecovery;
        partition["slot"] = json!(if is_recovery { "recovery" } else { "fuchsia" });
        partition["type"] = json!("zbi");
        let mut bl2 = image(&firmware, "bl2");
        bl2["type"] = json!("bl2");
        let images = json!({"version": "1", "contents": {"partitions": [partition], "firmware": [bl2]}}).to_string();
        let mode = if is_recovery { "force-recovery" } else { "normal" };
        let mode = json!({"version": "1", "content": {"mode": mode}}).to_string();
        let epoch = json!({"version": "1", "epoch": release.epoch}).to_string();
        let mut files: Vec<(&str, &[u8])> = vec![
            ("packages.json", packages.as_bytes()),
            ("version", release.version.as_bytes()),
            ("board", release.board.as_bytes()),
            ("epoch.json", epoch.as_bytes()),
            ("update-mode", mode.as_bytes()),
        ];
        if release.change != Change::NoImages {
            files.push(("images.json", images.as_bytes()));
        }
        let update = self.scene.build("update", &files, &[]);
        self.scene.publish(&[&update]);
        url("update").into()
    }

    /// Starts the device. A new `boot_id` is a start of the machine.
    pub async fn start(&self, boot_id: &str) -> Started {
        self.start_with(boot_id, DeviceConfig::default(), |_| ()).await
    }

    pub async fn start_with(
        &self,
        boot_id: &str,
        config: DeviceConfig,
        change: impl FnOnce(&mut UpdateConfig),
    ) -> Started {
        self.start_on(&self.disk, boot_id, config, change).await
    }

    /// As [`Self::start_on`], if the disk still allows it.
    pub async fn try_start_on(
        &self,
        disk: &Arc<dyn Disk>,
        boot_id: &str,
        config: DeviceConfig,
    ) -> Result<Started, String> {
        self.started(disk, boot_id, config, |_| ()).await
    }

    /// Starts it on another disk, as after power loss.
    pub async fn start_on(
        &self,
        disk: &Arc<dyn Disk>,
        boot_id: &str,
        config: DeviceConfig,
        change: impl FnOnce(&mut UpdateConfig),
    ) -> Started {
        self.started(disk, boot_id, config, change).await.unwrap()
    }

    async fn started(
        &self,
        disk: &Arc<dyn Disk>,
        boot_id: &str,
        config: DeviceConfig,
        change: impl FnOnce(&mut UpdateConfig),
    ) -> Result<Started, String> {
        // Metadata is looked at anew every time: releases follow each other within a second here.
        let config = DeviceConfig { metadata_life_s: 0, ..config };
        let opened = Device::open_on(disk, &self.dir, config, Arc::new(SystemClock));
        let (device, store) = opened.map_err(|e| e.to_string())?;
        device.repositories().add(self.repository.clone()).map_err(|e| e.to_string())?;
        let documents = || Documents::open(disk.clone(), &self.dir.join("state")).map_err(|e| e.to_string());
        let boot: Arc<dyn BootControl> = Arc::new(FileBoot::open(documents()?, boot_id).map_err(|e| e.to_string())?);
        let images = Images::new(disk.clone(), &self.dir.join("slots"), BTreeMap::new());
        let manifest_keys = vec![manifest::public(manifest::TRUSTED)];
        let mut config = UpdateConfig { board: BOARD.to_owned(), manifest_keys, ..UpdateConfig::default() };
        change(&mut config);
        let updater = Updater::open(device.clone(), boot, images.clone(), documents()?, config)
            .await
            .map_err(|e| e.to_string())?;
        Ok(Started { device, store, updater, images })
    }
}

/// Hears nothing.
pub fn quiet() -> UpdateObserver {
    Arc::new(|_| ())
}
