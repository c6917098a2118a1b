//! [`Repositories`]: which repositories a device knows, by host, with their trusted metadata. Configurations and trust are
//! durable when the device has a folder, and live in memory when it has none (a synthetic device).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::{UnixSeconds, merkle};
use colibri_fetch::trust_store::TrustStore;
use colibri_fetch::{Source, SourceOrder, Sources};
use colibri_metadata::limits::REPO_CONFIG_LIST_BYTES_MAX;
use colibri_metadata::{RepoConfig, Role, Start, TrustedSet};
use colibri_store::{DocumentName, Documents};

use crate::error::DeviceError;
use crate::lagging::LaggingMirrors;
use crate::limits::REPOSITORIES_MAX;
use crate::static_config::StaticConfig;

/// One configured repository.
#[derive(Debug)]
pub struct Repository {
    config: RepoConfig,
    /// The device was shipped with it.
    is_static: bool,
    sources: Arc<Sources>,
    /// The newest that was proven, whole or not: the floor, and where the next refresh starts.
    floor: Mutex<Option<Arc<TrustedSet>>>,
    /// The newest whole set: what packages are looked up in.
    whole: Mutex<Option<Arc<TrustedSet>>>,
    /// Why its trusted metadata cannot be read.
    damage: Option<String>,
    checked_at: Mutex<Option<UnixSeconds>>,
    failed_at: Mutex<Option<UnixSeconds>>,
    /// One refresh at a time.
    pub(crate) refreshing: tokio::sync::Mutex<()>,
}

impl Repository {
    /// Its configuration.
    pub const fn config(&self) -> &RepoConfig {
        &self.config
    }

    /// Whether the device was shipped with it: then it is not kept, and cannot be removed.
    pub const fn is_static(&self) -> bool {
        self.is_static
    }

    /// Its mirrors, with their health and what came from them.
    pub const fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Mirrors whose metadata was refused since the start, because it is older than what is trusted or for another reason: the
    /// last refusal of each, by its authority.
    pub fn refused_mirrors(&self) -> BTreeMap<String, String> {
        let blames = self.sources.blames();
        let of_metadata = blames.into_iter().filter(|blame| blame.blob.is_none());
        of_metadata.map(|blame| (blame.source, blame.detail)).collect()
    }

    /// The newest whole set of trusted metadata, if there is any yet.
    pub fn trusted(&self) -> Option<Arc<TrustedSet>> {
        lock(&self.whole).clone()
    }

    /// The newest that was proven, whole or not.
    pub(crate) fn proven(&self) -> Option<Arc<TrustedSet>> {
        lock(&self.floor).clone()
    }

    /// Keeps delegated roles that a search in `searched` met, in memory only: the snapshot says which versions count, so they
    /// are no floor. If a refresh was faster, they are fetched again when they are needed.
    pub(crate) fn keep_delegated(&self, searched: &Arc<TrustedSet>, grown: &TrustedSet) {
        let grown = Arc::new(grown.clone());
        for place in [&self.whole, &self.floor] {
            let mut held = lock(place);
            if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, searched)) {
                *held = Some(grown.clone());
            }
        }
    }

    /// Why its trusted metadata cannot be read, if so: then it cannot be used until it is removed and added again, which
    /// forgets which versions were seen.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// When metadata was last refreshed with success.
    pub fn checked_at(&self) -> Option<UnixSeconds> {
        *lock(&self.checked_at)
    }

    /// When no mirror answered a refresh, if none has succeeded since.
    pub(crate) fn failed_at(&self) -> Option<UnixSeconds> {
        *lock(&self.failed_at)
    }

    pub(crate) fn failed(&self, at: UnixSeconds) {
        *lock(&self.failed_at) = Some(at);
    }

    /// Where a refresh starts. Never from the anchor when what was trusted since cannot be read: that could go back.
    pub(crate) fn start(&self) -> Result<Start, DeviceError> {
        if let Some(reason) = &self.damage {
            let repository = self.config.host().to_owned();
            return Err(DeviceError::DamagedTrust { repository, reason: reason.clone() });
        }
        Ok(match &*lock(&self.floor) {
            Some(set) => Start::FromSet((**set).clone()),
            None => Start::FromAnchor(self.config.trust_anchor()),
        })
    }
}

/// All configured repositories of a device.
#[derive(Debug)]
pub struct Repositories {
    by_host: Mutex<BTreeMap<String, Arc<Repository>>>,
    /// What the device was shipped with: those of them that were overridden come back when the other one is removed.
    shipped: StaticConfig,
    kept: Option<(Documents, TrustStore)>,
    /// Mirrors that lag behind, as it is written down.
    lagging: Mutex<LaggingMirrors>,
}

impl Repositories {
    /// Repositories that are forgotten with the process.
    pub fn in_memory() -> Self {
        Self { by_host: Mutex::default(), shipped: StaticConfig::none(), kept: None, lagging: Mutex::default() }
    }

    /// One repository, in memory, going on from what was trusted when the device was awake last: that is its floor.
    pub fn resuming(config: RepoConfig, trusted: Option<TrustedSet>) -> Result<Self, DeviceError> {
        let repositories = Self::in_memory();
        let host = config.host().to_owned();
        lock(&repositories.by_host).insert(host, Arc::new(repository(config, false, trusted, None)?));
        Ok(repositories)
    }

    /// Repositories of `shipped`, and those that people added, kept in `documents`; their trusted metadata is in `trust`.
    pub fn open(documents: Documents, trust: TrustStore, shipped: StaticConfig) -> Result<Self, DeviceError> {
        let mut by_host = BTreeMap::new();
        let stored = if shipped.dynamic { documents.get(&document_name(), REPO_CONFIG_LIST_BYTES_MAX)? } else { None };
        let added = stored.map(|stored| RepoConfig::parse_list(&stored)).transpose()?.unwrap_or_default();
        let shipped_ones = shipped.repositories.iter().map(|config| (config.clone(), true));
        for (config, is_static) in shipped_ones.chain(added.into_iter().map(|config| (config, false))) {
            let host = config.host().to_owned();
            // What was trusted is a floor: when it cannot be read this one repository stops, the others go on.
            let (trusted, damage) = match trust.load(&trust_name(&config)) {
                Ok(trusted) => (trusted, None),
                Err(error) => (None, Some(error.to_string())),
            };
            match repository(config, is_static, trusted, damage) {
                Err(error) if is_static => {
                    tracing::error!("repository `{host}` of this device cannot be used: {error}");
                }
                made => {
                    by_host.insert(host, Arc::new(made?));
                }
            }
        }
        let lagging = LaggingMirrors::load(&documents);
        by_host.iter().for_each(|(host, repository)| lagging.tell(host, repository.sources.list()));
        let (kept, lagging) = (Some((documents, trust)), Mutex::new(lagging));
        Ok(Self { by_host: Mutex::new(by_host), shipped, kept, lagging })
    }

    /// Writes down which mirrors lag behind, if that has changed.
    pub(crate) fn note_lagging(&self) {
        let Some((documents, _)) = &self.kept else { return };
        let repositories = self.list();
        let now = LaggingMirrors::of(repositories.iter().map(|repository| &**repository));
        let mut written = lock(&self.lagging);
        if !now.is_like(&written) {
            now.save(documents);
            *written = now;
        }
    }

    /// Adds a repository, or replaces the one of the same host. Trusted metadata of a replaced one is dropped if the root
    /// keys differ: another root is another repository. After an error all is as it was.
    pub fn add(&self, config: RepoConfig) -> Result<(), DeviceError> {
        if !self.shipped.dynamic {
            return Err(DeviceError::StaticOnly);
        }
        let host = config.host().to_owned();
        let mut by_host = lock(&self.by_host);
        let old = by_host.get(&host);
        if old.is_none() && by_host.len() >= REPOSITORIES_MAX {
            return Err(DeviceError::TooMuch(format!("at most {REPOSITORIES_MAX} repositories can be configured")));
        }
        let kept_name = trust_name(&config);
        let mut changed = by_host.clone();
        changed.insert(host.clone(), Arc::new(successor(old, config, false)?));
        self.save(&changed)?;
        *by_host = changed;
        // Last: until the new configuration is durable, the old one needs its floor.
        self.forget_trust(&host, Some(&kept_name))
    }

    /// Removes a repository that was added, and its trusted metadata; false if there was none. One of the same host that the
    /// device was shipped with takes its place.
    ///
    /// # Errors
    /// The device was shipped with it, or the disk refuses.
    pub fn remove(&self, host: &str) -> Result<bool, DeviceError> {
        let mut by_host = lock(&self.by_host);
        let mut changed = by_host.clone();
        let Some(old) = changed.remove(host) else { return Ok(false) };
        if old.is_static {
            return Err(DeviceError::StaticRepository(host.to_owned()));
        }
        let shipped = self.shipped.repositories.iter().find(|config| config.host() == host);
        if let Some(config) = shipped {
            changed.insert(host.to_owned(), Arc::new(successor(Some(&old), config.clone(), true)?));
        }
        self.save(&changed)?;
        *by_host = changed;
        self.forget_trust(host, shipped.map(trust_name).as_deref())?;
        Ok(true)
    }

    /// Removes the trusted metadata kept for a host, for whichever root keys, except that of one name.
    fn forget_trust(&self, host: &str, except: Option<&str>) -> Result<(), DeviceError> {
        let Some((documents, _)) = &self.kept else { return Ok(()) };
        let except = except.map(|name| format!("trusted/{name}.json"));
        for name in documents.list(&format!("trusted/{host}/"))? {
            if Some(name.as_str()) != except.as_deref() {
                documents.remove(&name)?;
            }
        }
        Ok(())
    }

    /// The repository of a host.
    pub fn get(&self, host: &str) -> Result<Arc<Repository>, DeviceError> {
        let found = lock(&self.by_host).get(host).cloned();
        found.ok_or_else(|| DeviceError::RepositoryNotFound(host.to_owned()))
    }

    /// All of them, by host.
    pub fn list(&self) -> Vec<Arc<Repository>> {
        lock(&self.by_host).values().cloned().collect()
    }

    /// Takes a newer trusted set: durable first, then visible. `checked_at` is given when the refresh came to its end. What
    /// was proven for a repository that was removed or replaced meanwhile is refused: it may hang on other root keys.
    pub(crate) fn trust(
        &self,
        repository: &Repository,
        set: TrustedSet,
        checked_at: Option<UnixSeconds>,
    ) -> Result<(), DeviceError> {
        let host = repository.config.host();
        // Held to the end, so that no other configuration comes in between.
        let by_host = lock(&self.by_host);
        if !by_host.get(host).is_some_and(|current| std::ptr::eq(&raw const **current, repository)) {
            return Err(DeviceError::RepositoryReplaced(host.to_owned()));
        }
        let newer = lock(&repository.floor).as_ref().is_none_or(|old| !old.files().eq(set.files()));
        if let Some((_, trust)) = self.kept.as_ref().filter(|_| newer) {
            trust.save(&trust_name(&repository.config), &set).map_err(|error| metadata_error(host, error))?;
        }
        let set = Arc::new(set);
        let mut whole = lock(&repository.whole);
        *whole = if set.is_whole() { Some(set.clone()) } else { whole.take().and_then(|old| under_root_of(&set, old)) };
        drop(whole);
        *lock(&repository.floor) = Some(set);
        if checked_at.is_some() {
            *lock(&repository.checked_at) = checked_at;
            *lock(&repository.failed_at) = None;
        }
        Ok(())
    }

    fn save(&self, by_host: &BTreeMap<String, Arc<Repository>>) -> Result<(), DeviceError> {
        let Some((documents, _)) = &self.kept else { return Ok(()) };
        let added = by_host.values().filter(|repository| !repository.is_static);
        let content: Vec<_> = added.map(|repository| &repository.config).collect();
        let list = serde_json::json!({ "version": "1", "content": content });
        let list = list.to_string();
        // What is written can be read again.
        if list.len() as u64 > REPO_CONFIG_LIST_BYTES_MAX {
            let text =
                format!("the configurations of all repositories have at most {REPO_CONFIG_LIST_BYTES_MAX} bytes");
            return Err(DeviceError::TooMuch(text));
        }
        Ok(documents.put(&document_name(), list.as_bytes())?)
    }
}

/// The name that trusted metadata is kept under: the host and a digest of what it was proven from, the root keys (their
/// order means nothing) and how many of them must sign. What was proven from others is not found under it.
fn trust_name(config: &RepoConfig) -> String {
    let keys: BTreeSet<_> = config.root_keys.iter().map(|key| key.0.to_string()).collect();
    let anchor = serde_json::json!({ "root_keys": keys, "root_threshold": config.root_threshold });
    format!("{}/{}", config.host(), merkle::build(anchor.to_string().as_bytes()).id)
}

/// A whole set as the root of a newer one vouches for it; nothing if that root has withdrawn a key it needs.
fn under_root_of(newer: &TrustedSet, whole: Arc<TrustedSet>) -> Option<Arc<TrustedSet>> {
    let root = newer.files().find(|(name, _)| *name == Role::Root.file())?;
    if whole.files().any(|file| file == root) {
        return Some(whole);
    }
    let below = whole.files().filter(|(name, _)| *name != Role::Root.file());
    let files = std::iter::once(root).chain(below).map(|(name, bytes)| (name, bytes.clone()));
    // The root was proven by the refresh: should it not load, nothing hangs on it.
    TrustedSet::load(files).ok().filter(TrustedSet::is_whole).map(Arc::new)
}

fn document_name() -> DocumentName {
    "repositories.json".parse().expect("a good name")
}

fn metadata_error(host: &str, error: colibri_fetch::FetchError) -> DeviceError {
    DeviceError::Metadata { repository: host.to_owned(), error }
}

/// A repository in the place of another of its host: what was proven is kept if it hangs on the same root keys.
fn successor(old: Option<&Arc<Repository>>, config: RepoConfig, is_static: bool) -> Result<Repository, DeviceError> {
    let name = trust_name(&config);
    let same_root = old.filter(|old| trust_name(&old.config) == name);
    let trusted = same_root.and_then(|old| lock(&old.floor).as_deref().cloned());
    let damage = same_root.and_then(|old| old.damage.clone());
    repository(config, is_static, trusted, damage)
}

fn repository(
    config: RepoConfig,
    is_static: bool,
    trusted: Option<TrustedSet>,
    damage: Option<String>,
) -> Result<Repository, DeviceError> {
    let host = config.host().to_owned();
    let mut list = Vec::new();
    for mirror in &config.mirrors {
        let url = mirror.mirror_url.parse().map_err(|error| metadata_error(&host, error))?;
        list.push(match &mirror.blob_mirror_url {
            Some(blobs) => Source::with_blobs(url, blobs.parse().map_err(|error| metadata_error(&host, error))?),
            None => Source::new(url),
        });
    }
    let trusted = trusted.map(Arc::new);
    Ok(Repository {
        config,
        is_static,
        sources: Arc::new(Sources::new(list, SourceOrder::Spread)),
        whole: Mutex::new(trusted.clone().filter(|set| set.is_whole())),
        floor: Mutex::new(trusted),
        damage,
        checked_at: Mutex::default(),
        failed_at: Mutex::default(),
        refreshing: tokio::sync::Mutex::default(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
