//! [`Device::provision_from_bundle`]: a release from one file, without any network, as when a device is flashed.
//!
//! The bundle is checked as an edge checks one that it imports: its metadata from a root that the release trusts, that targets
//! lists the package that carries this very release, and every byte. Nothing is believed for being in the file. Boot packages are
//! put where they are found at the next start (`boot_sets`). Deliberately absent: automatic packages (they come when there is a
//! network), and trusting the bundle's metadata afterwards.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use colibri_common::BlobId;
use colibri_common::merkle::Verified;
use colibri_fetch::{Class, read_unit};
use colibri_metadata::Start;
use colibri_package::delivery::VerifiedPieces;
use colibri_release::Release;
use colibri_release::bundle::{Bundle, BundleError, Checked};

use crate::boot_packages::BootError;
use crate::device::Device;
use crate::error::DeviceError;
use crate::fetch::{Event, FetchReport, Observer};
use crate::keep::{Keep, Purpose};

/// Why nothing was taken from a bundle.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The file.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// It is no bundle that counts.
    #[error("{}: {error}", path.display())]
    Bundle {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: BundleError,
    },
    /// It carries another release.
    #[error("{} carries {found}, and not this release {wanted}", path.display())]
    OtherRelease {
        /// The bundle.
        path: PathBuf,
        /// Product and version of its release.
        found: String,
        /// Product and version of the one that was asked for.
        wanted: String,
    },
}

type Opened = Bundle<BufReader<File>>;

impl Device {
    /// Makes `release` the running one with its permanent packages, its cache set and its boot packages from a bundle. Boot
    /// packages count from the next start on. No network is used. Power may be lost at any
    /// moment: then the release before runs, or none, and the same call goes on.
    ///
    /// # Errors
    /// The bundle does not count for this release, there is no space, or the disk fails. What was running stays.
    pub async fn provision_from_bundle(
        &self,
        release: Release,
        path: &Path,
        observer: Observer,
    ) -> Result<FetchReport, DeviceError> {
        let (now, file, wanted) = (self.now(), path.to_owned(), release.clone());
        let checked =
            tokio::task::spawn_blocking(move || open(&file, &wanted, |bundle, start| bundle.check(start, now)));
        let bundle = checked.await.map_err(|error| DeviceError::Internal(error.to_string()))??;
        let boot = self.boot_place(&release)?;
        let packages: BTreeSet<_> = self.make_way_for(&release).await?.into_iter().map(|(_, hash)| hash).collect();
        let mut report = FetchReport { packages: packages.len(), ..FetchReport::default() };
        let blobs = release.blobs_needed(packages);
        observer(Event::Announced { blobs: blobs.len() });
        let bundle = Arc::new(Mutex::new(bundle));
        let fetch = self.package_fetch_of_nobody(observer.clone());
        for id in blobs {
            report.blobs += 1;
            let _alone = fetch.share.writers.alone(id, Class::Demand).await;
            let (keep, bundle, path) = (fetch.keep.clone(), bundle.clone(), path.to_owned());
            let filled = tokio::task::spawn_blocking(move || {
                if keep.has(&id, Purpose::Content)? {
                    return Ok(None);
                }
                let mut bundle = bundle.lock().unwrap_or_else(PoisonError::into_inner);
                fill(&mut bundle, id, keep.as_ref(), &path).map(Some)
            });
            match filled.await.map_err(|error| DeviceError::Internal(error.to_string()))?? {
                None => observer(Event::Present { id }),
                Some(content_bytes) => {
                    report.fetched += 1;
                    report.content_bytes += content_bytes;
                    observer(Event::Kept { id, content_bytes });
                }
            }
        }
        if let Some(place) = &boot {
            let (place, release, path) = (place.clone(), release.clone(), path.to_owned());
            let written = tokio::task::spawn_blocking(move || {
                let mut bundle = bundle.lock().unwrap_or_else(PoisonError::into_inner);
                let at = BootError::at(&path);
                place.write(&release, &mut |id, out| {
                    content(&mut bundle, id, &path, |run| Ok(out.write_all(run.bytes()).map_err(&at)?))
                })
            });
            written.await.map_err(|error| DeviceError::Internal(error.to_string()))??;
        }
        self.set_release(release).await?;
        // From here on the release runs, and whoever opens the device does this if it could not be done now.
        if let Some(place) = boot {
            let used = tokio::task::spawn_blocking(move || place.use_set());
            used.await.map_err(|error| DeviceError::Internal(error.to_string()))??;
        }
        self.retain([], []).await?;
        Ok(report)
    }
}

/// Opens a bundle and checks all of it, from one of the roots that the release trusts.
fn open(
    path: &Path,
    wanted: &Release,
    check: impl Fn(&mut Opened, Start) -> Result<Checked, BundleError>,
) -> Result<Opened, ProvisionError> {
    let of_bundle = |error| ProvisionError::Bundle { path: path.to_owned(), error };
    let file = File::open(path).map_err(|error| ProvisionError::Read { path: path.to_owned(), error })?;
    let mut bundle = Bundle::open(BufReader::new(file)).map_err(of_bundle)?;
    let mut refused = BundleError::Untrusted;
    for repository in wanted.repositories() {
        match check(&mut bundle, Start::FromAnchor(repository.trust_anchor())) {
            Ok(Checked { release, .. }) if release == *wanted => return Ok(bundle),
            Ok(Checked { release, .. }) => {
                let name = |release: &Release| format!("{} {}", release.product(), release.version());
                let (found, wanted) = (name(&release), name(wanted));
                return Err(ProvisionError::OtherRelease { path: path.to_owned(), found, wanted });
            }
            Err(error) => refused = error,
        }
    }
    Err(of_bundle(refused))
}

/// Brings one blob here; the length of its content.
fn fill(bundle: &mut Opened, id: BlobId, keep: &dyn Keep, path: &Path) -> Result<u64, DeviceError> {
    let of_bundle = |error| ProvisionError::Bundle { path: path.to_owned(), error };
    let layout = bundle.layout(id).map_err(of_bundle)?;
    let mut partial = keep.begin(layout.leaves(), layout.content_length(), Purpose::Content)?;
    let bytes = content(bundle, id, path, |run| Ok(partial.write(run)?))?;
    partial.commit()?;
    Ok(bytes)
}

/// Hands out the content of one blob in order, verified; its length.
fn content(
    bundle: &mut Opened,
    id: BlobId,
    path: &Path,
    mut take: impl FnMut(&Verified) -> Result<(), DeviceError> + Send,
) -> Result<u64, DeviceError> {
    let of_bundle = |error| ProvisionError::Bundle { path: path.to_owned(), error };
    let wrong = |reason: String| of_bundle(BundleError::Blob { id, reason });
    let layout = bundle.layout(id).map_err(of_bundle)?;
    let mut source = bundle.blob(id).map_err(of_bundle)?;
    let mut unit_h = layout.unit_h().to_vec();
    source.read_exact(&mut unit_h).map_err(|error| wrong(error.to_string()))?;
    for unit in 0..layout.unit_count() {
        let mut taken: Result<(), DeviceError> = Ok(());
        let mut sink = |verified: VerifiedPieces| {
            if taken.is_ok() {
                taken = verified.content().iter().try_for_each(&mut take);
            }
        };
        read_unit(&layout, unit, &mut source, &mut sink).map_err(|error| wrong(error.to_string()))?;
        taken?;
    }
    Ok(layout.content_length().0)
}
