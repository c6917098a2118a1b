//! [`Unit`]: the verified bytes of one unit in memory, and [`UnitKey`], its name in every tier.

use bytes::Bytes;
use colibri_common::{BlobId, ByteRange};
use colibri_package::delivery::{Encoding, Identity, Layout, VerifiedPieces};

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

/// A run of verified bytes. There are two ways to make one, and both start from verified bytes.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    /// Straight from verification; can go to disk.
    Fresh(VerifiedPieces),
    /// Read back from the disk tier, which checks its guards.
    Stored { offset: u64, bytes: Bytes },
}

impl Segment {
    pub const fn offset(&self) -> u64 {
        match self {
            Self::Fresh(pieces) => pieces.encoded_offset(),
            Self::Stored { offset, .. } => *offset,
        }
    }

    pub const fn bytes(&self) -> &Bytes {
        match self {
            Self::Fresh(pieces) => pieces.encoded(),
            Self::Stored { bytes, .. } => bytes,
        }
    }

    pub fn range(&self) -> ByteRange {
        ByteRange::new(self.offset(), self.offset() + self.bytes().len() as u64)
    }
}

/// All bytes of one unit, in order.
#[derive(Debug)]
pub(crate) struct Unit {
    layout: Layout,
    segments: Vec<Segment>,
    bytes: u64,
}

impl Unit {
    pub fn new(layout: &Layout, segments: Vec<Segment>) -> Self {
        let bytes = segments.iter().map(|segment| segment.bytes().len() as u64).sum();
        Self { layout: layout.clone(), segments, bytes }
    }

    /// Shape of the blob it belongs to.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// The part of `wanted` that begins at `from` and lies in the segment that holds `from`.
pub(crate) fn slice_at(segments: &[Segment], from: u64, wanted: ByteRange) -> Option<Bytes> {
    let index = segments.partition_point(|segment| segment.range().end() <= from);
    let segment = segments.get(index).filter(|segment| segment.offset() <= from)?;
    let part = segment.range().intersect(ByteRange::new(from, wanted.end()));
    Some(segment.bytes().slice(part.within(segment.offset())))
}
