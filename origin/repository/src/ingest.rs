//! Bringing the blobs of a publish into the repository: read, check against the claimed id, encode, store, prove.
//!
//! Several blobs are encoded at a time, the largest first. What is encoded goes to the disk in batches, on the calling thread,
//! while others are still encoded, so that syncing and reading back cost little beside it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_common::{BlobId, UnixSeconds, merkle};
use colibri_package::delivery::{self, DeliveryType, Layout};

use crate::blobs::{BlobFolder, Encoded, Standing};
use crate::error::RepositoryError;
use crate::receipts::Entry;
use crate::transfer::CopyMode;
use crate::{limits, parallel};

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
    /// How what is a delivery blob of this type already comes in.
    pub copy_mode: CopyMode,
    /// What is here is stored again.
    pub overwrite: bool,
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

    /// The content, proven to be the claimed blob.
    pub fn read(&self) -> Result<Content, RepositoryError> {
        let (path, content, encoded) = match &self.source {
            Source::File(path) => (path, self.read_file(path)?, None),
            Source::DeliveryFile(path) => {
                let encoded = self.read_file(path)?;
                let content = delivery::decode(&encoded);
                let failed = |source| RepositoryError::Delivery { path: path.clone(), source };
                (path, content.map_err(failed)?.into(), Some(encoded))
            }
            Source::Archive(path, content) => (path, content.clone(), None),
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
        Ok(Content { content, tree, encoded })
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

/// Content that is the blob it was said to be.
pub(crate) struct Content {
    pub content: Bytes,
    pub tree: merkle::Tree,
    /// The delivery blob that it was decoded from.
    encoded: Option<Bytes>,
}

impl Content {
    /// The delivery blob that it came as, if that is one of type `ty` in the strict form.
    fn as_it_came(&self, ty: DeliveryType) -> Option<Bytes> {
        let encoded = self.encoded.clone()?;
        let layout = Layout::from_unit_h(ty, self.tree.leaves.clone(), &encoded).ok()?;
        (layout.encoded_length().0 == encoded.len() as u64).then_some(encoded)
    }
}

/// What one blob needs before it can be stored.
enum Prepared {
    /// Nothing: it is here and proven.
    Here(Stored),
    New(Encoded),
}

/// One blob and everybody who names it: every claim is checked, the first source is stored.
fn prepare(
    blobs: &BlobFolder,
    sources: &[SourceBlob],
    encoding: Encoding,
    encoder: &delivery::Encoder,
    now: UnixSeconds,
) -> Result<Prepared, RepositoryError> {
    let Some((blob, others)) = sources.split_first() else {
        return Ok(Prepared::Here(Stored { bytes: 0, new_bytes: None }));
    };
    for other in others {
        other.read()?;
    }
    let read = blob.read()?;
    let bytes = read.content.len() as u64;
    match blobs.standing(encoding.ty, blob.id, now)? {
        Standing::Proven if !encoding.overwrite => return Ok(Prepared::Here(Stored { bytes, new_bytes: None })),
        Standing::Proven | Standing::Absent => {}
        Standing::Wrong(reason) => {
            tracing::warn!(id = %blob.id, %reason, "a stored blob that is not what its name says is replaced");
        }
    }
    if let Some(encoded) = read.as_it_came(encoding.ty) {
        let new_bytes = Some(encoded.len() as u64);
        if encoding.copy_mode == CopyMode::HardLink && blobs.link(blob.file(), encoding.ty, blob.id, now)? {
            return Ok(Prepared::Here(Stored { bytes, new_bytes }));
        }
        return Ok(Prepared::New(Encoded { tree: read.tree, ty: encoding.ty, bytes: encoded }));
    }
    Encoded::of(read.tree, &read.content, encoder).map(Prepared::New).map_err(|error| match error {
        RepositoryError::Delivery { source, .. } => RepositoryError::Delivery { path: blob.file().to_owned(), source },
        error => error,
    })
}

/// New blobs on their way to the disk together, while others are still being compressed.
struct Batch<'a> {
    blobs: &'a BlobFolder,
    now: UnixSeconds,
    overwrite: bool,
    waiting: Vec<Encoded>,
    bytes: u64,
}

impl Batch<'_> {
    fn is_full(&self) -> bool {
        self.bytes >= limits::INGEST_BATCH_BYTES || self.waiting.len() as u64 >= limits::INGEST_BATCH_BLOBS_MAX
    }

    fn add(&mut self, blob: Encoded) {
        self.bytes += blob.bytes.len() as u64;
        self.waiting.push(blob);
    }

    /// Stores what waits, durably and proven.
    fn store(&mut self, done: &mut impl FnMut(BlobId, Stored)) -> Result<(), RepositoryError> {
        let waiting = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        if self.overwrite {
            // What was said of the old form must not vouch for the new one, whatever crashes between.
            self.blobs.receipts.note(waiting.iter().map(|blob| Entry::Forgotten(blob.tree.id)));
            self.blobs.receipts.flush()?;
        }
        self.blobs.store_all(&waiting, self.now)?;
        for blob in waiting {
            let stored = Stored { bytes: blob.tree.length.bytes(), new_bytes: Some(blob.bytes.len() as u64) };
            done(blob.tree.id, stored);
        }
        Ok(())
    }
}

/// Brings in every blob of `wanted`; `done` hears of each, once it is proven, on the calling thread. The first error ends it;
/// what was stored until then stays, ready for the next try.
pub(crate) fn ingest(
    blobs: &BlobFolder,
    wanted: &BTreeMap<BlobId, Vec<SourceBlob>>,
    encoding: Encoding,
    now: UnixSeconds,
    mut done: impl FnMut(BlobId, Stored),
) -> Result<(), RepositoryError> {
    let items: Vec<(&BlobId, &Vec<SourceBlob>)> = wanted.iter().collect();
    let mut batch = Batch { blobs, now, overwrite: encoding.overwrite, waiting: Vec::new(), bytes: 0 };
    let encoder = delivery::Encoder::new(encoding.ty, encoding.level);
    let mut failed = None;
    parallel::each(
        &items,
        |(_, sources)| sources.iter().map(|blob| blob.size).max().unwrap_or(0),
        |(_, sources)| prepare(blobs, sources, encoding, &encoder, now),
        |(id, _), prepared| {
            let stored = match prepared {
                Ok(Prepared::Here(stored)) => {
                    done(**id, stored);
                    Ok(())
                }
                Ok(Prepared::New(blob)) => {
                    batch.add(blob);
                    if batch.is_full() { batch.store(&mut done) } else { Ok(()) }
                }
                Err(error) => Err(error),
            };
            match stored {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        },
    );
    let stored = batch.store(&mut done);
    // Receipts of what is stored are kept also if the rest failed.
    let flushed = blobs.receipts.flush();
    failed.map_or(Ok(()), Err).and(stored).and(flushed)
}
