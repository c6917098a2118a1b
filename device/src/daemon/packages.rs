//! What is known of a package, its files and their content; collection and verification.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use colibri_common::{BlobId, ByteRange};
use colibri_package::url::AbsolutePackageUrl;
use colibri_transport::{Body, Response};
use http::header::{CONTENT_LENGTH, HeaderValue};

use super::Daemon;
use super::answer::{Without, json, with_type};
use super::wire::{
    Collected, DamagedBlob, Event, Materialise, Materialised, PackageFile, PackageFiles, PackageHash, PackagePresence,
    Problem, Verified, Verify,
};
use crate::cache::Depth;
use crate::error::DeviceError;
use crate::fetch::read_meta_far;
use crate::limits::DAEMON_BLOB_STEP_BYTES;
use crate::materialise::{MaterialiseError, materialise};
use crate::verify::{VerifyAt, VerifyOptions};

/// A package URL of a request.
pub(super) fn parse_url(url: &str) -> Result<AbsolutePackageUrl, Problem> {
    let refused = |reason: String| Problem::from(DeviceError::InvalidUrl { url: url.to_owned(), reason });
    url.parse().map_err(|error| refused(format!("not a package URL (fuchsia-pkg://HOST/NAME): {error}")))
}

fn parse_hash(hash: &str) -> Result<BlobId, Problem> {
    hash.parse().map_err(|error| Problem::bad_request(format!("`{hash}`: not a hash: {error}")))
}

impl Daemon {
    pub(super) async fn hash(&self, url: &str) -> Result<Response, Problem> {
        let hash = self.device().get_hash(&parse_url(url)?).await?;
        Ok(json(&PackageHash { url: url.to_owned(), hash }))
    }

    pub(super) async fn package_status(&self, url: &str) -> Result<Response, Problem> {
        let status = self.device().package_status(&parse_url(url)?).await?;
        Ok(json(&PackagePresence {
            url: url.to_owned(),
            in_repository: status.in_repository.is_some(),
            merkle: status.in_repository,
            on_disk: status.in_repository.map(|_| status.on_disk),
        }))
    }

    pub(super) async fn package(&self, hash: &str) -> Result<Response, Problem> {
        let hash = parse_hash(hash)?;
        // Nothing of it goes while it is looked at.
        let _lease = self.device().lease(hash, "whoever lists its files").await?;
        let package = self.device().open_package(hash).await?;
        let meta_far = read_meta_far(self.device().keep(), hash).await?;
        let blobs = package.blobs.into_iter().map(|(path, blob)| PackageFile { path, blob: Some(blob) });
        let inline = package.inline.into_keys().map(|path| PackageFile { path, blob: None });
        let mut contents: Vec<_> = blobs.chain(inline).collect();
        contents.sort_unstable();
        let subpackages = meta_far.subpackages().iter().map(|(name, hash)| (name.to_string(), *hash)).collect();
        Ok(json(&PackageFiles { hash, contents, subpackages }))
    }

    pub(super) async fn blob(&self, hash: &str) -> Result<Response, Problem> {
        let (id, store) = (parse_hash(hash)?, self.store().clone());
        let open = tokio::task::spawn_blocking(move || store.open_blob(id)).await;
        let open = open.map_err(|error| Problem::internal(error.to_string()))?;
        let reader = Arc::new(open.map_err(|error| match error {
            colibri_store::StoreError::NotFound { .. } => DeviceError::NotOnDevice(id),
            error => error.into(),
        })?);
        let length = reader.length();
        let (mut sender, body) = Body::channel(Some(length));
        self.inner.tracker.spawn(async move {
            let mut start = 0;
            while start < length {
                let end = length.min(start + DAEMON_BLOB_STEP_BYTES);
                let from = reader.clone();
                let read = tokio::task::spawn_blocking(move || from.read(ByteRange::new(start, end)));
                let piece = match read.await {
                    Ok(Ok(piece)) => piece,
                    Ok(Err(error)) => return sender.abort(error),
                    Err(error) => return sender.abort(error),
                };
                if sender.send(piece).await.is_err() {
                    return;
                }
                start = end;
            }
            sender.finish();
        });
        let mut response = with_type(body, HeaderValue::from_static("application/octet-stream"));
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        Ok(response)
    }

    pub(super) async fn materialise(&self, wanted: Materialise) -> Result<Response, Problem> {
        if !wanted.dir.is_absolute() {
            return Err(Problem::bad_request("`dir` must be an absolute path".to_owned()));
        }
        let lease = self.device().lease(wanted.hash, "whoever lays out its files").await?;
        let contents = self.device().open_package(wanted.hash).await?;
        let store = self.store().clone();
        let rights = self.device().rights_of(wanted.hash).await?;
        let laid_out = tokio::task::spawn_blocking(move || {
            let _lease = lease;
            materialise(&store, &contents.blobs, &contents.inline, &wanted.dir, rights)
        });
        let report = laid_out.await.map_err(|error| Problem::internal(error.to_string()))?;
        let report = report.map_err(|error| match error {
            MaterialiseError::TargetExists { .. } | MaterialiseError::Busy { .. } => {
                Problem::conflict(error.to_string())
            }
            error => Problem::internal(error.to_string()),
        })?;
        let files = report.reflinked + report.hard_linked + report.copied;
        Ok(json(&Materialised { files, bytes: report.bytes }))
    }

    pub(super) async fn gc(&self) -> Result<Response, Problem> {
        let report = self.device().collect(Depth::Unused).await?;
        Ok(json(&Collected {
            blobs_removed: report.removed,
            bytes_removed: report.removed_bytes,
            unfinished_removed: report.partials_removed,
            packages_evicted: report.evicted.into_iter().map(|(package, _)| package).collect(),
            trees_removed: report.trees_removed,
        }))
    }

    pub(super) fn verify(&self, wanted: &Verify) -> Result<Response, Problem> {
        let place = self.operation()?;
        let at: Arc<[AtomicU64; 2]> = Arc::default();
        let (device, told) = (self.device().clone(), at.clone());
        let options = VerifyOptions { bytes_per_s: wanted.bytes_per_s, only_look: wanted.only_look, after: None };
        let working = self.work(Without::Stops, async move {
            let _place = place;
            let progress = move |at: VerifyAt| {
                told[0].store(at.bytes, Ordering::Relaxed);
                told[1].store(at.bytes_total, Ordering::Relaxed);
            };
            Ok(device.verify(options, Arc::new(|_| ()), progress).await?)
        });
        Ok(self.lines(|mut lines| async move {
            let progress = || {
                let [bytes, bytes_total] = [0, 1].map(|index| at[index].load(Ordering::Relaxed));
                Some(Event::Verifying { bytes, bytes_total })
            };
            let Some(verified) = working.watched(&mut lines, progress).await else { return };
            let last = match verified {
                Ok(report) => Event::Verified(Verified {
                    blobs: report.blobs,
                    bytes: report.bytes,
                    damaged: report
                        .damaged
                        .into_iter()
                        .map(|damage| DamagedBlob {
                            blob: damage.blob,
                            offset: damage.offset,
                            repaired: damage.lost.is_none(),
                            reason: damage.lost,
                        })
                        .collect(),
                    trees_removed: report.trees_removed,
                }),
                Err(problem) => Event::Failed(problem),
            };
            if lines.send(&last).await.is_ok() {
                lines.finish();
            }
        }))
    }
}
