//! Fetching what is missing: one blob from a repository's mirrors into the [`Keep`], and a package with all it
//! names, breadth first, meta.far before content.

mod before;
mod blob;
mod counts;
mod share;

pub use counts::FetchCounts;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use colibri_common::BlobId;
use colibri_fetch::{BlobFetcher, Class, Permit};
use colibri_package::package::MetaFar;
use tokio::task::JoinSet;

use crate::cache::{Contents, Fetching};
use crate::config::DeviceConfig;
use crate::error::DeviceError;
use crate::keep::{Keep, KeepError, Purpose};
use crate::limits::{BLOBS_PER_RESOLVE_MAX, PACKAGES_PER_RESOLVE_MAX};
use before::Before;
pub(crate) use before::Candidates;
pub(crate) use share::Share;

/// What happens during a fetch, for progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// More blobs are known to belong to the package.
    Announced {
        /// How many.
        blobs: usize,
    },
    /// A blob was there already.
    Present {
        /// The blob.
        id: BlobId,
    },
    /// Content of a blob was fetched and verified: it is about to be written, the blob not yet whole.
    Verified {
        /// The blob.
        id: BlobId,
        /// How much of its content.
        content_bytes: u64,
    },
    /// Content of a blob was copied from an earlier version of its package.
    Reused {
        /// The blob.
        id: BlobId,
        /// How much of its content.
        content_bytes: u64,
    },
    /// A blob was fetched, verified and kept.
    Kept {
        /// The blob.
        id: BlobId,
        /// Length of its content.
        content_bytes: u64,
    },
}

/// Hears [`Event`]s.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;

/// What a fetch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Distinct blobs of the package and its subpackages, meta.fars included.
    pub blobs: usize,
    /// Of these, fetched now.
    pub fetched: usize,
    /// Content bytes of the fetched ones.
    pub content_bytes: u64,
    /// Of these, bytes that were copied from an earlier version of the package and not fetched.
    pub reused_bytes: u64,
    /// Packages, subpackages included.
    pub packages: usize,
}

/// Everything a fetch needs; cheap to clone.
#[derive(Clone)]
pub(crate) struct PackageFetch {
    pub fetcher: BlobFetcher,
    pub keep: Arc<dyn Keep>,
    pub share: Arc<Share>,
    pub class: Class,
    pub candidates: Candidates,
    pub config: Arc<DeviceConfig>,
    pub observer: Observer,
}

/// A blob that was not here and now is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Had {
    /// Length of its content.
    content_bytes: u64,
    /// How much of it an earlier version of its package had.
    reused_bytes: u64,
}

impl PackageFetch {
    /// Fetches what is missing of a package and its subpackages. Every blob is announced to the package cache before its
    /// presence is tested.
    pub async fn package(&self, hash: BlobId, fetching: &Fetching) -> Result<FetchReport, DeviceError> {
        let mut report = FetchReport::default();
        let mut packages = VecDeque::from([hash]);
        let mut seen_packages = HashSet::from([hash]);
        let mut seen_blobs = HashSet::new();
        let mut content: JoinSet<Result<(BlobId, Option<Had>), DeviceError>> = JoinSet::new();
        let mut place = None;
        while let Some(package) = packages.pop_front() {
            report.packages += 1;
            // It may be content of another package too, and counted as that; it is needed whole before it can be read.
            let is_new = seen_blobs.insert(package);
            if is_new {
                (self.observer)(Event::Announced { blobs: 1 });
            }
            self.take_place(&mut place, vec![package], Purpose::MetaFar).await?;
            let fetched = self.have(package, Purpose::MetaFar).await?;
            if is_new {
                self.tell_done(package, fetched);
            }
            report.add(usize::from(is_new), fetched);
            fetching.here(package)?;
            let meta_far = self.meta_far(package, &mut report).await?;
            fetching.learnt(package, &Contents::of(&meta_far)).await?;
            packages.extend(meta_far.subpackages().values().copied().filter(|id| seen_packages.insert(*id)));
            let contents = meta_far.contents().iter();
            let fresh = contents.filter(|(_, id)| seen_blobs.insert(**id)).map(|(path, id)| (path.to_string(), *id));
            let fresh: Vec<_> = fresh.collect();
            let before = Arc::new(Before::of(&meta_far, package, self.candidates.clone()));
            if seen_packages.len() > PACKAGES_PER_RESOLVE_MAX || seen_blobs.len() > BLOBS_PER_RESOLVE_MAX {
                return Err(DeviceError::TooMuch(format!(
                    "package {hash} names more than a device takes in one resolve"
                )));
            }
            (self.observer)(Event::Announced { blobs: fresh.len() });
            let ids = fresh.iter().map(|(_, id)| *id).collect();
            self.take_place(&mut place, ids, Purpose::Content).await?;
            for (path, id) in fresh {
                let (this, before) = (self.clone(), before.clone());
                content.spawn(async move {
                    let _place = this.share.place(this.class).await;
                    let fetched = this.have_after(id, Purpose::Content, Some((&before, &path))).await?;
                    this.tell_done(id, fetched);
                    Ok((id, fetched))
                });
            }
        }
        while let Some(joined) = content.join_next().await {
            let (id, fetched) = joined.map_err(|error| DeviceError::Internal(error.to_string()))??;
            fetching.here(id)?;
            report.add(1, fetched);
        }
        Ok(report)
    }

    /// Waits for a place among the packages that are fetched, once one of these blobs is missing.
    async fn take_place(
        &self,
        place: &mut Option<Permit>,
        ids: Vec<BlobId>,
        purpose: Purpose,
    ) -> Result<(), DeviceError> {
        if place.is_some() {
            return Ok(());
        }
        let lacks = blocking(&self.keep, move |keep| {
            for id in ids {
                if !keep.has(&id, purpose)? {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        if lacks.await? {
            *place = Some(self.share.package_place(self.class).await);
        }
        Ok(())
    }

    /// A package's meta.far that is here. If the disk has spoiled it, it is discarded and fetched once more.
    async fn meta_far(&self, package: BlobId, report: &mut FetchReport) -> Result<MetaFar, DeviceError> {
        match read_meta_far(&self.keep, package).await {
            Err(DeviceError::Keep(KeepError::Damaged(detail))) => {
                tracing::warn!(%detail, "discarded, and fetched again");
                blocking(&self.keep, move |keep| keep.discard(&package)).await?;
                report.add(0, self.have(package, Purpose::MetaFar).await?);
                read_meta_far(&self.keep, package).await
            }
            read => read,
        }
    }

    fn tell_done(&self, id: BlobId, fetched: Option<Had>) {
        (self.observer)(match fetched {
            None => Event::Present { id },
            Some(Had { content_bytes, .. }) => Event::Kept { id, content_bytes },
        });
    }
}

impl FetchReport {
    fn add(&mut self, blobs: usize, fetched: Option<Had>) {
        self.blobs += blobs;
        if let Some(Had { content_bytes, reused_bytes }) = fetched {
            self.fetched += 1;
            self.content_bytes += content_bytes;
            self.reused_bytes += reused_bytes;
        }
    }

    /// Adds what another fetch did.
    pub(crate) const fn join(&mut self, other: &Self) {
        self.blobs += other.blobs;
        self.fetched += other.fetched;
        self.content_bytes += other.content_bytes;
        self.reused_bytes += other.reused_bytes;
        self.packages += other.packages;
    }
}

impl PackageFetch {
    /// The same for something that is as urgent as this.
    #[must_use]
    pub const fn with_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }
}

/// Reads and parses a package's meta.far from the keep.
pub(crate) async fn read_meta_far(keep: &Arc<dyn Keep>, hash: BlobId) -> Result<MetaFar, DeviceError> {
    let limit = colibri_package::limits::META_FAR_BYTES_MAX;
    let bytes = blocking(keep, move |keep| keep.read(&hash, limit)).await?;
    MetaFar::parse(bytes).map_err(|error| DeviceError::BadPackage { hash, reason: error.to_string() })
}

/// Runs a call that may block on a disk outside the network loop.
pub(crate) async fn blocking<T: Send + 'static>(
    keep: &Arc<dyn Keep>,
    call: impl FnOnce(&dyn Keep) -> Result<T, KeepError> + Send + 'static,
) -> Result<T, DeviceError> {
    let keep = keep.clone();
    let called = tokio::task::spawn_blocking(move || call(&*keep)).await;
    Ok(called.map_err(|error| DeviceError::Internal(error.to_string()))??)
}
