//! `Device::verify`: re-hash everything at rest at a bounded rate, and repair what is damaged from the network.
//!
//! A damaged blob is set aside as an unfinished one, so that only its bad units are fetched. What cannot be had stays away:
//! absent is honest, and the next resolve fetches it. Deliberately absent: verifying on a schedule (`daemon::chores`), and bytes of
//! trees outside of the device's own folder.

use std::fs::{self, Permissions};
use std::num::NonZeroU64;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use colibri_common::{BlobId, ByteRange};
use colibri_fetch::Class;
use colibri_store::{BlobReader, Store, StoreError};

use crate::device::Device;
use crate::error::DeviceError;
use crate::fetch::Observer;
use crate::keep::Purpose;
use crate::limits::VERIFY_STEP_BYTES;

/// How to verify.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// At most so many bytes are read per second; as fast as the disk can without.
    pub bytes_per_s: Option<NonZeroU64>,
    /// Only look: nothing is set aside or fetched.
    pub only_look: bool,
    /// Only the blobs after this one, in the order of their ids: where an earlier verification had stopped.
    pub after: Option<BlobId>,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyAt {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes to read in all.
    pub bytes_total: u64,
    /// The last blob that it was through with, damaged or not.
    pub done: Option<BlobId>,
}

/// A blob that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The blob.
    pub blob: BlobId,
    /// Where its first bad leaf begins, bytes.
    pub offset: u64,
    /// Why it was not repaired; nothing if it was.
    pub lost: Option<String>,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blobs read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were damaged.
    pub damaged: Vec<Damage>,
    /// Trees removed because they may share damaged bytes.
    pub trees_removed: u64,
}

impl Device {
    /// Reads and verifies every blob from the disk, and repairs what is damaged from any repository that has it. `heard` is told
    /// of blobs that are fetched, `progress` of how far it is.
    ///
    /// # Errors
    /// There is no store, or the disk fails otherwise than by giving wrong bytes.
    pub async fn verify(
        &self,
        options: VerifyOptions,
        heard: Observer,
        progress: impl Fn(VerifyAt) + Send,
    ) -> Result<VerifyReport, DeviceError> {
        let store = self.cache().store()?.clone();
        let listed = store.clone();
        let mut lengths = run(move || Ok(listed.lengths()?)).await?;
        lengths.retain(|id, _| options.after.is_none_or(|after| *id > after));
        let mut at = VerifyAt { bytes: 0, bytes_total: lengths.values().sum(), done: options.after };
        let mut report = VerifyReport::default();
        let mut pace = Pace { begun: Instant::now(), options };
        for id in lengths.into_keys() {
            let damage = match read_all(&store, id, &mut pace, &mut at, &progress).await {
                // Collected meanwhile.
                Err(DeviceError::Store(StoreError::NotFound { .. })) => continue,
                read => read?,
            };
            report.blobs += 1;
            if let Some(offset) = damage {
                tracing::warn!(blob = %id, offset, "damaged at rest");
                let lost = if options.only_look {
                    Some("it was only looked at".to_owned())
                } else {
                    self.repair(&store, id, &heard).await?
                };
                report.damaged.push(Damage { blob: id, offset, lost });
            }
            at.done = Some(id);
            progress(at);
        }
        report.bytes = at.bytes;
        if !options.only_look && !report.damaged.is_empty() {
            let (cache, damaged) = (self.cache().clone(), report.damaged.iter().map(|damage| damage.blob).collect());
            report.trees_removed = run(move || cache.remove_trees_with(&damaged)).await?;
        }
        Ok(report)
    }

    /// Fetches what is bad in a blob; why not, if that could not be done.
    async fn repair(&self, store: &Store, id: BlobId, heard: &Observer) -> Result<Option<String>, DeviceError> {
        let aside = store.clone();
        let rights = run(move || {
            let rights = fs::metadata(aside.path(id)).map(|there| there.permissions()).ok();
            // Hard-linked into a tree it is read-only; repaired in place, the tree is repaired with it.
            _ = fs::set_permissions(aside.path(id), Permissions::from_mode(0o644));
            aside.set_aside(id)?;
            Ok(rights)
        })
        .await?;
        let mut reason = "no repository is configured".to_owned();
        for repository in self.repositories().list() {
            let fetch = self.package_fetch(&repository, heard.clone()).with_class(Class::Background);
            match fetch.have(id, Purpose::Content).await {
                Ok(_) => {
                    let whole = store.path(id);
                    // What the tree may do stays as it was.
                    run(move || {
                        _ = rights.map(|rights| fs::set_permissions(whole, rights));
                        Ok(())
                    })
                    .await?;
                    return Ok(None);
                }
                Err(error) => reason = error.to_string(),
            }
        }
        Ok(Some(reason))
    }
}

/// Reads a blob in steps; the offset of its first bad leaf, if one is bad.
async fn read_all(
    store: &Store,
    id: BlobId,
    pace: &mut Pace,
    at: &mut VerifyAt,
    progress: &impl Fn(VerifyAt),
) -> Result<Option<u64>, DeviceError> {
    let store = store.clone();
    let opened = run(move || {
        let blob = store.open_blob(id)?;
        blob.forget_cached()?;
        Ok(blob)
    });
    let blob = match damage_of(opened.await)? {
        Ok(blob) => blob,
        Err(offset) => return Ok(Some(offset)),
    };
    for start in (0..blob.length().max(1)).step_by(VERIFY_STEP_BYTES as usize) {
        let end = blob.length().min(start + VERIFY_STEP_BYTES);
        let this = blob.clone();
        if let Err(offset) = damage_of(run(move || read_step(&this, ByteRange::new(start, end))).await)? {
            return Ok(Some(offset));
        }
        at.bytes += end - start;
        progress(*at);
        pace.wait(at.bytes).await;
    }
    Ok(None)
}

fn read_step(blob: &BlobReader, range: ByteRange) -> Result<(), DeviceError> {
    if range.is_empty() {
        // Nothing to read says nothing; the empty blob has a leaf all the same.
        blob.scrub()?;
    } else {
        blob.read(range)?;
    }
    Ok(())
}

/// Tells damage from other errors.
fn damage_of<T>(read: Result<T, DeviceError>) -> Result<Result<T, u64>, DeviceError> {
    match read {
        Err(DeviceError::Store(StoreError::Corrupt { offset, .. })) => Ok(Err(offset)),
        read => read.map(Ok),
    }
}

/// Keeps a rate.
struct Pace {
    begun: Instant,
    options: VerifyOptions,
}

impl Pace {
    /// Waits until so many bytes may have been read since the beginning.
    async fn wait(&mut self, bytes: u64) {
        let Some(rate) = self.options.bytes_per_s else { return };
        let due = Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        tokio::time::sleep(due.saturating_sub(self.begun.elapsed())).await;
    }
}

/// Runs what blocks on the disk elsewhere.
async fn run<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, DeviceError> + Send + 'static,
) -> Result<T, DeviceError> {
    tokio::task::spawn_blocking(call).await.map_err(|error| DeviceError::Internal(error.to_string()))?
}
