//! What publishes at work depend on, told to collection before they look for it (architecture §2, invariant 8).
//!
//! Whoever is about to rely on stored blobs first announces them under the lock, and only then tests whether they are there.
//! Collection holds the lock from reading announcements to the last removal, so a blob is either announced in time and stays,
//! or is gone before anybody looks. Should an announcement be too old and be passed over, the gate, under the same lock,
//! still signs nothing that is not there. Deliberately absent: collection itself (`gc`).

use std::collections::BTreeSet;

use bytes::{BufMut, BytesMut};
use colibri_common::{BlobId, UnixSeconds};
use colibri_store::DocumentName;

use crate::commit::FORMAT;
use crate::error::RepositoryError;
use crate::layout;
use crate::storage::Storage;

const HEAD_BYTES: usize = 12;

/// Blobs that stay until this is dropped. A process that dies leaves it behind; collection passes it over in time.
#[derive(Debug)]
pub(crate) struct Announcement<'a> {
    storage: &'a dyn Storage,
    name: DocumentName,
}

impl<'a> Announcement<'a> {
    /// Announces blobs; a package stands for everything it names.
    pub fn make(storage: &'a dyn Storage, blobs: &BTreeSet<BlobId>, now: UnixSeconds) -> Result<Self, RepositoryError> {
        let mut text = BytesMut::with_capacity(HEAD_BYTES + 32 * blobs.len());
        text.put_u32_le(FORMAT);
        text.put_u64_le(now.0);
        blobs.iter().for_each(|id| text.put_slice(id.as_bytes()));
        let text = text.freeze();
        let _lock = storage.lock()?;
        let mut number = numbers(storage)?.last().copied().unwrap_or(0);
        loop {
            number += 1;
            let name = layout::announced(number)?;
            if storage.create(&name, &text)? {
                return Ok(Self { storage, name });
            }
        }
    }
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.storage.remove_all(std::slice::from_ref(&self.name)) {
            tracing::debug!(name = %self.name, %error, "an announcement stays until it is too old");
        }
    }
}

fn numbers(storage: &dyn Storage) -> Result<Vec<u64>, RepositoryError> {
    let prefix = format!("{}/", layout::ANNOUNCED);
    let number = |name: &DocumentName| name.as_str().strip_prefix(&prefix)?.parse().ok();
    let mut numbers: Vec<u64> = storage.list(&prefix)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}
