//! What publishes at work depend on, told to collection before they look for it (architecture §2, invariant 8).
//!
//! Whoever is about to rely on stored blobs first announces them under the lock, and only then tests whether they are there.
//! Collection holds the lock from reading announcements to the last removal, so a blob is either announced in time and stays,
//! or is gone before anybody looks. Should an announcement be too old and be passed over, the gate, under the same lock,
//! still signs nothing that is not there. Announcements are never synced: no publish outlives power loss. Deliberately absent: collection itself (`gc`).

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use colibri_common::{BlobId, UnixSeconds};
use colibri_store::DocumentName;

use crate::commit::FORMAT;
use crate::error::RepositoryError;
use crate::storage::Storage;
use crate::{layout, limits};

const HEAD_BYTES: usize = 16;

/// What a publish depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    /// With everything they name.
    pub packages: BTreeSet<BlobId>,
    /// Just these.
    pub blobs: BTreeSet<BlobId>,
}

/// Blobs that stay until this is dropped. A process that dies leaves it behind; collection passes it over in time.
#[derive(Debug)]
pub(crate) struct Announcement<'a> {
    storage: &'a dyn Storage,
    name: DocumentName,
}

impl<'a> Announcement<'a> {
    /// Announces what a publish depends on.
    pub fn make(storage: &'a dyn Storage, announced: &Announced, now: UnixSeconds) -> Result<Self, RepositoryError> {
        let Announced { packages, blobs } = announced;
        let mut text = BytesMut::with_capacity(HEAD_BYTES + 32 * (packages.len() + blobs.len()));
        text.put_u32_le(FORMAT);
        text.put_u64_le(now.0);
        text.put_u32_le(u32::try_from(packages.len()).unwrap_or(u32::MAX));
        packages.iter().chain(blobs).for_each(|id| text.put_slice(id.as_bytes()));
        let text = text.freeze();
        let _lock = storage.lock()?;
        let mut number = layout::numbers(storage, layout::ANNOUNCED)?.last().copied().unwrap_or(0);
        loop {
            number += 1;
            let name = layout::announced(number)?;
            if storage.create_passing(&name, &text)? {
                return Ok(Self { storage, name });
            }
        }
    }
}

impl Drop for Announcement<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.storage.sweep(std::slice::from_ref(&self.name)) {
            tracing::debug!(name = %self.name, %error, "an announcement stays until it is too old");
        }
    }
}

/// Everything announced, and the announcements that are too old to count. The caller holds the lock.
pub(crate) fn announced(
    storage: &dyn Storage,
    now: UnixSeconds,
) -> Result<(Announced, Vec<DocumentName>), RepositoryError> {
    let (mut all, mut old) = (Announced::default(), Vec::new());
    for number in layout::numbers(storage, layout::ANNOUNCED)? {
        let name = layout::announced(number)?;
        let Some(text) = storage.read(&name, limits::ANNOUNCEMENT_BYTES_MAX)? else { continue };
        match parse(&text) {
            Some((at, announced)) if at.plus(limits::ANNOUNCEMENT_LIFE_S) > now => {
                all.packages.extend(announced.packages);
                all.blobs.extend(announced.blobs);
            }
            _ => old.push(name),
        }
    }
    Ok((all, old))
}

fn parse(text: &Bytes) -> Option<(UnixSeconds, Announced)> {
    let (format, rest) = text.split_first_chunk::<4>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (packages, rest) = rest.split_first_chunk::<4>()?;
    let (ids, tail) = rest.as_chunks::<32>();
    if u32::from_le_bytes(*format) != FORMAT || !tail.is_empty() {
        return None;
    }
    let (packages, blobs) = ids.split_at_checked(usize::try_from(u32::from_le_bytes(*packages)).ok()?)?;
    let set = |ids: &[[u8; 32]]| ids.iter().map(|id| BlobId::from_digest(*id)).collect();
    Some((UnixSeconds(u64::from_le_bytes(*at)), Announced { packages: set(packages), blobs: set(blobs) }))
}
