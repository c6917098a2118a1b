//! One installation: prepare, stage, fetch, commit. What each phase may rely on, and what it leaves, is said at its function.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use colibri_common::{BlobId, ByteRange};
use colibri_package::url::{AbsolutePackageUrl, PinnedPackageUrl};
use colibri_release::update_package::{ImageSlot, ImageTarget, UpdateImage, UpdateMode, UpdatePackage, UpdateTarget};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::boot::Slot;
use super::images::ImagePlace;
use super::record::{AttemptState, Installed, Phase};
use super::{UpdateError, Updater};
use crate::cache::Depth;
use crate::device::PackageContents;
use crate::fetch::{Event, Observer};
use crate::keep::Keep;
use crate::limits::{IMAGE_PIECE_BYTES, UPDATE_FILE_BYTES_MAX};

/// How far an installation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateProgress {
    /// What it does.
    pub phase: Phase,
    /// Content bytes fetched since it began.
    pub fetched_bytes: u64,
    /// Image bytes written, or found to be there.
    pub image_bytes: u64,
    /// Image bytes in all; 0 until they are known.
    pub image_bytes_total: u64,
    /// Packages that are here.
    pub packages: u64,
    /// Packages in all; 0 until they are known.
    pub packages_total: u64,
}

/// Hears [`UpdateProgress`].
pub type UpdateObserver = Arc<dyn Fn(UpdateProgress) + Send + Sync>;

/// An installation under way.
pub(super) struct Install<'a> {
    updater: &'a Updater,
    slot: Slot,
    progress: Arc<Progress>,
}

struct Progress {
    hear: UpdateObserver,
    state: Mutex<UpdateProgress>,
    fetched_bytes: AtomicU64,
}

impl Progress {
    fn change(&self, change: impl FnOnce(&mut UpdateProgress)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.fetched_bytes = self.fetched_bytes.load(Ordering::Relaxed);
        (self.hear)(*state);
    }
}

impl<'a> Install<'a> {
    pub fn new(updater: &'a Updater, slot: Slot, hear: UpdateObserver) -> Self {
        let state = UpdateProgress {
            phase: Phase::Prepare,
            fetched_bytes: 0,
            image_bytes: 0,
            image_bytes_total: 0,
            packages: 0,
            packages_total: 0,
        };
        let progress = Progress { hear, state: Mutex::new(state), fetched_bytes: AtomicU64::new(0) };
        Self { updater, slot, progress: Arc::new(progress) }
    }

    pub async fn run(&self, url: &AbsolutePackageUrl) -> Result<(), UpdateError> {
        let (hash, update) = self.prepare(url).await?;
        self.stage(hash, &update).await?;
        if update.mode == UpdateMode::Normal {
            self.fetch(hash, &update).await?;
        }
        self.commit(hash, &update).await
    }

    fn enter(&self, phase: Phase, update: Option<&UpdatePackage>) -> Result<(), UpdateError> {
        let now = self.updater.device.now();
        self.progress.change(|progress| progress.phase = phase);
        self.updater.change(|record| record.enter(phase, update, now))
    }

    fn observer(&self) -> Observer {
        let progress = self.progress.clone();
        Arc::new(move |event| {
            if let Event::Verified { content_bytes, .. } = event {
                progress.fetched_bytes.fetch_add(content_bytes, Ordering::Relaxed);
                progress.change(|_| ());
            }
        })
    }

    /// The update package is here, and is for this device.
    async fn prepare(&self, url: &AbsolutePackageUrl) -> Result<(BlobId, UpdatePackage), UpdateError> {
        let updater = self.updater;
        self.enter(Phase::Prepare, None)?;
        // What an earlier attempt retained is of no use to this one, unless it is asked for again.
        updater.device.retain([], []).await?;
        let opened = updater.device.resolve_update(url, "system update", self.observer()).await?;
        let hash = opened.resolved.hash;
        updater.device.retain([hash], []).await?;
        let contents = updater.device.open_package(hash).await?;
        let name = contents.inline.get("meta/package").map(|json| package_name(json)).unwrap_or_default();
        if name != "update" {
            return Err(UpdateError::Name { url: url.to_string(), found: name });
        }
        let files = self.files(&contents).await?;
        let update = UpdatePackage::read(|name| Ok(files.get(name).cloned()))
            .map_err(|error| UpdateError::Package { url: url.to_string(), error })?;
        update.check_for(&self.target())?;
        Ok((hash, update))
    }

    /// The files of an update package that say what it is.
    async fn files(&self, contents: &PackageContents) -> Result<BTreeMap<&'static str, Bytes>, UpdateError> {
        const FILES: [&str; 6] = ["packages.json", "images.json", "epoch.json", "board", "update-mode", "version"];
        let mut files = BTreeMap::new();
        for name in FILES {
            let Some(id) = contents.blobs.get(name).copied() else { continue };
            files.insert(name, self.updater.device.read_blob(id, UPDATE_FILE_BYTES_MAX).await?);
        }
        Ok(files)
    }

    fn target(&self) -> UpdateTarget {
        let config = &self.updater.config;
        let record = self.updater.record();
        let epoch = record.system(self.slot.other()).map_or(config.epoch, |system| system.epoch.max(config.epoch));
        UpdateTarget { board: config.board.clone(), epoch, writes_recovery: config.writes_recovery }
    }

    /// Every image of the update is in its place, read back and right. Image packages are needed only here.
    async fn stage(&self, hash: BlobId, update: &UpdatePackage) -> Result<(), UpdateError> {
        let updater = self.updater;
        self.enter(Phase::Stage, Some(update))?;
        let total = update.images.iter().map(|image| image.bytes).sum();
        self.progress.change(|progress| progress.image_bytes_total = total);
        let mut absent = Vec::new();
        for image in &update.images {
            if self.skips(image) {
                continue;
            }
            let place = self.place(image);
            if self.holds(place.clone(), image).await? {
                self.progress.change(|progress| progress.image_bytes += image.bytes);
            } else {
                absent.push((place, image));
            }
        }
        let holders: BTreeSet<&PinnedPackageUrl> = absent.iter().map(|(_, image)| &image.package).collect();
        let wanted = packages_of(update).chain(holders.iter().map(|url| url.hash())).chain([hash]);
        updater.device.retain(wanted, []).await?;
        updater.device.collect(Depth::Unused).await?;
        for url in holders {
            let host = url.as_unpinned().repository().host();
            updater.device.fetch_retained(host, url.hash(), self.observer()).await?;
        }
        for (place, image) in absent {
            self.write(place, image).await?;
            self.progress.change(|progress| progress.image_bytes += image.bytes);
        }
        Ok(())
    }

    /// Recovery is written only where that is allowed.
    fn skips(&self, image: &UpdateImage) -> bool {
        let is_recovery = matches!(image.target, ImageTarget::Partition { slot: ImageSlot::Recovery, .. });
        is_recovery && !self.updater.config.writes_recovery
    }

    fn place(&self, image: &UpdateImage) -> ImagePlace {
        match &image.target {
            ImageTarget::Partition { slot: ImageSlot::Fuchsia, kind } => ImagePlace::Slot(self.slot, *kind),
            ImageTarget::Partition { slot: ImageSlot::Recovery, kind } => ImagePlace::Recovery(*kind),
            ImageTarget::Firmware(kind) => ImagePlace::Firmware(self.slot, kind.clone()),
        }
    }

    async fn holds(&self, place: ImagePlace, image: &UpdateImage) -> Result<bool, UpdateError> {
        let (images, bytes, sha256) = (self.updater.images.clone(), image.bytes, image.sha256);
        blocking(move || images.holds(&place, bytes, &sha256)).await
    }

    async fn write(&self, place: ImagePlace, image: &UpdateImage) -> Result<(), UpdateError> {
        let updater = self.updater;
        let contents = updater.device.open_package(image.package.hash()).await?;
        let absent = || UpdateError::NoImage { package: image.package.hash(), path: image.path.clone() };
        let blob = *contents.blobs.get(&image.path).ok_or_else(absent)?;
        let (keep, images, bytes, sha256) =
            (updater.device.keep().clone(), updater.images.clone(), image.bytes, image.sha256);
        blocking(move || {
            let mut next = |at: u64| piece(keep.as_ref(), blob, at, bytes);
            images.write(&place, bytes, &sha256, &mut next)
        })
        .await
    }

    /// Every package of the new system is here, whole. Image packages are given up before.
    async fn fetch(&self, hash: BlobId, update: &UpdatePackage) -> Result<(), UpdateError> {
        let updater = self.updater;
        self.enter(Phase::Fetch, Some(update))?;
        self.progress.change(|progress| progress.packages_total = update.packages.len() as u64);
        updater.device.retain(packages_of(update).chain([hash]), []).await?;
        updater.device.collect(Depth::Unused).await?;
        let places = Arc::new(Semaphore::new(updater.config.resolves_at_once.max(1)));
        let mut resolves = JoinSet::new();
        for url in &update.packages {
            let (places, device, observer) = (places.clone(), updater.device.clone(), self.observer());
            let (host, hash) = (url.as_unpinned().repository().host().to_owned(), url.hash());
            resolves.spawn(async move {
                let _place = places.acquire_owned().await;
                device.fetch_retained(&host, hash, observer).await
            });
        }
        while let Some(resolved) = resolves.join_next().await {
            resolved.map_err(|error| UpdateError::Internal(error.to_string()))??;
            self.progress.change(|progress| progress.packages += 1);
        }
        Ok(())
    }

    /// The new system starts next. Before that the record says what it needs, so that it is protected from its first start on.
    async fn commit(&self, hash: BlobId, update: &UpdatePackage) -> Result<(), UpdateError> {
        let updater = self.updater;
        self.enter(Phase::Commit, Some(update))?;
        match update.mode {
            UpdateMode::ForceRecovery => updater.boot.activate_recovery()?,
            UpdateMode::Normal => {
                for package in packages_of(update) {
                    if !updater.device.is_on_device(package).await? {
                        return Err(crate::error::DeviceError::NotOnDevice(package).into());
                    }
                }
                let (version, epoch) = (update.version.clone(), update.epoch);
                let packages = packages_of(update).collect();
                let installed = Installed { version, epoch, update: hash, packages };
                updater.change(|record| record.set_system(self.slot, Some(installed)))?;
                updater.boot.activate(self.slot)?;
            }
        }
        let now = updater.device.now();
        updater.change(|record| record.set_state(AttemptState::WaitToReboot, now))
    }
}

fn packages_of(update: &UpdatePackage) -> impl Iterator<Item = BlobId> + '_ {
    update.packages.iter().map(PinnedPackageUrl::hash)
}

/// The name in a `meta/package` file.
fn package_name(json: &[u8]) -> String {
    let name = |json| Some(serde_json::from_slice::<serde_json::Value>(json).ok()?.get("name")?.as_str()?.to_owned());
    name(json).unwrap_or_default()
}

/// The next piece of an image that is a blob; empty at its end.
fn piece(keep: &dyn Keep, blob: BlobId, at: u64, image_bytes: u64) -> Result<Vec<u8>, UpdateError> {
    let failed = |error| UpdateError::Device(crate::error::DeviceError::Keep(error));
    let length = keep.length(&blob).map_err(failed)?.unwrap_or(0);
    let end = length.min(image_bytes).min(at.saturating_add(IMAGE_PIECE_BYTES));
    if at >= end {
        return Ok(Vec::new());
    }
    keep.read_range(&blob, ByteRange::new(at, end)).map(|bytes| bytes.to_vec()).map_err(failed)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UpdateError> + Send + 'static,
) -> Result<T, UpdateError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| UpdateError::Internal(error.to_string()))?
}
