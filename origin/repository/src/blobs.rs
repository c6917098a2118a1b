//! Blobs at rest: stored once, read back from the disk once, then vouched for by a receipt (architecture §2, invariant 3).
//!
//! Order for new blobs, many at a time: delivery blobs and leaf lists durable under their names; read back, past the cache,
//! and decoded to the right merkle root; then their receipts, durable before anything that is signed depends on them.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use colibri_common::limits::LEAVES_LIST_BYTES_MAX;
use colibri_common::merkle::{Leaves, Tree};
use colibri_common::{BlobId, ByteRange, UnixSeconds};
use colibri_package::MetaFar;
use colibri_package::delivery::{self, DeliveryType, Identity, Layout, UNIT_H_PROBE_BYTES};
use colibri_store::{DocumentName, OsDisk, StoreError};

use crate::error::RepositoryError;
use crate::receipts::{Contents, Entry, Receipt, Receipts};
use crate::storage::Storage;
use crate::{layout, limits, parallel, transfer};

/// Most bytes of an encoded blob: an encoding that is larger than its content is stored uncompressed, with a header.
const ENCODED_BYTES_MAX: u64 = limits::BLOB_CONTENT_BYTES_MAX + 4096;

/// All types, the one that every client reads first.
pub(crate) const TYPES: [DeliveryType; 2] = [DeliveryType::Type1, DeliveryType::Type2];

/// The blob side of a repository's folder.
#[derive(Debug, Clone)]
pub(crate) struct BlobFolder {
    storage: Arc<dyn Storage>,
    pub receipts: Receipts,
}

/// How a blob stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Durable, and read back and verified once; its length is still right.
    Proven,
    /// Not here.
    Absent,
    /// Here, and not what its name says.
    Wrong(String),
}

/// A blob in the form in which it will lie here.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub tree: Tree,
    pub ty: DeliveryType,
    pub bytes: Bytes,
}

impl Encoded {
    /// Compresses content whose tree is known.
    pub fn of(tree: Tree, content: &[u8], encoder: &delivery::Encoder) -> Result<Self, RepositoryError> {
        let failed = |source| RepositoryError::Delivery { path: tree.id.to_string().into(), source };
        let bytes = encoder.encode(content).map_err(failed)?.into();
        Ok(Self { tree, ty: encoder.delivery_type(), bytes })
    }
}

impl BlobFolder {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { receipts: Receipts::new(storage.clone()), storage }
    }

    fn stored(id: BlobId, reason: &dyn Display) -> RepositoryError {
        RepositoryError::StoredBlob { id, reason: reason.to_string() }
    }

    /// How `id` stands as `ty`. One without a receipt, because another tool put it here, is proven now.
    pub fn standing(&self, ty: DeliveryType, id: BlobId, now: UnixSeconds) -> Result<Standing, RepositoryError> {
        let name = layout::blob(ty, id)?;
        let Some(length) = self.storage.length(&name)? else { return Ok(Standing::Absent) };
        if self.receipts.form(id, ty).is_some_and(|receipt| receipt.length == length) {
            return Ok(Standing::Proven);
        }
        self.storage.make_durable(&name)?;
        match self.prove(ty, id, now) {
            Ok(leaves) => {
                let (name, list) = (layout::leaves(id)?, leaves.wire());
                if self.storage.read(&name, LEAVES_LIST_BYTES_MAX).ok().flatten().as_ref() != Some(&list) {
                    self.storage.replace(&name, &list)?;
                }
                Ok(Standing::Proven)
            }
            Err(RepositoryError::StoredBlob { reason, .. }) => Ok(Standing::Wrong(reason)),
            Err(e) => Err(e),
        }
    }

    /// Whether `id` is here as `ty` and proven.
    pub fn has(&self, ty: DeliveryType, id: BlobId) -> Result<bool, RepositoryError> {
        Ok(self.standing(ty, id, UnixSeconds(0))? == Standing::Proven)
    }

    /// Whether `id` is here and proven in any encoding.
    pub fn has_any(&self, id: BlobId) -> Result<bool, RepositoryError> {
        Ok(self.any_standing(id, UnixSeconds(0))? == Standing::Proven)
    }

    /// How `id` stands in the best of its encodings.
    pub fn any_standing(&self, id: BlobId, now: UnixSeconds) -> Result<Standing, RepositoryError> {
        let mut best = Standing::Absent;
        for ty in TYPES {
            match self.standing(ty, id, now)? {
                Standing::Proven => return Ok(Standing::Proven),
                Standing::Absent => {}
                wrong => best = wrong,
            }
        }
        Ok(best)
    }

    /// Reads what lies there as `id`, past the cache, checks it against its name, and notes the receipt.
    fn prove(&self, ty: DeliveryType, id: BlobId, now: UnixSeconds) -> Result<Leaves, RepositoryError> {
        let encoded = match self.storage.read_at_rest(&layout::blob(ty, id)?, ENCODED_BYTES_MAX) {
            Err(StoreError::TooLarge { length_bytes, .. }) => {
                return Err(Self::stored(id, &format_args!("{length_bytes} bytes are more than any blob has")));
            }
            read => read?.ok_or_else(|| Self::stored(id, &"it is missing"))?,
        };
        let tree = delivery::content_tree(&encoded).map_err(|e| Self::stored(id, &e))?;
        if tree.id != id {
            return Err(Self::stored(id, &format_args!("its content is blob {}", tree.id)));
        }
        let unit_h = Layout::unit_h_bytes(&encoded).map_err(|e| Self::stored(id, &e))?;
        let head = encoded.slice(..usize::try_from(unit_h).map_or(encoded.len(), |bytes| bytes.min(encoded.len())));
        let identity = Identity::of_unit_h(&head);
        let length = encoded.len() as u64;
        self.receipts.note([Entry::Proven(Receipt { id, ty, length, identity, at: now })]);
        Ok(tree.leaves)
    }

    /// Stores blobs, durably and proven, several for the price of few syncs.
    pub fn store_all(&self, blobs: &[Encoded], now: UnixSeconds) -> Result<(), RepositoryError> {
        let mut documents = Vec::with_capacity(2 * blobs.len());
        for blob in blobs {
            documents.push((layout::leaves(blob.tree.id)?, blob.tree.leaves.wire()));
            documents.push((layout::blob(blob.ty, blob.tree.id)?, blob.bytes.clone()));
        }
        self.storage.replace_all(&documents)?;
        drop(documents);
        let mut outcome = Ok(());
        let prove = |blob: &Encoded| self.prove(blob.ty, blob.tree.id, now);
        parallel::each(
            blobs,
            |blob| blob.tree.length.bytes(),
            prove,
            |blob, proven| match proven {
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => {
                    outcome = Err((layout::blob(blob.ty, blob.tree.id), error));
                    ControlFlow::Break(())
                }
            },
        );
        if let Err((name, error)) = outcome {
            // Not proven, so it must not stay under a name that says what it is.
            self.storage.remove_all(&[name?])?;
            return Err(error);
        }
        Ok(())
    }

    /// Gives a delivery blob outside a second name in here, durably and proven; false if that cannot be done, as on another
    /// file system, and nothing is left of the attempt.
    pub fn link(&self, source: &Path, ty: DeliveryType, id: BlobId, now: UnixSeconds) -> Result<bool, RepositoryError> {
        let name = layout::blob(ty, id)?;
        let target = self.storage.place().join(name.as_str());
        if self.storage.length(&name)?.is_some() || !transfer::link(&OsDisk, source, &target)? {
            return Ok(false);
        }
        if self.standing(ty, id, now)? == Standing::Proven {
            return Ok(true);
        }
        self.storage.remove_all(&[name])?;
        Ok(false)
    }

    /// Stores content whose tree is known, durably and proven.
    pub fn store(
        &self,
        tree: &Tree,
        content: &[u8],
        ty: DeliveryType,
        level: Option<i32>,
    ) -> Result<(), RepositoryError> {
        let encoded = Encoded::of(tree.clone(), content, &delivery::Encoder::new(ty, level))?;
        self.store_all(&[encoded], UnixSeconds(0))
    }

    /// What a proven package names directly.
    pub fn contents_of(&self, package: BlobId) -> Result<Arc<Contents>, RepositoryError> {
        if let Some(contents) = self.receipts.package(package) {
            return Ok(contents);
        }
        let contents = Arc::new(Contents::of(&self.meta_far(package)?));
        self.receipts.note([Entry::Package(package, contents.clone())]);
        Ok(contents)
    }

    /// A package's meta.far.
    pub fn meta_far(&self, package: BlobId) -> Result<MetaFar, RepositoryError> {
        MetaFar::parse(self.content(package)?.into()).map_err(|e| Self::stored(package, &e))
    }

    fn encoded(&self, ty: DeliveryType, id: BlobId) -> Result<Option<Bytes>, RepositoryError> {
        Ok(self.storage.read(&layout::blob(ty, id)?, ENCODED_BYTES_MAX)?)
    }

    /// The verified content of `id`, from whichever encoding is here.
    pub fn content(&self, id: BlobId) -> Result<Vec<u8>, RepositoryError> {
        for ty in TYPES {
            if let Some(encoded) = self.encoded(ty, id)? {
                return delivery::decode_verified(id, &encoded).map_err(|e| Self::stored(id, &e));
            }
        }
        Err(Self::stored(id, &"it is missing"))
    }

    /// Content length of `id` in bytes, from the head of its encoded form and its leaves.
    pub fn content_bytes(&self, id: BlobId) -> Result<u64, RepositoryError> {
        for ty in TYPES {
            if self.storage.length(&layout::blob(ty, id)?)?.is_none() {
                continue;
            }
            return match self.form(ty, id)? {
                Some(layout) => Ok(layout.content_length().0),
                None => Ok(self.content(id)?.len() as u64),
            };
        }
        Err(Self::stored(id, &"it is missing"))
    }

    /// Where the pieces of `id` as `ty` lie; nothing if it is not here or was never proven.
    pub fn form(&self, ty: DeliveryType, id: BlobId) -> Result<Option<Layout>, RepositoryError> {
        let name = layout::blob(ty, id)?;
        let Some(length) = self.storage.length(&name)? else { return Ok(None) };
        let Some(list) = self.storage.read(&layout::leaves(id)?, LEAVES_LIST_BYTES_MAX)? else { return Ok(None) };
        let leaves = Leaves::check(id, list).map_err(|e| Self::stored(id, &e))?;
        let Some(head) = self.storage.read_range(&name, ByteRange::new(0, UNIT_H_PROBE_BYTES))? else {
            return Ok(None);
        };
        let layout = Layout::from_unit_h(ty, leaves, &head).map_err(|e| Self::stored(id, &e))?;
        if layout.encoded_length().0 != length {
            return Err(Self::stored(id, &"it is cut short, or has a tail"));
        }
        Ok(Some(layout))
    }

    /// When `id` was stored, as far as its receipts, else the file system, tell.
    pub fn modified(&self, id: BlobId) -> Option<UnixSeconds> {
        let proven = TYPES.into_iter().filter_map(|ty| self.receipts.form(id, ty)).map(|receipt| receipt.at);
        if let Some(at) = proven.filter(|at| at.0 > 0).min() {
            return Some(at);
        }
        TYPES.into_iter().find_map(|ty| self.file_time(&layout::blob(ty, id).ok()?))
    }

    /// When a document was written, as far as the file system tells.
    pub fn file_time(&self, name: &DocumentName) -> Option<UnixSeconds> {
        let modified = std::fs::metadata(self.storage.place().join(name.as_str())).ok()?.modified().ok()?;
        Some(UnixSeconds(modified.duration_since(UNIX_EPOCH).ok()?.as_secs()))
    }

    /// Stores meta.fars as TUF targets, those that are not there.
    pub fn put_targets(&self, files: &[(DocumentName, Bytes)]) -> Result<(), RepositoryError> {
        let mut absent = Vec::new();
        for (name, content) in files {
            if self.storage.length(name)? != Some(content.len() as u64) {
                absent.push((name.clone(), content.clone()));
            }
        }
        Ok(self.storage.replace_all(&absent)?)
    }
}
