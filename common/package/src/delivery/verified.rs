//! Verification of whole pieces, and [`VerifiedPieces`], which only it makes: the delivery twin of `merkle::Verified`.

use bytes::Bytes;
use colibri_common::merkle::Verified;
use colibri_common::{BlobId, VerifiedLength};

use super::frame::Decoder;
use super::layout::Pieces;
use super::{Encoding, Identity, Layout, StrictError};

/// Whole pieces of one encoded form of a blob, checked against the blob's id. Made by [`Layout::verify`] only.
#[derive(Debug, Clone)]
pub struct VerifiedPieces {
    layout: Layout,
    first: u32,
    count: u32,
    offset: u64,
    encoded: Bytes,
    content: Vec<Verified>,
    length: Option<VerifiedLength>,
}

impl VerifiedPieces {
    /// The blob.
    pub fn id(&self) -> BlobId {
        self.layout.id()
    }

    /// The layout that they were checked against.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Raw or which delivery type.
    pub fn encoding(&self) -> Encoding {
        self.layout.encoding()
    }

    /// Which encoded form; nothing for raw content.
    pub fn identity(&self) -> Option<Identity> {
        self.layout.identity()
    }

    /// Index of the first piece.
    pub const fn first_piece(&self) -> u32 {
        self.first
    }

    /// Number of pieces, at least one.
    pub const fn piece_count(&self) -> u32 {
        self.count
    }

    /// Offset of the first byte in the encoded form.
    pub const fn encoded_offset(&self) -> u64 {
        self.offset
    }

    /// The encoded bytes.
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The content, in order: one run sharing [`Self::encoded`]'s memory where the pieces are leaves, else one per frame.
    pub fn content(&self) -> &[Verified] {
        &self.content
    }

    /// The proven length of the blob's content, if its last leaf is among them.
    pub const fn length(&self) -> Option<VerifiedLength> {
        self.length
    }

    /// The same without the decoded content, for whoever passes on or stores the encoded form only: caches do not pay for
    /// both.
    #[must_use]
    pub fn without_content(mut self) -> Self {
        self.content = Vec::new();
        self
    }
}

impl Layout {
    /// Verifies `encoded`, which must be exactly the bytes of one or more whole pieces, the first being `first`. Frames are
    /// decoded to exactly their declared size and never beyond it.
    pub fn verify(&self, first: u32, encoded: Bytes) -> Result<VerifiedPieces, StrictError> {
        let count = self.piece_count();
        if first >= count {
            return Err(StrictError::NoSuchPiece { piece: first, count });
        }
        let offset = self.piece_range(first).start();
        let end = offset + encoded.len() as u64;
        let last = self.piece_at(end.saturating_sub(1).max(offset));
        if end != self.piece_range(last).end() {
            return Err(StrictError::NotWholePieces { offset, got: encoded.len() as u64 });
        }
        let content = match self.pieces() {
            Pieces::Leaves { .. } => vec![self.verify_content(first, encoded.clone())?],
            Pieces::Frames(frames) if frames.is_empty() => vec![self.verify_content(0, Bytes::new())?],
            Pieces::Frames(_) => self.verify_frames(first, last, &encoded)?,
        };
        let length = content.last().and_then(Verified::length);
        Ok(VerifiedPieces { layout: self.clone(), first, count: last - first + 1, offset, encoded, content, length })
    }

    fn verify_frames(&self, first: u32, last: u32, encoded: &[u8]) -> Result<Vec<Verified>, StrictError> {
        let mut decoder = Decoder::new();
        let base = self.piece_range(first).start();
        (first..=last)
            .map(|index| {
                let place = self.piece_range(index);
                let content = decoder
                    .decode(&encoded[place.within(base)], self.piece_content(index).len())
                    .map_err(|fault| StrictError::Frame { index, offset: place.start(), fault })?;
                self.verify_content(index, Bytes::from(content))
            })
            .collect()
    }

    fn verify_content(&self, piece: u32, content: Bytes) -> Result<Verified, StrictError> {
        let offset = self.piece_range(piece).start();
        self.leaves().verify(self.piece_content(piece).start(), content).map_err(|source| StrictError::Content {
            piece,
            offset,
            source: Box::new(source),
        })
    }
}
