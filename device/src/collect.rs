//! What a device does about its packages at rest: collect, make room, lease, lay out as a tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use colibri_common::BlobId;
use colibri_fetch::Class;
use colibri_fetch::FetchError;
use colibri_package::url::AbsolutePackageUrl;

use crate::authority::{Lookup, ResolvedBy, told};
use crate::cache::{CollectionReport, Depth, Lease, LeaseInfo, Protection};
use crate::device::{Device, Resolved};
use crate::error::DeviceError;
use crate::fetch::{FetchReport, Observer};
use crate::keep::KeepError;
use crate::materialise::{MaterialiseError, Rights, materialise};

/// What running systems need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SystemBase {
    /// What its packages are called: package hashes by unpinned URL.
    pub urls: BTreeMap<String, BlobId>,
    /// Packages, each with all it names.
    pub packages: BTreeSet<BlobId>,
    /// Single blobs.
    pub blobs: BTreeSet<BlobId>,
}

/// A package that is wholly on the device, and stays while the lease is held.
#[derive(Debug)]
pub struct Opened {
    /// What had to be done for it.
    pub resolved: Resolved,
    /// Keeps it here.
    pub lease: Lease,
}

impl Device {
    /// Says whether the running release was committed as healthy. Until then the previous one may still be needed, and
    /// nothing is collected. A device begins committed.
    pub fn set_release_committed(&self, is_committed: bool) {
        self.committed().store(is_committed, Ordering::SeqCst);
    }

    /// Deletes what no index protects, as far as `depth` says.
    ///
    /// # Errors
    /// The running release is not committed, what was kept cannot be read, or the disk fails.
    pub async fn collect(&self, depth: Depth) -> Result<CollectionReport, DeviceError> {
        if !self.committed().load(Ordering::SeqCst) {
            return Err(DeviceError::PendingCommit);
        }
        self.cache().collect(depth).await
    }

    /// Collects if less than the low watermark is free, until the high one is, as far as that goes.
    pub(crate) async fn make_room(&self) -> Result<(), DeviceError> {
        let space = self.config().space;
        if self.cache().store().is_err() {
            return Ok(());
        }
        let free_bytes = self.free_bytes().await?;
        if free_bytes >= space.low_bytes {
            return Ok(());
        }
        match self.collect_to_high().await {
            Ok(report) => {
                tracing::info!(free_bytes, freed_bytes = report.removed_bytes, "collected: space was short");
                Ok(())
            }
            // What there is of space may still be enough.
            Err(error) => {
                tracing::warn!(free_bytes, %error, "space is short, and nothing was collected");
                Ok(())
            }
        }
    }

    /// Collects until the high watermark is free, as far as that goes.
    pub(crate) async fn collect_to_high(&self) -> Result<CollectionReport, DeviceError> {
        let bytes = self.config().space.high_bytes.saturating_sub(self.room_bytes().await?);
        self.collect(Depth::Free { bytes }).await
    }

    /// Bytes that are free when nothing is left of blobs that nobody asks for again: before a package has to go, they do.
    pub(crate) async fn room_bytes(&self) -> Result<u64, DeviceError> {
        let store = self.cache().store()?.clone();
        let room =
            tokio::task::spawn_blocking(move || Ok(store.free_bytes()?.saturating_add(store.unfinished_bytes()?)));
        room.await.map_err(|error| DeviceError::Internal(error.to_string()))?
    }

    /// Bytes that may still be written to the store's disk.
    pub(crate) async fn free_bytes(&self) -> Result<u64, DeviceError> {
        let store = self.cache().store()?.clone();
        let free = tokio::task::spawn_blocking(move || store.free_bytes()).await;
        Ok(free.map_err(|error| DeviceError::Internal(error.to_string()))??)
    }

    /// Resolves a URL and opens the package. `holder` says who does, for those who list leases.
    pub async fn resolve_open(
        &self,
        url: &AbsolutePackageUrl,
        holder: &str,
        observer: Observer,
    ) -> Result<Opened, DeviceError> {
        let open = async |found: &Lookup| self.fetch_open(found, holder, observer).await;
        told(self, url, Box::pin(self.look_up(url)).await, open).await
    }

    /// [`Device::resolve_open`] for the updater: an update package is in no package set of the running release.
    pub(crate) async fn resolve_update(
        &self,
        url: &AbsolutePackageUrl,
        holder: &str,
        observer: Observer,
    ) -> Result<Opened, DeviceError> {
        let meant = self.rules().rewrite(url);
        tracing::info!("attempting to resolve {url} as {meant} with {}", ResolvedBy::Tuf);
        let found = self.pinned_or_listed(&meant).await.map(|hash| Lookup { url: meant, hash, by: ResolvedBy::Tuf });
        told(self, url, found, async |found: &Lookup| self.fetch_open(found, holder, observer).await).await
    }

    async fn fetch_open(&self, found: &Lookup, holder: &str, observer: Observer) -> Result<Opened, DeviceError> {
        let Lookup { url: meant, hash, by } = found.clone();
        let (report, fetching) = self.fetch_tracked(meant.repository().host(), hash, observer).await?;
        let lease = fetching.finish_open(hash, holder, self.now())?;
        self.cache().used(hash, self.now()).await;
        Ok(Opened { resolved: Resolved { url: meant, hash, by, report }, lease })
    }

    /// Opens a package that is on the device.
    pub async fn lease(&self, package: BlobId, holder: &str) -> Result<Lease, DeviceError> {
        let lease = self.cache().lease(package, holder, self.now()).await?;
        // Announced first, tested second.
        let is_here = self.boot_packages().contains(package) || self.is_on_device(package).await?;
        if is_here { Ok(lease) } else { Err(DeviceError::NotOnDevice(package)) }
    }

    /// Packages that are open, oldest first.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        self.cache().leases()
    }

    /// Replaces what a system updater retains: packages with all they name, and single blobs. Durable.
    pub async fn retain(
        &self,
        packages: impl IntoIterator<Item = BlobId>,
        blobs: impl IntoIterator<Item = BlobId>,
    ) -> Result<(), DeviceError> {
        let (packages, blobs) = (packages.into_iter().collect(), blobs.into_iter().collect());
        let change = |kept: &mut crate::cache::Kept| {
            kept.retained_packages = packages;
            kept.retained_blobs = blobs;
        };
        self.cache().change(change).await
    }

    /// Replaces base, if it is known: what the running system needs. Durable, as is whether that system was committed.
    pub(crate) async fn set_system(&self, base: Option<SystemBase>, is_committed: bool) -> Result<(), DeviceError> {
        let follows_release = self.release().is_some();
        let change = |kept: &mut crate::cache::Kept| {
            kept.pending_commit = !is_committed;
            // Of another system than the one that runs nobody is to hear, as after falling back.
            kept.named.system = base.as_ref().map(|base| base.urls.clone()).unwrap_or_default();
            if let Some(base) = base {
                (kept.system, kept.system_blobs) = (base.packages, base.blobs);
                if !follows_release && is_committed {
                    // What the device was made with is replaced by its first update, once that need not be given up.
                    kept.base.clear();
                    kept.named.base.clear();
                }
            }
        };
        self.cache().change(change).await?;
        self.set_release_committed(is_committed);
        Ok(())
    }

    /// Fetches a package that [`Device::retain`] named from the repository of `host`. Only that protects it, also now.
    pub async fn fetch_retained(
        &self,
        host: &str,
        package: BlobId,
        observer: Observer,
    ) -> Result<FetchReport, DeviceError> {
        let fetching = self.cache().start(package, Protection::Retained).await?;
        let repository = self.repositories().get(host)?;
        let fetch = self.package_fetch(&repository, observer).with_class(Class::Warm);
        let report = fetch.package(package, &fetching).await?;
        fetching.finish()?;
        Ok(report)
    }

    /// Fetches what is missing of a package; if the disk is full, collects once and goes on.
    pub(crate) async fn fetch_tracked(
        &self,
        host: &str,
        package: BlobId,
        observer: Observer,
    ) -> Result<(FetchReport, crate::cache::Fetching), DeviceError> {
        let repository = self.repositories().get(host);
        self.make_room().await?;
        let fetching = self.cache().start(package, Protection::Tracking).await?;
        let fetch = match &repository {
            Ok(repository) => self.package_fetch(repository, observer),
            // What is here needs none.
            Err(_) => self.package_fetch_of_nobody(observer),
        };
        let report = match fetch.package(package, &fetching).await {
            Err(full @ DeviceError::Keep(KeepError::NoSpace(_))) => {
                let freed = self.collect(Depth::Free { bytes: self.config().space.high_bytes }).await;
                if !freed.is_ok_and(|report| report.removed_bytes > 0) {
                    return Err(full);
                }
                fetch.package(package, &fetching).await?
            }
            Err(DeviceError::Blob(FetchError::NoSource(_))) if repository.is_err() => {
                return Err(DeviceError::RepositoryNotFound(host.to_owned()));
            }
            fetched => fetched?,
        };
        Ok((report, fetching))
    }

    /// What the files of a package may do: those of base and their subpackages may be executed, by package hash; no others,
    /// unless the configuration says that all may.
    pub async fn rights_of(&self, package: BlobId) -> Result<Rights, DeviceError> {
        if self.config().all_packages_executable {
            return Ok(Rights::Execute);
        }
        let cache = self.cache().clone();
        let is_base = tokio::task::spawn_blocking(move || cache.is_base(package)).await;
        let is_base = is_base.map_err(|error| DeviceError::Internal(error.to_string()))??;
        Ok(if is_base { Rights::Execute } else { Rights::Read })
    }

    /// The package as a read-only tree of files, which is there as long as the lease is held.
    pub async fn tree(&self, lease: &Lease) -> Result<PathBuf, DeviceError> {
        let package = lease.package();
        let cache = self.cache().clone();
        let contents = self.open_package(package).await?;
        let rights = self.rights_of(package).await?;
        let boot = self.boot_packages().clone();
        let made = tokio::task::spawn_blocking(move || {
            let place = cache
                .trees()?
                .place(package, rights)
                .map_err(|error| DeviceError::Tree { package, reason: error.to_string() })?;
            let laid_out = match boot.contains(package) {
                true => boot.lay_out(package, &place),
                false => materialise(cache.store()?, &contents.blobs, &contents.inline, &place, rights),
            };
            match laid_out {
                Ok(_) | Err(MaterialiseError::TargetExists { .. }) => Ok(place),
                Err(error) => Err(DeviceError::Tree { package, reason: error.to_string() }),
            }
        });
        made.await.map_err(|error| DeviceError::Internal(error.to_string()))?
    }
}
