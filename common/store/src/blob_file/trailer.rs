//! What a [`BlobFile`](super::BlobFile) says about itself, behind the encoded form: guards, leaves, which units are whole.
//!
//! ```text
//! encoded form | CRC-32C of each piece | leaves, wire form | a check for each unit | tail
//! ```
//! All integers little-endian. A unit's check is a CRC-32C of its number and guards, never 0; 0 means absent. Everything here
//! proves itself or is only believed as far as its reader says: leaves against the blob id, unit H against the leaves, guards
//! against the unit's check. Nothing is synced, so any part may be missing or old after a power loss.

use colibri_common::limits::LEAVES_LIST_BYTES_MAX;
use colibri_common::{BlobId, DIGEST_BYTES};
use colibri_package::delivery::{DeliveryType, Encoding, Layout};

const MAGIC: [u8; 8] = *b"colibriU";
const VERSION: u32 = 1;

/// Bytes of the tail.
pub(crate) const TAIL_BYTES: usize = 92;

/// Bytes of a guard or a check.
pub(crate) const GUARD_BYTES: u64 = 4;

/// The fixed end of the file, and with it the place of everything before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) id: BlobId,
    pub(crate) encoding: Encoding,
    pub(crate) content_bytes: u64,
    pub(crate) encoded_bytes: u64,
    pub(crate) unit_h_bytes: u64,
    pub(crate) leaves_bytes: u64,
    pub(crate) pieces: u32,
    pub(crate) units: u32,
}

impl Tail {
    pub(crate) fn of(layout: &Layout) -> Self {
        Self {
            id: layout.id(),
            encoding: layout.encoding(),
            content_bytes: layout.content_length().0,
            encoded_bytes: layout.encoded_length().0,
            unit_h_bytes: layout.unit_h().len() as u64,
            leaves_bytes: layout.leaves().wire().len() as u64,
            pieces: layout.piece_count(),
            units: layout.unit_count(),
        }
    }

    pub(crate) const fn guard_at(&self, piece: u32) -> u64 {
        self.encoded_bytes + piece as u64 * GUARD_BYTES
    }

    pub(crate) const fn leaves_at(&self) -> u64 {
        self.guard_at(self.pieces)
    }

    pub(crate) const fn check_at(&self, unit: u32) -> u64 {
        self.leaves_at() + self.leaves_bytes + unit as u64 * GUARD_BYTES
    }

    pub(crate) const fn tail_at(&self) -> u64 {
        self.check_at(self.units)
    }

    /// Length of the file.
    pub(crate) const fn file_bytes(&self) -> u64 {
        self.tail_at() + TAIL_BYTES as u64
    }

    pub(crate) fn to_bytes(self) -> [u8; TAIL_BYTES] {
        let encoding = match self.encoding {
            Encoding::Raw => 0,
            Encoding::Delivery(kind) => kind.number(),
        };
        let mut bytes = Vec::with_capacity(TAIL_BYTES);
        bytes.extend_from_slice(&MAGIC);
        for number in [VERSION, encoding, self.pieces, self.units] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.content_bytes, self.encoded_bytes, self.unit_h_bytes, self.leaves_bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes.try_into().expect("the sizes above")
    }

    /// Nothing if it is not a tail, or does not fit a file of `file_bytes`.
    pub(crate) fn parse(bytes: &[u8; TAIL_BYTES], file_bytes: u64) -> Option<Self> {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let body = TAIL_BYTES - 4;
        if bytes[..8] != MAGIC || number(8) != VERSION || number(body) != crc32c::crc32c(&bytes[..body]) {
            return None;
        }
        let encoding = match number(12) {
            0 => Encoding::Raw,
            kind => Encoding::Delivery(DeliveryType::try_from(kind).ok()?),
        };
        let id = bytes[56..56 + DIGEST_BYTES].try_into().expect("a digest");
        let tail = Self {
            id: BlobId::from_digest(id),
            encoding,
            pieces: number(16),
            units: number(20),
            content_bytes: long(24),
            encoded_bytes: long(32),
            unit_h_bytes: long(40),
            leaves_bytes: long(48),
        };
        let fits = tail.encoded_bytes <= file_bytes
            && tail.unit_h_bytes <= tail.encoded_bytes
            && tail.leaves_bytes <= LEAVES_LIST_BYTES_MAX
            && tail.file_bytes() == file_bytes;
        fits.then_some(tail)
    }
}

/// What says that a unit with these guards is whole.
pub(crate) fn check_of(unit: u32, guards: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&unit.to_le_bytes()), guards).max(1)
}
