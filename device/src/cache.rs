//! The package cache: [`Indices`] beside the disk. What it decides is in the pure modules below; here are the locks, the one
//! document, the store and the trees.
//!
//! One collection at a time, and while it deletes nobody announces. A device over a keep that is no store (a synthetic
//! fleet's) has the indices and nothing to collect.

mod eviction;
mod indices;
mod kept;
mod lease;
#[cfg(test)]
mod model;
#[cfg(test)]
mod power_loss;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::{BlobId, ByteRange, UnixSeconds};
use colibri_package::package::MetaFar;
use colibri_release::limits::RELEASE_BYTES_MAX;
use colibri_release::{Availability, PackageSet, Release, Versioning};
use colibri_store::{DocumentName, Documents, Store};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::eager::Eager;
use crate::error::DeviceError;
use crate::limits::{KEPT_BYTES_MAX, USE_AGAIN_S};
use crate::sets::{Situation, Table, Upgrade, upgrades_of};
use crate::trees::Trees;
#[cfg(test)]
pub(crate) use eviction::Evictable;
pub(crate) use eviction::Holdings;
pub use eviction::{Depth, Rank};
pub(crate) use indices::{Contents, Protection};
use indices::{IndexError, Indices, WriterId};
pub(crate) use kept::{Current, Kept, Named};
pub use lease::{Lease, LeaseInfo};

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectionReport {
    /// Blobs removed.
    pub removed: Vec<BlobId>,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Unfinished blobs removed.
    pub partials_removed: u64,
    /// Packages that were given up though an index named them, in order.
    pub evicted: Vec<(BlobId, Rank)>,
    /// Materialised trees removed.
    pub trees_removed: u64,
}

/// The package cache of one device.
#[derive(Debug)]
pub(crate) struct Cache {
    indices: Mutex<Indices>,
    /// A collection has ended.
    idle: Notify,
    home: Option<Home>,
    /// The running release.
    release: Mutex<Option<Arc<Release>>>,
    /// Whoever changes what is kept, or collects, has the turn.
    turn: Arc<AsyncMutex<()>>,
}

/// Where a real device keeps things.
#[derive(Debug)]
struct Home {
    store: Store,
    documents: Documents,
    trees: Trees,
    /// Why what was kept cannot be read. Nothing is collected then.
    damage: Option<String>,
}

/// A package being fetched; what it announced is protected as long as this lives.
#[derive(Debug)]
pub(crate) struct Fetching {
    cache: Arc<Cache>,
    id: WriterId,
}

/// Ends a collection however it went.
struct Collecting<'a>(&'a Cache);

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        self.0.lock().end_collection();
        self.0.idle.notify_waiters();
    }
}

impl Cache {
    /// Of a device that cannot collect.
    pub fn without_home() -> Self {
        let (indices, release) = (Mutex::default(), Mutex::default());
        Self { indices, idle: Notify::new(), home: None, release, turn: Arc::default() }
    }

    /// Of the device in `dir`, with what signed answers say of eager packages.
    pub fn open(store: Store, documents: Documents, dir: &Path, eager: &Eager) -> Result<Self, DeviceError> {
        let read = documents.get(&document_name(), KEPT_BYTES_MAX)?;
        let (mut kept, mut damage) = match read.as_deref().map(Kept::parse) {
            None => (Kept::default(), None),
            Some(Ok(kept)) => (kept, None),
            Some(Err(reason)) => (Kept::default(), Some(reason)),
        };
        let release = match documents.get(&release_name(), RELEASE_BYTES_MAX)?.as_deref().map(Release::parse) {
            None => None,
            Some(Ok(release)) => {
                // A change of release may have been cut short between its two documents: the release decides.
                let mut upgrades = upgrades_of(&kept.upgradable);
                eager.overrule(&mut upgrades);
                Table::new(&release, &upgrades).apply(&mut kept);
                Some(Arc::new(release))
            }
            Some(Err(error)) => {
                damage = Some(format!("the running release: {error}"));
                None
            }
        };
        kept.eager = eager.hashes();
        let home = Home { store, documents, trees: Trees::new(dir.join("trees")), damage };
        let (indices, release) = (Mutex::new(Indices::new(kept)), Mutex::new(release));
        Ok(Self { indices, home: Some(home), release, ..Self::without_home() })
    }

    /// Begins to fetch a package.
    pub async fn start(self: &Arc<Self>, package: BlobId, protection: Protection) -> Result<Fetching, DeviceError> {
        let id = self.when_idle(|indices| indices.start(package, protection)).await?;
        Ok(Fetching { cache: self.clone(), id })
    }

    /// Opens a package, which may turn out not to be here.
    pub async fn lease(
        self: &Arc<Self>,
        package: BlobId,
        holder: &str,
        now: UnixSeconds,
    ) -> Result<Lease, DeviceError> {
        let id = self.when_idle(|indices| indices.open(package, holder, now)).await?;
        Ok(Lease::new(self.clone(), id, package))
    }

    /// Packages that are open, oldest first.
    pub fn leases(&self) -> Vec<LeaseInfo> {
        self.lock().opened().map(|(_, opened)| LeaseInfo::of(opened)).collect()
    }

    /// Notes that a package was used which is there on demand. Not every use is written down.
    pub async fn used(self: &Arc<Self>, package: BlobId, now: UnixSeconds) {
        if self.home.is_none() {
            return;
        }
        let last = self.lock().kept().uses.get(&package).copied();
        if last.is_some_and(|last| last <= now && now < last.plus(USE_AGAIN_S)) {
            return;
        }
        if let Err(error) = self.change(|kept| kept.used(package, now)).await {
            tracing::warn!(%package, %error, "its use is not remembered: it may be evicted early");
        }
    }

    /// Whether the running release was found healthy.
    pub fn is_committed(&self) -> bool {
        !self.lock().kept().pending_commit
    }

    /// Changes what is kept, durably.
    pub async fn change(self: &Arc<Self>, change: impl FnOnce(&mut Kept)) -> Result<(), DeviceError> {
        let turn = self.turn.clone().lock_owned().await;
        let mut kept = self.lock().kept().clone();
        change(&mut kept);
        if let Some((what, limit)) = kept.over_limit() {
            return Err(DeviceError::TooMuch(format!("at most {limit} {what}")));
        }
        let cache = self.clone();
        let changed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            cache.undamaged_home()?.save(&kept)?;
            Ok(cache.lock().set_kept(kept)?)
        });
        changed.await.map_err(|error| DeviceError::Internal(error.to_string()))?
    }

    /// The running release.
    pub fn release(&self) -> Option<Arc<Release>> {
        self.release.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Packages that may be here, those that were used last first.
    pub fn packages_lately_used(&self) -> Vec<BlobId> {
        let indices = self.lock();
        let kept = indices.kept();
        let mut used: Vec<_> = kept.uses.iter().map(|(package, at)| (*at, *package)).collect();
        used.sort_unstable_by(|one, two| two.cmp(one));
        let others = kept.firm().chain(kept.anchored.keys().copied());
        let others = others.chain(kept.upgradable.values().map(|current| current.hash));
        used.into_iter().map(|(_, package)| package).chain(others).collect()
    }

    /// The versions of upgradable packages that are in use, by unpinned URL.
    pub fn upgrades(&self) -> BTreeMap<String, Upgrade> {
        upgrades_of(&self.lock().kept().upgradable)
    }

    /// What a system image says about URLs.
    pub fn named(&self) -> Named {
        self.lock().kept().named.clone()
    }

    /// Adds to base; what base was before.
    pub async fn announce_base(self: &Arc<Self>, packages: &BTreeSet<BlobId>) -> Result<BTreeSet<BlobId>, DeviceError> {
        let mut before = BTreeSet::new();
        let announce = |kept: &mut Kept| {
            before.clone_from(&kept.base);
            kept.base.extend(packages);
        };
        self.change(announce).await?;
        Ok(before)
    }

    /// Writes down and uses a release.
    pub async fn set_release(self: &Arc<Self>, release: Arc<Release>) -> Result<(), DeviceError> {
        let cache = self.clone();
        let set = tokio::task::spawn_blocking(move || {
            let json = release.to_bytes().map_err(|error| DeviceError::Internal(error.to_string()))?;
            cache.home()?.documents.put(&release_name(), &json)?;
            *cache.release.lock().unwrap_or_else(PoisonError::into_inner) = Some(release);
            Ok(())
        });
        set.await.map_err(|error| DeviceError::Internal(error.to_string()))?
    }

    /// What is here, why, and how much more may be written.
    pub fn situation(&self) -> Result<Situation, DeviceError> {
        let home = self.undamaged_home()?;
        self.learn_unknown(home)?;
        // What is left of blobs that nobody asks for again goes with any collection, or is made use of.
        let free_bytes = home.store.free_bytes()?.saturating_add(home.store.unfinished_bytes()?);
        let resident = home.store.lengths()?;
        Ok(Situation { resident, holdings: self.lock().holdings(), free_bytes })
    }

    /// [`Self::situation`] as an update finds it, which begins by retaining nothing.
    pub fn situation_before_update(&self) -> Result<Situation, DeviceError> {
        let holdings = self.lock().holdings_without_retained();
        Ok(Situation { holdings, ..self.situation()? })
    }

    /// Deletes what the depth says, and never what an index protects firmly.
    pub async fn collect(self: &Arc<Self>, depth: Depth) -> Result<CollectionReport, DeviceError> {
        let turn = self.turn.clone().lock_owned().await;
        let cache = self.clone();
        let collected = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            cache.collect_now(depth)
        });
        collected.await.map_err(|error| DeviceError::Internal(error.to_string()))?
    }

    fn collect_now(&self, depth: Depth) -> Result<CollectionReport, DeviceError> {
        let home = self.undamaged_home()?;
        // Once before anybody has to wait for it, and once for what was announced meanwhile.
        self.learn_unknown(home)?;
        self.lock().begin_collection()?;
        let _collecting = Collecting(self);
        self.learn_unknown(home)?;
        let resident = home.store.lengths()?;
        let choice = self.lock().holdings().choose(&resident, depth);
        let trees = home.trees.retain(|package| choice.protected.contains(&package));
        let trees_removed = trees.unwrap_or_else(|error| {
            // Collection goes on: it may be the only way to repair a device.
            tracing::warn!(%error, "trees of collected packages were not all removed");
            0
        });
        let swept = home.store.sweep(&choice.protected)?;
        self.forget_uses(home, &choice.evicted);
        Ok(CollectionReport {
            removed: swept.removed,
            removed_bytes: swept.removed_bytes,
            partials_removed: swept.partials_removed,
            evicted: choice.evicted,
            trees_removed,
        })
    }

    fn forget_uses(&self, home: &Home, evicted: &[(BlobId, Rank)]) {
        let mut indices = self.lock();
        if indices.forget_uses(evicted.iter().map(|(package, _)| package))
            && let Err(error) = home.save(indices.kept())
        {
            // A use of what is not here any more protects nothing.
            tracing::warn!(%error, "uses of evicted packages stay written down");
        }
    }

    /// Reads what packages name, as far as their meta.fars are here.
    fn learn_unknown(&self, home: &Home) -> Result<(), DeviceError> {
        let mut tried = BTreeSet::new();
        loop {
            let unknown = self.lock().unknown();
            let mut fresh = unknown.into_iter().filter(|package| !tried.contains(package)).peekable();
            if fresh.peek().is_none() {
                return Ok(());
            }
            for package in fresh.collect::<Vec<_>>() {
                tried.insert(package);
                match home.contents(package) {
                    Ok(Some(contents)) => self.lock().know(package, contents),
                    Ok(None) => {}
                    Err(reason) => tracing::warn!(%package, %reason, "what it names is unknown, and not protected"),
                }
            }
        }
    }

    /// Whether a package belongs to base: permanent & anchored packages of the release, or base of the system image, and the
    /// running system's; with their subpackages.
    pub fn is_base(&self, package: BlobId) -> Result<bool, DeviceError> {
        self.learn_unknown(self.home()?)?;
        let release = self.release();
        let indices = self.lock();
        let kept = indices.kept();
        let mut roots = kept.system.clone();
        match PackageSet::new(Availability::Permanent, Versioning::Anchored) {
            Ok(base) if release.is_some() => {
                let packages = release.iter().flat_map(|release| release.packages_in(base));
                roots.extend(packages.filter_map(|package| package.hash));
            }
            _ => roots.extend(&kept.base),
        }
        Ok(indices.packages_under(roots).contains(&package))
    }

    /// The store, if there is one.
    pub fn store(&self) -> Result<&Store, DeviceError> {
        Ok(&self.home()?.store)
    }

    /// Removes trees that hold one of these blobs, unless the package is open.
    pub fn remove_trees_with(&self, blobs: &BTreeSet<BlobId>) -> Result<u64, DeviceError> {
        let home = self.home()?;
        let open: BTreeSet<_> = self.lock().opened().map(|(_, opened)| opened.package).collect();
        let is_whole = |package: BlobId| match home.contents(package) {
            Ok(Some(contents)) => contents.blobs.is_disjoint(blobs) && !blobs.contains(&package),
            Ok(None) | Err(_) => false,
        };
        let removed = home.trees.retain(|package| open.contains(&package) || is_whole(package));
        removed.map_err(|error| DeviceError::Internal(format!("trees of repaired packages: {error}")))
    }

    /// The trees of open packages.
    pub fn trees(&self) -> Result<&Trees, DeviceError> {
        Ok(&self.home()?.trees)
    }

    fn home(&self) -> Result<&Home, DeviceError> {
        self.home.as_ref().ok_or(DeviceError::NoStore)
    }

    fn undamaged_home(&self) -> Result<&Home, DeviceError> {
        let home = self.home()?;
        match &home.damage {
            None => Ok(home),
            Some(reason) => Err(DeviceError::DamagedCache { reason: reason.clone() }),
        }
    }

    /// Does what nobody may do while a collection deletes.
    async fn when_idle<T>(&self, mut act: impl FnMut(&mut Indices) -> Result<T, IndexError>) -> Result<T, IndexError> {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Listens before looking, so that no end of a collection is missed.
            idle.as_mut().enable();
            match act(&mut self.lock()) {
                Err(IndexError::Collecting) => {}
                done => return done,
            }
            idle.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Indices> {
        self.indices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Home {
    fn save(&self, kept: &Kept) -> Result<(), DeviceError> {
        let json = kept.to_bytes().map_err(DeviceError::Internal)?;
        Ok(self.documents.put(&document_name(), &json)?)
    }

    /// What a package names; nothing if its meta.far is not here.
    fn contents(&self, package: BlobId) -> Result<Option<Contents>, String> {
        let length = self.store.contains(package).map_err(|error| error.to_string())?;
        let Some(length) = length else { return Ok(None) };
        if length > colibri_package::limits::META_FAR_BYTES_MAX {
            return Err(format!("it has {length} bytes, more than any meta.far"));
        }
        let bytes = self.store.read(package, ByteRange::whole(length)).map_err(|error| error.to_string())?;
        MetaFar::parse(bytes).map(|meta_far| Some(Contents::of(&meta_far))).map_err(|error| error.to_string())
    }
}

impl Fetching {
    /// Tells what a package of this fetch names: announced when this returns.
    pub async fn learnt(&self, package: BlobId, contents: &Contents) -> Result<(), DeviceError> {
        let learnt = self.cache.when_idle(|indices| indices.learnt(self.id, package, contents.clone()));
        Ok(learnt.await?)
    }

    /// A blob that was announced is here.
    pub fn here(&self, blob: BlobId) -> Result<(), DeviceError> {
        Ok(self.cache.lock().here(self.id, blob)?)
    }

    /// Ends the fetch: everything is here.
    pub fn finish(self) -> Result<(), DeviceError> {
        Ok(self.cache.lock().finish(self.id)?)
    }

    /// Ends the fetch and opens the package.
    pub fn finish_open(self, package: BlobId, holder: &str, now: UnixSeconds) -> Result<Lease, DeviceError> {
        let lease = self.cache.lock().finish_open(self.id, holder, now)?;
        Ok(Lease::new(self.cache.clone(), lease, package))
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.cache.lock().abort(self.id);
    }
}

impl From<IndexError> for DeviceError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::TooMany { .. } => Self::TooMuch(error.to_string()),
            IndexError::Collecting | IndexError::OutOfOrder(_) => Self::Internal(error.to_string()),
        }
    }
}

fn release_name() -> DocumentName {
    "release.json".parse().expect("a good name")
}

fn document_name() -> DocumentName {
    "package-cache.json".parse().expect("a good name")
}
