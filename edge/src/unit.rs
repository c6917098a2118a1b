//! [`Unit`]: the verified bytes of one unit in memory, and [`UnitKey`], its name in every tier.

use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{BlobId, ByteRange};
use colibri_package::delivery::{Encoding, Identity, Layout, VerifiedPieces};

use crate::ledger::Counted;

/// Bytes that a segment takes besides its content: its entry in the list and the bookkeeping of its memory.
pub(crate) const SEGMENT_OVERHEAD_BYTES: u64 = 128;

/// Names a unit: content, encoding, which encoded form, which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct UnitKey {
    pub id: BlobId,
    pub encoding: Encoding,
    pub identity: Option<Identity>,
    pub unit: u32,
}

impl UnitKey {
    pub fn of(layout: &Layout, unit: u32) -> Self {
        Self { id: layout.id(), encoding: layout.encoding(), identity: layout.identity(), unit }
    }
}

/// A run of verified bytes, in memory of its own. There are two ways to make one, and both start from verified bytes. It
/// does not keep the blob's layout alive: leaves of a large blob are larger than a unit.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    offset: u64,
    bytes: Bytes,
    /// Its entry in the ledger.
    counted: Option<Arc<Counted>>,
}

impl Segment {
    /// Straight from verification.
    pub fn verified(pieces: &VerifiedPieces) -> Self {
        Self::stored(pieces.encoded_offset(), pieces.encoded().clone())
    }

    /// Read back from the disk tier, whose files take in verified pieces only and check their guards.
    pub const fn stored(offset: u64, bytes: Bytes) -> Self {
        Self { offset, bytes, counted: None }
    }

    /// The same segment, in the ledger; `bytes` are the same bytes, and keep the entry alive.
    pub fn counted(self, bytes: Bytes, counted: Arc<Counted>) -> Self {
        Self { offset: self.offset, bytes, counted: Some(counted) }
    }

    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn range(&self) -> ByteRange {
        ByteRange::new(self.offset, self.offset + self.bytes.len() as u64)
    }
}

/// All bytes of one unit, in order.
#[derive(Debug)]
pub(crate) struct Unit {
    segments: Vec<Segment>,
    memory_bytes: u64,
}

impl Unit {
    pub fn new(segments: Vec<Segment>) -> Self {
        let bytes = segments.iter().map(|segment| segment.bytes.len() as u64 + SEGMENT_OVERHEAD_BYTES).sum();
        Self { segments, memory_bytes: bytes }
    }

    /// What it takes in memory.
    pub const fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// A part of a segment.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    bytes: Bytes,
    counted: Option<Arc<Counted>>,
}

impl Slice {
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The segment's entry in the ledger.
    pub const fn counted(&self) -> Option<&Arc<Counted>> {
        self.counted.as_ref()
    }
}

/// The part of `wanted` that begins at `from` and lies in the segment that holds `from`.
pub(crate) fn slice_at(segments: &[Segment], from: u64, wanted: ByteRange) -> Option<Slice> {
    let index = segments.partition_point(|segment| segment.range().end() <= from);
    let segment = segments.get(index).filter(|segment| segment.offset <= from)?;
    let part = segment.range().intersect(ByteRange::new(from, wanted.end()));
    Some(Slice { bytes: segment.bytes.slice(part.within(segment.offset)), counted: segment.counted.clone() })
}
