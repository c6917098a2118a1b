//! [`Device`]: resolve, look up, report, open. Each public method is one thing that a person or a daemon asks of a device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use colibri_common::{BlobId, Clock, UnixSeconds};
use colibri_fetch::trust_store::TrustStore;
use colibri_fetch::{Bandwidth, BlobFetcher, Class, SourceOrder, Sources};
use colibri_package::MetaFar;
use colibri_package::url::AbsolutePackageUrl;
use colibri_release::Release;
use colibri_store::{Disk, Documents, OsDisk, Store};
use colibri_transport::Client;

use crate::authority::{Authorities, Lookup, ResolvedBy, told};
use crate::boot_packages::{self, BootPackages};
use crate::boot_sets;
use crate::cache::Cache;
use crate::clock_floor::FlooredClock;
use crate::config::{DeviceConfig, Preference};
use crate::context::ContextKey;
use crate::eager::Eager;
use crate::error::DeviceError;
use crate::fetch::{FetchReport, Observer, PackageFetch, Share, blocking, read_meta_far};
use crate::keep::{Keep, KeepError};
use crate::overlay::Overlays;
use crate::repositories::{Repositories, Repository};
use crate::rules::Rules;
use crate::static_config::StaticConfig;

/// A device. Cheap to clone.
#[derive(Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

struct Inner {
    keep: Arc<dyn Keep>,
    cache: Arc<Cache>,
    /// Whether the running release was committed.
    committed: AtomicBool,
    share: Arc<Share>,
    repositories: Repositories,
    rules: Rules,
    overlays: Overlays,
    boot: BootPackages,
    /// The folder of a device that has one.
    dir: Option<PathBuf>,
    authorities: Authorities,
    /// Eager packages of a device with a folder.
    eager: OnceLock<Arc<Eager>>,
    client: Client,
    clock: Arc<dyn Clock>,
    /// The same clock, if it has a floor.
    floor: Option<Arc<FlooredClock>>,
    /// What contexts are authenticated with; another one in each process.
    context_key: ContextKey,
    config: Arc<DeviceConfig>,
    agent: String,
}

/// What says which package a URL means.
struct Names {
    repositories: Repositories,
    rules: Rules,
    overlays: Overlays,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("repositories", &self.inner.repositories).finish_non_exhaustive()
    }
}

/// A package that is wholly on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The URL that was meant, after rewriting.
    pub url: AbsolutePackageUrl,
    /// The package hash.
    pub hash: BlobId,
    /// Who said so.
    pub by: ResolvedBy,
    /// What had to be done for it.
    pub report: FetchReport,
}

/// Answer of `pkg-status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageStatus {
    /// The hash that the repository lists, if it lists the package; or that somebody says who goes before repositories.
    pub in_repository: Option<BlobId>,
    /// Whether all blobs of that hash, or of the one that the URL pins, are on the device.
    pub on_disk: bool,
}

/// What is in a package.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageContents {
    /// Content files by package path.
    pub blobs: BTreeMap<String, BlobId>,
    /// Files inside meta.far by package path.
    pub inline: BTreeMap<String, Bytes>,
}

impl PackageContents {
    pub(crate) fn of(meta_far: &MetaFar) -> Self {
        let blobs = meta_far.contents().iter().map(|(path, id)| (path.to_string(), *id)).collect();
        let inline = meta_far.meta_paths().filter_map(|path| Some((path.to_owned(), meta_far.meta_file(path)?)));
        let inline = inline.collect();
        Self { blobs, inline }
    }
}

impl Device {
    /// Opens the device kept in `dir`: its store, repositories, rewrite rules and trusted metadata; and what it was shipped
    /// with, in `config` there.
    pub fn open(dir: &Path, config: DeviceConfig, clock: Arc<dyn Clock>) -> Result<(Self, Arc<Store>), DeviceError> {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        Self::open_on(&disk, dir, config, clock)
    }

    /// [`Device::open`] on any disk.
    pub fn open_on(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        config: DeviceConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Arc<Store>), DeviceError> {
        let (store, recovery) = Store::open(disk.clone(), &dir.join("store"))?;
        tracing::debug!(?recovery, "the store is open");
        let documents = || Documents::open(disk.clone(), &dir.join("state"));
        let shipped = StaticConfig::read(disk, &dir.join("config"));
        let rules = Rules::open(documents()?, &shipped)?;
        let eager = Arc::new(Eager::open(documents()?, shipped.eager.clone())?);
        let overlays = Overlays::open(documents()?)?;
        let repositories = Repositories::open(documents()?, TrustStore::new(documents()?), shipped)?;
        let cache = Cache::open(store.clone(), documents()?, dir, &eager)?;
        let store = Arc::new(store);
        boot_sets::settle(dir, cache.release().as_deref());
        let boot_packages = boot_sets::boot_packages_of(dir, config.boot_packages.as_deref());
        let config = DeviceConfig { boot_packages, ..config };
        let floor = Arc::new(FlooredClock::open(clock, documents()?, config.built_at)?);
        let (clock, floor) = (floor.clone(), Some(floor));
        let names = Names { repositories, rules, overlays };
        let client = Client::new(config.client())?;
        let device = Self::with_cache(store.clone(), (cache, Some(dir)), names, (config, client), (clock, floor))?;
        device.set_eager(eager.clone());
        // Nobody else has the device yet.
        _ = device.inner.eager.set(eager);
        Ok((device, store))
    }

    /// A device over any keep and any set of repositories. It cannot collect.
    pub fn with_keep(
        keep: Arc<dyn Keep>,
        repositories: Repositories,
        config: DeviceConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DeviceError> {
        let client = Client::new(config.client())?;
        Self::with_client(keep, repositories, config, client, clock)
    }

    /// [`Device::with_keep`] with connections that there are already, or that leave by another way.
    pub fn with_client(
        keep: Arc<dyn Keep>,
        repositories: Repositories,
        config: DeviceConfig,
        client: Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DeviceError> {
        let names = Names { repositories, rules: Rules::in_memory(), overlays: Overlays::in_memory() };
        Self::with_cache(keep, (Cache::without_home(), None), names, (config, client), (clock, None))
    }

    fn with_cache(
        keep: Arc<dyn Keep>,
        (cache, dir): (Cache, Option<&Path>),
        Names { repositories, rules, overlays }: Names,
        (config, client): (DeviceConfig, Client),
        (clock, floor): (Arc<dyn Clock>, Option<Arc<FlooredClock>>),
    ) -> Result<Self, DeviceError> {
        let agent = format!("colibri-device/{}", env!("CARGO_PKG_VERSION"));
        let boot = boot_packages::read(config.boot_packages.as_deref());
        let config = Arc::new(config);
        let share = Arc::new(Share::new(&config));
        let (committed, cache) = (AtomicBool::new(cache.is_committed()), Arc::new(cache));
        let context_key = ContextKey::fresh()?;
        let inner = Inner {
            keep,
            cache,
            committed,
            share,
            repositories,
            rules,
            overlays,
            boot,
            dir: dir.map(Path::to_owned),
            authorities: Authorities::default(),
            eager: OnceLock::new(),
            client,
            clock,
            floor,
            context_key,
            config,
            agent,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The repositories it knows.
    pub fn repositories(&self) -> &Repositories {
        &self.inner.repositories
    }

    /// Its rewrite rules.
    pub fn rules(&self) -> &Rules {
        &self.inner.rules
    }

    /// The packages that came with the boot image.
    pub fn boot_packages(&self) -> &BootPackages {
        &self.inner.boot
    }

    /// Its folder, if it has one.
    pub(crate) fn dir(&self) -> Option<&Path> {
        self.inner.dir.as_deref()
    }

    /// What developers put in the place of package sets.
    pub(crate) fn overlays(&self) -> &Overlays {
        &self.inner.overlays
    }

    /// What the chain of authorities remembers.
    pub(crate) fn authorities(&self) -> &Authorities {
        &self.inner.authorities
    }

    /// Eager packages.
    ///
    /// # Errors
    /// A device without a folder has none.
    pub fn eager(&self) -> Result<&Arc<Eager>, DeviceError> {
        self.inner.eager.get().ok_or(DeviceError::NoStore)
    }

    /// What contexts are authenticated with.
    pub(crate) fn context_key(&self) -> &ContextKey {
        &self.inner.context_key
    }

    /// Its connections.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The package hash that is wanted, and nothing is fetched: what the chain of [`crate::authority`] says.
    pub async fn get_hash(&self, url: &AbsolutePackageUrl) -> Result<BlobId, DeviceError> {
        Ok(self.look_up(url).await?.hash)
    }

    /// Resolves a URL: which version it means, then everything that is missing of that.
    pub async fn resolve(&self, url: &AbsolutePackageUrl, observer: Observer) -> Result<Resolved, DeviceError> {
        let fetch = async |found: &Lookup| {
            let Lookup { url: meant, hash, by } = found.clone();
            let (report, fetching) = self.fetch_tracked(meant.repository().host(), hash, observer).await?;
            // Before the fetch ends, so that something protects the package without a gap.
            self.inner.cache.used(hash, self.now()).await;
            fetching.finish()?;
            Ok(Resolved { url: meant, hash, by, report })
        };
        told(self, url, Box::pin(self.look_up(url)).await, fetch).await
    }

    /// Fetches from a repository's mirrors.
    pub(crate) fn fetcher(&self, repository: &Repository) -> BlobFetcher {
        self.fetcher_of(repository.sources().clone())
    }

    /// Fetches from these within the bounds of this device.
    fn fetcher_of(&self, sources: Arc<Sources>) -> BlobFetcher {
        let inner = &self.inner;
        for source in sources.list() {
            source.budget().set_in_flight_max(inner.config.requests_per_mirror);
        }
        let fetcher =
            BlobFetcher::new(inner.client.clone(), sources, &inner.agent).with_patience(inner.config.patience);
        let fetcher = fetcher.with_persistence(inner.config.persistence).with_clock(inner.clock.clone());
        fetcher.with_bandwidth(inner.share.bandwidth.clone())
    }

    /// Has whoever sends more of a blob of this release than it says be blamed.
    pub(crate) fn expect_sizes_of(&self, release: &Release) {
        self.inner.share.expect_sizes_of(release);
    }

    /// Has whoever sends more of this meta.far than its repository lists be blamed.
    pub(crate) fn expect_listed(&self, meta_far: BlobId, bytes: u64) {
        self.inner.share.expect_listed(meta_far, bytes);
    }

    /// How fast everything is read, if that is bounded.
    pub(crate) fn bandwidth(&self) -> Option<&Bandwidth> {
        self.inner.share.bandwidth.as_ref()
    }

    /// The time.
    pub(crate) fn now(&self) -> UnixSeconds {
        self.inner.clock.now()
    }

    /// The package cache.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.inner.cache
    }

    /// The same clock, if it has a floor.
    pub(crate) fn floor(&self) -> Option<&FlooredClock> {
        self.inner.floor.as_deref()
    }

    /// How it calls itself to servers.
    pub(crate) fn agent(&self) -> &str {
        &self.inner.agent
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> &DeviceConfig {
        &self.inner.config
    }

    /// Whether the running release was committed.
    pub(crate) fn committed(&self) -> &AtomicBool {
        &self.inner.committed
    }

    pub(crate) fn package_fetch(&self, repository: &Repository, observer: Observer) -> PackageFetch {
        self.package_fetch_with(self.fetcher(repository), observer)
    }

    /// Finds what is here, and has nobody to ask for the rest.
    pub(crate) fn package_fetch_of_nobody(&self, observer: Observer) -> PackageFetch {
        let nobody = Arc::new(Sources::new(Vec::new(), SourceOrder::Listed));
        self.package_fetch_with(BlobFetcher::new(self.inner.client.clone(), nobody, &self.inner.agent), observer)
    }

    fn package_fetch_with(&self, fetcher: BlobFetcher, observer: Observer) -> PackageFetch {
        let inner = &self.inner;
        let (keep, share, cache) = (inner.keep.clone(), inner.share.clone(), inner.cache.clone());
        let candidates = Arc::new(move || cache.packages_lately_used());
        PackageFetch { fetcher, keep, share, class: Class::Demand, candidates, config: inner.config.clone(), observer }
    }

    /// Fetches from sources of no repository, in one form.
    pub(crate) fn fetch_from(&self, sources: Arc<Sources>, preference: Preference, observer: Observer) -> PackageFetch {
        let config = Arc::new(DeviceConfig { preference, ..(*self.inner.config).clone() });
        PackageFetch { config, ..self.package_fetch_with(self.fetcher_of(sources), observer).with_class(Class::Warm) }
    }

    /// Whether the repository lists the package, and whether it is on the device.
    pub async fn package_status(&self, url: &AbsolutePackageUrl) -> Result<PackageStatus, DeviceError> {
        let known = self.known_here(url).await?;
        let url = &self.rules().rewrite(url);
        let in_repository = match known {
            Some(hash) => Some(hash),
            None => match self.listed_hash(url).await {
                Ok(hash) => Some(hash),
                Err(DeviceError::PackageNotFound { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        let on_disk = match in_repository {
            Some(listed) => self.is_on_device(url.hash().unwrap_or(listed)).await?,
            None => false,
        };
        Ok(PackageStatus { in_repository, on_disk })
    }

    /// True if the package, its content and its subpackages are all here.
    pub async fn is_on_device(&self, hash: BlobId) -> Result<bool, DeviceError> {
        let keep = &self.inner.keep;
        let mut packages = vec![hash];
        let mut seen = std::collections::HashSet::from([hash]);
        while let Some(package) = packages.pop() {
            if blocking(keep, move |keep| keep.length(&package)).await?.is_none() {
                return Ok(false);
            }
            let meta_far = match read_meta_far(keep, package).await {
                // Spoiled by the disk: to resolve it again fetches it again.
                Err(DeviceError::Keep(KeepError::Damaged(_))) => return Ok(false),
                read => read?,
            };
            packages.extend(meta_far.subpackages().values().copied().filter(|id| seen.insert(*id)));
            let content: Vec<_> = meta_far.contents().values().copied().collect();
            let all_here = blocking(keep, move |keep| {
                for id in content {
                    if keep.length(&id)?.is_none() {
                        return Ok(false);
                    }
                }
                Ok(true)
            });
            if !all_here.await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The content of a blob that is on the device, at most `bytes_max`.
    pub(crate) async fn read_blob(&self, id: BlobId, bytes_max: u64) -> Result<Bytes, DeviceError> {
        blocking(&self.inner.keep, move |keep| keep.read(&id, bytes_max)).await
    }

    /// Where its blobs are.
    pub(crate) fn keep(&self) -> &Arc<dyn Keep> {
        &self.inner.keep
    }

    /// What a package that is on the device names, boot packages included.
    pub(crate) async fn meta_far(&self, package: BlobId) -> Result<MetaFar, DeviceError> {
        match self.boot_packages().meta_far(package) {
            Some(meta_far) => Ok(meta_far.clone()),
            None => read_meta_far(&self.inner.keep, package).await,
        }
    }

    /// The contents of a package that is on the device, boot packages included.
    pub async fn open_package(&self, hash: BlobId) -> Result<PackageContents, DeviceError> {
        if !self.boot_packages().contains(hash) && !self.is_on_device(hash).await? {
            return Err(DeviceError::NotOnDevice(hash));
        }
        Ok(PackageContents::of(&self.meta_far(hash).await?))
    }
}
