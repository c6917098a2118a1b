//! System updates: from an update package, or a signed manifest of blobs, to a running, committed system, through states that
//! outlive a loss of power (reference "Fuchsia device and update" §10).
//!
//! [`Updater::install`] prepares, stages images in the slot that does not run, fetches the new system, and makes that slot the
//! next to start. After a restart [`Updater::commit`] keeps the new system, or the boot control falls back to the old one. At every
//! instant the boot control names one whole system: the slot being written is marked unbootable before its first byte, and made
//! the next one after the last package is here. Deliberately absent: restarting the machine, which is the caller's.

mod boot;
mod error;
mod images;
mod install;
pub mod keys;
mod manifest;
mod packages;
mod record;
mod source;
mod space;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::BlobId;
use colibri_metadata::PublicKey;
use colibri_release::update_package::UpdateTarget;
use colibri_store::Documents;

pub use boot::{BootControl, FileBoot, Slot, SlotHealth, System, TRIES};
pub use error::UpdateError;
pub use images::{ImagePlace, Images, Pieces};
pub use install::{UpdateObserver, UpdateProgress};
pub use record::{Attempt, AttemptState, Installed, Phase};
pub use source::{ManifestPlace, UpdateSource};

use crate::collect::SystemBase;
use crate::device::Device;
use crate::sets::Plan;
use record::Record;

/// What an update may take for granted of this device.
#[derive(Debug, Clone, Default)]
pub struct UpdateConfig {
    /// Name of the board.
    pub board: String,
    /// Epoch of the system that came with the device; a later update's own counts if it is higher.
    pub epoch: u64,
    /// Whether an update may write recovery.
    pub writes_recovery: bool,
    /// Who may sign manifests of updates: one of them is enough.
    pub manifest_keys: Vec<PublicKey>,
    /// Whether a signed manifest may bring a version that is older than the running one.
    pub takes_older: bool,
}

/// An update that this device could install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The update package, or the id that the signed manifest has as a blob.
    pub update: BlobId,
    /// Version of its system, for people.
    pub version: String,
    /// Its system runs already.
    pub is_running: bool,
    /// What it costs; nothing of an update package, which tells no sizes.
    pub plan: Option<Plan>,
}

/// Installs updates on one device.
pub struct Updater {
    device: Device,
    boot: Arc<dyn BootControl>,
    images: Images,
    documents: Documents,
    config: UpdateConfig,
    record: Mutex<Record>,
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Updater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updater").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Updater {
    /// Takes up what was going on when the device stopped, and tells the package cache what the running system needs.
    ///
    /// # Errors
    /// A record is damaged, or the disk fails.
    pub async fn open(
        device: Device,
        boot: Arc<dyn BootControl>,
        images: Images,
        documents: Documents,
        config: UpdateConfig,
    ) -> Result<Self, UpdateError> {
        let record = Mutex::new(Record::load(&documents)?);
        let updater = Self { device, boot, images, documents, config, record, turn: tokio::sync::Mutex::default() };
        updater.take_up()?;
        updater.protect().await?;
        Ok(updater)
    }

    /// Attempts, oldest first.
    pub fn history(&self) -> Vec<Attempt> {
        self.record().attempts.clone()
    }

    /// What runs; nothing if recovery does, or a system that came with the device.
    ///
    /// # Errors
    /// The boot control does not say.
    pub fn running(&self) -> Result<Option<Installed>, UpdateError> {
        let running = self.boot.running()?.slot();
        Ok(running.and_then(|slot| self.record().system(slot).cloned()))
    }

    /// What starts next, as [`Updater::running`].
    ///
    /// # Errors
    /// The boot control does not say.
    pub fn next_system(&self) -> Result<Option<Installed>, UpdateError> {
        let next = self.boot.next()?.slot();
        Ok(next.and_then(|slot| self.record().system(slot).cloned()))
    }

    /// What [`Updater::install`] would take now: the same is read, and refused for the same reasons. Nothing of the system is
    /// touched; an update package is fetched, since it says what it is.
    ///
    /// # Errors
    /// There is no update, it is none, or it is not for this device.
    pub async fn check(&self, source: &UpdateSource) -> Result<Offered, UpdateError> {
        let running = self.boot.running()?.slot();
        let target = running.map_or(Slot::A, Slot::other);
        let (update, version, plan) = match source {
            UpdateSource::Package(url) => {
                let (update, package) = Box::pin(self.read_package(url, Arc::new(|_| ()), target)).await?;
                (update, package.version, None)
            }
            UpdateSource::Manifest(place) => {
                let signed = Box::pin(self.read_manifest(place, target)).await?;
                let plan = self.plan(&signed, target, false).await?;
                (signed.id, signed.manifest.version, Some(plan.plan))
            }
        };
        let running = self.running()?;
        Ok(Offered { is_running: running.is_some_and(|running| running.update == update), update, version, plan })
    }

    /// The boot control.
    pub fn boot(&self) -> &dyn BootControl {
        self.boot.as_ref()
    }

    /// Keeps the running system: from now on it is the one that starts, and the other slot may be written. `health` is the
    /// last word of whoever knows whether the system is well. Nothing happens if it is committed already.
    ///
    /// # Errors
    /// The system is not healthy; then nothing is changed, and a restart counts as another try.
    pub async fn commit(&self, health: impl Future<Output = Result<(), String>>) -> Result<(), UpdateError> {
        let _turn = self.turn.try_lock().map_err(|_| UpdateError::Busy)?;
        let running = self.boot.running()?.slot().ok_or(UpdateError::Recovery)?;
        if self.boot.health(running)? == SlotHealth::Healthy {
            return Ok(());
        }
        health.await.map_err(UpdateError::Unhealthy)?;
        self.boot.set_healthy(running)?;
        let now = self.device.now();
        self.change(|record| record.committed(running, now))?;
        self.protect().await?;
        self.device.retain([], []).await?;
        Ok(())
    }

    /// What became of an attempt that was under way when the device stopped.
    fn take_up(&self) -> Result<(), UpdateError> {
        let running = self.boot.running()?;
        let next = self.boot.next()?;
        let now = self.device.now();
        let mut taken = self.record().clone();
        if taken.take_up(running, next, |slot| self.boot.health(slot), now)? {
            self.change(|record| *record = taken)?;
        }
        Ok(())
    }

    /// What the running system needs is base; so is the other one's as long as it may have to take over.
    async fn protect(&self) -> Result<(), UpdateError> {
        let Some(running) = self.boot.running()?.slot() else { return Ok(()) };
        let is_committed = self.boot.health(running)? == SlotHealth::Healthy;
        let base = {
            let record = self.record();
            // A device that was never updated has its base from when it was made.
            record.system(running).map(|system| {
                let other = record.system(running.other()).filter(|_| !is_committed);
                let systems = || [Some(system), other].into_iter().flatten();
                SystemBase {
                    urls: system.urls.clone(),
                    packages: systems().flat_map(|system| system.packages.iter().copied()).collect(),
                    blobs: systems().flat_map(|system| system.blobs.iter().copied()).collect(),
                }
            })
        };
        Ok(self.device.set_system(base, is_committed).await?)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the record, durably.
    fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), UpdateError> {
        let mut record = self.record();
        let mut changed = record.clone();
        change(&mut changed);
        changed.save(&self.documents)?;
        *record = changed;
        Ok(())
    }

    /// What an update of `slot` must be for.
    fn target(&self, slot: Slot) -> UpdateTarget {
        let config = &self.config;
        let record = self.record();
        let epoch = record.system(slot.other()).map_or(config.epoch, |system| system.epoch.max(config.epoch));
        UpdateTarget { board: config.board.clone(), epoch, writes_recovery: config.writes_recovery }
    }

    /// Installs the system of an update in the slot that does not run, and makes it the next to start.
    ///
    /// # Errors
    /// Nothing of the running system was touched. The attempt and its reason are in [`Updater::history`].
    pub async fn install(&self, source: &UpdateSource, observer: UpdateObserver) -> Result<Attempt, UpdateError> {
        let _turn = self.turn.try_lock().map_err(|_| UpdateError::Busy)?;
        let running = self.boot.running()?;
        if let Some(slot) = running.slot()
            && self.boot.health(slot)? != SlotHealth::Healthy
        {
            return Err(UpdateError::NotCommitted);
        }
        let target = running.slot().map_or(Slot::A, Slot::other);
        let now = self.device.now();
        // First of all: a slot that could start must not be one whose system the record has forgotten.
        self.boot.set_unbootable(target)?;
        self.change(|record| record.begin(source.to_string(), target, now))?;
        let installed = install::Install::new(self, target, observer).run(source).await;
        let now = self.device.now();
        if let Err(error) = &installed {
            let reason = error.to_string();
            self.change(|record| record.failed(reason, now))?;
        }
        installed?;
        let last = self.record().attempts.last().cloned();
        last.ok_or_else(|| UpdateError::Internal("the attempt is not in the record".to_owned()))
    }
}
