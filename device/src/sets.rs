//! Package sets on a device: the running release decides what is kept, fetched and resolved, through [`Table`], [`Plan`] and
//! the indices of the package cache.
//!
//! Deliberately absent: downloading a release document and deciding to take it (the update), signed answers of a versioning
//! authority (their verifier), and the developer overlay.

mod bundle;
mod image_files;
mod plan;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use colibri_common::BlobId;
use colibri_fetch::Class;
use colibri_package::url::UnpinnedPackageUrl;
use colibri_release::{Availability, Release};

use crate::cache::{Current, Depth, Named, Protection};
use crate::device::Device;
use crate::error::DeviceError;
use crate::fetch::{FetchReport, Observer};
use crate::keep::KeepError;
pub use bundle::ProvisionError;
pub use image_files::{ImageFileError, ImageSets};
pub use plan::{CannotFit, Cost, Plan};
pub(crate) use plan::{Situation, margin_of, plan};
pub(crate) use table::key;
pub use table::{Authority, Chosen, SetError, SetPackage, SetRow, Table, Upgrade};

/// The repository of the packages that `data/static_packages` of a system image lists.
pub const BASE_HOST: &str = "fuchsia.com";

/// What became of the automatic packages.
#[derive(Debug, Default)]
pub struct AutomaticReport {
    /// Wholly here, those included that were so before.
    pub delivered: Vec<BlobId>,
    /// There is no space for them, though what is there on demand was given up.
    pub deferred: Vec<BlobId>,
    /// They could not be fetched, and why: to be tried again.
    pub failed: Vec<(BlobId, DeviceError)>,
}

impl Device {
    /// The running release, if this device follows one.
    pub fn release(&self) -> Option<Arc<Release>> {
        self.cache().release()
    }

    /// Makes this the running release, durably: from here on it decides what is kept and what may be resolved. Its permanent
    /// packages must be wholly here ([`Device::fetch_before_commit`]). Upgrades that it does not accept are forgotten.
    pub async fn set_release(&self, release: Release) -> Result<(), DeviceError> {
        let cache = self.cache();
        let upgrades = cache.upgrades();
        let table = Table::new(&release, &upgrades);
        let permanent: BTreeSet<_> = table.before_commit().into_iter().map(|(_, hash)| hash).collect();
        // Announced first, tested second.
        let before = cache.announce_base(&permanent).await?;
        let mut missing = Vec::new();
        for hash in &permanent {
            if !self.is_on_device(*hash).await? {
                missing.push(*hash);
            }
        }
        if let Some(first) = missing.first() {
            let (release, count, first) = (table.name(), missing.len(), *first);
            cache.change(|kept| kept.base = before).await?;
            return Err(DeviceError::NotWhole { release, count, first });
        }
        cache.set_release(Arc::new(release.clone())).await?;
        cache.change(|kept| table.apply(kept)).await
    }

    /// Takes over what the real tools wrote into a system image, for a device that follows no release of ours.
    pub async fn set_image(&self, image: &ImageSets) -> Result<(), DeviceError> {
        let of = |availability| image.anchored.get(&availability).into_iter().flatten().map(|(_, hash)| *hash);
        let base = image.base.values().copied().chain(of(Availability::Permanent)).collect();
        if !image.cache.is_empty() {
            tracing::warn!(
                packages = image.cache.len(),
                "the cache package set is deprecated: use permanent & upgradable"
            );
        }
        let cache = image.cache.iter().map(|url| url.hash()).collect();
        let anchored = [Availability::OnDemand, Availability::Automatic].into_iter();
        let anchored = anchored.flat_map(|availability| of(availability).map(move |hash| (hash, availability)));
        let anchored = anchored.collect();
        let named = named_by(image);
        let change = |kept: &mut crate::cache::Kept| {
            // What the update package of the running system says, it goes on saying.
            let system = std::mem::take(&mut kept.named.system);
            let named = Named { system, ..named };
            (kept.base, kept.cache, kept.anchored, kept.named) = (base, cache, anchored, named);
        };
        self.cache().change(change).await
    }

    /// Fetches a version of an upgradable package, and uses it once it is wholly here. Whoever calls has verified that its
    /// authority said so.
    pub async fn upgrade(
        &self,
        url: &UnpinnedPackageUrl,
        upgrade: Upgrade,
        observer: Observer,
    ) -> Result<FetchReport, DeviceError> {
        let release = self.release().ok_or(DeviceError::NoRelease)?;
        let upgrades = self.cache().upgrades();
        let table = Table::new(&release, &upgrades);
        table.check_upgrade(url, upgrade)?;
        let (report, fetching) = self.fetch_tracked(url.repository().host(), upgrade.hash, observer).await?;
        let mut upgrades = upgrades.clone();
        upgrades.insert(key(url), upgrade);
        self.cache().change(|kept| Table::new(&release, &upgrades).apply(kept)).await?;
        fetching.finish()?;
        Ok(report)
    }

    /// Every package set: what may be here, and what is.
    pub async fn sets(&self) -> Result<Vec<SetRow>, DeviceError> {
        let release = self.release().ok_or(DeviceError::NoRelease)?;
        let upgrades = self.cache().upgrades();
        let table = Table::new(&release, &upgrades);
        let mut delivered = BTreeSet::new();
        for hash in release.packages().iter().filter_map(|package| table.chosen(package).hash()) {
            if self.is_on_device(hash).await? {
                delivered.insert(hash);
            }
        }
        Ok(table.rows(|hash| delivered.contains(&hash)))
    }

    /// The packages of the deprecated cache set of the running release, by URL, each with whether it is wholly here.
    pub async fn cache_set(&self) -> Result<Vec<SetPackage>, DeviceError> {
        let release = self.release().ok_or(DeviceError::NoRelease)?;
        let mut packages = Vec::new();
        for package in release.cache() {
            let (url, chosen) = (package.url.to_string(), Chosen::Fallback(package.hash));
            packages.push(SetPackage { url, chosen, is_delivered: self.is_on_device(package.hash).await? });
        }
        Ok(packages)
    }

    /// What taking a release would cost. Nothing is changed.
    ///
    /// # Errors
    /// [`DeviceError::CannotFit`] says exactly why it cannot be taken.
    pub async fn plan(&self, release: &Release) -> Result<Plan, DeviceError> {
        let cache = self.cache().clone();
        let situation = tokio::task::spawn_blocking(move || cache.situation()).await;
        let situation = situation.map_err(|error| DeviceError::Internal(error.to_string()))??;
        let upgrades = self.cache().upgrades();
        plan(&Table::new(release, &upgrades), situation).map_err(|why| DeviceError::CannotFit(Box::new(why)))
    }

    /// Fetches the permanent packages of a release and those of its cache set, after making the room that [`Device::plan`] says. They are retained
    /// until [`Device::retain`] says otherwise.
    pub async fn fetch_before_commit(&self, release: &Release, observer: Observer) -> Result<FetchReport, DeviceError> {
        let packages = self.make_way_for(release).await?;
        self.expect_sizes_of(release);
        let mut report = FetchReport::default();
        for (url, hash) in packages {
            let fetched = self.fetch_retained(url.repository().host(), hash, observer.clone()).await?;
            report.join(&fetched);
        }
        Ok(report)
    }

    /// Retains what is to be here from the start of a release, and makes the room that they need; which they are.
    async fn make_way_for(&self, release: &Release) -> Result<Vec<(UnpinnedPackageUrl, BlobId)>, DeviceError> {
        let plan = self.plan(release).await?;
        let upgrades = self.cache().upgrades();
        let table = Table::new(release, &upgrades);
        if !release.cache().is_empty() {
            let packages = release.cache().len();
            tracing::warn!(packages, "the cache package set is deprecated: use permanent & upgradable");
        }
        let packages = table.from_the_start();
        let packages: Vec<_> = packages.into_iter().map(|(url, hash)| (url.clone(), hash)).collect();
        let hashes: BTreeSet<_> = packages.iter().map(|(_, hash)| *hash).collect();
        self.retain(hashes.clone(), release.blobs_needed(hashes)).await?;
        let space_bytes = plan.before_commit.space_bytes();
        if plan.freed_bytes > 0 || space_bytes > self.free_bytes().await? {
            let bytes = space_bytes.saturating_sub(self.room_bytes().await?);
            self.collect(Depth::Free { bytes }).await?;
        }
        Ok(packages)
    }

    /// Fetches the automatic packages of the running release as far as space and network allow. What is there on demand
    /// makes way for them; they never displace each other. To be called again while something is deferred or failed.
    pub async fn fetch_automatic(&self, observer: Observer) -> Result<AutomaticReport, DeviceError> {
        let release = self.release().ok_or(DeviceError::NoRelease)?;
        if !self.committed().load(Ordering::SeqCst) {
            return Err(DeviceError::PendingCommit);
        }
        let upgrades = self.cache().upgrades();
        self.expect_sizes_of(&release);
        let mut report = AutomaticReport::default();
        for (url, hash) in Table::new(&release, &upgrades).after_commit() {
            if self.is_on_device(hash).await? {
                report.delivered.push(hash);
                continue;
            }
            if !self.room_for(&release, hash).await? {
                report.deferred.push(hash);
                continue;
            }
            match self.fetch_automatic_one(url.repository().host(), hash, observer.clone()).await {
                Ok(()) => report.delivered.push(hash),
                Err(DeviceError::Keep(KeepError::NoSpace(_))) => report.deferred.push(hash),
                Err(error) => report.failed.push((hash, error)),
            }
        }
        Ok(report)
    }

    async fn fetch_automatic_one(&self, host: &str, hash: BlobId, observer: Observer) -> Result<(), DeviceError> {
        let repository = self.repositories().get(host)?;
        let fetching = self.cache().start(hash, Protection::Tracking).await?;
        self.package_fetch(&repository, observer).with_class(Class::Background).package(hash, &fetching).await?;
        fetching.finish()
    }

    /// Whether there is, or could be made, space for an automatic package of a release.
    async fn room_for(&self, release: &Release, hash: BlobId) -> Result<bool, DeviceError> {
        let mut needed = 0_u64;
        for blob in release.blobs_needed([hash]).into_iter().filter_map(|id| release.blob(id)) {
            if self.cache().store()?.contains(blob.hash)?.is_none() {
                needed = needed.saturating_add(blob.raw_bytes + margin_of(blob.raw_bytes));
            }
        }
        // What is kept free for whoever asks for something stays free.
        needed = needed.saturating_add(self.config().space.low_bytes);
        if self.free_bytes().await? < needed {
            let bytes = needed.saturating_sub(self.room_bytes().await?);
            self.collect(Depth::FreeOnDemand { bytes }).await?;
        }
        Ok(self.free_bytes().await? >= needed)
    }
}

/// What an image says about URLs. Its list of base packages has no hosts: they are all of [`BASE_HOST`].
fn named_by(image: &ImageSets) -> Named {
    let by_url =
        |availability| image.anchored.get(&availability).into_iter().flatten().map(|(url, hash)| (key(url), *hash));
    let base = image.base.iter().map(|(path, hash)| (format!("fuchsia-pkg://{BASE_HOST}/{path}"), *hash));
    Named {
        system: BTreeMap::new(),
        base: base.chain(by_url(Availability::Permanent)).collect(),
        anchored: by_url(Availability::OnDemand).chain(by_url(Availability::Automatic)).collect(),
        cache: image.cache.iter().map(|url| (key(url.as_unpinned()), url.hash())).collect(),
    }
}

/// The versions of upgradable packages that are in use.
pub(crate) fn upgrades_of(upgradable: &BTreeMap<String, Current>) -> BTreeMap<String, Upgrade> {
    let upgrade = |current: &Current| Upgrade { hash: current.hash, version: current.version };
    upgradable.iter().map(|(url, current)| (url.clone(), upgrade(current))).collect()
}
