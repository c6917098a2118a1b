//! [`BlobFolders`]: where the stored forms of a repository's blobs lie (reference "Fuchsia formats" §5, Layout).
//!
//! Finds and opens files; whether a file is the blob its name says is decided in `proof`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::limits::LEAVES_LIST_BYTES_MAX;
use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, ByteRange};
use colibri_package::delivery::{DeliveryType, Encoding};
use colibri_store::{DocumentName, Documents, OsDisk, StoreError};

use crate::error::OriginError;
use crate::file::OpenFile;

/// All stored forms, in the order in which one is chosen to make another from: no decoding is better than decoding.
pub(crate) const STORED_FORMS: [Encoding; 3] =
    [Encoding::Raw, Encoding::Delivery(DeliveryType::Type1), Encoding::Delivery(DeliveryType::Type2)];

/// The places where blobs of a repository may lie, the first that has a blob being used.
#[derive(Debug)]
pub(crate) struct BlobFolders {
    places: Vec<PathBuf>,
}

/// A stored form of a blob.
#[derive(Debug, Clone)]
pub(crate) struct StoredBlob {
    pub id: BlobId,
    pub encoding: Encoding,
    pub file: OpenFile,
    place: PathBuf,
}

impl BlobFolders {
    /// Either layout of the real tools: `DIR/blobs` (product bundles), else `METADATA/blobs` (pm, ffx).
    pub fn new(repository: &Path, metadata: &Path) -> Self {
        let mut places = vec![repository.join("blobs"), metadata.join("blobs")];
        places.dedup();
        Self { places }
    }

    /// Opens a stored form of a blob, if there is one. Blocks.
    pub fn open(&self, id: BlobId, encoding: Encoding) -> Result<Option<StoredBlob>, OriginError> {
        for place in &self.places {
            let path = match encoding {
                Encoding::Raw => place.join(id.to_string()),
                Encoding::Delivery(kind) => place.join(kind.to_string()).join(id.to_string()),
            };
            if let Some(file) = OpenFile::open(&path)? {
                return Ok(Some(StoredBlob { id, encoding, file, place: place.clone() }));
            }
        }
        Ok(None)
    }
}

impl StoredBlob {
    /// The leaf list stored beside the blob, if it is there and proves itself. An empty list says nothing (any blob might
    /// have one leaf), so it counts as absent. Blocks.
    pub fn stored_leaves(&self) -> Result<Option<Leaves>, OriginError> {
        let path = self.place.join("leaves").join(self.id.to_string());
        let Some(file) = OpenFile::open(&path)? else { return Ok(None) };
        if file.length() == 0 || file.length() > LEAVES_LIST_BYTES_MAX {
            return Ok(None);
        }
        let list = file.read(ByteRange::whole(file.length()))?;
        match Leaves::check(self.id, list) {
            Ok(leaves) => Ok(Some(leaves)),
            Err(reason) => {
                tracing::warn!(path = %path.display(), %reason, "a stored leaf list is wrong and will be computed again");
                Ok(None)
            }
        }
    }

    /// Writes a leaf list beside the blob, atomically and durably. Blocks.
    pub fn store_leaves(&self, list: &Bytes) -> Result<(), StoreError> {
        let folder = Documents::open(Arc::new(OsDisk), &self.place)?;
        folder.put(&DocumentName::new(&format!("leaves/{}", self.id))?, list)
    }
}
