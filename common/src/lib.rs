//! What two deployed programs must agree on byte for byte: blob ids, the merkle tree, leaves, ranges, lengths, the clock.
//!
//! Admission test for this package: *would two deployed programs, possibly of different versions, break if they disagreed
//! about this?* What is deliberately absent: tokio, files, sockets, configuration, any other shared machinery.

pub mod blob_id;
pub mod byte_range;
pub mod clock;
pub mod length;
pub mod limits;
pub mod merkle;

pub use blob_id::{BlobId, BlobIdError, DIGEST_BYTES, Digest, hex, unhex};
pub use byte_range::ByteRange;
pub use clock::{Clock, ManualClock, SystemClock, UnixSeconds};
pub use length::{ClaimedLength, VerifiedLength};
pub use merkle::{Sha256Stream, sha256, sha512};
