//! [`Layout`]: where the units and pieces of one encoded form of a blob lie. Geometry only; checking is in `verified`.
//!
//! A *piece* is the smallest span that can be verified alone: a leaf (raw content and uncompressed payloads) or a frame. A
//! *unit* is the run of pieces whose first content byte lies in one 2 MiB window. Unit H (header and seek table) is apart.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::limits::BLOB_BYTES_MAX;
use colibri_common::merkle::{LEAF_BYTES, Leaves, UNIT_BYTES, leaf_count, unit_count};
use colibri_common::{BlobId, ByteRange, ClaimedLength};

use super::archive::{self, Frame};
use super::header::{HEADER_BYTES, Header};
use super::{DeliveryType, Encoding, Identity, StrictError};

/// The places of units and pieces in one encoded form of a blob. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Layout(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    leaves: Leaves,
    encoding: Encoding,
    identity: Option<Identity>,
    unit_h: Bytes,
    content_bytes: u64,
    encoded_bytes: u64,
    pieces: Pieces,
}

/// What the pieces are.
#[derive(Debug)]
pub(super) enum Pieces {
    /// Leaves, the first at this encoded offset.
    Leaves {
        /// Bytes before the content.
        base: u64,
    },
    /// Frames of a chunked archive; none for the empty blob.
    Frames(Vec<Frame>),
}

impl Layout {
    /// The layout of raw content: the pieces are the leaves.
    pub fn raw(leaves: Leaves, length: ClaimedLength) -> Result<Self, StrictError> {
        check_content(&leaves, length.0)?;
        Ok(Self(Arc::new(Inner {
            leaves,
            encoding: Encoding::Raw,
            identity: None,
            unit_h: Bytes::new(),
            content_bytes: length.0,
            encoded_bytes: length.0,
            pieces: Pieces::Leaves { base: 0 },
        })))
    }

    /// How many bytes unit H has, from a prefix of the delivery blob: 28 bytes are enough for an uncompressed one, 60 for a
    /// compressed one; [`StrictError::NeedMore`] says so when the prefix is too short.
    pub fn unit_h_bytes(prefix: &[u8]) -> Result<u64, StrictError> {
        if Header::parse(prefix)?.compressed { archive::unit_h_bytes(prefix) } else { Ok(HEADER_BYTES) }
    }

    /// How many bytes of content `head`, the beginning of a delivery blob with at least unit H in it, claims; nothing but the
    /// blob's leaves can prove it.
    pub fn claimed_content_bytes(head: &[u8]) -> Result<u64, StrictError> {
        let header = Header::parse(head)?;
        if !header.compressed {
            return Ok(header.payload_bytes);
        }
        Ok(archive::parse(head, header.payload_bytes)?.last().map_or(0, Frame::content_end))
    }

    /// The layout that `head`, the beginning of a delivery blob with at least unit H in it, gives; more bytes are ignored.
    /// Header and seek table are checked against the strict rules and against the leaves.
    pub fn from_unit_h(expected: DeliveryType, leaves: Leaves, head: &[u8]) -> Result<Self, StrictError> {
        let header = Header::parse(head)?;
        if header.ty != expected {
            return Err(StrictError::OtherType { expected: expected.number(), found: header.ty.number() });
        }
        let unit_h = Self::unit_h_bytes(head)?;
        let (content_bytes, pieces) = if header.compressed {
            let frames = archive::parse(head, header.payload_bytes)?;
            (frames.last().map_or(0, Frame::content_end), Pieces::Frames(frames))
        } else {
            (header.payload_bytes, Pieces::Leaves { base: HEADER_BYTES })
        };
        check_content(&leaves, content_bytes)?;
        // In range: parsing needed all of unit H.
        let unit_h = Bytes::copy_from_slice(&head[..unit_h as usize]);
        Ok(Self(Arc::new(Inner {
            leaves,
            encoding: Encoding::Delivery(expected),
            identity: Some(Identity::of_unit_h(&unit_h)),
            unit_h,
            content_bytes,
            encoded_bytes: HEADER_BYTES + header.payload_bytes,
            pieces,
        })))
    }

    /// The blob.
    pub fn id(&self) -> BlobId {
        self.0.leaves.id()
    }

    /// Raw or which delivery type.
    pub fn encoding(&self) -> Encoding {
        self.0.encoding
    }

    /// The blob's leaves.
    pub fn leaves(&self) -> &Leaves {
        &self.0.leaves
    }

    /// Which encoded form this is; nothing for raw content, of which there is one form only.
    pub fn identity(&self) -> Option<Identity> {
        self.0.identity
    }

    /// Header and seek table; empty for raw content.
    pub fn unit_h(&self) -> &Bytes {
        &self.0.unit_h
    }

    /// Length of the content; proven once the last piece has verified.
    pub fn content_length(&self) -> ClaimedLength {
        ClaimedLength(self.0.content_bytes)
    }

    /// Length of the encoded form; proven once the last piece has verified.
    pub fn encoded_length(&self) -> ClaimedLength {
        ClaimedLength(self.0.encoded_bytes)
    }

    /// Number of content units (2 MiB windows of content), at least one; unit H does not count.
    pub fn unit_count(&self) -> u32 {
        unit_count(self.0.content_bytes) as u32
    }

    /// Number of pieces, at least one: the empty blob has one empty piece.
    pub fn piece_count(&self) -> u32 {
        match &self.0.pieces {
            Pieces::Leaves { .. } => leaf_count(self.0.content_bytes) as u32,
            Pieces::Frames(frames) => frames.len().max(1) as u32,
        }
    }

    /// The pieces of a unit; empty for a window in which no frame starts, and for a unit that does not exist.
    pub fn pieces_of(&self, unit: u32) -> Range<u32> {
        if self.0.content_bytes == 0 {
            return if unit == 0 { 0..1 } else { 1..1 };
        }
        let first_of = |unit: u64| match &self.0.pieces {
            Pieces::Leaves { .. } => (unit * (UNIT_BYTES / LEAF_BYTES)).min(u64::from(self.piece_count())) as u32,
            Pieces::Frames(frames) => frames.partition_point(|frame| frame.content_offset < unit * UNIT_BYTES) as u32,
        };
        first_of(u64::from(unit))..first_of(u64::from(unit) + 1)
    }

    /// The unit that a piece belongs to.
    pub fn unit_of(&self, piece: u32) -> u32 {
        (self.piece_content(piece).start() / UNIT_BYTES) as u32
    }

    /// The encoded bytes of a unit; may be empty (a window in which no frame starts, the empty blob).
    pub fn unit_range(&self, unit: u32) -> ByteRange {
        self.pieces_range(self.pieces_of(unit))
    }

    /// The encoded bytes of a run of pieces; empty (at the right place) for an empty run.
    pub fn pieces_range(&self, pieces: Range<u32>) -> ByteRange {
        let start = self.piece_range(pieces.start).start();
        if pieces.is_empty() {
            ByteRange::new(start, start)
        } else {
            ByteRange::new(start, self.piece_range(pieces.end - 1).end())
        }
    }

    /// The encoded bytes of a piece; an empty range at the end for a piece that does not exist.
    pub fn piece_range(&self, piece: u32) -> ByteRange {
        let end = self.0.encoded_bytes;
        match &self.0.pieces {
            Pieces::Leaves { base } => {
                let content = self.piece_content(piece);
                ByteRange::new(base + content.start(), base + content.end())
            }
            Pieces::Frames(frames) => frames
                .get(piece as usize)
                .map_or(ByteRange::new(end, end), |frame| ByteRange::new(frame.offset, frame.end())),
        }
    }

    /// The content bytes of a piece; an empty range at the end for a piece that does not exist.
    pub fn piece_content(&self, piece: u32) -> ByteRange {
        let whole = ByteRange::whole(self.0.content_bytes);
        match &self.0.pieces {
            Pieces::Leaves { .. } => {
                let start = u64::from(piece) * LEAF_BYTES;
                ByteRange::new(start.min(whole.end()), (start + LEAF_BYTES).min(whole.end()))
            }
            Pieces::Frames(frames) => {
                frames.get(piece as usize).map_or(ByteRange::new(whole.end(), whole.end()), |frame| {
                    ByteRange::new(frame.content_offset, frame.content_end())
                })
            }
        }
    }

    /// The piece that holds this encoded byte. A byte of unit H gives piece 0, one beyond the end the last piece.
    pub fn piece_at(&self, encoded_offset: u64) -> u32 {
        let piece = match &self.0.pieces {
            Pieces::Leaves { base } => encoded_offset.saturating_sub(*base) / LEAF_BYTES,
            Pieces::Frames(frames) => frames.partition_point(|frame| frame.end() <= encoded_offset) as u64,
        };
        piece.min(u64::from(self.piece_count()) - 1) as u32
    }

    /// The pieces that hold a range of the *encoded* form; bytes of unit H and beyond the end have none.
    pub fn pieces_at(&self, encoded: ByteRange) -> Range<u32> {
        let payload = ByteRange::new(self.0.unit_h.len() as u64, self.0.encoded_bytes);
        let touched = encoded.intersect(payload);
        if touched.is_empty() {
            let at = self.piece_at(touched.start());
            return at..at;
        }
        self.piece_at(touched.start())..self.piece_at(touched.end() - 1) + 1
    }

    /// The content units that a range of the *encoded* form touches; bytes of unit H and beyond the end touch none. Empty
    /// windows in between are included.
    pub fn units_of(&self, encoded: ByteRange) -> Range<u32> {
        let pieces = self.pieces_at(encoded);
        let first = self.unit_of(pieces.start);
        if pieces.is_empty() { first..first } else { first..self.unit_of(pieces.end - 1) + 1 }
    }

    /// The pieces that hold a range of the *content*: by the seek table, never by window number.
    pub fn pieces_of_content(&self, content: ByteRange) -> Range<u32> {
        let wanted = content.intersect(ByteRange::whole(self.0.content_bytes));
        match &self.0.pieces {
            Pieces::Leaves { .. } => {
                let blocks = wanted.blocks(LEAF_BYTES);
                blocks.start as u32..blocks.end as u32
            }
            Pieces::Frames(frames) => {
                let first = frames.partition_point(|frame| frame.content_end() <= wanted.start()) as u32;
                if wanted.is_empty() {
                    return first..first;
                }
                first..frames.partition_point(|frame| frame.content_offset < wanted.end()) as u32
            }
        }
    }

    /// The encoded bytes of the whole pieces that hold a range of the *content*.
    pub fn content_range_to_encoded(&self, content: ByteRange) -> ByteRange {
        self.pieces_range(self.pieces_of_content(content))
    }

    pub(super) fn pieces(&self) -> &Pieces {
        &self.0.pieces
    }
}

/// Checks a claimed content length against the limits and the leaves; only the empty blob may be empty.
fn check_content(leaves: &Leaves, content_bytes: u64) -> Result<(), StrictError> {
    if content_bytes > BLOB_BYTES_MAX {
        return Err(StrictError::TooLarge(content_bytes));
    }
    leaves.fits(ClaimedLength(content_bytes))?;
    if content_bytes == 0 && leaves.verify(0, Bytes::new()).is_err() {
        return Err(StrictError::NoContent(leaves.id()));
    }
    Ok(())
}
