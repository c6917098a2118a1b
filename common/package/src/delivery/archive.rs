//! Chunked archive version 2: its header and seek table, parsed under the strict rules and printed. Frames are in `frame`.

use colibri_common::limits::BLOB_BYTES_MAX;
use colibri_common::merkle::LEAF_BYTES;

use super::header::{HEADER_BYTES, u32_at, u64_at};
use super::{DeliveryType, StrictError, TableRule, frame};
use crate::limits::{FRAMES_MAX, frame_content_bytes_max};

/// Bytes of the archive header, after which the seek table begins.
pub(super) const ARCHIVE_HEADER_BYTES: u64 = 32;
/// Bytes of one seek table entry.
pub(super) const ENTRY_BYTES: u64 = 32;
const MAGIC: [u8; 8] = [0x46, 0x9b, 0x78, 0xef, 0x0f, 0xd0, 0xb2, 0x03];
const VERSION: u16 = 2;
const CRC_AT: usize = 16;

/// One frame, with its place in the *delivery blob* (not in the archive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub content_offset: u64,
    pub content_bytes: u64,
    pub offset: u64,
    pub bytes: u64,
}

impl Frame {
    pub const fn content_end(&self) -> u64 {
        self.content_offset + self.content_bytes
    }

    pub const fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// How many bytes unit H has, given the first 60 bytes of a compressed delivery blob.
pub(super) fn unit_h_bytes(head: &[u8]) -> Result<u64, StrictError> {
    Ok(HEADER_BYTES + ARCHIVE_HEADER_BYTES + ENTRY_BYTES * u64::from(frame_count(head)?))
}

fn frame_count(head: &[u8]) -> Result<u32, StrictError> {
    let fixed = HEADER_BYTES + ARCHIVE_HEADER_BYTES;
    let Some(archive) = head.get(HEADER_BYTES as usize..fixed as usize) else {
        return Err(StrictError::NeedMore { bytes: fixed });
    };
    if archive[..8] != MAGIC {
        return Err(StrictError::ArchiveMagic);
    }
    let version = u16::from_le_bytes([archive[8], archive[9]]);
    if version != VERSION {
        return Err(StrictError::ArchiveVersion(version));
    }
    if let Some(at) = [10, 11].into_iter().chain(20..32).find(|at| archive[*at] != 0) {
        return Err(StrictError::ArchiveReserved(HEADER_BYTES + at as u64));
    }
    match u32_at(archive, 12) {
        count if count > FRAMES_MAX => Err(StrictError::TooManyFrames(count)),
        count => Ok(count),
    }
}

/// The frames by the seek table in `head`, which holds at least unit H; all rules of the strict form are checked.
pub(super) fn parse(head: &[u8], payload_bytes: u64) -> Result<Vec<Frame>, StrictError> {
    let count = frame_count(head)?;
    let end = unit_h_bytes(head)?;
    let Some(archive) = head.get(HEADER_BYTES as usize..end as usize) else {
        return Err(StrictError::NeedMore { bytes: end });
    };
    let (fixed, table) = archive.split_at(ARCHIVE_HEADER_BYTES as usize);
    if u32_at(fixed, CRC_AT) != checksum(fixed, table) {
        return Err(StrictError::ArchiveChecksum);
    }
    let mut frames: Vec<Frame> = Vec::with_capacity(count as usize);
    let (mut content_end, mut frames_end) = (0, end - HEADER_BYTES);
    for (index, entry) in table.chunks_exact(ENTRY_BYTES as usize).enumerate() {
        let frame = parse_entry(entry, content_end, frames_end).map_err(|rule| rule_at(index, rule))?;
        content_end = frame.content_end();
        frames_end = frame.end() - HEADER_BYTES;
        frames.push(frame);
    }
    let most = frame_content_bytes_max(content_end);
    if let Some(index) = frames.iter().position(|frame| frame.content_bytes > most) {
        return Err(rule_at(index, TableRule::FrameTooLarge { found: frames[index].content_bytes, most }));
    }
    if frames_end != payload_bytes {
        return Err(rule_at(frames.len(), TableRule::Tail { frames: frames_end, payload: payload_bytes }));
    }
    Ok(frames)
}

fn rule_at(index: usize, rule: TableRule) -> StrictError {
    let offset = HEADER_BYTES + ARCHIVE_HEADER_BYTES + ENTRY_BYTES * index as u64;
    StrictError::Table { entry: index as u32, offset, rule }
}

fn parse_entry(entry: &[u8], content_end: u64, frames_end: u64) -> Result<Frame, TableRule> {
    let [content_offset, content_bytes, offset, bytes] = [0, 8, 16, 24].map(|at| u64_at(entry, at));
    if content_offset != content_end {
        return Err(TableRule::ContentGap { expected: content_end, found: content_offset });
    }
    if offset != frames_end {
        return Err(TableRule::FrameGap { expected: frames_end, found: offset });
    }
    if content_bytes == 0 || bytes == 0 {
        return Err(TableRule::ZeroSize);
    }
    if !content_offset.is_multiple_of(LEAF_BYTES) {
        return Err(TableRule::Misaligned(content_offset));
    }
    let fits = |from: u64, length: u64| from.checked_add(length).is_some_and(|end| end <= BLOB_BYTES_MAX);
    if !fits(content_offset, content_bytes) || !fits(offset, bytes) {
        return Err(TableRule::Overflow);
    }
    let most = frame::bound(content_bytes);
    if bytes > most {
        return Err(TableRule::OverBound { found: bytes, most });
    }
    Ok(Frame { content_offset, content_bytes, offset: HEADER_BYTES + offset, bytes })
}

/// CRC-32 over header and seek table with the checksum field left out.
fn checksum(fixed: &[u8], table: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&fixed[..CRC_AT]);
    crc.update(&fixed[CRC_AT + 4..]);
    crc.update(table);
    crc.finalize()
}

/// Content bytes per chunk for content of `content_bytes` (all but the last have this size).
pub(super) const fn chunk_bytes(ty: DeliveryType, content_bytes: u64) -> u64 {
    let least = match ty {
        DeliveryType::Type1 => 32 << 10,
        DeliveryType::Type2 => 128 << 10,
    };
    if content_bytes <= FRAMES_MAX as u64 * least {
        least
    } else {
        content_bytes.div_ceil(FRAMES_MAX as u64).next_multiple_of(LEAF_BYTES)
    }
}

/// The archive (header, seek table, frames) of frames whose content sizes are given; appended to `blob`.
pub(super) fn write(frames: &[(u64, Vec<u8>)], blob: &mut Vec<u8>) {
    let mut fixed = [0; ARCHIVE_HEADER_BYTES as usize];
    fixed[..8].copy_from_slice(&MAGIC);
    fixed[8..10].copy_from_slice(&VERSION.to_le_bytes());
    fixed[12..16].copy_from_slice(&(frames.len() as u32).to_le_bytes());
    let mut table = Vec::with_capacity(frames.len() * ENTRY_BYTES as usize);
    let (mut content_offset, mut offset) = (0, archive_head_bytes(frames.len()));
    for (content_bytes, frame) in frames {
        for number in [content_offset, *content_bytes, offset, frame.len() as u64] {
            table.extend_from_slice(&number.to_le_bytes());
        }
        content_offset += content_bytes;
        offset += frame.len() as u64;
    }
    let crc = checksum(&fixed, &table);
    fixed[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    blob.extend_from_slice(&fixed);
    blob.extend_from_slice(&table);
    for (_, frame) in frames {
        blob.extend_from_slice(frame);
    }
}

/// Bytes of archive header and seek table for so many frames.
pub(super) const fn archive_head_bytes(frames: usize) -> u64 {
    ARCHIVE_HEADER_BYTES + ENTRY_BYTES * frames as u64
}
