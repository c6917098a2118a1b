//! What can be wrong with a delivery blob: each rule of the strict form has its own name and says where it was broken.

use colibri_common::BlobId;
use colibri_common::limits::BLOB_BYTES_MAX;
use colibri_common::merkle::{LeavesError, VerifyError};

use crate::limits::{DECODED_IN_MEMORY_BYTES_MAX, FRAMES_MAX};

/// Why bytes are refused as a delivery blob (or as raw pieces) of a certain blob. Offsets are in the encoded form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrictError {
    /// Not a fault: more of the beginning is needed to decide.
    #[error("the first {bytes} bytes of the delivery blob are needed")]
    NeedMore {
        /// How many bytes from the start.
        bytes: u64,
    },
    /// It does not begin as a delivery blob does.
    #[error("not a delivery blob: it does not begin with fc1ab10b")]
    Magic,
    /// A delivery type that cannot be read.
    #[error("{}", type_text(*.0))]
    Type(u32),
    /// Another delivery type than the one that was asked for.
    #[error("delivery type {found} where type {expected} was asked for")]
    OtherType {
        /// Asked for.
        expected: u32,
        /// In the header.
        found: u32,
    },
    /// The header does not fit its CRC-32.
    #[error("the delivery header's checksum is wrong")]
    HeaderChecksum,
    /// The header says that it is not 28 bytes long.
    #[error("the delivery header says it has {0} bytes; it has 28")]
    HeaderLength(u32),
    /// A flag other than bit 0 is set.
    #[error("the delivery header has unknown flags {0:#x}")]
    Flags(u32),
    /// The chunked archive does not begin as one does.
    #[error("the chunked archive's magic is wrong (offset 28)")]
    ArchiveMagic,
    /// A version other than 2.
    #[error("chunked archive version {0} is not read; only version 2 is (offset 36)")]
    ArchiveVersion(u16),
    /// Reserved bytes of the archive header are not zero.
    #[error("the chunked archive's reserved byte at offset {0} is not zero")]
    ArchiveReserved(u64),
    /// Archive header and seek table do not fit their CRC-32.
    #[error("the seek table's checksum is wrong (offset 44)")]
    ArchiveChecksum,
    /// More frames than version 2 allows.
    #[error("{0} frames are over the limit of {FRAMES_MAX} (offset 40)")]
    TooManyFrames(u32),
    /// A seek table entry breaks a rule.
    #[error("seek table entry {entry} at offset {offset}: {rule}")]
    Table {
        /// Index of the entry, or one past the last for rules about the end.
        entry: u32,
        /// Offset of the entry.
        offset: u64,
        /// The rule.
        rule: TableRule,
    },
    /// No frames (or an empty payload) for a blob that is not the empty one.
    #[error("blob {0} is not empty, but this delivery blob has no content")]
    NoContent(BlobId),
    /// Larger than any blob that is handled.
    #[error("a length of {0} bytes is over the limit of {BLOB_BYTES_MAX}")]
    TooLarge(u64),
    /// The content length does not fit the blob's leaves.
    #[error(transparent)]
    Leaves(#[from] LeavesError),
    /// The given bytes are not whole pieces.
    #[error(
        "the {got} bytes at offset {offset} are not whole pieces: they end inside one, or go beyond the blob's end"
    )]
    NotWholePieces {
        /// Where the bytes begin.
        offset: u64,
        /// How many there are.
        got: u64,
    },
    /// There is no such piece.
    #[error("piece {piece} does not exist; there are {count}")]
    NoSuchPiece {
        /// Asked for.
        piece: u32,
        /// How many there are.
        count: u32,
    },
    /// A frame is not exactly one zstd frame of the declared size.
    #[error("frame {index} at offset {offset}: {fault}")]
    Frame {
        /// Index of the frame.
        index: u32,
        /// Its first byte in the encoded form.
        offset: u64,
        /// What is wrong.
        fault: FrameFault,
    },
    /// The content does not belong to the blob.
    #[error("piece {piece} at offset {offset}: {source}")]
    Content {
        /// Index of the piece.
        piece: u32,
        /// Its first byte in the encoded form.
        offset: u64,
        /// The leaf that failed.
        source: Box<VerifyError>,
    },
}

impl StrictError {
    /// Where in the encoded form the fault lies, if it has a place beyond the header.
    pub const fn encoded_offset(&self) -> Option<u64> {
        match self {
            Self::Table { offset, .. }
            | Self::NotWholePieces { offset, .. }
            | Self::Frame { offset, .. }
            | Self::Content { offset, .. }
            | Self::ArchiveReserved(offset) => Some(*offset),
            _ => None,
        }
    }
}

/// The rules for seek table entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableRule {
    /// The content ranges must be contiguous from 0.
    #[error("its content begins at {found}, expected {expected}")]
    ContentGap {
        /// End of the content before it.
        expected: u64,
        /// What the entry says.
        found: u64,
    },
    /// Frames must be contiguous from the end of the seek table.
    #[error("its frame begins at {found} of the archive, expected {expected}")]
    FrameGap {
        /// End of the frame before it.
        expected: u64,
        /// What the entry says.
        found: u64,
    },
    /// Neither size may be zero.
    #[error("it has a size of zero")]
    ZeroSize,
    /// Every frame begins at a leaf.
    #[error("its content offset {0} is not a multiple of 8192")]
    Misaligned(u64),
    /// More content in one frame than is ever needed.
    #[error("{found} bytes of content in one frame are over the limit of {most}")]
    FrameTooLarge {
        /// What the entry says.
        found: u64,
        /// The limit for this blob.
        most: u64,
    },
    /// zstd never makes a frame that large.
    #[error("a frame of {found} bytes is over zstd's bound of {most} for its content")]
    OverBound {
        /// What the entry says.
        found: u64,
        /// zstd's bound.
        most: u64,
    },
    /// Offsets and sizes overflow.
    #[error("its offsets and sizes overflow")]
    Overflow,
    /// The frames must end where the payload ends.
    #[error("the frames end at {frames} of the archive but the payload has {payload} bytes")]
    Tail {
        /// End of the last frame.
        frames: u64,
        /// Payload length in the header.
        payload: u64,
    },
}

/// What can be wrong with one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// It is a skippable frame or something else.
    #[error("it does not begin as a zstd frame")]
    NotZstd,
    /// Something follows the first zstd frame, or it ends early.
    #[error("it is not exactly one zstd frame of its declared compressed size")]
    NotOneFrame,
    /// The frame declares another content size than the seek table.
    #[error("the frame header says {found} bytes of content, the seek table {expected}")]
    OtherSize {
        /// Seek table.
        expected: u64,
        /// Frame header.
        found: u64,
    },
    /// zstd refused it, its checksum included, or it decodes to more than the declared size.
    #[error("it does not decode to its declared {expected} bytes")]
    Undecodable {
        /// Seek table.
        expected: u64,
    },
    /// It decodes to fewer bytes than declared.
    #[error("it decodes to {found} bytes, the seek table says {expected}")]
    Short {
        /// Seek table.
        expected: u64,
        /// Decoded.
        found: u64,
    },
}

/// Why a whole delivery blob cannot be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// A known type that is refused by name.
    #[error("delivery type {name} is not supported; ask for type 1 or 2")]
    UnsupportedType {
        /// The type's name.
        name: &'static str,
    },
    /// No such type.
    #[error("there is no delivery type {0}; types are 1 and 2")]
    UnknownType(u32),
    /// A rule of the strict form is broken.
    #[error(transparent)]
    Strict(StrictError),
    /// The blob has fewer or more bytes than its header says.
    #[error("the delivery blob has {found} bytes but its header says {expected}")]
    Length {
        /// By header.
        expected: u64,
        /// At hand.
        found: u64,
    },
    /// zstd would not compress.
    #[error("compressing frame {index} failed: {reason}")]
    Compression {
        /// Index of the frame.
        index: u32,
        /// zstd's words.
        reason: String,
    },
    /// Too much content for one buffer.
    #[error(
        "content of {0} bytes is over the limit of {DECODED_IN_MEMORY_BYTES_MAX} for decoding in memory; decode it by frames"
    )]
    ContentTooLarge(u64),
    /// The content is another blob.
    #[error("the delivery blob's content is blob {found}, expected {expected}")]
    WrongBlob {
        /// Asked for.
        expected: BlobId,
        /// Computed.
        found: BlobId,
    },
    /// The receiver of decoded frames gave up.
    #[error("writing decoded content failed: {0}")]
    Sink(String),
}

impl From<StrictError> for DeliveryError {
    fn from(error: StrictError) -> Self {
        match error {
            StrictError::Type(number) => type_error(number),
            other => Self::Strict(other),
        }
    }
}

fn type_error(number: u32) -> DeliveryError {
    match super::DeliveryType::try_from(number) {
        Err(error) => error,
        Ok(_) => DeliveryError::UnknownType(number),
    }
}

fn type_text(number: u32) -> String {
    type_error(number).to_string()
}
