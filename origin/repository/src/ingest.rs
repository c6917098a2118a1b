//! Bringing the blobs of a publish into the repository: read, check against the claimed id, encode, store, prove.
//!
//! Small blobs are worked on several at a time, because most of their cost is waiting for the disk; large ones one after
//! another, because encoding one uses all cores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_common::merkle;
use colibri_package::delivery::{self, DeliveryType};

use crate::blobs::BlobFolder;
use crate::error::RepositoryError;
use crate::limits;

/// Where a blob's content is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A file with the content itself.
    File(PathBuf),
    /// A file with a delivery blob.
    DeliveryFile(PathBuf),
    /// Part of a package archive, which is the path given.
    Archive(PathBuf, Bytes),
}

/// A blob that somebody names. Size and id are claims until it is read.
#[derive(Debug, Clone)]
pub(crate) struct SourceBlob {
    /// Path in the package; `meta/` for the meta.far.
    pub path: String,
    /// Claimed id.
    pub id: BlobId,
    /// Claimed size of the content in bytes.
    pub size: u64,
    pub source: Source,
    /// The manifest or archive that names it.
    pub named_by: PathBuf,
}

/// How blobs are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoding {
    pub ty: DeliveryType,
    pub level: Option<i32>,
}

/// What became of one blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    /// Length of the content in bytes.
    pub bytes: u64,
    /// Bytes newly written; nothing if it was there.
    pub new_bytes: Option<u64>,
}

impl SourceBlob {
    /// The file that has it.
    pub fn file(&self) -> &Path {
        match &self.source {
            Source::File(path) | Source::DeliveryFile(path) | Source::Archive(path, _) => path,
        }
    }

    /// The content, proven to be the claimed blob, with its tree.
    fn read(&self) -> Result<(Bytes, merkle::Tree), RepositoryError> {
        let (path, content) = match &self.source {
            Source::File(path) => (path, self.read_file(path)?),
            Source::DeliveryFile(path) => {
                let encoded = self.read_file(path)?;
                let content = delivery::decode(&encoded);
                let failed = |source| RepositoryError::Delivery { path: path.clone(), source };
                (path, content.map_err(failed)?.into())
            }
            Source::Archive(path, content) => (path, content.clone()),
        };
        let tree = merkle::build(&content);
        let (path, manifest) = (path.clone(), self.named_by.clone());
        let found = content.len() as u64;
        if tree.id != self.id {
            return Err(RepositoryError::WrongBlob { path, manifest, claimed: self.id, found: tree.id });
        }
        if found != self.size {
            return Err(RepositoryError::WrongSize { path, manifest, claimed: self.size, found });
        }
        Ok((content, tree))
    }

    fn read_file(&self, path: &PathBuf) -> Result<Bytes, RepositoryError> {
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => RepositoryError::MissingBlob {
                path: path.clone(),
                manifest: self.named_by.clone(),
                blob_path: self.path.clone(),
            },
            _ => RepositoryError::read(path, e),
        };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        let bytes_max = limits::BLOB_CONTENT_BYTES_MAX;
        if bytes > bytes_max {
            return Err(RepositoryError::TooLarge { path: path.clone(), bytes, bytes_max });
        }
        Ok(std::fs::read(path).map_err(failed)?.into())
    }
}

/// One blob and everybody who names it: every claim is checked, the first source is stored.
fn ingest_one(blobs: &BlobFolder, sources: &[SourceBlob], encoding: Encoding) -> Result<Stored, RepositoryError> {
    let Some((blob, others)) = sources.split_first() else { return Ok(Stored { bytes: 0, new_bytes: None }) };
    for other in others {
        other.read()?;
    }
    let (content, tree) = blob.read()?;
    let bytes = content.len() as u64;
    if blobs.has(encoding.ty, blob.id)? {
        return Ok(Stored { bytes, new_bytes: None });
    }
    let written = blobs.store(&tree, &content, encoding.ty, encoding.level)?;
    Ok(Stored { bytes, new_bytes: Some(written) })
}

/// Brings in every blob of `wanted`; `done` hears of each on the calling thread. The first error ends it; what was stored
/// until then stays, proven and ready for the next try.
pub(crate) fn ingest(
    blobs: &BlobFolder,
    wanted: &BTreeMap<BlobId, Vec<SourceBlob>>,
    encoding: Encoding,
    mut done: impl FnMut(BlobId, Stored),
) -> Result<(), RepositoryError> {
    let (small, large): (Vec<_>, Vec<_>) =
        wanted.iter().partition(|(_, sources)| sources.iter().all(|b| b.size <= limits::PARALLEL_BLOB_BYTES_MAX));
    let workers = usize::try_from(limits::WORKERS_MAX).unwrap_or(1).min(small.len());
    let queue = Mutex::new(small.into_iter());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (sender, results) = mpsc::sync_channel(workers.max(1));
        for _ in 0..workers {
            let (sender, queue, stop) = (sender.clone(), &queue, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some((id, sources)) = next else { break };
                    let result = ingest_one(blobs, sources, encoding);
                    if sender.send((*id, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut failed = None;
        for (id, result) in results {
            match result {
                Ok(stored) => done(id, stored),
                Err(e) => {
                    stop.store(true, Ordering::Relaxed);
                    failed.get_or_insert(e);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    })?;
    for (id, sources) in large {
        done(*id, ingest_one(blobs, sources, encoding)?);
    }
    Ok(())
}
