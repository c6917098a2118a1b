//! System updates: from an update package to a running, committed system, through states that outlive a loss of power
//! (reference "Fuchsia device and update" §10).
//!
//! [`Updater::install`] prepares, stages images in the slot that does not run, fetches packages, and makes that slot the next
//! to start. After a restart [`Updater::commit`] keeps the new system, or the boot control falls back to the old one. At every
//! instant the boot control names one whole system: the slot being written is marked unbootable before its first byte, and made
//! the next one after the last package is here. Deliberately absent: restarting the machine, which is the caller's.

mod boot;
mod images;
mod install;
mod record;

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::BlobId;
use colibri_package::url::AbsolutePackageUrl;
use colibri_release::update_package::{UpdatePackageError, UpdateRefused};
use colibri_store::{Documents, StoreError};

pub use boot::{BootControl, FileBoot, Slot, SlotHealth, System, TRIES};
pub use images::{ImagePlace, Images, Pieces};
pub use install::{UpdateObserver, UpdateProgress};
pub use record::{Attempt, AttemptState, Installed, Phase};

use crate::device::Device;
use crate::error::DeviceError;
use record::Record;

/// Why an update did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// One at a time.
    #[error("an update is being installed already")]
    Busy,
    /// The fall-back of the last update is still needed.
    #[error("the running system is not committed yet: commit it, or restart into the one before, then update")]
    NotCommitted,
    /// Recovery runs, which commits nothing.
    #[error("recovery runs: there is no system to commit")]
    Recovery,
    /// Not an update.
    #[error("{url}: {error}")]
    Package {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        error: UpdatePackageError,
    },
    /// Another package.
    #[error("{url} calls itself `{found}`, not `update`: it is no update package")]
    Name {
        /// What was asked for.
        url: String,
        /// The name in its `meta/package`.
        found: String,
    },
    /// Not for this device.
    #[error(transparent)]
    Refused(#[from] UpdateRefused),
    /// An image that its package does not hold.
    #[error("package {package} has no file {path:?}, which should be an image")]
    NoImage {
        /// The package.
        package: BlobId,
        /// The file.
        path: String,
    },
    /// A place that this device does not have.
    #[error("there is no place for image {0} on this device")]
    ImagePlace(String),
    /// What was written is not the image of the update.
    #[error("{}: what was written is not the image with SHA-256 {expected}", path.display())]
    WrongImage {
        /// Where.
        path: PathBuf,
        /// The hash that it should have.
        expected: String,
    },
    /// The disk under an image.
    #[error("image {}: {source}", path.display())]
    Image {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A document of the device's own.
    #[error("the record of {what} cannot be used: {reason}")]
    Damaged {
        /// Which.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The new system is not well.
    #[error("the new system is not healthy: {0}")]
    Unhealthy(String),
    /// Packages or metadata.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device's own files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A background task was lost.
    #[error("an internal task stopped: {0}")]
    Internal(String),
}

/// What an update may take for granted of this device.
#[derive(Debug, Clone)]
pub struct UpdateConfig {
    /// Name of the board.
    pub board: String,
    /// Epoch of the system that came with the device; a later update's own counts if it is higher.
    pub epoch: u64,
    /// Whether an update may write recovery.
    pub writes_recovery: bool,
    /// Packages resolved at once.
    pub resolves_at_once: usize,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self { board: String::new(), epoch: 0, writes_recovery: false, resolves_at_once: 5 }
    }
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

    /// The update package that the repository lists now.
    ///
    /// # Errors
    /// As [`Device::get_hash`].
    pub async fn offered(&self, url: &AbsolutePackageUrl) -> Result<BlobId, UpdateError> {
        Ok(self.device.update_hash(url).await?)
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
                [Some(system), other]
                    .into_iter()
                    .flatten()
                    .flat_map(|system| system.packages.clone())
                    .collect::<Vec<_>>()
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

    /// Installs the system of an update package in the slot that does not run, and makes it the next to start.
    ///
    /// # Errors
    /// Nothing of the running system was touched. The attempt and its reason are in [`Updater::history`].
    pub async fn install(&self, url: &AbsolutePackageUrl, observer: UpdateObserver) -> Result<Attempt, UpdateError> {
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
        self.change(|record| record.begin(url.to_string(), target, now))?;
        let installed = install::Install::new(self, target, observer).run(url).await;
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
