//! [`Contents`]: what packages consist of, read from their meta.fars and kept, because a package hash never means anything
//! else. They are read through the cache, so that they are here when devices ask.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_fetch::{BlobFetcher, FetchError};
use colibri_package::MetaFar;
use colibri_package::delivery::{DeliveryType, Encoding, decode_verified};
use colibri_package::limits::META_FAR_BYTES_MAX;
use colibri_release::Release;
use colibri_release::limits::RELEASE_BYTES_MAX;

use crate::cache::{Cache, Keep};
use crate::limits::{WARM_PACKAGE_BLOBS_MAX, WARM_PACKAGES_MAX};
use crate::shapes::Opened;

/// What one package names.
#[derive(Debug)]
pub(crate) struct Package {
    pub blobs: Vec<BlobId>,
    pub subpackages: Vec<BlobId>,
    /// The document, if the package carries a release.
    pub release: Option<BlobId>,
}

/// Packages that were read.
#[derive(Debug, Default)]
pub(crate) struct Contents(Mutex<HashMap<BlobId, Arc<Package>>>);

/// Where blobs are read from.
pub(crate) struct Library<'a> {
    pub cache: &'a Cache,
    pub fetcher: &'a BlobFetcher,
    /// `/REPO`.
    pub place: &'a str,
}

impl Contents {
    /// A package and its subpackages, the package first: each with its hash.
    pub async fn closure(
        &self,
        library: &Library<'_>,
        hash: BlobId,
    ) -> Result<Vec<(BlobId, Arc<Package>)>, FetchError> {
        let (mut found, mut seen, mut open, mut blobs) = (Vec::new(), BTreeSet::from([hash]), vec![hash], 0);
        while let Some(hash) = open.pop() {
            let package = self.package(library, hash).await?;
            blobs += package.blobs.len();
            open.extend(package.subpackages.iter().copied().filter(|id| seen.insert(*id)));
            found.push((hash, package));
            if found.len() > WARM_PACKAGES_MAX || blobs > WARM_PACKAGE_BLOBS_MAX {
                return Err(FetchError::Local(format!("package {hash} names more than is walked")));
            }
        }
        Ok(found)
    }

    async fn package(&self, library: &Library<'_>, hash: BlobId) -> Result<Arc<Package>, FetchError> {
        if let Some(package) = self.lock().get(&hash) {
            return Ok(package.clone());
        }
        let wrong = |reason: String| FetchError::Local(format!("package {hash}: {reason}"));
        let bytes = library.read(hash, META_FAR_BYTES_MAX).await?;
        let meta = MetaFar::parse(bytes).map_err(|error| wrong(error.to_string()))?;
        let release = meta.contents().iter().find(|(path, _)| path.as_str() == Release::PATH).map(|(_, id)| *id);
        let package = Arc::new(Package {
            blobs: meta.content_blobs().into_iter().collect(),
            subpackages: meta.subpackages().values().copied().collect(),
            release: release.filter(|_| meta.contents().len() == 1),
        });
        self.lock().insert(hash, package.clone());
        Ok(package)
    }

    /// Forgets packages that no set needs any more.
    pub fn keep_only(&self, packages: &BTreeSet<BlobId>) {
        self.lock().retain(|hash, _| packages.contains(hash));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<BlobId, Arc<Package>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Library<'_> {
    /// The release that a document says.
    pub async fn release(&self, document: BlobId) -> Result<Release, FetchError> {
        let bytes = self.read(document, RELEASE_BYTES_MAX).await?;
        Release::parse(&bytes).map_err(|error| FetchError::Local(format!("release {document}: {error}")))
    }

    /// Opens a blob in the form that devices ask for first, or raw if there is none.
    pub async fn open(&self, id: BlobId) -> Result<Arc<Opened>, FetchError> {
        let delivery = Encoding::Delivery(DeliveryType::Type1);
        match self.cache.open(self.fetcher, self.place, id, delivery).await.0 {
            Err(FetchError::NotFound { .. }) => self.cache.open(self.fetcher, self.place, id, Encoding::Raw).await.0,
            opened => opened,
        }
    }

    /// The content of a small blob.
    async fn read(&self, id: BlobId, bytes_max: u64) -> Result<Bytes, FetchError> {
        let opened = self.open(id).await?;
        let layout = &opened.layout;
        if layout.content_length().0 > bytes_max {
            return Err(FetchError::Local(format!("blob {id} has more than {bytes_max} bytes")));
        }
        let mut encoded = layout.unit_h().to_vec();
        for unit in 0..layout.unit_count() {
            let range = layout.unit_range(unit);
            let mut at = range.start();
            if !range.is_empty() {
                let found = self.cache.unit(self.fetcher, self.place, &opened, unit, Keep::OnDisk);
                while at < range.end() {
                    let slice = found.read(at, range).await?;
                    at += slice.bytes().len() as u64;
                    encoded.extend_from_slice(slice.bytes());
                }
            }
        }
        match layout.encoding() {
            Encoding::Raw => Ok(encoded.into()),
            Encoding::Delivery(_) => {
                let decoded = decode_verified(id, &encoded);
                decoded.map(Bytes::from).map_err(|error| FetchError::Local(format!("blob {id}: {error}")))
            }
        }
    }
}
