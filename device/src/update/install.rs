//! One installation: what both kinds of update share. Their phases are in `packages` and `manifest`: prepare, stage, fetch,
//! commit; what each may rely on, and what it leaves, is said at its function there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use colibri_common::{BlobId, ByteRange, Digest};
use colibri_release::update_package::{ImageSlot, ImageTarget};

use super::boot::Slot;
use super::images::ImagePlace;
use super::record::{AttemptState, Installed, News, Phase};
use super::source::UpdateSource;
use super::{UpdateError, Updater};
use crate::error::DeviceError;
use crate::fetch::{Event, Observer};
use crate::keep::Keep;
use crate::limits::IMAGE_PIECE_BYTES;

/// How far an installation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdateProgress {
    /// What it does.
    pub phase: Phase,
    /// Content bytes fetched since it began.
    pub fetched_bytes: u64,
    /// Image bytes written, or found to be there.
    pub image_bytes: u64,
    /// Image bytes in all; 0 until they are known.
    pub image_bytes_total: u64,
    /// Content bytes of the new system that are here, if its update tells sizes.
    pub content_bytes: u64,
    /// Content bytes of the new system; 0 until they are known, and if its update tells none, as packages do.
    pub content_bytes_total: u64,
    /// Packages that are here.
    pub packages: u64,
    /// Packages in all; 0 until they are known, and if the update names none, as a signed manifest does.
    pub packages_total: u64,
}

/// Hears [`UpdateProgress`].
pub type UpdateObserver = Arc<dyn Fn(UpdateProgress) + Send + Sync>;

/// An image of either kind of update.
pub(super) trait ImageOf {
    /// Where it goes.
    fn target(&self) -> &ImageTarget;
    /// Its length.
    fn bytes(&self) -> u64;
    /// SHA-256 of it.
    fn sha256(&self) -> &Digest;
}

/// An installation under way.
pub(super) struct Install<'a> {
    pub updater: &'a Updater,
    pub slot: Slot,
    progress: Arc<Progress>,
}

struct Progress {
    hear: UpdateObserver,
    state: Mutex<State>,
}

struct State {
    told: UpdateProgress,
    /// Of blobs of the new system that are under way, what counts as here already.
    under_way: BTreeMap<BlobId, u64>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        (self.hear)(state.told);
    }
}

impl<'a> Install<'a> {
    pub fn new(updater: &'a Updater, slot: Slot, hear: UpdateObserver) -> Self {
        let told = UpdateProgress {
            phase: Phase::Prepare,
            fetched_bytes: 0,
            image_bytes: 0,
            image_bytes_total: 0,
            content_bytes: 0,
            content_bytes_total: 0,
            packages: 0,
            packages_total: 0,
        };
        let progress = Progress { hear, state: Mutex::new(State { told, under_way: BTreeMap::new() }) };
        Self { updater, slot, progress: Arc::new(progress) }
    }

    pub async fn run(&self, source: &UpdateSource) -> Result<(), UpdateError> {
        match source {
            UpdateSource::Package(url) => Box::pin(self.run_package(url)).await,
            UpdateSource::Manifest(place) => Box::pin(self.run_manifest(place)).await,
        }
    }

    pub fn enter(&self, phase: Phase, news: Option<News<'_>>) -> Result<(), UpdateError> {
        let now = self.updater.device.now();
        self.tell(|progress| progress.phase = phase);
        self.updater.change(|record| record.enter(phase, news, now))
    }

    pub fn tell(&self, change: impl FnOnce(&mut UpdateProgress)) {
        self.progress.change(|state| change(&mut state.told));
    }

    /// Counts what is fetched.
    pub fn observer(&self) -> Observer {
        let progress = self.progress.clone();
        Arc::new(move |event| {
            if let Event::Verified { content_bytes, .. } = event {
                progress.change(|state| state.told.fetched_bytes += content_bytes);
            }
        })
    }

    /// The same, for blobs of the new system whose sizes are known.
    pub fn observer_of_content(&self) -> Observer {
        let progress = self.progress.clone();
        Arc::new(move |event| {
            if let Event::Verified { id, content_bytes } = event {
                progress.change(|state| {
                    state.told.fetched_bytes += content_bytes;
                    state.told.content_bytes += content_bytes;
                    *state.under_way.entry(id).or_default() += content_bytes;
                });
            }
        })
    }

    /// A blob of the new system is here; what was not fetched of it counts now.
    pub fn tell_here(&self, id: BlobId, bytes: u64) {
        self.progress.change(|state| {
            let counted = state.under_way.remove(&id).unwrap_or(0);
            state.told.content_bytes += bytes.saturating_sub(counted);
        });
    }

    /// The images that are not in their places yet; those that are, and those that are not to be written, are passed over.
    pub async fn absent_images<'i, T: ImageOf>(
        &self,
        images: &'i [T],
    ) -> Result<Vec<(ImagePlace, &'i T)>, UpdateError> {
        let wanted = || images.iter().filter(|image| !self.skips(image.target()));
        let total = wanted().map(ImageOf::bytes).sum();
        self.tell(|progress| progress.image_bytes_total = total);
        let mut absent = Vec::new();
        for image in wanted() {
            let place = self.place(image.target());
            let (images, at, bytes, sha256) =
                (self.updater.images.clone(), place.clone(), image.bytes(), *image.sha256());
            if blocking(move || images.holds(&at, bytes, &sha256)).await? {
                self.tell(|progress| progress.image_bytes += bytes);
            } else {
                absent.push((place, image));
            }
        }
        Ok(absent)
    }

    /// Recovery is written only where that is allowed.
    fn skips(&self, target: &ImageTarget) -> bool {
        let is_recovery = matches!(target, ImageTarget::Partition { slot: ImageSlot::Recovery, .. });
        is_recovery && !self.updater.config.writes_recovery
    }

    fn place(&self, target: &ImageTarget) -> ImagePlace {
        match target {
            ImageTarget::Partition { slot: ImageSlot::Fuchsia, kind } => ImagePlace::Slot(self.slot, *kind),
            ImageTarget::Partition { slot: ImageSlot::Recovery, kind } => ImagePlace::Recovery(*kind),
            ImageTarget::Firmware(kind) => ImagePlace::Firmware(self.slot, kind.clone()),
        }
    }

    /// Writes an image that is a blob, and proves it.
    pub async fn write_image(&self, place: ImagePlace, blob: BlobId, image: &impl ImageOf) -> Result<(), UpdateError> {
        let updater = self.updater;
        let (keep, images) = (updater.device.keep().clone(), updater.images.clone());
        let (bytes, sha256) = (image.bytes(), *image.sha256());
        blocking(move || {
            let mut next = |at: u64| piece(keep.as_ref(), blob, at, bytes);
            images.write(&place, bytes, &sha256, &mut next)
        })
        .await?;
        self.tell(|progress| progress.image_bytes += bytes);
        Ok(())
    }

    /// The new system, all of which is here, starts next. Before that the record says what it needs, so that it is protected
    /// from its first start on. Without a system it is recovery that starts.
    pub fn commit(&self, news: News<'_>, system: Option<Installed>) -> Result<(), UpdateError> {
        let updater = self.updater;
        self.enter(Phase::Commit, Some(news))?;
        match system {
            Some(system) => {
                updater.change(|record| record.set_system(self.slot, Some(system)))?;
                updater.boot.activate(self.slot)?;
            }
            None => updater.boot.activate_recovery()?,
        }
        let now = updater.device.now();
        updater.change(|record| record.set_state(AttemptState::WaitToReboot, now))
    }
}

/// The next piece of an image that is a blob; empty at its end.
fn piece(keep: &dyn Keep, blob: BlobId, at: u64, image_bytes: u64) -> Result<Vec<u8>, UpdateError> {
    let failed = |error| UpdateError::Device(DeviceError::Keep(error));
    let length = keep.length(&blob).map_err(failed)?.unwrap_or(0);
    let end = length.min(image_bytes).min(at.saturating_add(IMAGE_PIECE_BYTES));
    if at >= end {
        return Ok(Vec::new());
    }
    keep.read_range(&blob, ByteRange::new(at, end)).map(|bytes| bytes.to_vec()).map_err(failed)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UpdateError> + Send + 'static,
) -> Result<T, UpdateError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| UpdateError::Internal(error.to_string()))?
}
