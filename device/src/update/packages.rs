//! An update package: reading what it says, and installing the packages and images that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_package::url::{AbsolutePackageUrl, PinnedPackageUrl};
use colibri_release::update_package::{UpdateImage, UpdateMode, UpdatePackage};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::install::{ImageOf, Install};
use super::record::{Installed, News, Phase};
use super::{Slot, UpdateError, Updater};
use crate::cache::Depth;
use crate::device::PackageContents;
use crate::error::DeviceError;
use crate::fetch::Observer;
use crate::limits::UPDATE_FILE_BYTES_MAX;
use crate::sets::key;

impl Updater {
    /// The update package of a URL, which is here afterwards, if it is meant for `slot` of this device.
    pub(super) async fn read_package(
        &self,
        url: &AbsolutePackageUrl,
        observer: Observer,
        slot: Slot,
    ) -> Result<(BlobId, UpdatePackage), UpdateError> {
        let opened = self.device.resolve_update(url, "system update", observer).await?;
        let hash = opened.resolved.hash;
        let contents = self.device.open_package(hash).await?;
        let name = contents.inline.get("meta/package").map(|json| package_name(json)).unwrap_or_default();
        if name != "update" {
            return Err(UpdateError::Name { url: url.to_string(), found: name });
        }
        let files = self.files(&contents).await?;
        let update = UpdatePackage::read(|name| Ok(files.get(name).cloned()))
            .map_err(|error| UpdateError::Package { url: url.to_string(), error })?;
        update.check_for(&self.target(slot))?;
        Ok((hash, update))
    }

    /// The files of an update package that say what it is.
    async fn files(&self, contents: &PackageContents) -> Result<BTreeMap<&'static str, Bytes>, UpdateError> {
        const FILES: [&str; 6] = ["packages.json", "images.json", "epoch.json", "board", "update-mode", "version"];
        let mut files = BTreeMap::new();
        for name in FILES {
            let Some(id) = contents.blobs.get(name).copied() else { continue };
            files.insert(name, self.device.read_blob(id, UPDATE_FILE_BYTES_MAX).await?);
        }
        Ok(files)
    }
}

impl Install<'_> {
    /// Installs an update package.
    pub async fn run_package(&self, url: &AbsolutePackageUrl) -> Result<(), UpdateError> {
        let updater = self.updater;
        self.enter(Phase::Prepare, None)?;
        // What an earlier attempt retained is of no use to this one, unless it is asked for again.
        updater.device.retain([], []).await?;
        let (hash, update) = updater.read_package(url, self.observer(), self.slot).await?;
        let news = News { version: &update.version, mode: update.mode };
        self.stage(hash, &update, news).await?;
        if update.mode == UpdateMode::ForceRecovery {
            return self.commit(news, None);
        }
        self.fetch(hash, &update, news).await?;
        for package in packages_of(&update) {
            if !updater.device.is_on_device(package).await? {
                return Err(DeviceError::NotOnDevice(package).into());
            }
        }
        let (version, epoch, packages) = (update.version.clone(), update.epoch, packages_of(&update).collect());
        let urls = update.packages.iter().map(|url| (key(url.as_unpinned()), url.hash())).collect();
        self.commit(news, Some(Installed { version, epoch, update: hash, packages, urls, blobs: Vec::new() }))
    }

    /// Every image of the update is in its place, read back and right. Image packages are needed only here.
    async fn stage(&self, hash: BlobId, update: &UpdatePackage, news: News<'_>) -> Result<(), UpdateError> {
        let device = &self.updater.device;
        self.enter(Phase::Stage, Some(news))?;
        let absent = self.absent_images(&update.images).await?;
        let holders: BTreeSet<&PinnedPackageUrl> = absent.iter().map(|(_, image)| &image.package).collect();
        let wanted = packages_of(update).chain(holders.iter().map(|url| url.hash())).chain([hash]);
        device.retain(wanted, []).await?;
        device.collect(Depth::Unused).await?;
        for url in holders {
            let host = url.as_unpinned().repository().host();
            device.fetch_retained(host, url.hash(), self.observer()).await?;
        }
        for (place, image) in absent {
            let contents = device.open_package(image.package.hash()).await?;
            let absent = || UpdateError::NoImage { package: image.package.hash(), path: image.path.clone() };
            let blob = *contents.blobs.get(&image.path).ok_or_else(absent)?;
            self.write_image(place, blob, image).await?;
        }
        Ok(())
    }

    /// Every package of the new system is here, whole. Image packages are given up before.
    async fn fetch(&self, hash: BlobId, update: &UpdatePackage, news: News<'_>) -> Result<(), UpdateError> {
        let updater = self.updater;
        self.enter(Phase::Fetch, Some(news))?;
        self.tell(|progress| progress.packages_total = update.packages.len() as u64);
        updater.device.retain(packages_of(update).chain([hash]), []).await?;
        updater.device.collect(Depth::Unused).await?;
        let places = Arc::new(Semaphore::new(updater.device.config().packages_at_once.max(1)));
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
            self.tell(|progress| progress.packages += 1);
        }
        Ok(())
    }
}

impl ImageOf for UpdateImage {
    fn target(&self) -> &colibri_release::update_package::ImageTarget {
        &self.target
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn sha256(&self) -> &colibri_common::Digest {
        &self.sha256
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
