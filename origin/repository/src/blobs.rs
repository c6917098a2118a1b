//! Blobs on disk: stored once, read back once, then vouched for by their leaf list (architecture §2, invariant 3).
//!
//! Order for a new blob: delivery blob durable under its name, read back and decoded to the right merkle root, then the
//! leaf list. A leaf list therefore is the durable receipt that the blob beside it was proven.

use std::fmt::Display;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use colibri_common::limits::LEAVES_LIST_BYTES_MAX;
use colibri_common::merkle::{Leaves, Tree};
use colibri_common::{BlobId, ByteRange, UnixSeconds};
use colibri_package::delivery::{self, DeliveryType, Layout, UNIT_H_PROBE_BYTES};
use colibri_store::DocumentName;

use crate::error::RepositoryError;
use crate::storage::Storage;
use crate::{layout, limits};

/// Most bytes of an encoded blob: an encoding that is larger than its content is stored uncompressed, with a header.
const ENCODED_BYTES_MAX: u64 = limits::BLOB_CONTENT_BYTES_MAX + 4096;

/// All types, the one that every client reads first.
pub(crate) const TYPES: [DeliveryType; 2] = [DeliveryType::Type1, DeliveryType::Type2];

/// The blob side of a repository's folder.
#[derive(Debug, Clone)]
pub(crate) struct BlobFolder {
    storage: Arc<dyn Storage>,
}

impl BlobFolder {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    fn stored(id: BlobId, reason: &dyn Display) -> RepositoryError {
        RepositoryError::StoredBlob { id, reason: reason.to_string() }
    }

    /// Whether `id` is here as `ty` and proven. One that another tool put here is proven now.
    pub fn has(&self, ty: DeliveryType, id: BlobId) -> Result<bool, RepositoryError> {
        if self.storage.length(&layout::blob(ty, id)?)?.is_none() {
            return Ok(false);
        }
        if self.storage.length(&layout::leaves(id)?)?.is_some() {
            return Ok(true);
        }
        match self.prove(ty, id) {
            Ok(()) => Ok(true),
            Err(RepositoryError::StoredBlob { id, reason }) => {
                tracing::warn!(%id, %reason, "a blob that is not what its name says will be replaced");
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Whether `id` is here and proven in any encoding.
    pub fn has_any(&self, id: BlobId) -> Result<bool, RepositoryError> {
        for ty in TYPES {
            if self.has(ty, id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads `id` back from the disk, checks it against its name, and writes the receipt.
    fn prove(&self, ty: DeliveryType, id: BlobId) -> Result<(), RepositoryError> {
        let encoded = self.storage.read_at_rest(&layout::blob(ty, id)?, ENCODED_BYTES_MAX)?;
        let encoded = encoded.ok_or_else(|| Self::stored(id, &"it is missing"))?;
        let tree = delivery::content_tree(&encoded).map_err(|e| Self::stored(id, &e))?;
        if tree.id != id {
            return Err(Self::stored(id, &format_args!("its content is blob {}", tree.id)));
        }
        Ok(self.storage.replace(&layout::leaves(id)?, &tree.leaves.wire())?)
    }

    fn encoded(&self, ty: DeliveryType, id: BlobId) -> Result<Option<Bytes>, RepositoryError> {
        Ok(self.storage.read(&layout::blob(ty, id)?, ENCODED_BYTES_MAX)?)
    }

    /// Stores content whose tree is known, durably and proven. Gives the bytes it takes on disk.
    pub fn store(
        &self,
        tree: &Tree,
        content: &[u8],
        ty: DeliveryType,
        level: Option<i32>,
    ) -> Result<u64, RepositoryError> {
        let name = layout::blob(ty, tree.id)?;
        let encoded = delivery::encode(content, ty, level)
            .map_err(|source| RepositoryError::Delivery { path: self.storage.place().join(name.as_str()), source })?;
        let length = encoded.len() as u64;
        self.storage.replace(&name, &encoded.into())?;
        if let Err(e) = self.prove(ty, tree.id) {
            // Not proven, so it must not stay under a name that says what it is.
            self.storage.remove_all(&[name])?;
            return Err(e);
        }
        Ok(length)
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

    /// When `id` was stored, as far as the file system tells.
    pub fn modified(&self, id: BlobId) -> Option<UnixSeconds> {
        let path = TYPES.into_iter().find_map(|ty| {
            let path = self.storage.place().join(layout::blob(ty, id).ok()?.as_str());
            path.exists().then_some(path)
        })?;
        let modified = std::fs::metadata(path).ok()?.modified().ok()?;
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
