//! A signed manifest: reading it, and installing the blobs that it lists (RFC-0284; reference "Fuchsia device and update"
//! §10.4). It is the whole truth of its system: no repository and no metadata are asked.
//!
//! What a package of the system names must be listed too: a list that was made wrongly is found out before its system starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{BlobId, ByteRange, Digest, merkle};
use colibri_fetch::{FetchError, Source, SourceOrder, SourceUrl, Sources, Unverified};
use colibri_package::far;
use colibri_package::limits::META_FAR_BYTES_MAX;
use colibri_package::package::MetaFar;
use colibri_release::ProductVersion;
use colibri_release::ota_manifest::{OtaBlob, OtaImage, OtaManifest};
use colibri_release::update_package::{ImageTarget, UpdateMode};
use tokio::task::JoinSet;

use super::install::{ImageOf, Install, blocking};
use super::record::{Installed, News, Phase};
use super::source::{BlobAddress, ManifestPlace};
use super::space::{self, SystemBlobs, SystemPlan};
use super::{Slot, UpdateError, Updater};
use crate::cache::{Contents, Depth};
use crate::config::Preference;
use crate::error::DeviceError;
use crate::fetch::{Observer, PackageFetch};
use crate::keep::{Keep, Purpose};
use crate::limits::UPDATE_MANIFEST_BYTES_MAX;
use crate::sets::margin_of;

/// A manifest that a trusted key signed, for this device.
#[derive(Debug)]
pub(super) struct Signed {
    pub manifest: OtaManifest,
    /// The id that its file has as a blob.
    pub id: BlobId,
    blobs: BlobAddress,
}

impl Signed {
    /// Blobs of the system by id.
    fn system(&self) -> BTreeMap<BlobId, u64> {
        match self.manifest.mode {
            UpdateMode::Normal => self.manifest.blobs.iter().map(|blob| (blob.id, blob.bytes)).collect(),
            UpdateMode::ForceRecovery => BTreeMap::new(),
        }
    }

    const fn news(&self) -> News<'_> {
        News { version: self.manifest.version.as_str(), mode: self.manifest.mode }
    }
}

impl Updater {
    /// The manifest at a place, if it counts and is meant for `slot` of this device.
    pub(super) async fn read_manifest(&self, place: &ManifestPlace, slot: Slot) -> Result<Signed, UpdateError> {
        let from = || place.to_string();
        if self.config.manifest_keys.is_empty() {
            return Err(UpdateError::NoKeys);
        }
        let absent = |reason: String| UpdateError::NoManifest { from: from(), reason };
        let file = match place {
            ManifestPlace::Url(url) => self.fetch_manifest(url).await.map_err(|error| absent(error.to_string()))?,
            ManifestPlace::File(path) => {
                let path = path.clone();
                let read = blocking(move || Ok(read_file(&path))).await?;
                read.map_err(|error| absent(error.to_string()))?
            }
        };
        let keys = self.config.manifest_keys.clone();
        let (id, opened) = blocking(move || Ok((merkle::build(&file).id, OtaManifest::open(&file, &keys)))).await?;
        let manifest = opened.map_err(|error| UpdateError::Manifest { from: from(), error })?;
        manifest.check_for(&self.target(slot), self.not_below(slot))?;
        let blobs = place.blobs(&manifest.blob_base_url)?;
        Ok(Signed { manifest, id, blobs })
    }

    async fn fetch_manifest(&self, url: &SourceUrl) -> Result<Bytes, FetchError> {
        // The server is the source, so that the path is what is asked for, as with any document.
        let (server, path) = url.as_str().rsplit_once('/').unwrap_or((url.as_str(), ""));
        let sources = Sources::new(vec![Source::new(server.parse()?)], SourceOrder::Listed);
        let fetch = self.device.fetch_from(Arc::new(sources), Preference::Raw, Arc::new(|_| ()));
        match fetch.fetcher.document(&format!("/{path}"), UPDATE_MANIFEST_BYTES_MAX, None).await? {
            Unverified::Document { bytes, .. } => Ok(bytes),
            Unverified::NotModified => {
                Err(FetchError::Local("the server said it had not changed, and was never asked that".to_owned()))
            }
        }
    }

    /// The version of the running system, where a manifest of an older one is refused.
    fn not_below(&self, slot: Slot) -> Option<ProductVersion> {
        let record = self.record();
        let running = record.system(slot.other()).filter(|_| !self.config.takes_older);
        running.and_then(|system| system.version.parse().ok())
    }

    /// What a manifest costs. `retains` says whether what an earlier update retained still is.
    pub(super) async fn plan(&self, signed: &Signed, slot: Slot, retains: bool) -> Result<SystemPlan, UpdateError> {
        let install = Install::new(self, slot, Arc::new(|_| ()));
        let absent = install.absent_images(&signed.manifest.images).await?;
        let blobs = SystemBlobs {
            name: format!("system {}", signed.manifest.version),
            images: absent.iter().map(|(_, image)| (image.blob.id, image.blob.bytes)).collect(),
            system: signed.system(),
        };
        let cache = self.device.cache().clone();
        blocking(move || {
            let situation = if retains { cache.situation()? } else { cache.situation_before_update()? };
            space::plan(&blobs, situation).map_err(|why| DeviceError::CannotFit(Box::new(why)).into())
        })
        .await
    }
}

impl Install<'_> {
    /// Installs what a signed manifest lists.
    pub async fn run_manifest(&self, place: &ManifestPlace) -> Result<(), UpdateError> {
        let device = &self.updater.device;
        self.enter(Phase::Prepare, None)?;
        device.retain([], []).await?;
        let signed = self.updater.read_manifest(place, self.slot).await?;
        let plan = self.updater.plan(&signed, self.slot, true).await?;
        self.stage_blobs(&signed, plan.keeps_all).await?;
        if signed.manifest.mode == UpdateMode::ForceRecovery {
            return self.commit(signed.news(), None);
        }
        let packages = self.fetch_blobs(&signed).await?;
        let Signed { manifest: OtaManifest { version, epoch, .. }, id, .. } = &signed;
        let blobs: Vec<BlobId> = signed.system().into_keys().collect();
        let system =
            Installed { version: version.clone(), epoch: *epoch, update: *id, packages, urls: BTreeMap::new(), blobs };
        self.commit(signed.news(), Some(system))
    }

    fn fetch_of(&self, signed: &Signed, observer: Observer) -> PackageFetch {
        let BlobAddress { base, preference } = signed.blobs.clone();
        let source = Source::with_blobs(base.clone(), base);
        self.updater.device.fetch_from(Arc::new(Sources::new(vec![source], SourceOrder::Listed)), preference, observer)
    }

    /// Every image is in its place, read back and right. Blobs of the system that are here are kept meanwhile if there is
    /// space for that, so that an attempt goes on where the last one stopped.
    async fn stage_blobs(&self, signed: &Signed, keeps_all: bool) -> Result<(), UpdateError> {
        self.enter(Phase::Stage, Some(signed.news()))?;
        let absent = self.absent_images(&signed.manifest.images).await?;
        let images: BTreeMap<BlobId, u64> = absent.iter().map(|(_, image)| (image.blob.id, image.blob.bytes)).collect();
        let mut retained: BTreeSet<BlobId> = images.keys().copied().collect();
        if keeps_all {
            retained.extend(signed.system().into_keys());
        }
        self.make_way(retained, &images).await?;
        let fetch = self.fetch_of(signed, self.observer());
        self.fetch_all(&fetch, &images, |_, _| ()).await?;
        for (place, image) in absent {
            self.write_image(place, image.blob.id, image).await?;
        }
        Ok(())
    }

    /// Every blob of the new system is here, and with it every package, which are given. Blobs that were only images are
    /// given up before.
    async fn fetch_blobs(&self, signed: &Signed) -> Result<Vec<BlobId>, UpdateError> {
        self.enter(Phase::Fetch, Some(signed.news()))?;
        let system = signed.system();
        let total = system.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        self.tell(|progress| progress.content_bytes_total = total);
        self.make_way(system.keys().copied().collect(), &system).await?;
        let fetch = self.fetch_of(signed, self.observer_of_content());
        self.fetch_all(&fetch, &system, |id, bytes| self.tell_here(id, bytes)).await?;
        let keep = self.updater.device.keep().clone();
        blocking(move || packages_in(keep.as_ref(), &system)).await
    }

    /// Retains these blobs and nothing else, removes what nothing keeps, and gives up as much as `wanted` needs space for.
    async fn make_way(&self, retained: BTreeSet<BlobId>, wanted: &BTreeMap<BlobId, u64>) -> Result<(), UpdateError> {
        let device = &self.updater.device;
        device.retain([], retained).await?;
        device.collect(Depth::Garbage).await?;
        let (keep, wanted) = (device.keep().clone(), wanted.clone());
        let space_bytes = blocking(move || {
            let mut space_bytes = 0_u64;
            for (id, bytes) in wanted {
                if keep.length(&id).map_err(DeviceError::Keep)?.is_none() {
                    space_bytes = space_bytes.saturating_add(bytes).saturating_add(margin_of(bytes));
                }
            }
            Ok(space_bytes)
        });
        let short_bytes = space_bytes.await?.saturating_sub(device.room_bytes().await?);
        if short_bytes > 0 {
            device.collect(Depth::Free { bytes: short_bytes }).await?;
        }
        Ok(())
    }

    /// Fetches what is missing of blobs that are retained, a few at once; each must be as long as was signed.
    async fn fetch_all(
        &self,
        fetch: &PackageFetch,
        blobs: &BTreeMap<BlobId, u64>,
        here: impl Fn(BlobId, u64),
    ) -> Result<(), UpdateError> {
        let mut under_way: JoinSet<Result<OtaBlob, UpdateError>> = JoinSet::new();
        let mut waiting = blobs.iter().map(|(id, bytes)| OtaBlob { id: *id, bytes: *bytes });
        loop {
            while under_way.len() < fetch.config.blobs_at_once.max(1) {
                let Some(blob) = waiting.next() else { break };
                let fetch = fetch.clone();
                under_way.spawn(async move {
                    fetch.have(blob.id, Purpose::Content).await?;
                    check_length(&fetch.keep, blob).await
                });
            }
            let Some(joined) = under_way.join_next().await else { return Ok(()) };
            let OtaBlob { id, bytes } = joined.map_err(|error| UpdateError::Internal(error.to_string()))??;
            here(id, bytes);
        }
    }
}

/// A blob that is here has the length that was signed.
async fn check_length(keep: &Arc<dyn Keep>, blob: OtaBlob) -> Result<OtaBlob, UpdateError> {
    let keep = keep.clone();
    blocking(move || match keep.length(&blob.id).map_err(DeviceError::Keep)? {
        Some(found) if found == blob.bytes => Ok(blob),
        Some(found) => Err(UpdateError::BlobLength { blob: blob.id, expected: blob.bytes, found }),
        None => Err(UpdateError::BlobGone(blob.id)),
    })
    .await
}

/// The packages among the blobs of a system, all of which are here. An archive that is a file of another one of them is
/// only that; of any other everything that it names must be listed.
fn packages_in(keep: &dyn Keep, blobs: &BTreeMap<BlobId, u64>) -> Result<Vec<BlobId>, UpdateError> {
    let mut archives: BTreeMap<BlobId, Contents> = BTreeMap::new();
    let begin = ByteRange::whole(far::MAGIC.len() as u64);
    for (id, bytes) in blobs {
        match keep.length(id).map_err(DeviceError::Keep)? {
            Some(length) if length == *bytes => {}
            _ => return Err(UpdateError::BlobGone(*id)),
        }
        let could_be = (begin.len()..=META_FAR_BYTES_MAX).contains(bytes);
        if could_be && keep.read_range(id, begin).map_err(DeviceError::Keep)?[..] == far::MAGIC {
            let whole = keep.read(id, META_FAR_BYTES_MAX).map_err(DeviceError::Keep)?;
            archives.extend(MetaFar::parse(whole).ok().map(|meta_far| (*id, Contents::of(&meta_far))));
        }
    }
    let files: BTreeSet<BlobId> = archives.values().flat_map(|contents| contents.blobs.iter().copied()).collect();
    let mut packages = Vec::new();
    for (package, contents) in archives {
        let missing = contents.blobs.iter().chain(&contents.subpackages).find(|blob| !blobs.contains_key(blob));
        match missing {
            None => packages.push(package),
            Some(_) if files.contains(&package) => {}
            Some(blob) => return Err(UpdateError::PackageNotWhole { package, blob: *blob }),
        }
    }
    Ok(packages)
}

fn read_file(path: &Path) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    File::open(path)?.take(UPDATE_MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > UPDATE_MANIFEST_BYTES_MAX {
        return Err(std::io::Error::other(format!("it has more than {UPDATE_MANIFEST_BYTES_MAX} bytes")));
    }
    Ok(bytes.into())
}

impl ImageOf for OtaImage {
    fn target(&self) -> &ImageTarget {
        &self.target
    }

    fn bytes(&self) -> u64 {
        self.blob.bytes
    }

    fn sha256(&self) -> &Digest {
        &self.sha256
    }
}
