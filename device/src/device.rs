//! [`Device`]: resolve, look up, report, open. Each public method is one thing that a person or a daemon asks of a device.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use colibri_common::{BlobId, Clock, UnixSeconds};
use colibri_fetch::metadata::{self, Mirrors};
use colibri_fetch::trust_store::TrustStore;
use colibri_fetch::{BlobFetcher, FetchError};
use colibri_metadata::{Found, Search, Step, TargetName, TrustedSet};
use colibri_package::url::AbsolutePackageUrl;
use colibri_store::{Disk, Documents, OsDisk, Store};
use colibri_transport::{Client, ClientConfig};

use crate::cache::Cache;
use crate::clock_floor::FlooredClock;
use crate::config::DeviceConfig;
use crate::context::ContextKey;
use crate::error::DeviceError;
use crate::fetch::{FetchReport, Observer, PackageFetch, blocking, read_meta_far};
use crate::keep::{Keep, KeepError};
use crate::limits::REFRESH_AGAIN_S;
use crate::repositories::{Repositories, Repository};
use crate::rollout::{self, ROLLOUT};
use crate::rules::Rules;
use crate::static_config::StaticConfig;
use crate::writers::Writers;

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
    writers: Arc<Writers>,
    repositories: Repositories,
    rules: Rules,
    client: Client,
    clock: Arc<dyn Clock>,
    /// The same clock, if it has a floor.
    floor: Option<Arc<FlooredClock>>,
    /// What contexts are authenticated with; another one in each process.
    context_key: ContextKey,
    config: Arc<DeviceConfig>,
    agent: String,
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
    /// What had to be done for it.
    pub report: FetchReport,
}

/// Answer of `pkg-status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageStatus {
    /// The hash that the repository lists, if it lists the package.
    pub in_repository: Option<BlobId>,
    /// Whether all blobs of that hash, or of the one that the URL pins, are on the device.
    pub on_disk: bool,
}

/// What is in a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageContents {
    /// Content files by package path.
    pub blobs: BTreeMap<String, BlobId>,
    /// Files inside meta.far by package path.
    pub inline: BTreeMap<String, Bytes>,
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
        let repositories = Repositories::open(documents()?, TrustStore::new(documents()?), shipped)?;
        let cache = Cache::open(store.clone(), documents()?, dir)?;
        let store = Arc::new(store);
        let floor = Arc::new(FlooredClock::open(clock, documents()?, config.built_at)?);
        let (clock, floor) = (floor.clone(), Some(floor));
        Ok((Self::with_cache(store.clone(), cache, repositories, rules, config, (clock, floor))?, store))
    }

    /// A device over any keep and any set of repositories. It cannot collect.
    pub fn with_keep(
        keep: Arc<dyn Keep>,
        repositories: Repositories,
        config: DeviceConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DeviceError> {
        Self::with_cache(keep, Cache::without_home(), repositories, Rules::in_memory(), config, (clock, None))
    }

    fn with_cache(
        keep: Arc<dyn Keep>,
        cache: Cache,
        repositories: Repositories,
        rules: Rules,
        config: DeviceConfig,
        (clock, floor): (Arc<dyn Clock>, Option<Arc<FlooredClock>>),
    ) -> Result<Self, DeviceError> {
        let client_config = ClientConfig { trust: config.tls.clone(), http3: config.http3, ..ClientConfig::default() };
        let client = Client::new(client_config)?;
        let agent = format!("colibri-device/{}", env!("CARGO_PKG_VERSION"));
        let config = Arc::new(config);
        let writers = Arc::default();
        let (committed, cache) = (AtomicBool::new(cache.is_committed()), Arc::new(cache));
        let context_key = ContextKey::fresh()?;
        let inner = Inner {
            keep,
            cache,
            committed,
            writers,
            repositories,
            rules,
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

    /// What contexts are authenticated with.
    pub(crate) fn context_key(&self) -> &ContextKey {
        &self.inner.context_key
    }

    /// Its connections.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Refreshes a repository's metadata if it is stale, or in any case if `force`d. When a refresh fails for want of a
    /// mirror, trusted metadata that is here goes on being used; when mirrors serve metadata that must be refused, that is
    /// an error.
    pub async fn refresh(&self, host: &str, force: bool) -> Result<Arc<TrustedSet>, DeviceError> {
        let inner = &self.inner;
        let repository = inner.repositories.get(host)?;
        let _one_at_a_time = repository.refreshing.lock().await;
        let now = inner.clock.now();
        let life_s = inner.config.metadata_life_s;
        // A clock that was set back makes nothing fresh.
        let is_fresh = repository.checked_at().is_some_and(|at| at <= now && now < at.plus(life_s));
        if let Some(set) = repository.trusted().filter(|set| !force && is_fresh && now < set.earliest_expiry()) {
            return Ok(set);
        }
        if let Some(set) = repository.trusted().filter(|set| {
            // Mirrors that were all away a moment ago are not walked again for every lookup.
            let failed_just_now = repository.failed_at().is_some_and(|at| at <= now && now < at.plus(REFRESH_AGAIN_S));
            !force && failed_just_now && now < set.earliest_expiry()
        }) {
            return Ok(set);
        }
        let start = repository.start()?;
        let fetched = metadata::refresh(&inner.client, repository.sources(), "", &inner.agent, start, now).await;
        let fetched = match fetched {
            Ok(set) => {
                inner.repositories.trust(&repository, set, Some(now))?;
                // The set is trusted either way.
                if let Some(Err(error)) = inner.floor.as_ref().map(|floor| floor.trusted(now)) {
                    tracing::warn!(%error, "how late it is at least could not be written down");
                }
                Ok(())
            }
            Err(unfinished) => {
                if let Some(floor) = unfinished.floor {
                    inner.repositories.trust(&repository, floor, None)?;
                }
                Err(unfinished.error)
            }
        };
        match (fetched, repository.trusted()) {
            (Ok(()), _) => {}
            (Err(error @ (FetchError::AllFailed { .. } | FetchError::NotFound { .. })), Some(old))
                if now < old.earliest_expiry() =>
            {
                repository.failed(now);
                tracing::warn!(%host, %error, "metadata could not be refreshed: using what is trusted already");
            }
            (Err(error), _) => return Err(DeviceError::Metadata { repository: host.to_owned(), error }),
        }
        repository.trusted().ok_or_else(|| DeviceError::RepositoryNotFound(host.to_owned()))
    }

    /// The package hash that is wanted. If a release is running, what that says of the package; else the URL's pin, else what
    /// the repository lists, and then the name must be listed in any case.
    pub async fn get_hash(&self, url: &AbsolutePackageUrl) -> Result<BlobId, DeviceError> {
        self.wanted_hash(&self.meant(url)).await
    }

    /// What a URL stands for: itself, if the running release says which version it means, else what the rules make of it.
    pub(crate) fn meant(&self, url: &AbsolutePackageUrl) -> AbsolutePackageUrl {
        match self.hash_in_release(url) {
            Ok(Some(_)) => url.clone(),
            Ok(None) | Err(_) => self.rules().rewrite(url),
        }
    }

    /// [`Device::get_hash`] of a URL that no rule applies to any more.
    pub(crate) async fn wanted_hash(&self, meant: &AbsolutePackageUrl) -> Result<BlobId, DeviceError> {
        match self.hash_in_release(meant)? {
            Some(hash) => Ok(hash),
            None => self.pinned_or_listed(meant).await,
        }
    }

    /// What the URL pins, else what its repository lists, whatever a release says.
    pub(crate) async fn pinned_or_listed(&self, meant: &AbsolutePackageUrl) -> Result<BlobId, DeviceError> {
        let listed = self.listed_hash(meant).await?;
        Ok(meant.hash().unwrap_or(listed))
    }

    /// The hash that the repository lists for the name in a URL, whatever the URL pins.
    async fn listed_hash(&self, url: &AbsolutePackageUrl) -> Result<BlobId, DeviceError> {
        let host = url.repository().host();
        let package = url.path().to_string();
        let name: TargetName = package
            .parse()
            .map_err(|error| DeviceError::InvalidUrl { url: url.to_string(), reason: format!("{error}") })?;
        let set = self.refresh(host, false).await?;
        let delegates = set.targets().is_some_and(|targets| targets.delegations().is_some());
        // What an online role may name is a document to be checked, never a package.
        let found = match url.name().as_str() == ROLLOUT {
            true => None,
            false if delegates => self.search(host, set, &name).await?.1.and_then(rollout::unless_of_rollout),
            false => set.find(&name),
        };
        let repository = host.to_owned();
        let Some(target) = found else { return Err(DeviceError::PackageNotFound { repository, package }) };
        target.merkle().ok_or(DeviceError::TargetWithoutHash { repository, package })
    }

    /// Looks through delegated roles; those that are not here yet are fetched, and stay for the next lookup. Gives the set with
    /// all that were met.
    pub(crate) async fn search(
        &self,
        host: &str,
        set: Arc<TrustedSet>,
        name: &TargetName,
    ) -> Result<(TrustedSet, Option<Found>), DeviceError> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let mut local = Search::start((*set).clone(), name.clone(), now);
        let searched = match local.next() {
            Step::Done => local.finish().map_err(|error| FetchError::Metadata {
                source_name: "what is trusted here".to_owned(),
                error: Arc::new(error),
            }),
            Step::Want(_) => {
                let repository = inner.repositories.get(host)?;
                let sources = repository.sources();
                let mirrors = Mirrors { client: &inner.client, sources, place: "", agent: &inner.agent };
                let searched = mirrors.search((*set).clone(), name, now).await;
                if let Ok((grown, _)) = &searched {
                    repository.keep_delegated(&set, grown);
                }
                searched.map_err(|unfinished| unfinished.error)
            }
        };
        searched.map_err(|error| DeviceError::Metadata { repository: host.to_owned(), error })
    }

    /// Resolves a URL: what it stands for, metadata, package hash, then everything that is missing.
    pub async fn resolve(&self, url: &AbsolutePackageUrl, observer: Observer) -> Result<Resolved, DeviceError> {
        let meant = self.meant(url);
        let work = async {
            let hash = self.wanted_hash(&meant).await?;
            let (report, fetching) = self.fetch_tracked(meant.repository().host(), hash, observer).await?;
            // Before the fetch ends, so that something protects the package without a gap.
            self.inner.cache.used(hash, self.now()).await;
            fetching.finish()?;
            Ok(Resolved { url: meant.clone(), hash, report })
        };
        told(url, &meant, work, |resolved| resolved.hash).await
    }

    /// Fetches from a repository's mirrors.
    pub(crate) fn fetcher(&self, repository: &Repository) -> BlobFetcher {
        let inner = &self.inner;
        BlobFetcher::new(inner.client.clone(), repository.sources().clone(), &inner.agent)
    }

    /// The time.
    pub(crate) fn now(&self) -> UnixSeconds {
        self.inner.clock.now()
    }

    /// The package cache.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.inner.cache
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
        let inner = &self.inner;
        let fetcher = self.fetcher(repository);
        let (keep, writers) = (inner.keep.clone(), inner.writers.clone());
        PackageFetch { fetcher, keep, writers, config: inner.config.clone(), observer }
    }

    /// Whether the repository lists the package, and whether it is on the device.
    pub async fn package_status(&self, url: &AbsolutePackageUrl) -> Result<PackageStatus, DeviceError> {
        let url = &self.rules().rewrite(url);
        let in_repository = match self.listed_hash(url).await {
            Ok(hash) => Some(hash),
            Err(DeviceError::PackageNotFound { .. }) => None,
            Err(error) => return Err(error),
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

    /// The contents of a package that is on the device.
    pub async fn open_package(&self, hash: BlobId) -> Result<PackageContents, DeviceError> {
        if !self.is_on_device(hash).await? {
            return Err(DeviceError::NotOnDevice(hash));
        }
        let meta_far = read_meta_far(&self.inner.keep, hash).await?;
        let blobs = meta_far.contents().iter().map(|(path, id)| (path.to_string(), *id)).collect();
        let inline = meta_far.meta_paths().filter_map(|path| Some((path.to_owned(), meta_far.meta_file(path)?)));
        let inline = inline.collect();
        Ok(PackageContents { blobs, inline })
    }
}

/// Does the work of resolving `url` as `meant`, and tells the log what came of it, in the words of real devices.
pub(crate) async fn told<T>(
    url: &AbsolutePackageUrl,
    meant: &AbsolutePackageUrl,
    work: impl Future<Output = Result<T, DeviceError>>,
    hash: impl Fn(&T) -> BlobId,
) -> Result<T, DeviceError> {
    tracing::info!("attempting to resolve {url} as {meant} with TUF");
    let outcome = work.await;
    match &outcome {
        Ok(resolved) => tracing::info!("resolved {url} as {meant} to {} with TUF", hash(resolved)),
        // Whoever asked is told by the error; this is for the log alone.
        Err(error) => tracing::info!("failed to resolve {url} as {meant} with TUF: {}: {error}", error.kind()),
    }
    outcome
}
