//! Blobs on disk: stored once, read back once, then vouched for by their leaf list (architecture §2, invariant 3).
//!
//! Order for a new blob: delivery blob durable under its name, read back and decoded to the right merkle root, then the
//! leaf list. A leaf list therefore is the durable receipt that the blob beside it was proven.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use colibri_common::limits::LEAVES_LIST_BYTES_MAX;
use colibri_common::merkle::{Leaves, Tree};
use colibri_common::{BlobId, ByteRange, UnixSeconds};
use colibri_package::delivery::{self, DeliveryType, Layout, UNIT_H_PROBE_BYTES};
use colibri_store::{Disk, DocumentReader, Documents};

use crate::error::RepositoryError;
use crate::{layout, limits};

/// Most bytes of an encoded blob: an encoding that is larger than its content is stored uncompressed, with a header.
const ENCODED_BYTES_MAX: u64 = limits::BLOB_CONTENT_BYTES_MAX + 4096;

/// All types, the one that every client reads first.
pub(crate) const TYPES: [DeliveryType; 2] = [DeliveryType::Type1, DeliveryType::Type2];

/// The blob side of a repository's folder.
#[derive(Debug, Clone)]
pub(crate) struct BlobFolder {
    documents: Documents,
}

impl BlobFolder {
    pub fn new(documents: Documents) -> Self {
        Self { documents }
    }

    /// Makes the folders of `ty`, so that workers do not meet while making them. Each write makes them durable.
    pub fn make_folders(&self, disk: &dyn Disk, ty: DeliveryType) -> Result<(), RepositoryError> {
        let served = self.documents.dir().join(layout::SERVED);
        let blobs = served.join("blobs");
        for folder in [served, blobs.clone(), blobs.join(ty.to_string()), blobs.join("leaves")] {
            match disk.create_dir(&folder) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(RepositoryError::read(&folder, e)),
                _ => {}
            }
        }
        Ok(())
    }

    fn stored(id: BlobId, reason: &dyn Display) -> RepositoryError {
        RepositoryError::StoredBlob { id, reason: reason.to_string() }
    }

    /// Whether `id` is here as `ty` and proven. One that another tool put here is proven now.
    pub fn has(&self, ty: DeliveryType, id: BlobId) -> Result<bool, RepositoryError> {
        if self.documents.length(&layout::blob(ty, id)?)?.is_none() {
            return Ok(false);
        }
        if self.documents.length(&layout::leaves(id)?)?.is_some() {
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
        let encoded = self.encoded(ty, id)?.ok_or_else(|| Self::stored(id, &"it is missing"))?;
        let tree = delivery::content_tree(&encoded).map_err(|e| Self::stored(id, &e))?;
        if tree.id != id {
            return Err(Self::stored(id, &format_args!("its content is blob {}", tree.id)));
        }
        Ok(self.documents.put(&layout::leaves(id)?, &tree.leaves.wire())?)
    }

    fn encoded(&self, ty: DeliveryType, id: BlobId) -> Result<Option<Bytes>, RepositoryError> {
        Ok(self.documents.get(&layout::blob(ty, id)?, ENCODED_BYTES_MAX)?)
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
            .map_err(|source| RepositoryError::Delivery { path: self.documents.path(&name), source })?;
        let length = encoded.len() as u64;
        self.documents.put(&name, &encoded)?;
        drop(encoded);
        if let Err(e) = self.prove(ty, tree.id) {
            // Not proven, so it must not stay under a name that says what it is.
            self.documents.remove(&name)?;
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
            if self.documents.length(&layout::blob(ty, id)?)?.is_none() {
                continue;
            }
            return match self.form(ty, id)? {
                Some((_, layout)) => Ok(layout.content_length().0),
                None => Ok(self.content(id)?.len() as u64),
            };
        }
        Err(Self::stored(id, &"it is missing"))
    }

    /// `id` as `ty`, opened, and where its pieces lie; nothing if it is not here or was never proven.
    pub fn form(&self, ty: DeliveryType, id: BlobId) -> Result<Option<(DocumentReader, Layout)>, RepositoryError> {
        let Some(document) = self.documents.open_document(&layout::blob(ty, id)?)? else { return Ok(None) };
        let Some(list) = self.documents.get(&layout::leaves(id)?, LEAVES_LIST_BYTES_MAX)? else { return Ok(None) };
        let leaves = Leaves::check(id, list).map_err(|e| Self::stored(id, &e))?;
        let head = document.read(ByteRange::new(0, UNIT_H_PROBE_BYTES.min(document.length())))?;
        let layout = Layout::from_unit_h(ty, leaves, &head).map_err(|e| Self::stored(id, &e))?;
        if layout.encoded_length().0 != document.length() {
            return Err(Self::stored(id, &"it is cut short, or has a tail"));
        }
        Ok(Some((document, layout)))
    }

    /// When `id` was stored, as far as the file system tells.
    pub fn modified(&self, id: BlobId) -> Option<UnixSeconds> {
        let path = TYPES.into_iter().find_map(|ty| {
            let path: PathBuf = self.documents.path(&layout::blob(ty, id).ok()?);
            path.exists().then_some(path)
        })?;
        let modified = std::fs::metadata(path).ok()?.modified().ok()?;
        Some(UnixSeconds(modified.duration_since(UNIX_EPOCH).ok()?.as_secs()))
    }

    /// Stores the meta.far as a TUF target, if it is not there.
    pub fn put_target(&self, name: &str, variant: &str, sha512: &str, content: &[u8]) -> Result<(), RepositoryError> {
        let target = layout::target(name, sha512, variant)?;
        if self.documents.length(&target)? != Some(content.len() as u64) {
            self.documents.put(&target, content)?;
        }
        Ok(())
    }
}
