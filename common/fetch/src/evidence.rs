//! [`BadPiece`]: what a source sent instead of what it was asked for, for whoever wants to look at it. It is never given to
//! anybody as content, and only its beginning is kept.

use bytes::Bytes;
use colibri_common::Digest;
use colibri_common::merkle::{LeavesError, VerifyError};
use colibri_package::delivery::{Layout, StrictError};

use crate::error::AttemptError;
use crate::limits::BAD_PIECE_BYTES_MAX;

/// Bytes that are provably wrong: a leaf, a frame, a list of leaves, or a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPiece {
    /// Offset of its first byte in what was asked for: the encoded form, or the list of leaves.
    pub offset: u64,
    /// How many bytes it has.
    pub length_bytes: u64,
    /// The first of them, at most [`BAD_PIECE_BYTES_MAX`], in memory of their own.
    pub bytes: Bytes,
    /// The hash it should have, where one hash decides.
    pub expected: Option<Digest>,
    /// The hash it has.
    pub found: Option<Digest>,
}

/// Pieces that do not verify: why, and the one that is bad.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// The rule that was broken.
    pub error: StrictError,
    /// What broke it.
    pub piece: Box<BadPiece>,
}

impl BadPiece {
    /// What begins at `offset`, and was refused for this reason.
    pub(crate) fn new(offset: u64, bytes: &[u8], reason: &AttemptError) -> Self {
        let (expected, found) = reason.hashes().unzip();
        Self::with_hashes(offset, bytes, expected, found)
    }

    fn with_hashes(offset: u64, bytes: &[u8], expected: Option<Digest>, found: Option<Digest>) -> Self {
        let kept = &bytes[..bytes.len().min(BAD_PIECE_BYTES_MAX)];
        Self { offset, length_bytes: bytes.len() as u64, bytes: Bytes::copy_from_slice(kept), expected, found }
    }
}

impl Refused {
    /// `run` are the bytes of whole pieces, the first being `first`; `error` says why they were refused.
    pub(crate) fn of_run(layout: &Layout, first: u32, run: &[u8], error: StrictError) -> Self {
        let base = layout.piece_range(first).start();
        let bad = match &error {
            StrictError::Frame { index, .. } => Some(*index),
            StrictError::Content { piece, source, .. } => match **source {
                // Leaves are checked several at a time: which of them it was, the leaf's offset says.
                VerifyError::BadLeaf { offset, .. } => {
                    (*piece..layout.piece_count()).find(|piece| layout.piece_content(*piece).end() > offset)
                }
                _ => Some(*piece),
            },
            _ => None,
        };
        let range = bad.map(|piece| layout.piece_range(piece));
        let place = range.filter(|range| range.start() >= base && range.end() - base <= run.len() as u64);
        let (offset, bytes) = place.map_or((base, run), |range| (range.start(), &run[range.within(base)]));
        Self::new(offset, bytes, error)
    }

    /// `bytes` begin at `offset` and were refused for this reason.
    pub(crate) fn new(offset: u64, bytes: &[u8], error: StrictError) -> Self {
        let (expected, found) = hashes(&error).unzip();
        Self { error, piece: Box::new(BadPiece::with_hashes(offset, bytes, expected, found)) }
    }
}

impl From<Refused> for AttemptError {
    fn from(refused: Refused) -> Self {
        Self::Shown { error: Box::new(Self::BadBytes(refused.error)), piece: refused.piece }
    }
}

impl AttemptError {
    /// The same with the bytes that prove it, which begin at `offset`; other errors prove nothing.
    pub(crate) fn shown(self, offset: u64, bytes: &[u8]) -> Self {
        if !self.is_bad_bytes() || matches!(self, Self::Shown { .. }) {
            return self;
        }
        let piece = Box::new(BadPiece::new(offset, bytes, &self));
        Self::Shown { error: Box::new(self), piece }
    }

    /// What proves it, if something does.
    pub(crate) fn piece(&self) -> Option<&BadPiece> {
        if let Self::Shown { piece, .. } = self { Some(piece) } else { None }
    }

    /// The hash that was expected, and the one that was found.
    fn hashes(&self) -> Option<(Digest, Digest)> {
        match self {
            Self::BadLeaves(LeavesError::WrongBlob { expected, found }) | Self::WrongContent { expected, found } => {
                Some((*expected.as_bytes(), *found.as_bytes()))
            }
            Self::BadBytes(error) => hashes(error),
            _ => None,
        }
    }
}

fn hashes(error: &StrictError) -> Option<(Digest, Digest)> {
    let StrictError::Content { source, .. } = error else { return None };
    if let VerifyError::BadLeaf { expected, found, .. } = **source { Some((expected, found)) } else { None }
}
