//! One segment of receipts as bytes. All integers little-endian.
//!
//! `CLBRRCPT`, format u32, flags u32 (bit 0: it holds all that older segments say), entries, SHA-256 of all before it.
//! Entry 1: blob, type u8, length u64, SHA-256 of unit H, time u64. Entry 2: package, number of blobs u32, number of
//! subpackages u32, their ids. Entry 3: blob.

use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use colibri_common::{BlobId, UnixSeconds, sha256};
use colibri_package::delivery::{DeliveryType, Identity};

use super::{Contents, Entry, Receipt};
use crate::commit::FORMAT;
use crate::error::RepositoryError;

const MAGIC: &[u8; 8] = b"CLBRRCPT";
const HEAD_BYTES: usize = 16;
const SUM_BYTES: usize = 32;

#[derive(Debug)]
pub(super) struct Segment {
    /// Whether older segments add nothing.
    pub holds_all: bool,
    pub entries: Vec<Entry>,
}

impl Segment {
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(FORMAT);
        bytes.put_u32_le(u32::from(self.holds_all));
        for entry in &self.entries {
            match entry {
                Entry::Proven(receipt) => {
                    bytes.put_u8(1);
                    bytes.put_slice(receipt.id.as_bytes());
                    bytes.put_u8(if receipt.ty == DeliveryType::Type1 { 1 } else { 2 });
                    bytes.put_u64_le(receipt.length);
                    bytes.put_slice(receipt.identity.as_bytes());
                    bytes.put_u64_le(receipt.at.0);
                }
                Entry::Package(id, contents) => {
                    bytes.put_u8(2);
                    bytes.put_slice(id.as_bytes());
                    // A meta.far has no room for more.
                    bytes.put_u32_le(u32::try_from(contents.blobs.len()).unwrap_or(u32::MAX));
                    bytes.put_u32_le(u32::try_from(contents.subpackages.len()).unwrap_or(u32::MAX));
                    for id in contents.blobs.iter().chain(&contents.subpackages) {
                        bytes.put_slice(id.as_bytes());
                    }
                }
                Entry::Forgotten(id) => {
                    bytes.put_u8(3);
                    bytes.put_slice(id.as_bytes());
                }
            }
        }
        let sum = sha256(&bytes);
        bytes.put_slice(&sum);
        bytes.freeze()
    }

    /// Nothing if the bytes are damaged.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Option<Self>, RepositoryError> {
        let Some((said, sum)) = bytes.split_last_chunk::<SUM_BYTES>().filter(|(said, _)| said.len() >= HEAD_BYTES)
        else {
            return Ok(None);
        };
        if sha256(said) != *sum || !said.starts_with(MAGIC) {
            return Ok(None);
        }
        let mut reader = Reader(&said[MAGIC.len()..]);
        let (Some(format), Some(flags)) = (reader.u32(), reader.u32()) else { return Ok(None) };
        if format > FORMAT {
            return Err(RepositoryError::TooNew { path: path.to_owned(), found: format, known: FORMAT });
        }
        let mut entries = Vec::new();
        while !reader.0.is_empty() {
            let Some(entry) = reader.entry() else { return Ok(None) };
            entries.push(entry);
        }
        Ok(Some(Self { holds_all: flags & 1 != 0, entries }))
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn id(&mut self) -> Option<BlobId> {
        self.take().map(BlobId::from_digest)
    }

    fn ids(&mut self, count: u32) -> Option<Vec<BlobId>> {
        (0..count).map(|_| self.id()).collect()
    }

    fn entry(&mut self) -> Option<Entry> {
        match self.take::<1>()? {
            [1] => Some(Entry::Proven(Receipt {
                id: self.id()?,
                ty: DeliveryType::try_from(u32::from(self.take::<1>()?[0])).ok()?,
                length: self.u64()?,
                identity: Identity::from_digest(self.take()?),
                at: UnixSeconds(self.u64()?),
            })),
            [2] => {
                let id = self.id()?;
                let (blobs, subpackages) = (self.u32()?, self.u32()?);
                let contents = Contents { blobs: self.ids(blobs)?, subpackages: self.ids(subpackages)? };
                Some(Entry::Package(id, Arc::new(contents)))
            }
            [3] => self.id().map(Entry::Forgotten),
            _ => None,
        }
    }
}

/// The same segment as a later version would write it.
#[cfg(test)]
pub(super) fn with_format(segment: &[u8], format: u32) -> Bytes {
    let mut bytes = BytesMut::from(&segment[..segment.len() - SUM_BYTES]);
    bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&format.to_le_bytes());
    let sum = sha256(&bytes);
    bytes.put_slice(&sum);
    bytes.freeze()
}
