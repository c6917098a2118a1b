//! The 28-byte delivery header that all types share: parse and print. The payload is somebody else's business.

use colibri_common::limits::BLOB_BYTES_MAX;

use super::{DeliveryType, StrictError};

/// Bytes of the header.
pub(super) const HEADER_BYTES: u64 = 28;
const MAGIC: [u8; 4] = [0xfc, 0x1a, 0xb1, 0x0b];
const FLAG_COMPRESSED: u32 = 1;
const CRC_AT: usize = 20;

/// A parsed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub ty: DeliveryType,
    pub payload_bytes: u64,
    pub compressed: bool,
}

impl Header {
    /// Parses the first 28 bytes: magic and type first, then the checksum, then the rest, as current upstream code does.
    pub fn parse(prefix: &[u8]) -> Result<Self, StrictError> {
        let short = prefix.len().min(MAGIC.len());
        if prefix[..short] != MAGIC[..short] {
            return Err(StrictError::Magic);
        }
        let Some(bytes) = prefix.first_chunk::<{ HEADER_BYTES as usize }>() else {
            return Err(StrictError::NeedMore { bytes: HEADER_BYTES });
        };
        let number = u32_at(bytes, 4);
        let ty = DeliveryType::try_from(number).map_err(|_| StrictError::Type(number))?;
        if u32_at(bytes, CRC_AT) != checksum(bytes) {
            return Err(StrictError::HeaderChecksum);
        }
        if u64::from(u32_at(bytes, 8)) != HEADER_BYTES {
            return Err(StrictError::HeaderLength(u32_at(bytes, 8)));
        }
        let flags = u32_at(bytes, 24);
        if flags & !FLAG_COMPRESSED != 0 {
            return Err(StrictError::Flags(flags));
        }
        let payload_bytes = u64_at(bytes, 12);
        if payload_bytes > BLOB_BYTES_MAX {
            return Err(StrictError::TooLarge(payload_bytes));
        }
        Ok(Self { ty, payload_bytes, compressed: flags == FLAG_COMPRESSED })
    }

    /// The 28 bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.ty.number().to_le_bytes());
        bytes[8..12].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[12..20].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[24..28].copy_from_slice(&u32::from(self.compressed).to_le_bytes());
        let crc = checksum(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// CRC-32 of the header with its checksum field zero.
fn checksum(bytes: &[u8; HEADER_BYTES as usize]) -> u32 {
    let mut zeroed = *bytes;
    zeroed[CRC_AT..CRC_AT + 4].fill(0);
    crc32fast::hash(&zeroed)
}

/// The little-endian `u32` at `at`; the caller has checked that it is there.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The little-endian `u64` at `at`; the caller has checked that it is there.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
