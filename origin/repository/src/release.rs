//! What a product release says of this repository: roots, what package hashes consist of, sizes and forms of blobs.

use colibri_common::BlobId;
use colibri_package::MetaFar;
use colibri_release::{EncodedForm, PackageContents, ReleaseBlob};

use crate::blobs::TYPES;
use crate::error::RepositoryError;
use crate::repository::Repository;

impl Repository {
    /// What a package hash consists of; nothing if its meta.far is not here.
    ///
    /// # Errors
    /// The meta.far is damaged.
    pub fn release_contents(&self, hash: BlobId) -> Result<Option<PackageContents>, RepositoryError> {
        if !self.blobs.has_any(hash)? {
            return Ok(None);
        }
        let meta = MetaFar::parse(self.blobs.content(hash)?.into());
        let meta = meta.map_err(|error| RepositoryError::StoredBlob { id: hash, reason: error.to_string() })?;
        Ok(Some(PackageContents::of(hash, &meta)))
    }

    /// Sizes and delivery forms of a blob; nothing if it is not here. A blob that nobody proved yet is proven.
    ///
    /// # Errors
    /// The blob is damaged.
    pub fn release_blob(&self, id: BlobId) -> Result<Option<ReleaseBlob>, RepositoryError> {
        let mut raw_bytes = None;
        let mut encoded = Vec::new();
        for ty in TYPES {
            if !self.blobs.has(ty, id)? {
                continue;
            }
            let Some(layout) = self.blobs.form(ty, id)? else { continue };
            let Some(identity) = layout.identity() else { continue };
            raw_bytes = Some(layout.content_length().0);
            encoded.push(EncodedForm { ty, bytes: layout.encoded_length().0, identity });
        }
        Ok(raw_bytes.map(|raw_bytes| ReleaseBlob { hash: id, raw_bytes, encoded }))
    }
}
