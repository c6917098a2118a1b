//! Warming: what a trusted set reaches is brought here before devices ask, in the order of the package sets where a release
//! says so, inside rate and space budgets and windows of time.
//!
//! For each followed repository one task walks the set that is served: targets → packages → what their meta.fars name. What
//! it finds says also which blobs a set reaches at all ([`Reach`]), and what the disk tier keeps longest. One unit is fetched
//! at a time, in the class that goes behind demand. Deliberately absent: deciding what a release is good for, which is the
//! devices' business.

mod contents;
pub(crate) mod pins;
mod plan;
mod reach;
mod run;
mod windows;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use colibri_api::RepositoryName;
use colibri_common::{BlobId, Clock};
use colibri_fetch::{BlobFetcher, Class};
use colibri_store::{Documents, OsDisk};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::config::{EdgeConfig, WarmConfig};
use crate::disk::DiskTier;
use crate::error::EdgeError;
use crate::metadata::{Followed, Repositories};
use crate::metrics::Metrics;
use contents::Contents;
use pins::{Pin, PinError, Pins};
use plan::Plan;
pub(crate) use plan::Status;
use reach::Reach;
use windows::Windows;

/// What warms one repository.
pub(crate) struct Warmer {
    followed: Arc<Followed>,
    shared: Arc<Shared>,
    contents: Contents,
    reach: Reach,
    pins: Pins,
    plan: Mutex<Option<Arc<Plan>>>,
    /// Pins have changed.
    again: Notify,
}

/// What all warmers have in common.
pub(crate) struct Shared {
    cache: Arc<Cache>,
    disk: Option<DiskTier>,
    fetcher: BlobFetcher,
    clock: Arc<dyn Clock>,
    /// Nothing: sets are walked, but nothing more is fetched.
    config: Option<WarmConfig>,
    refuses_unlisted: bool,
    /// How much of each repository may be warmed.
    space_bytes: u64,
    windows: Windows,
    /// What each repository wants to be kept longest.
    preferred: Mutex<BTreeMap<RepositoryName, Arc<HashSet<BlobId>>>>,
    metrics: Metrics,
}

/// The warmers, by repository.
pub(crate) struct Warmers {
    by_name: BTreeMap<RepositoryName, Arc<Warmer>>,
    refuses_unlisted: bool,
}

impl std::fmt::Debug for Warmers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warmers").field("repositories", &self.by_name.keys()).finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(
        config: &EdgeConfig,
        cache: Arc<Cache>,
        disk: Option<DiskTier>,
        fetcher: &BlobFetcher,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Result<Arc<Self>, EdgeError> {
        let windows = config.warm.as_ref().map(|warm| Windows::parse(&warm.windows)).transpose();
        let by_default = config.disk.as_ref().map_or(config.memory_bytes / 2, |disk| disk.bytes / 4 * 3);
        let space_bytes = config.warm.as_ref().map_or(0, |warm| warm.space_bytes);
        Ok(Arc::new(Self {
            cache,
            disk,
            fetcher: fetcher.clone().with_class(Class::Warm),
            clock,
            config: config.warm.clone(),
            refuses_unlisted: config.refuse_unlisted_blobs,
            space_bytes: if space_bytes == 0 { by_default } else { space_bytes },
            windows: windows.map_err(EdgeError::Window)?.unwrap_or_default(),
            preferred: Mutex::default(),
            metrics,
        }))
    }
}

impl Warmers {
    pub fn open(config: &EdgeConfig, repositories: &Repositories, shared: &Arc<Shared>) -> Result<Self, EdgeError> {
        let documents = match config.state_dir() {
            Some(dir) if !config.repositories.is_empty() => {
                Some(Documents::open(Arc::new(OsDisk), &dir).map_err(EdgeError::State)?)
            }
            _ => None,
        };
        let mut by_name = BTreeMap::new();
        for followed in repositories.all() {
            let name = followed.name().clone();
            let warmer = Warmer {
                followed: followed.clone(),
                shared: shared.clone(),
                contents: Contents::default(),
                reach: Reach::default(),
                pins: Pins::open(documents.clone(), &name)?,
                plan: Mutex::default(),
                again: Notify::new(),
            };
            by_name.insert(name, Arc::new(warmer));
        }
        Ok(Self { by_name, refuses_unlisted: config.refuse_unlisted_blobs })
    }

    pub fn get(&self, name: &RepositoryName) -> Option<&Arc<Warmer>> {
        self.by_name.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Warmer>> {
        self.by_name.values()
    }

    /// Whether it is known that no trusted set reaches this blob, and such blobs are refused. A repository that is not
    /// followed refuses nothing; the address without a repository stands for all that are followed.
    pub fn refuses(&self, repository: Option<&RepositoryName>, id: BlobId) -> bool {
        if !self.refuses_unlisted || self.by_name.is_empty() {
            return false;
        }
        match repository {
            Some(name) => self.by_name.get(name).is_some_and(|warmer| !warmer.may_reach(id)),
            None => self.by_name.values().all(|warmer| !warmer.may_reach(id)),
        }
    }

    /// Warms until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let running = self.by_name.values().map(|warmer| warmer.clone().run(stop.clone()));
        futures_util::future::join_all(running).await;
    }
}

impl Warmer {
    pub const fn followed(&self) -> &Arc<Followed> {
        &self.followed
    }

    /// Pins a release, durably, and begins to warm it.
    pub async fn pin(self: &Arc<Self>, pin: Pin) -> Result<(), PinError> {
        self.change_pins(move |pins| pins.pin(pin)).await
    }

    /// Takes a pin away, durably.
    pub async fn unpin(self: &Arc<Self>, release: &str) -> Result<(), PinError> {
        let release = release.to_owned();
        self.change_pins(move |pins| pins.unpin(&release)).await
    }

    async fn change_pins(
        self: &Arc<Self>,
        change: impl FnOnce(&Pins) -> Result<(), PinError> + Send + 'static,
    ) -> Result<(), PinError> {
        let this = self.clone();
        let changed = tokio::task::spawn_blocking(move || change(&this.pins)).await;
        changed.unwrap_or_else(|error| Err(PinError::Write(error.to_string())))?;
        self.again.notify_one();
        Ok(())
    }

    /// Whether there is a reason to walk sets.
    fn is_active(&self) -> bool {
        self.shared.config.is_some() || self.shared.refuses_unlisted || !self.pins.list().is_empty()
    }

    /// Whether a trusted set reaches this blob, as far as is known: as long as the newest has not been walked, it may.
    fn may_reach(&self, id: BlobId) -> bool {
        let snapshot = self.followed.current().and_then(|current| current.snapshot_hash());
        snapshot.is_none_or(|snapshot| self.reach.may_have(id, snapshot))
    }

    /// What is here of what the newest set and the pinned releases reach.
    pub fn status(&self) -> Status {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pinned = self.pins.list();
        Status::of(self.followed.name(), plan.as_deref(), &pinned, |key| self.shared.cache.has(key))
    }
}
