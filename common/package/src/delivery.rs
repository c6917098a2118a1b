//! Delivery blobs (reference "Fuchsia formats" §4) in the strict form of architecture §6: names, numbers and the front door.
//!
//! A blob travels raw or in a delivery encoding. [`Layout`] knows where the units and pieces of an encoded blob lie and is
//! the only maker of [`VerifiedPieces`]; [`Encoder`], [`encode`], [`decode`] and [`content_tree`] work on whole blobs. There is
//! deliberately no lenient mode: gaps, tails, skippable frames and unknown flags are refused, never skipped.

mod archive;
mod decode;
mod encode;
mod error;
mod frame;
mod header;
mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod verified;

use std::fmt;

use colibri_common::{Digest, hex, sha256};

pub use decode::{content_tree, decode, decode_frames, decode_verified};
pub use encode::{Encoder, default_level, encode};
pub use error::{DeliveryError, FrameFault, StrictError, TableRule};
pub use layout::Layout;
pub use reader::VerifyingReader;
pub use verified::VerifiedPieces;

/// First request for a delivery blob, `bytes=0-32795`: it holds unit H whatever the number of frames.
pub const UNIT_H_PROBE_BYTES: u64 = crate::limits::UNIT_H_BYTES_MAX;

/// Delivery types that are read and written. Type 3 (LZ4) is unstable upstream and refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeliveryType {
    /// zstd level 14, chunks of 32 KiB and more.
    Type1,
    /// zstd level 21, chunks of 128 KiB and more.
    Type2,
}

impl DeliveryType {
    /// The number in headers and URLs.
    pub const fn number(self) -> u32 {
        match self {
            Self::Type1 => 1,
            Self::Type2 => 2,
        }
    }

    /// The name in package manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Type1 => "Type1",
            Self::Type2 => "Type2",
        }
    }
}

impl TryFrom<u32> for DeliveryType {
    type Error = DeliveryError;

    fn try_from(number: u32) -> Result<Self, DeliveryError> {
        match number {
            1 => Ok(Self::Type1),
            2 => Ok(Self::Type2),
            3 => Err(DeliveryError::UnsupportedType { name: "Type3 (LZ4)" }),
            other => Err(DeliveryError::UnknownType(other)),
        }
    }
}

impl fmt::Display for DeliveryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// How a blob's bytes are represented on the wire or at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// The content itself.
    Raw,
    /// A delivery blob.
    Delivery(DeliveryType),
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
            Self::Delivery(ty) => ty.fmt(f),
        }
    }
}

/// Which of the possible encoded forms of a blob this is: the SHA-256 of its unit H (zstd output differs between versions).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(Digest);

impl Identity {
    /// The identity of the form whose unit H is `bytes`.
    pub fn of_unit_h(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }

    /// Wraps an identity that was stored.
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &Digest {
        &self.0
    }

    /// The first 8 bytes as 16 lower-case hex digits, as the ETag shows it.
    pub fn etag_hex(&self) -> String {
        hex(&self.0[..8])
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}
